"""The ledger of a run: what was measured, with the machine and the conditions, a JSON object a line.

asv keeps one number a metric and case. The ledger keeps what a reader needs to trust it: chip, backend, versions, the
ceiling it is held against, load, and every sample. Entries, by `what`:

    machine  what a run measured on: machine, settings, ceiling, launch costs
    resumed  the run goes on where it was interrupted
    started  a case is about to be measured; alone, it says that the process died
    case     a case was measured
    accuracy a variant was measured in a precision, over many steps
    failure  a case could not be measured, and why
    skipped  a case did not fit the memory that was free, but would fit the machine's
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import numbers
from benchmarks.harness.files import append_line, write_whole

VARIABLE = "ADAMW_BENCH_LEDGER"
"""The environment variable that names the run's ledger; without it none is kept."""

BEGINS = ("machine", "resumed")
"""The entries with which a run, or what goes on with one, begins."""

MARKS = "ADAMW_BENCH_MARKS"
"""The environment variable that says what was wrong with the machine, if it was measured on all the same."""

BEGAN = "ADAMW_BENCH_BEGAN"
"""The environment variable that says when asv was started, in seconds since 1970: older entries are of another run."""

LONGEST_LINE = 2**20

Entry = dict[str, Any]


def append(entry: Entry) -> None:
    """Add `entry` to the run's ledger, with the commit and environment that asv is measuring."""
    path = os.environ.get(VARIABLE)
    if path:
        append_line(Path(path), numbers.line(where() | {"time": time.time()} | entry))


def where() -> dict[str, str | None]:
    """The commit and the environment that asv is measuring."""
    return {"commit": os.environ.get("ASV_COMMIT"), "environment": os.environ.get("ASV_ENV_NAME")}


def read(path: Path) -> list[Entry]:
    """The entries of `path`, oldest first; none if there is no such file. A line cut short by a kill is passed over."""
    try:
        with path.open(errors="replace") as file:
            lines = [line for line in file if len(line) < LONGEST_LINE]
    except (FileNotFoundError, IsADirectoryError):
        return []
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return [numbers.heard(entry) for entry in entries if isinstance(entry, dict) and "what" in entry]


def forget(path: Path, entries: list[Entry]) -> None:
    """Take `entries` out of the ledger."""
    write_whole(path, "".join(numbers.line(one) + "\n" for one in read(path) if one not in entries))
