"""What became of every commit that a night tried, a line each in results/MACHINE/nights.jsonl, only ever added to."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import cases
from benchmarks.harness.files import append_line
from scripts import command
from scripts.history import LARGEST_FILE, MALFORMED

FILE = "nights.jsonl"

MEASURED, PARTLY, NOTHING, NOT_INSTALLED = "measured", "in part", "nothing measured", "does not install"
OUTCOMES = (MEASURED, PARTLY, NOTHING, NOT_INSTALLED)
DONE = (MEASURED, PARTLY)
"""What is not tried again."""

TRIES = 2
"""Times that a commit is tried whose outcome is another: the network may have been gone the first time."""


TRIES_OF_A_RELEASE = 14
"""A tag may be there days before the wheels."""


class Tried(NamedTuple):
    """A commit, measured or tried.

    seconds  of asv's run, all of it; work: of these in the measured processes' own work
    missing  cases that failed, and why
    marks    what was wrong with the machine
    """

    commit: str
    lane: str
    profile: str
    outcome: str
    seconds: float
    work: float
    cases: int
    missing: dict[str, str]
    reason: str
    marks: str


def read(results: Path, machine: str) -> list[Tried]:
    """What was tried on a machine, the oldest first. A line that is none is passed over."""
    path = results / machine / FILE
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise command.UserError(f"{path}: over {LARGEST_FILE >> 20} MiB; shorten it")
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            told = json.loads(line)
            one = Tried(**{name: told[name] for name in Tried._fields})
            if one.outcome in OUTCOMES:
                found.append(one)
        except MALFORMED:
            continue
    return found


def add(results: Path, machine: str, tried: Tried) -> None:
    """Add a line, in one piece, whatever a kill left of the last one."""
    path = results / machine / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    told: dict[str, Any] = {"when": datetime.now(UTC).isoformat(timespec="seconds")} | command.finite(tried._asdict())
    append_line(path, json.dumps(told))


def done(tried: Iterable[Tried], lane: str, profile: str, tries: int = TRIES) -> set[str]:
    """The commits of a lane that need not be tried any more, with this profile or a larger one."""
    enough = cases.PROFILES[cases.PROFILES.index(profile) :]
    ours = [one for one in tried if one.lane == lane and one.profile in enough]
    measured = {one.commit for one in ours if one.outcome in DONE}
    counts = Counter(one.commit for one in ours)
    return measured | {commit for commit, count in counts.items() if count >= tries}


def last(tried: Sequence[Tried], lane: str, commit: str) -> Tried | None:
    """What came of a commit when it was tried last."""
    return next((one for one in reversed(tried) if (one.lane, one.commit) == (lane, commit)), None)
