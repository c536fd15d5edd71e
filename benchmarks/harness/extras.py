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

from benchmarks.harness import energy, machine, ncu
from benchmarks.harness.cases import Case, choose
from benchmarks.harness.files import write_whole
from benchmarks.harness.host import HERE
from benchmarks.harness.measurement import Energy, Traffic

VARIABLE = "ADAMW_EXTRAS"
NAMES = ("energy", "traffic")

IDLE = Path("idle.json")
"""What the idle machine uses, in watts, beside the run's measurements."""

ROOT = Path(__file__).parents[2]

BOOT = """
import sys
sys.path.append(sys.argv.pop(1))
from benchmarks.harness import gpu_process
gpu_process.main(sys.argv[1:])
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
    meter = HERE.energy(machine.backend())
    if meter is None:
        raise energy.NotMeasured("nothing counts energy, or nothing that may be read")
    idle = energy.idle_watts(meter)
    write_whole(IDLE, json.dumps(idle))
    return f"{meter.source}, {idle:.1f} W idle"


def begin_traffic() -> str:
    """Who counts the bytes of DRAM here. Raises NotMeasured."""
    if machine.backend() != "CUDA":
        raise energy.NotMeasured("no counters of DRAM's bytes that can be read")
    if ncu.command("") is None:
        raise energy.NotMeasured("ncu, NVIDIA's profiler, is not installed")
    return ncu.SOURCE


BEGIN: dict[str, Callable[[], str]] = {"energy": begin_energy, "traffic": begin_traffic}


def energy_of(step: Callable[[], object]) -> Energy | None:
    """The energy of `step`, if it is wanted and can be told."""
    meter = HERE.energy(machine.backend()) if "energy" in wanted() and IDLE.exists() else None
    if meter is None:
        return None
    try:
        return energy.measure(step, meter, json.loads(IDLE.read_text()))
    except energy.NotMeasured:
        return None


def traffic_of(case: Case) -> Traffic | None:
    """The bytes that a step of `case` moves in a process of its own, if they are wanted and can be told."""
    if "traffic" not in wanted() or machine.backend() != "CUDA":
        return None
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        log = Path(folder, "ncu.csv")
        before = ncu.command(str(log))
        if before is None:
            return None
        words = [*before, sys.executable, "-c", BOOT, str(ROOT), "traffic", str(case)]
        settings = {"TMPDIR": folder, **ncu.SETTINGS}
        try:
            subprocess.run(words, env=os.environ | settings, input=b"go\n", capture_output=True, timeout=LONGEST)
        except (OSError, subprocess.TimeoutExpired):
            return None
        text = log.read_text(errors="replace") if log.exists() else ""
    for line in ncu.per_case(ncu.kernels(text), [str(case)]):
        if line["read"] is not None and line["written"] is not None:
            return Traffic(line["read"], line["written"], ncu.SOURCE)
    return None
