"""What became of every commit that a night tried, a line each in results/MACHINE/nights.jsonl, only ever added to."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.harness import cases
from scripts import command, lines

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
    id       of the run; older lines have none
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
    id: str = ""


LINE = msgspec.defstruct("Line", [*list(Tried.__annotations__.items())[:-1], ("id", str, "")])
"""A line of the file."""


def read(results: Path, machine: str) -> list[Tried]:
    """What was tried on a machine, the oldest first. A line that is none is passed over. Raises UserError."""
    path = results / machine / FILE
    told, problems = lines.read(path, lambda _, entry: msgspec.convert(entry, LINE))
    if problems and problems[0].startswith(f"{path}: "):  # the file, not a line
        raise command.UserError(problems[0])
    tried = (Tried(*(getattr(one, name) for name in Tried._fields)) for one in told)
    return [one for one in tried if one.outcome in OUTCOMES]


def add(results: Path, machine: str, tried: Tried) -> None:
    """Add a line, once: it has the id of the run that it tells of."""
    when = {"when": datetime.now(UTC).isoformat(timespec="seconds")}
    told = {name: value for name, value in tried._asdict().items() if value or name != "id"}
    lines.add(results / machine / FILE, when | told)


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
