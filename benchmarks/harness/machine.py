"""Which machine this is: chip, GPU cores, memory, caches, backend; and how much memory a process really holds.

Nothing here fails on an unknown machine: what cannot be told is None, and says so where it is printed.
"""

import ctypes
import json
import os
import platform
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.harness import chips

COMMAND_SECONDS = 20
THERMAL_KEY = "com.apple.system.thermalpressurelevel"


class Machine(NamedTuple):
    """The machine and the device that MLX uses on it.

    chip         as the vendor names it: "Apple M3 Max", "NVIDIA H200", "Intel(R) Xeon(R) Processor"
    backend      "Metal", "CUDA" or "CPU"
    gpu_cores    Apple GPUs only, else None
    memory_bytes of the machine; on CUDA of the device
    cache_bytes  last-level cache of the device that MLX uses, None if unknown
    system       operating system, release and build
    """

    chip: str
    backend: str
    gpu_cores: int | None
    memory_bytes: int
    cache_bytes: int | None
    system: str

    @property
    def spec(self) -> chips.Chip | None:
        """The vendor's entry for this chip. A CPU backend and a virtual GPU have none."""
        if self.backend == "CPU":
            return None
        return chips.find(self.chip, self.gpu_cores, round(self.memory_bytes / 2**30))

    def __str__(self) -> str:
        cores = f", {self.gpu_cores} GPU cores" if self.gpu_cores else ""
        return f"{self.chip}{cores}, {self.memory_bytes / 2**30:.0f} GiB, MLX's {self.backend} backend, {self.system}"


def backend() -> str:
    """What MLX runs on here: "Metal", "CUDA" or "CPU"."""
    import mlx.core as mx

    if mx.default_device() == mx.Device(mx.cpu):
        return "CPU"
    return "Metal" if mx.metal.is_available() else "CUDA"


@cache
def identify() -> Machine:
    """This machine, as MLX's default device sees it."""
    system = system_version()
    if backend() == "CPU":
        return Machine(cpu_name(), "CPU", None, psutil.virtual_memory().total, cpu_cache_bytes(), system)
    info = gpu_info()
    chip = str(info.get("device_name", "unknown GPU"))
    if backend() == "CUDA":
        memory, cores = int(info.get("total_memory", 0)), None
    else:
        memory, cores = psutil.virtual_memory().total, apple_gpu_cores()
    known = chips.find(chip, cores, round(memory / 2**30))
    cache_bytes = known.cache_mib * 2**20 if known and known.cache_mib else None
    return Machine(chip, backend(), cores, memory, cache_bytes, system)


def gpu_info() -> dict[str, Any]:
    """What MLX tells of the GPU; before 0.30.4 it told it of Metal only, elsewhere."""
    import mlx.core as mx

    if hasattr(mx, "device_info"):
        return dict(mx.device_info(mx.gpu))
    return dict(mx.metal.device_info()) if mx.metal.is_available() else {}


def free_bytes() -> int:
    """Memory that a case can still take: of the device on CUDA, of the machine elsewhere."""
    if identify().backend == "CUDA":
        return int(gpu_info().get("free_memory", 0))
    return psutil.virtual_memory().available


def footprint_bytes() -> int:
    """Memory of this process: the physical footprint on macOS, where RSS misses the GPU's buffers; RSS elsewhere."""
    if sys.platform == "darwin":
        footprint = mac_footprint(os.getpid())
        if footprint is not None:
            return footprint
    return psutil.Process().memory_info().rss


def mac_footprint(pid: int, library: ctypes.CDLL | None = None) -> int | None:
    """`ri_phys_footprint` of proc_pid_rusage, None if the call fails.

    struct rusage_info_v0 (sys/resource.h): a 16-byte uuid, then 64-bit fields, of which the footprint is the eighth.
    """
    library = library or ctypes.CDLL("/usr/lib/libproc.dylib")
    buffer = (ctypes.c_uint64 * 64)()  # far larger than any version of the struct
    if library.proc_pid_rusage(pid, 0, ctypes.byref(buffer)) != 0:
        return None
    return buffer[2 + 7]


def output(*command: str) -> str:
    """What `command` prints; empty if it is missing, fails or takes too long."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""


def apple_gpu_cores() -> int | None:
    """Cores of the Apple GPU, from the IO registry, or from system_profiler where that is silent."""
    found = re.search(r'"gpu-core-count"\s*=\s*(\d+)', output("ioreg", "-rc", "AGXAccelerator", "-d1"))
    return int(found[1]) if found else profiler_gpu_cores(output("system_profiler", "SPDisplaysDataType", "-json"))


def profiler_gpu_cores(text: str) -> int | None:
    """`sppci_cores`, a string, of the first display adapter that has it."""
    try:
        adapters = json.loads(text)["SPDisplaysDataType"]
        return next(int(adapter["sppci_cores"]) for adapter in adapters if "sppci_cores" in adapter)
    except (ValueError, KeyError, TypeError, StopIteration):
        return None


def cpu_name() -> str:
    """The processor's own name, from where MLX's CPU device has it since 0.30.4."""
    named = re.search(r"^model name\s*:\s*(.+)$", text_of(Path("/proc/cpuinfo")), re.MULTILINE)
    brand = output("sysctl", "-n", "machdep.cpu.brand_string").strip() if sys.platform == "darwin" else ""
    return (named[1].strip() if named else brand) or platform.processor() or "unknown CPU"


def text_of(path: Path) -> str:
    """What a file says; empty if there is none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def cpu_cache_bytes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int | None:
    """The largest cache that Linux or macOS tells of; a virtual machine may be told its host's."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    sizes = [path.read_text().strip() for path in folder.glob("index*/size")]
    linux = [int(size[:-1]) * units[size[-1]] for size in sizes if re.fullmatch(r"\d+[KMG]", size)]
    mac = [
        int(size)
        for size in output("sysctl", "-n", "hw.l3cachesize", "hw.perflevel0.l2cachesize").split()
        if sys.platform == "darwin" and size.isdecimal()
    ]
    return max(linux + mac, default=None) or None


def system_version() -> str:
    if sys.platform == "darwin":
        build = output("sw_vers", "-buildVersion").strip()
        return f"macOS {platform.mac_ver()[0]} ({build or 'build unknown'})"
    return f"{platform.system()} {platform.release()}"


def buffer_cache_limit() -> int:
    """What MLX's buffer cache is allowed while measuring: in effect everything."""
    return psutil.virtual_memory().total


def settings() -> dict[str, object]:
    """What decides numbers and stays the same for a whole run: versions, MLX's variables and limits."""
    import mlx.core as mx

    return {
        "mlx": version("mlx"),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "device": str(mx.default_device()),
        "system": system_version(),
        "cpu_count": os.cpu_count(),
        "buffer_cache_limit": buffer_cache_limit(),
        "variables": {name: value for name, value in os.environ.items() if name.startswith("MLX_")},
    }


def conditions() -> dict[str, object]:
    """What may change from case to case: load; on a Mac thermal pressure (0 is nominal) and how it has its power."""
    now: dict[str, object] = {"load": os.getloadavg()[0]}
    if sys.platform == "darwin":
        now["thermal_pressure"] = thermal_pressure(output("notifyutil", "-g", THERMAL_KEY))
        now["on_battery"] = "Battery Power" in output("pmset", "-g", "batt")
        now["low_power_mode"] = low_power_mode(output("pmset", "-g"))
    return now


def low_power_mode(text: str) -> bool | None:
    """Whether `pmset -g` says that the machine saves power: `lowpowermode 1`, on newer ones `powermode 1`."""
    found = re.search(r"^\s*(?:low)?powermode\s+(\d+)", text, re.MULTILINE)
    return found[1] == "1" if found else None


def thermal_pressure(text: str) -> int | None:
    """The level in notifyutil's answer, `com.apple.system.thermalpressurelevel 0`; None if there is none."""
    found = re.search(rf"{re.escape(THERMAL_KEY)}\s+(\d+)", text)
    return int(found[1]) if found else None
