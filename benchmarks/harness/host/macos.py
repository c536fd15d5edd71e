"""macOS, from what its own commands print. None of them needs root."""

import ctypes
import json
import os
import re
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import psutil

from benchmarks.harness.host import commands
from benchmarks.harness.host.commands import Run
from benchmarks.harness.host.meter import Meter

RAILS = {"cpu_total_mj": "CPU", "gpu_mj": "GPU", "gpu_sram_mj": "GPU SRAM", "dram_mj": "DRAM"}
"""Millijoules of zeus-apple-silicon, a field a part of the chip; what a chip does not tell is None."""

THERMAL_KEY = "com.apple.system.thermalpressurelevel"
CACHES = ("hw.l3cachesize", "hw.perflevel0.l2cachesize", "hw.l2cachesize")
"""Intel has a third level; Apple's chips a second for every kind of core, of which 0 is the fastest."""

METAL = ("xcrun", "--sdk", "macosx", "metal", "--version")
"""What answers only if there is a Metal compiler; `xcrun --find` finds it where it is not installed, too."""


class Mac:
    """Asks with `run`; the footprint is told by `library`."""

    name = "macOS"
    backend_package = "mlx-metal"
    resident_unit = 1

    def __init__(self, run: Run = commands.output, library: str = "/usr/lib/libproc.dylib") -> None:
        self.run, self.library = run, library

    def system(self) -> str:
        """From sw_vers: Python's own answer is 16.0 on macOS 26 if it was built with an older SDK."""
        told = dict(re.findall(r"^(\w+):[ \t]*(\S+)[ \t]*$", self.run("sw_vers"), re.MULTILINE))
        release, build = told.get("ProductVersion", "unknown"), told.get("BuildVersion", "unknown")
        return f"macOS {release} ({build if build != 'unknown' else 'build unknown'})"

    def cpu_name(self) -> str:
        return self._told("machdep.cpu.brand_string")

    def gpu_cores(self) -> int | None:
        """From the IO registry, or from system_profiler where that is silent."""
        registry = self.run("ioreg", "-rc", "AGXAccelerator", "-d1")
        if found := re.search(r'"gpu-core-count"\s*=\s*([0-9]{1,4})\b', registry):
            return int(found[1])
        return profiler_gpu_cores(self.run("system_profiler", "SPDisplaysDataType", "-json"))

    def cache_bytes(self) -> int | None:
        sizes = [self._told(name) for name in CACHES]
        return max((int(size) for size in sizes if re.fullmatch("[0-9]{1,12}", size)), default=None) or None

    def footprint_bytes(self) -> int:
        """The physical footprint, as RSS misses the GPU's buffers; RSS if that is not told."""
        try:
            footprint = physical_footprint(os.getpid(), ctypes.CDLL(self.library))
        except (OSError, AttributeError):
            footprint = None
        return psutil.Process().memory_info().rss if footprint is None else footprint

    def give_back(self) -> None:
        """macOS takes back what is free by itself."""

    def low_power(self) -> bool | None:
        return low_power_mode(self.run("pmset", "-g"))

    def conditions(self) -> dict[str, object]:
        """Thermal pressure, of which 0 is nominal, and how the machine has its power."""
        return {
            "thermal_pressure": thermal_pressure(self.run("notifyutil", "-g", THERMAL_KEY)),
            "on_battery": on_battery(self.run("pmset", "-g", "batt")),
            "low_power_mode": self.low_power(),
        }

    def cores(self) -> list[int | None]:
        return [None]

    def on_core(self, core: int | None) -> AbstractContextManager[object]:
        """macOS chooses the cores itself."""
        return nullcontext()

    def energy(self, backend: str, bus: str = "") -> Meter | None:
        """IOReport's estimate for the whole chip, through zeus-apple-silicon where that is installed."""
        try:
            from zeus_apple_silicon import AppleEnergyMonitor

            return chip_meter(AppleEnergyMonitor())
        except (ImportError, RuntimeError):
            return None

    def keep_awake(self) -> tuple[str, ...]:
        return "caffeinate", "-dims", "-w", str(os.getpid())

    def missing_build_tools(self) -> str:
        if self.run(*METAL):
            return ""
        return "no Metal compiler; install Xcode, then: xcodebuild -downloadComponent MetalToolchain"

    def _told(self, name: str) -> str:
        """A value of sysctl's, each asked for alone: of several it tells none where it does not know one."""
        return " ".join(self.run("sysctl", "-n", name).split())[:100]


def chip_meter(monitor: Any) -> Meter | None:
    """The sum of the rails that the chip tells when first asked; None if it tells none."""
    told = monitor.get_cumulative_energy()
    rails = [field for field in RAILS if getattr(told, field, None) is not None]
    if not rails:
        return None

    def joules() -> float:
        now = monitor.get_cumulative_energy()
        return sum(getattr(now, field) or 0 for field in rails) / 1e3

    return Meter(f"IOReport's estimate, {', '.join(RAILS[field] for field in rails)}", joules)


def physical_footprint(process: int, library: ctypes.CDLL) -> int | None:
    """`ri_phys_footprint` of proc_pid_rusage, None if the call fails.

    struct rusage_info_v0 (sys/resource.h): a 16-byte uuid, then 64-bit fields, of which the footprint is the eighth.
    """
    buffer = (ctypes.c_uint64 * 64)()  # far larger than any version of the struct
    if library.proc_pid_rusage(process, 0, ctypes.byref(buffer)) != 0:
        return None
    return buffer[2 + 7]


def profiler_gpu_cores(text: str) -> int | None:
    """`sppci_cores`, a string, of the first display adapter that has it."""
    try:
        adapters = json.loads(text)["SPDisplaysDataType"]
        return next(int(adapter["sppci_cores"]) for adapter in adapters if "sppci_cores" in adapter)
    except (ValueError, KeyError, TypeError, StopIteration, RecursionError):
        return None


def thermal_pressure(text: str) -> int | None:
    """The level in notifyutil's answer, `com.apple.system.thermalpressurelevel 0`; None if there is none."""
    found = re.search(rf"^{re.escape(THERMAL_KEY)}\s+([0-9]{{1,4}})\s*$", text, re.MULTILINE)
    return int(found[1]) if found else None


def on_battery(text: str) -> bool | None:
    """From `pmset -g batt`: Now drawing from 'Battery Power'. A Mac without a battery draws from 'AC Power'."""
    found = re.search(r"^Now drawing from '([^'\n]+)'", text, re.MULTILINE)
    return found[1] == "Battery Power" if found else None


def low_power_mode(text: str) -> bool | None:
    """Whether `pmset -g` says that the machine saves power: `lowpowermode 1`, on newer ones `powermode 1`."""
    found = re.search(r"^\s*(?:low)?powermode\s+([0-9])\b", text, re.MULTILINE)
    return found[1] == "1" if found else None
