"""How much memory a process really held: for frameworks without a counter of their own, the system's."""

import gc
import re
import resource
from pathlib import Path

import psutil

from benchmarks.harness.host import HERE

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


def now() -> int:
    """Bytes resident now, without what is free: reused later, it would not be seen."""
    release()
    return psutil.Process().memory_info().rss


def forget_peak() -> None:
    """Begin a new peak, where the system can (proc_pid_clear_refs(5), Linux 4.0); elsewhere the old one stays."""
    release()
    if CLEAR.exists():
        CLEAR.write_text("5")


def release() -> None:
    """Give back what is free: garbage to the allocator, and the allocator's to the system, where it can be asked to."""
    gc.collect()
    HERE.give_back()


def peak() -> tuple[int, str]:
    """The most bytes that were resident at once, and who says so.

    Linux's VmHWM counts from `forget_peak` on; `ru_maxrss`, elsewhere, from the start of the process.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB$", STATUS.read_text() if STATUS.exists() else "", re.MULTILINE)
    if found:
        return int(found[1]) * 1024, "VmHWM"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * HERE.resident_unit, "ru_maxrss"
