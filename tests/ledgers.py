"""Ledgers as tests need them: a machine that never was, and what it measured."""

from pathlib import Path

from benchmarks.harness import cases, numbers
from benchmarks.harness.counters import Counters
from benchmarks.harness.measurement import Measurement, Memory, Samples
from scripts import ledger

MACHINE = {
    "what": "machine",
    "commit": "0123456789abcdef" + "0" * 24,
    "environment": "env",
    "machine": {"backend": "Metal", "cache_bytes": 48 * 2**20},
    "description": "Apple M1 Max, 32 GPU cores, 64 GiB, MLX's Metal backend, macOS 26.1 (25B1)",
    "spec": {"gigabytes_per_second": 400, "source": "somewhere"},
    "settings": {"mlx": "0.32.4", "python": "3.12.1"},
    "ceiling": {"bytes_per_second": 340e9, "kernel": "MLX triad", "working_set": 2**30, "in_memory": True},
    "launch": {"fixed": 1e-5, "each": 2e-6},
}


def entry(case: str, seconds: float, busy: float = 1.0) -> ledger.Entry:
    measured = Measurement(
        0.5, Samples([seconds] * 7, 1, busy), [1e-4], Memory(4, 3, 2, 1), Counters(148, 148, 2, 0), 2e-7, 3.0
    )
    about = cases.case(*case.split("/", 1))
    sizes = {name: getattr(about, name) for name in ("ideal_bytes", "resident_bytes")}
    sizes["parameters"] = about.parameter_count
    return {"what": "case", "case": case, "measurement": measured.to_dict()} | sizes


def add(path: Path, run: list[ledger.Entry]) -> None:
    """Put a run's entries into a ledger beside one of asv's own files, as older versions did."""
    told = ledger.joined(ledger.read(path), run)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(numbers.line(entry) + "\n" for entry in told))
