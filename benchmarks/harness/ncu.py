"""The bytes that kernels really moved, by NVIDIA's profiler `ncu`, which reads the card's hardware counters.

Nothing here needs MLX, or a card: what ncu wrote is text.
"""

import csv
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

METRICS = {
    "dram__bytes_read.sum": "read",
    "dram__bytes_write.sum": "written",
    "gpu__time_duration.sum": "nanoseconds",
    "launch__registers_per_thread": "registers",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy",
}
"""What is asked of every kernel, and what it is called here: bytes, nanoseconds, registers a thread, %."""

MARKER = "Sin"
"""Part of the name of the kernel that is launched between two cases, and by no step."""

SETTINGS = {"MLX_USE_CUDA_GRAPHS": "0"}
"""Environment variables of a process that is profiled: every kernel is launched by itself."""

SOURCE = "ncu, dram__bytes"

SUMMED = ("read", "written", "nanoseconds")


def command(log: str) -> list[str] | None:
    """What goes before a command to profile it into the file `log`; None where there is no ncu.

    The clocks and caches are left as they are, and nothing is run twice.
    """
    ncu = shutil.which("ncu")
    if not ncu:
        return None
    options = ["--csv", "--print-units", "base", "--clock-control", "none", "--cache-control", "none"]
    return [ncu, *options, "--profile-from-start", "off", "--metrics", ",".join(METRICS), "--log-file", log]


def kernels(text: str) -> list[dict[str, Any]]:
    """Every kernel of a log in CSV, in order: its name, and its figures as METRICS call them; None for no number."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(lines))
    found = []
    for _, one in groupby(rows, key=lambda row: row.get("ID")):
        figures = list(one)
        values = {METRICS[row["Metric Name"]]: number(row["Metric Value"]) for row in figures if known(row)}
        found.append({"name": figures[0].get("Kernel Name") or ""} | dict.fromkeys(METRICS.values()) | values)
    return found


def known(row: dict[str, str]) -> bool:
    return row.get("Metric Name") in METRICS and row.get("Metric Value") is not None


def number(text: str) -> float | None:
    """A figure as ncu writes it, `1,234.5`; None for `n/a` and the like."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def refusal(text: str) -> str | None:
    """The profiler's own word why it could not profile, None if it did."""
    said = [line.partition("==ERROR==") for line in text.splitlines()]
    return next((why.strip()[:300] for _, is_error, why in said if is_error), None)


def per_case(found: Iterable[dict[str, Any]], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The kernels summed for every case, which begins after a kernel whose name contains MARKER.

    Registers and occupancy are those of the case's longest kernel.
    """
    cases: list[list[dict[str, Any]]] = []
    for one in found:
        if MARKER in one["name"]:
            cases.append([])
        elif cases:
            cases[-1].append(one)
    for name, own in zip(names, cases, strict=False):
        sums = {what: total(one[what] for one in own) for what in SUMMED}
        longest = max(own, key=lambda one: one["nanoseconds"] or 0, default={})
        about = {what: longest.get(what) for what in ("registers", "occupancy")}
        yield {"what": "traffic", "case": name, "kernels": len(own), **sums, **about}


def total(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known or not known else sum(value for value in known if value is not None)
