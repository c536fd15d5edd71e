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
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.harness import numbers
from benchmarks.harness.files import append_line, locked

VARIABLE = "ADAMW_BENCH_LEDGER"
"""The environment variable that names the run's ledger; without it none is kept."""

BEGINS = ("machine", "resumed")
"""The entries with which a run, or what goes on with one, begins."""

MARKS = "ADAMW_BENCH_MARKS"
"""The environment variable that says what was wrong with the machine, if it was measured on all the same."""

SESSION = "ADAMW_BENCH_SESSION"
"""The environment variable with a random name of this asv: what has another is of one that was interrupted."""

RUNS = "runs"
"""The folder of a machine's runs; a ledger that is not in one is nobody's result."""

LONGEST_LINE = 2**22

OF_A_CASE = ("case", "started", "accuracy", "failure", "skipped")
"""The entries that name a case."""

Entry = dict[str, Any]


def append(entry: Entry) -> None:
    """Add `entry` to the run's ledger, with the commit and environment that asv is measuring."""
    named = os.environ.get(VARIABLE)
    if not named:
        return
    path = Path(named)
    line = numbers.line(where() | {"time": time.time(), "session": os.environ.get(SESSION)} | entry)
    with locked(path.parents[2]) if path.parent.name == RUNS else nullcontext():
        append_line(path, line)


def where() -> dict[str, str | None]:
    """The commit and the environment that asv is measuring."""
    return {"commit": os.environ.get("ASV_COMMIT"), "environment": os.environ.get("ASV_ENV_NAME")}


def read(path: Path) -> list[Entry]:
    """The entries of `path`, oldest first; none if there is no such file.

    A line that a kill has cut short is passed over, and one that is no entry.
    """
    try:
        with path.open(errors="replace") as file:
            return list(filter(None, map(parsed, file)))
    except (FileNotFoundError, IsADirectoryError):
        return []


def parsed(line: str) -> Entry | None:
    """The entry in a line; None if there is none."""
    if len(line) > LONGEST_LINE:
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not isinstance(what := entry.get("what"), str):
        return None
    if what in OF_A_CASE and not isinstance(entry.get("case"), str | int):
        return None
    return numbers.heard(entry)


def last_part(entries: Sequence[Entry]) -> list[Entry]:
    """The entries that go with one another: from where the run was begun, or begun anew with another suite or machine.

    Who goes on with an interrupted run adds to it. One that was measured otherwise is not gone on with: then another
    session says again what it measures on, and what was before stays, but is no part of what follows.
    """
    begins = [number for number, one in enumerate(entries) if one["what"] == "machine"]
    sessions = [entries[number].get("session") for number in begins]
    first = next((number for number, of in zip(begins, sessions, strict=True) if of == sessions[-1]), 0)
    return list(entries[first:])
