"""Go on where a run of the same commit was interrupted: what its ledger has is not measured again.

A ledger that is named for the run before it begins, and has entries of its commit and environment already, is one that
was interrupted. A night keeps such a ledger until asv has written the commit's results.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.harness import ledger
from benchmarks.harness.files import write_whole
from benchmarks.harness.ledger import Entry

OLDEST = 7 * 24 * 3600.0
"""Seconds after which an interrupted run is begun anew: a machine changes."""

GIVE_UP = 2
"""Times that a run may end with the same case under way before the case is taken for what ends it."""

Found = dict[str, list[dict[str, Any]]]
"""By case, in the order of measuring: measurements as plain data, and failures as {"failed": why}."""


@cache
def suite() -> str:
    """What tells this suite from another: a hash of its sources. Figures of two suites are not put together."""
    root = Path(__file__).parents[1]
    told = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        told.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return told.hexdigest()[:12]


def interrupted(now: Entry) -> list[Entry]:
    """The entries of this commit and environment in the run's ledger, if they were measured as `now` says and lately.

    `now` has what a machine's entry has of the machine, its settings and the suite.
    """
    path = os.environ.get(ledger.VARIABLE)
    where = ledger.where()
    entries = ledger.read(Path(path)) if path else []
    ours = [one for one in entries if {name: one.get(name) for name in where} == where]
    begun = [number for number, one in enumerate(ours) if one["what"] == "machine"]
    if not begun:
        return []
    run = ours[begun[-1] :]
    told = json.loads(json.dumps(now))
    alike = {name: run[0].get(name) for name in told} == told
    return run if alike and time.time() - run[0]["time"] < OLDEST else []


def restore(entries: Sequence[Entry]) -> dict[str, Any]:
    """Write what `entries` tell to where `run` looks for it; what the machine allowed when it was measured."""
    for case, told in found(entries).items():
        for number, one in enumerate(told):
            write_whole(queued(case, number), json.dumps(one))
    for one in entries:
        if one["what"] == "accuracy":
            write_whole(accuracy_path(*one["case"].split("/", 1)), json.dumps(one["accuracy"]))
    return {name: entries[0][name] for name in ("ceiling", "launch")}


def queued(case: str, number: int) -> Path:
    """Where the measurement of `case` lies that is taken after `number` others."""
    name = case.replace("/", "-")
    return Path(f"{name}.json" if number == 0 else f"{name}.{number}.json")


def accuracy_path(variant: str, precision: str) -> Path:
    return Path(f"{variant}-{precision}.accuracy.json")


def found(entries: Iterable[Entry]) -> Found:
    """What was measured of every case, and what is known to fail."""
    told: Found = {}
    unfinished: dict[str, int] = {}
    under_way = ""
    for one in entries:
        case = one.get("case", "")
        if under_way and not (case == under_way and one["what"] in ("case", "failure")):
            if one["what"] in ledger.BEGINS:  # the run ended, not the case's process alone
                unfinished[under_way] = unfinished.get(under_way, 0) + 1
            else:
                told.setdefault(under_way, []).append({"failed": f"{under_way}: the process that measured it died"})
        under_way = case if one["what"] == "started" and case.count("/") > 1 else ""
        if one["what"] == "case":
            told.setdefault(case, []).append(one["measurement"])
        elif one["what"] == "failure" and case.count("/") > 1:
            told.setdefault(case, []).append({"failed": one["message"]})
    if under_way:
        unfinished[under_way] = unfinished.get(under_way, 0) + 1
    for case, times in unfinished.items():
        if times >= GIVE_UP:
            told.setdefault(case, []).append({"failed": f"{case}: the run ended {times} times while it was measured"})
    return told
