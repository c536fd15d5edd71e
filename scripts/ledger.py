"""The ledger: what was measured, with the machine and the conditions, as JSON lines beside asv's result files.

asv keeps one number a metric and case. The ledger keeps what a reader needs to trust it: chip, backend, versions, the
ceiling it is held against, load, and every sample.
"""

import json
import os
from pathlib import Path
from typing import Any

VARIABLE = "ADAMW_BENCH_LEDGER"
LONGEST_LINE = 2**20

Entry = dict[str, Any]


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
    return [entry for entry in entries if isinstance(entry, dict) and "what" in entry]


def key(entry: Entry) -> tuple[str, str]:
    return entry["what"], entry.get("case", "")


def newest(entries: list[Entry]) -> dict[tuple[str, str], Entry]:
    """The last entry of every case and of the machine; a failure and a success of one case replace each other."""
    kept: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        what, case = key(entry)
        kept.pop(("failure" if what == "case" else "case", case), None)
        kept[what, case] = entry
    return kept


def with_ceiling(entries: list[Entry]) -> list[Entry]:
    """The entries, each case with the ceiling that was measured last before it: another run's would not be its own."""
    ceiling: Entry | None = None
    complete = []
    for entry in entries:
        if entry["what"] == "machine":
            ceiling = entry["ceiling"]
        complete.append(entry | {"ceiling": ceiling} if entry["what"] == "case" else entry)
    return complete


def merge(path: Path, entries: list[Entry]) -> None:
    """Add `entries` to `path`, each in place of an older one of the same case; the file is complete or untouched."""
    if not entries:
        return
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        with partial.open("w") as file:
            for entry in newest(read(path) + entries).values():
                file.write(json.dumps(entry) + "\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
