"""What `scripts.releases` leaves, as tests need it: three releases of which each changed something."""

from pathlib import Path
from typing import Any

from ledgers import MACHINE, entry

from benchmarks.harness.counters import Counters
from scripts import upstream_history

COMPILED, EAGER = "compiled/float32/two_leaves", "eager/float32/two_leaves"
SECONDS = {"0.29.4": (0.080, 0.081), "0.30.1": (0.060, 0.061), "0.32.4": (0.0605, 0.0615)}
"""Seconds of a step of COMPILED: of each release a median for every process."""


def work(**told: Any) -> dict[str, Any]:
    return Counters(
        **({"kernels": 2, "fused_kernels": 2, "scalar_kernels": 2, "modelled_bytes": 7 * 2**26} | told)
    )._asdict()


def compared(base: str, ratio: float, **told: Any) -> dict[str, Any]:
    verdict = "faster" if ratio < 0.98 else "slower" if ratio > 1.02 else "same"
    return {
        "what": "compared", "base": base, "case": COMPILED, "verdict": verdict, "ratio": ratio, "low": ratio - 0.01,
        "high": ratio + 0.01, "pairs": 26, "milliseconds": [80, 80 * ratio], "disturbed": 0.0, "why": "", "logs": [],
    } | told  # fmt: skip


def write(path: Path) -> None:
    for number, (release, medians) in enumerate(SECONDS.items()):
        entries: list[dict[str, Any]] = [
            MACHINE,
            {"what": "accuracy", "case": "compiled/float32", "accuracy": {"after_2000": 3e-5}},
        ]
        for seconds in medians:
            entries.append(entry(COMPILED, seconds))
            entries[-1]["measurement"]["work"] = work(peak_bytes=2**26 * (7 if number == 0 else 4))
        entries.append({"what": "counted", "case": EAGER, "work": work(calls=100 + 5 * (number == 2))})
        upstream_history.add(path, release, entries)
    upstream_history.add(path, "0.30.1", [compared("0.29.4", 0.75)])
    upstream_history.add(path, "0.32.4", [compared("0.29.4", 0.755)])
    upstream_history.add(path, "0.30.2", [{"what": "absent", "why": "it was withdrawn <b>"}])
