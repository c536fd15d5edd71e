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

import adamw
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
    """What tells this suite from another: a hash of its sources, and of adamw's: in MLX's own lane no commit tells
    these. Figures of two suites are not put together.
    """
    told = hashlib.sha256()
    for root in (Path(__file__).parents[1], Path(adamw.__file__).parent):
        for path in sorted(root.rglob("*.py")):
            told.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return told.hexdigest()[:12]


def interrupted(now: Entry) -> list[Entry]:
    """What an asv that was interrupted measured for this run, if it did as `now` says and lately; else nothing.

    `now` has what a machine's entry has of the machine, its settings and the suite. What does not fit stays where it
    is: the run is begun anew after it.
    """
    path, session = os.environ.get(ledger.VARIABLE), os.environ.get(ledger.SESSION)
    if not path:
        return []
    where = ledger.where()
    ours = [one for one in ledger.read(Path(path)) if {name: one.get(name) for name in where} == where]
    others = ledger.last_part([one for one in ours if one.get("session") != session])
    begun = [one for one in others if one["what"] == "machine"]
    told = json.loads(json.dumps(now))
    fits = begun and {name: begun[-1].get(name) for name in told} == told
    return others if fits and time.time() - begun[-1]["time"] < OLDEST else []


def restore(entries: Sequence[Entry]) -> dict[str, Any]:
    """Write what `entries` tell to where `run` looks for it; what the machine allowed when it was measured."""
    for name, told in found(entries).items():
        if is_case(name):
            for number, one in enumerate(told):
                write_whole(queued(name, number), json.dumps(one))
        else:
            write_whole(accuracy_path(*name.split("/", 1)), json.dumps(told[-1]))
    begun = next(one for one in entries if one["what"] == "machine")
    return {name: begun[name] for name in ("ceiling", "launch")}


def is_case(name: str) -> bool:
    """Whether it is variant/precision/tree; the long run is of variant/precision."""
    return name.count("/") > 1


def queued(case: str, number: int) -> Path:
    """Where the measurement of `case` lies that is taken after `number` others."""
    name = case.replace("/", "-")
    return Path(f"{name}.json" if number == 0 else f"{name}.{number}.json")


def accuracy_path(variant: str, precision: str) -> Path:
    return Path(f"{variant}-{precision}.accuracy.json")


def found(entries: Iterable[Entry]) -> Found:
    """What was measured of every case, and of every variant in a precision; and what is known to fail."""
    told: Found = {}
    unfinished: dict[str, int] = {}
    under_way = ""
    for one in entries:
        case, what = one.get("case", ""), one["what"]
        if under_way and not (case == under_way and what in ("case", "accuracy", "failure")):
            if what in ledger.BEGINS:  # the run ended, not the case's process alone
                unfinished[under_way] = unfinished.get(under_way, 0) + 1
            else:
                told.setdefault(under_way, []).append({"failed": f"{under_way}: the process that measured it died"})
        under_way = case if what == "started" else ""
        if what in ("case", "accuracy", "failure"):
            measured = {"case": "measurement", "accuracy": "accuracy"}.get(what)
            told.setdefault(case, []).append(one[measured] if measured else {"failed": one["message"]})
    if under_way:
        unfinished[under_way] = unfinished.get(under_way, 0) + 1
    for case, times in unfinished.items():
        if times >= GIVE_UP:
            told.setdefault(case, []).append({"failed": f"{case}: the run ended {times} times while it was measured"})
    return told
