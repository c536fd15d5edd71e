"""Figures that a run takes only where it is asked to, since they cost seconds a case: energy, and DRAM's traffic.

ADAMW_EXTRAS=energy,traffic asv run
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import energy, ledger, machine, ncu
from benchmarks.harness.cases import choose
from benchmarks.harness.files import write_whole
from benchmarks.harness.host import HERE
from benchmarks.harness.measurement import Energy, Traffic

VARIABLE = "ADAMW_EXTRAS"
NAMES = ("energy", "traffic")

IDLE = Path("idle.json")
"""What the idle machine uses, in watts, beside the run's measurements: there if energy is counted here."""

COUNTED = Path("traffic.json")
"""There if the bytes of DRAM are counted here."""

PROBE = "compiled/float32/leaf_1024"

ROOT = Path(__file__).parents[2]

BOOT = """
import sys
sys.path.append(sys.argv.pop(1))
from benchmarks.harness.gpu import process
process.main(sys.argv[1:])
"""
"""The working tree comes last, so that `adamw` is the installed one, where one is."""

LONGEST = 300
"""Seconds within which one step is profiled."""


def wanted() -> list[str]:
    """What VARIABLE asks for. Raises cases.UnknownCase for a name that is none of NAMES."""
    names = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    for name in names:
        choose("extra", name, NAMES)
    return names


def begin() -> dict[str, str]:
    """What will be told by whom, or why not, of all that is wanted; once a run."""
    told = {}
    for name in wanted():
        try:
            told[name] = BEGIN[name]()
        except energy.NotMeasured as error:
            told[name] = f"not available here: {error}"
    return told


def begin_energy() -> str:
    """Who counts energy here, and what the idle machine uses. Raises NotMeasured."""
    meter, idle = energy.idle_meter(machine.backend(), machine.bus())
    write_whole(IDLE, json.dumps(idle))
    return f"{meter.source}, {idle:.1f} W idle"


def begin_traffic() -> str:
    """Who counts the bytes of DRAM here, shown by a step of a small tree. Raises NotMeasured."""
    if machine.backend() != "CUDA":
        raise energy.NotMeasured("no counters of DRAM's bytes that can be read")
    profiled(PROBE)
    write_whole(COUNTED, "true")
    return ncu.SOURCE


BEGIN: dict[str, Callable[[], str]] = {"energy": begin_energy, "traffic": begin_traffic}


def energy_of(case: str, step: Callable[[], object]) -> Energy | None:
    """The energy of `step`, if it is wanted and was found to be told here; the ledger says why a case has none."""
    if "energy" not in wanted() or not IDLE.exists():
        return None
    meter = HERE.energy(machine.backend(), machine.bus())
    try:
        return energy.measure(step, meter, json.loads(IDLE.read_text())) if meter else None
    except energy.NotMeasured as error:
        ledger.append({"what": "untold", "case": case, "extra": "energy", "why": str(error)})
        return None


def traffic_of(case: str) -> Traffic | None:
    """The bytes that a step of `case` moves in a process of its own, if they are wanted and were found to be told here.

    The ledger says why a case has none.
    """
    if "traffic" not in wanted() or not COUNTED.exists():
        return None
    try:
        return profiled(case)
    except energy.NotMeasured as error:
        ledger.append({"what": "untold", "case": case, "extra": "traffic", "why": str(error)})
        return None


def profiled(case: str) -> Traffic:
    """The bytes that a step of `case` moves in a process of its own. Raises NotMeasured."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), ignore_cleanup_errors=True) as folder:
        log = Path(folder, "ncu.csv")
        before = ncu.command(str(log))
        if before is None:
            raise energy.NotMeasured("ncu, NVIDIA's profiler, is not installed")
        words = [*before, sys.executable, "-c", BOOT, str(ROOT), "traffic", case]
        settings = {"TMPDIR": folder, **ncu.SETTINGS}
        try:
            done = subprocess.run(words, env=os.environ | settings, input=b"go\n", capture_output=True, timeout=LONGEST)
        except subprocess.TimeoutExpired as error:
            raise energy.NotMeasured(f"ncu was not done within {LONGEST:g} s") from error
        except OSError as error:
            raise energy.NotMeasured(f"ncu cannot be started: {error.strerror}") from error
        text = log.read_text(errors="replace") if log.exists() else ""
    for line in ncu.per_case(ncu.kernels(text), [case]):
        if line["read"] is not None and line["written"] is not None:
            return Traffic(line["read"], line["written"], ncu.SOURCE)
    said = ncu.refusal(text + done.stdout.decode(errors="replace"))
    raise energy.NotMeasured(f"ncu says {said}" if said else f"ncu told no bytes (exit code {done.returncode})")
