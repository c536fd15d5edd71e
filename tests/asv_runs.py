"""asv runs as tests need them: what asv does with its results, with figures that are made up."""

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from asv.results import Results

from benchmarks.harness import ledger
from scripts import storing

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CASES = ["compiled/float32/gpt2", "eager/float32/gpt2"]
ENVIRONMENT = "mlx-py3.11"

clock = itertools.count(1_800_000_000, 1000)


class One:
    """What a benchmark's process gave."""

    def __init__(self, values: Sequence[float | None]) -> None:
        self.result, self.samples, self.number = list(values), [None] * len(values), [None] * len(values)
        self.stderr, self.errcode, self.profile = "", 0, None


def described(metric: str, version: str = "1", cases: Sequence[str] = CASES) -> dict:
    return {"name": metric, "version": version, "unit": "seconds", "params": [[repr(case) for case in cases]]}


def begin(results: Path, machine: str = "mac", commit: str = COMMIT, environment: str = ENVIRONMENT) -> Results:
    """A new asv begins to measure a commit."""
    storing.BEGUN.clear()
    os.environ[ledger.SESSION] = os.urandom(8).hex()
    os.environ |= {"ASV_COMMIT": commit, "ASV_ENV_NAME": environment}
    params = {"machine": machine, "os": "macOS", "arch": "arm64", "cpu": "M4", "num_cpu": "10", "ram": "1"}
    found = Results(params, {"mlx": "0.32.4"}, commit, 1_700_000_000_000, "3.11", environment, {})
    found.load_data(str(results))
    return found


def run(
    results: Path,
    figures: Mapping[str, Sequence[float | None]],
    *,
    chosen: set[int] | None = None,
    version: str = "1",
    entries: Iterable[ledger.Entry] = (),
    when: float | None = None,
    **of: str,
) -> Path:
    """The run of an asv that measured a commit: of every metric the values of CASES, or of those that are `chosen`."""
    asv = begin(results, **of)
    for entry in entries:
        ledger.append({key: value for key, value in entry.items() if key not in ("commit", "environment")})
    for metric, values in figures.items():
        moment = datetime.fromtimestamp(next(clock) if when is None else when, UTC)
        asv.add_result(described(metric, version), One(values), moment, selected_idx=chosen)
    asv.save(str(results))
    (path,) = storing.BEGUN.values()
    return path
