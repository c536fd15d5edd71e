"""What was assumed of Macs where there was none, each held against the Mac that this is.

An assumption is a function of nothing that returns what was found: True, False or None (it cannot be told), and words.
"""

import importlib.metadata
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import psutil

from benchmarks.harness import agreement, cases, donation, machine
from benchmarks.harness.check import Check
from benchmarks.harness.counters import Donation
from benchmarks.harness.host import HERE, commands
from benchmarks.harness.host.macos import profiler_gpu_cores
from benchmarks.harness.step import Step
from scripts import command, releases, sides

Found = tuple[bool | None, str]

PAGE = 16 * 1024
MIB = 2**20

NEWEST_WHEEL = 26
"""The newest macOS that MLX's wheels tell apart."""

DONATES = Donation(plain=True, fused=True, several_outputs=False)
"""What the pinned MLX donates to on its CPU backend."""

NOTHING = ("wrong_results", "kept_arrays", "graph_growth", "memory_growth")
"""The counters that are 0 in every case."""

MEASURED = ("compiled/float32/two_leaves", "eager/float32/two_leaves", "kernel/float32/two_leaves")
TESTS = (
    *("test_host", "test_machine", "test_metal_rules", "test_kernel", "test_kernel_inplace", "test_mac_packaging"),
    *("test_energy", "test_doctor"),
)
TEST_SECONDS, SETUP_SECONDS = 240, 240

DEVICE = "import mlx.core as mx; mx.eval(mx.ones(3)); print(mx.default_device())"

FASTEST = 1.05
"""How much faster than the vendor's bandwidth the ceiling may be measured, and than the ceiling a step."""

SLOWEST = 0.5
"""The share of the vendor's bandwidth that streaming kernels reach at least."""


def system() -> Found:
    told = HERE.system()
    return bool(re.fullmatch(r"macOS \d+(\.\d+){1,2} \(\w+\)", told)), told


def pythons_release() -> Found:
    """That of a process like those that install: they have SYSTEM_VERSION_COMPAT from asv_plugin."""
    _, told = run([sys.executable, "-c", "import platform; print(platform.mac_ver()[0])"], 60)
    return f"macOS {told} " in HERE.system(), f"Python says {told or 'nothing'}, sw_vers {HERE.system()}"


def chip() -> Found:
    told, device = HERE.cpu_name(), str(machine.gpu_info().get("device_name", "nothing"))
    return told.startswith("Apple M") and told == device, f"sysctl says {told or 'nothing'}, MLX {device}"


def gpu_cores() -> Found:
    profiler = profiler_gpu_cores(commands.output("system_profiler", "SPDisplaysDataType", "-json"))
    told = HERE.gpu_cores()
    return told is not None and told == profiler, f"the IO registry says {told}, system_profiler {profiler}"


def known_chip() -> Found:
    here = machine.identify()
    if here.spec:
        return True, f"{here.spec.gigabytes_per_second:g} GB/s ({here.spec.source})"
    return None, f"{here.chip} with {here.gpu_cores} cores is not in chips.py, so it has no vendor's ceiling"


def caches() -> Found:
    told = HERE.cache_bytes()
    return told is not None and told >= 4 * MIB, f"{told} bytes"


def conditions() -> Found:
    """A Mac that has no low-power mode tells none."""
    told = HERE.conditions()
    holds = None if None in told.values() else True
    return holds, ", ".join(f"{name} {value}" for name, value in told.items())


def footprint() -> Found:
    mx.eval(mx.ones(3))  # what MLX takes for itself on first use is no buffer
    mx.synchronize()
    before, resident = HERE.footprint_bytes(), psutil.Process().memory_info().rss
    held = mx.ones((64 * MIB // 4,))
    mx.eval(held)
    risen, resident = HERE.footprint_bytes() - before, psutil.Process().memory_info().rss - resident
    return 60 * MIB < risen < 80 * MIB, f"64 MiB more: the footprint by {risen / MIB:.1f}, RSS by {resident / MIB:.1f}"


def kept_awake() -> Found:
    asked = HERE.keep_awake()
    if not asked:
        return False, "no command keeps it awake"
    keeper = subprocess.Popen(asked)
    try:
        time.sleep(0.5)
        return keeper.poll() is None, f"{asked[0]} {'runs' if keeper.poll() is None else 'ended at once'}"
    finally:
        keeper.terminate()
        keeper.wait()


def backend() -> Found:
    return machine.backend() == "Metal", str(machine.identify())


def wheel() -> Found:
    """A release of MLX has a wheel for every macOS, and they differ."""
    tags = machine.wheels()
    built = re.search(r"macosx_(\d+)_", tags.get("mlx-metal", ""))
    here = re.match(r"macOS (\d+)", HERE.system())
    if not built or not here:
        return None, str(tags)
    return int(built[1]) == min(int(here[1]), NEWEST_WHEEL), f"mlx-metal for macOS {built[1]} on {HERE.system()}"


def working_set() -> Found:
    limit, total = machine.working_set_bytes(), psutil.virtual_memory().total
    if limit is None:
        return False, "MLX tells none"
    return 0.5 * total < limit <= total, f"{limit / 2**30:.1f} of {total / 2**30:.1f} GiB"


def peak_counter() -> Found:
    mx.reset_peak_memory()
    told = mx.get_peak_memory()
    return told == 0, f"{told} bytes after it was reset"


def pages() -> Found:
    """What arrays of more than a page, and of less than one, add to MLX's memory counter."""
    limit = mx.set_cache_limit(0)
    mx.clear_cache()
    try:
        grown = [added(size) for size in (PAGE // 2, 40_000)]
    finally:
        mx.set_cache_limit(limit)
    return grown == [PAGE // 2, 3 * PAGE], f"8192 bytes take {grown[0]}, 40000 take {grown[1]}"


def added(size: int) -> int:
    """Bytes that an array of `size` bytes adds to MLX's memory counter."""
    mx.synchronize()
    before = mx.get_active_memory()
    array = mx.array(np.zeros(size, np.uint8))  # no kernel, and nothing else that is allocated
    mx.eval(array)
    return mx.get_active_memory() - before


def evaluation_waits() -> Found:
    """Whether `mx.eval` returns when the work is done, as the harness's first step assumes."""
    array = mx.ones((256 * MIB // 4,))
    mx.eval(array * 2.0 + 1.0)  # the second time no kernel is loaded
    mx.synchronize()
    start = time.perf_counter()
    mx.eval(array * 2.0 + 1.0)
    evaluated = time.perf_counter()
    mx.synchronize()
    waited, more = evaluated - start, time.perf_counter() - evaluated
    return more < waited / 2, f"eval took {1e3 * waited:.2f} ms, synchronize after it {1e3 * more:.2f} ms"


def donates() -> Found:
    found = donation.measure()
    return found == DONATES, ", ".join(f"{name} {value}" for name, value in found._asdict().items())


def clock() -> Found:
    told = time.get_clock_info("perf_counter").resolution
    return told <= 1e-6, f"{1e9 * told:.1f} ns"


def child_process() -> Found:
    """A process of its own has the GPU while this one holds it."""
    mx.eval(mx.ones(3))
    code, last = run([sys.executable, "-c", "import mlx.core as mx; mx.eval(mx.ones(3) + 1)"], 60)
    return code == 0, last or "it runs"


def kernel() -> Found:
    """Metal compiles the kernel for every precision, and its first steps are AdamW's."""
    return first_steps("kernel")


def kernel_inplace() -> Found:
    """So it does where the kernel writes into its inputs, and what it wrote is there when the step is over."""
    return first_steps("kernel_inplace")


def first_steps(variant: str) -> Found:
    """How far the first steps of `variant` are from the reference, in every precision. Raises WrongCase."""
    worst = {}
    for precision in cases.precisions(variant):
        case = cases.case(variant, f"{precision}/nested")
        step = Step(case)
        expected = Check(case, step)
        for _ in range(agreement.STEPS):
            step()
        worst[precision] = expected.error(step)
    return True, ", ".join(f"{name} within {error:.1e}" for name, error in worst.items())


def counters() -> Found:
    """Nothing is wrong, kept or growing in any case of the quick profile."""
    entries = releases.counted(sides.resolve("."))
    bad = []
    for one in entries:
        if one["what"] == "failure":
            bad.append(f"{one['case']}: {one['message']}")
        elif any(one["work"][name] for name in NOTHING):
            told = ", ".join(f"{name.replace('_', ' ')} {one['work'][name]}" for name in NOTHING)
            bad.append(f"{one['case']}: {told}")
    return not bad, "; ".join(bad) or f"{len(entries)} cases"


def timings() -> Found:
    """The ceiling beside the vendor's, and a few steps beside the ceiling."""
    entries, wrong = releases.measured(sides.resolve("."), MEASURED, first=False)
    if wrong:
        return False, "; ".join(wrong)
    (host,) = [one for one in entries if one["what"] == "machine"]
    ceiling, spec = host["ceiling"]["bytes_per_second"], host["spec"]
    shares = {
        one["case"]: one["ideal_bytes"] / min(one["measurement"]["step"]["seconds"]) / ceiling
        for one in entries
        if one["what"] == "case"
    }
    vendor = spec["gigabytes_per_second"] * 1e9 if spec else None
    fitting = set(shares) == set(MEASURED) and max(shares.values()) <= FASTEST
    fitting &= vendor is None or SLOWEST <= ceiling / vendor <= FASTEST
    told = [f"{ceiling / 1e9:.1f} GB/s measured ({host['ceiling']['kernel']}), vendor's {vendor and vendor / 1e9} GB/s"]
    told += [f"{name} {share:.0%} of it" for name, share in shares.items()]
    return fitting, ", ".join(told)


def environment() -> Found:
    """asv's environment is made of the matrix, with MLX's own backend and none else."""
    _, last = run([sys.executable, "-m", "asv", "setup"], SETUP_SECONDS)  # its exit code is 1 even where all is well
    made = Path(sides.asv_environment(sides.pinned(Path()))._path)
    code, said = run([str(made / "bin" / "python"), "-c", DEVICE], 60)
    if code:
        return False, f"{last}; {said}"
    names = {path.name.partition("-")[0] for path in made.glob("lib/python*/site-packages/mlx*.dist-info")}
    wrong = {"mlx_cpu", "mlx_cuda_13"} & names
    return "mlx_metal" in names and not wrong and "gpu" in said, f"{', '.join(sorted(names))} on {said}"


def tests() -> Found:
    """The tests that stand for a Mac elsewhere, on one."""
    files = [f"tests/{name}.py" for name in TESTS]
    code, last = run([sys.executable, "-m", "pytest", "-q", "--no-header", "-m", "not slow", *files], TEST_SECONDS)
    return code == 0, last


def run(words: list[str], seconds: float) -> tuple[int, str]:
    """The exit code of a command and the last line that it printed; 124 if it takes longer, 127 if there is none."""
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return 124, f"not done within {seconds:g} s"
    except OSError as error:
        return 127, f"{words[0]}: {error.strerror}"
    lines = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()
    return done.returncode, command.one_line(lines[-1]) if lines else ""


ASSUMPTIONS: dict[str, tuple[str, Callable[[], Found]]] = {
    "system": ("sw_vers tells the release and the build", system),
    "Python's release": ("Python knows the release that this is", pythons_release),
    "chip": ("sysctl and MLX name the same chip", chip),
    "GPU cores": ("the IO registry and system_profiler tell the same", gpu_cores),
    "vendor's ceiling": ("chips.py knows this chip and bin", known_chip),
    "caches": ("sysctl tells the fast cores' second-level cache", caches),
    "heat and power": ("notifyutil and pmset tell them without root", conditions),
    "footprint": ("it holds the GPU's buffers", footprint),
    "kept awake": ("caffeinate runs as long as a night", kept_awake),
    "backend": ("MLX runs on Metal", backend),
    "wheel": ("pip chose MLX's wheel for this macOS", wheel),
    "working set": ("Metal recommends between half and all of the memory", working_set),
    "peak counter": ("reset_peak_memory sets it to nothing", peak_counter),
    "pages": ("what is more than a page takes whole ones of 16 KiB", pages),
    "evaluation": ("mx.eval waits for the device", evaluation_waits),
    "donation": ("MLX donates as on its CPU backend", donates),
    "clock": ("it counts in microseconds or less", clock),
    "child process": ("two processes have the GPU", child_process),
    "kernel": ("Metal compiles it for every precision, and it is AdamW", kernel),
    "kernel in place": ("Metal lets a kernel write into its inputs, and the result is AdamW's", kernel_inplace),
    "counters": ("nothing is wrong, kept or growing", counters),
    "timings": ("no step beats the ceiling, and no ceiling the vendor's", timings),
    "asv's environment": ("the matrix installs, with MLX's own backend", environment),
    "tests": ("what stands for a Mac elsewhere passes on one", tests),
}
"""By name: what was assumed, in words, and what looks."""


def about() -> dict[str, str]:
    """What the findings are of: no name of a person, a machine or a folder."""
    return {
        "machine": str(machine.identify()),
        "mlx": importlib.metadata.version("mlx"),
        "wheels": str(machine.wheels()),
        "python": sys.version,
    }
