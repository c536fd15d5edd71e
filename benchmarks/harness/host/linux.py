"""Linux, from its files in /proc and /sys."""

import ctypes
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from benchmarks.harness.host import nvidia
from benchmarks.harness.host.meter import Meter

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


class Linux:
    """Where nothing tells otherwise, what is told is what the kernel's files say below `root`."""

    name = "Linux"
    backend_package = "mlx-cpu"
    resident_unit = 1024

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def system(self) -> str:
        return f"{platform.system()} {platform.release()}"

    def cpu_name(self) -> str:
        """From where MLX's CPU device has it since 0.30.4."""
        named = re.search(r"^model name\s*:\s*(.+)$", self._text("proc/cpuinfo"), re.MULTILINE)
        return named[1].strip() if named else platform.processor()

    def gpu_cores(self) -> int | None:
        return None

    def cache_bytes(self) -> int | None:
        files = self.root.glob("sys/devices/system/cpu/cpu0/cache/index*/size")
        sizes = [self._text(str(path.relative_to(self.root))).strip() for path in files]
        told = [int(size[:-1]) * UNITS[size[-1]] for size in sizes if re.fullmatch(r"[0-9]{1,9}[KMG]", size)]
        return max(told, default=None) or None

    def footprint_bytes(self) -> int:
        return psutil.Process().memory_info().rss

    def give_back(self) -> None:
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):  # glibc's
            library.malloc_trim(0)

    def low_power(self) -> bool | None:
        profile = self._text("sys/firmware/acpi/platform_profile").strip()
        return profile == "low-power" if profile else None

    def conditions(self) -> dict[str, object]:
        return {}

    def cores(self) -> list[int | None]:
        return list(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None]

    @contextmanager
    def on_core(self, core: int | None) -> Iterator[None]:
        if core is None or not hasattr(os, "sched_getaffinity"):
            yield
            return
        everywhere = os.sched_getaffinity(0)
        move({core})
        try:
            yield
        finally:
            move(everywhere)

    def energy(self, backend: str, bus: str = "") -> Meter | None:
        """NVML's counter of the card, or the processor's packages by RAPL, where an administrator lets it be read."""
        if backend == "CUDA":
            return nvidia.meter(bus=bus)
        packages = [Rapl(path) for path in sorted(self.root.glob("sys/class/powercap/intel-rapl:*"))]
        readable = [package for package in packages if package.is_package and package.joules() is not None]
        if not readable:
            return None
        return Meter(f"RAPL, {len(readable)} package(s)", lambda: sum(one.joules() or 0.0 for one in readable))

    def keep_awake(self) -> tuple[str, ...]:
        return ()

    def missing_build_tools(self) -> str:
        missing = [tool for tool in ("g++", "make", "cmake") if not shutil.which(tool)]
        return f"no {', no '.join(missing)}; install {', '.join(missing)}" if missing else ""

    def _text(self, name: str) -> str:
        """What a file says; empty if there is none."""
        try:
            return (self.root / name).read_text(errors="replace")
        except OSError:
            return ""


class Rapl:
    """A zone of the processor's energy counters (Linux, Documentation/power/powercap): microjoules, begun anew at a
    limit that it tells."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last, self.before = 0, 0

    @property
    def is_package(self) -> bool:
        """Whether it is a processor, not a part of one or another processor's memory."""
        return self._text("name").startswith("package")

    def joules(self) -> float | None:
        """Joules, going on where the counter begins anew; None if it may not be read."""
        text, most = self._text("energy_uj"), self._text("max_energy_range_uj")
        if not (text.isdecimal() and most.isdecimal()):
            return None
        now = int(text)
        if now < self.last:
            self.before += int(most)
        self.last = now
        return (self.before + now) / 1e6

    def _text(self, name: str) -> str:
        try:
            return (self.folder / name).read_text().strip()
        except OSError:
            return ""


def move(cores: set[int]) -> None:
    """Have the threads of this process run on `cores`."""
    if hasattr(os, "sched_setaffinity"):
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError):  # a thread that has ended
                os.sched_setaffinity(int(thread), cores)
