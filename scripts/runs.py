"""Runs: what one asv run measured of a commit in an environment, each a file of its own that is only ever added to.

results/MACHINE/runs/COMMIT-ID.jsonl, where ID is random: no two runs have one name, so none can take another's place.
A line is a JSON object; what it is says its `what`:

    run       the first one: machine, commit, environment, and what asv knows of both
    figure    a metric that asv was given: its values, case by case
    complete  nothing is missing; a run whose last line is another was interrupted, or goes on
    ...       all others are the harness's own: see benchmarks.harness.ledger
"""

import math
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from benchmarks.harness import ledger, numbers
from benchmarks.harness.files import append_line, locked
from benchmarks.harness.ledger import RUNS, Entry
from scripts.lines import LARGEST_FILE

NAME = re.compile(r"[0-9a-f]{8}-[0-9a-f]{8,64}\.jsonl")
"""What the file of a run is called: the first characters of its commit, and its id."""

OURS = ("run", "figure", "complete")
"""The lines that are not the harness's."""

MOST_CASES = 100_000
"""Of one metric; asv multiplies the values of a benchmark's parameters."""

LATEST = 7_258_118_400_000.0
"""Milliseconds since 1970 that no result is from: the year 2200. A clock that is wrong may well be before 1970."""

Text = Annotated[str, Meta(max_length=2**16)]
Texts = Annotated[dict[Text, Text | None], Meta(max_length=200)]
Moment = Annotated[float, Meta(gt=-LATEST, lt=LATEST)]
Value = int | float | Literal["NaN", "Infinity", "-Infinity"] | None
Values = Annotated[list[Value], Meta(max_length=MOST_CASES)]


class Odd(Exception):
    """A file or a line that is left out; the message says why."""


class Line(msgspec.Struct):
    """A line of a run, as long as only its kind is asked for."""

    what: str


class Head(msgspec.Struct, frozen=True):
    """What a run was of. `params` is what asv says of the machine and of the environment; `date` is the commit's.

    Moments are milliseconds since 1970, as asv has them. They are shown, and order what is shown; nothing is kept or
    left because of them.
    """

    machine: Text
    commit: Annotated[str, Meta(pattern=r"\A(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")]
    environment: Annotated[str, Meta(pattern=r"\A[ -.0-~]{0,1000}\Z")]  # a part of asv's file's name
    date: Moment
    python: Text = ""
    requirements: Texts = {}
    env_vars: Texts = {}
    params: Texts = {}
    began: Moment = 0.0


class Figure(msgspec.Struct, kw_only=True):
    """A metric that asv was given. Where `indices` are given, `result` has the values of these cases, else of all.

    A value is null if the case failed, "NaN" if it was skipped. `stats` are asv's, by its names (ci_99_a, ...), a value
    a case as in `result`.
    """

    metric: Text
    parameters: Annotated[list[list[Text]], Meta(max_length=20)]
    result: Values | None
    started_at: Moment = 0.0
    version: Text | None = None
    unit: Text = ""
    duration: float | None = None
    indices: list[Annotated[int, Meta(ge=0)]] | None = None
    stats: dict[Text, Values | None] = {}
    samples: list[Values | None] | None = None
    profile: str | None = None

    @property
    def count(self) -> int:
        """Cases that the benchmark has. Raises Odd if they are more than any suite's."""
        count = math.prod(map(len, self.parameters))
        if count > MOST_CASES:
            raise Odd(f"{count:.0e} cases")
        return count

    def checked(self) -> "Figure":
        """Itself. Raises Odd if it has not one value a case."""
        wanted = self.count if self.indices is None else len(self.indices)
        plural = "s" * (wanted != 1)
        for values in (self.result, self.samples, *self.stats.values()):
            if values is not None and len(values) != wanted:
                raise Odd(f"{len(values)} values of {wanted} case{plural}")
        try:
            any(map(heard, self.result or []))
        except OverflowError as error:
            raise Odd(str(error)) from error
        if self.indices is not None and not all(before < index < self.count for before, index in self.ordered()):
            raise Odd("its cases are none of the benchmark's")
        return self

    def ordered(self) -> Iterator[tuple[int, int]]:
        return zip([-1, *(self.indices or [])], self.indices or [], strict=False)

    def values(self) -> Iterator[tuple[int, float | None]]:
        """The cases that have a value, by their number, and that value; None of one that failed."""
        places = range(self.count) if self.indices is None else self.indices
        return zip(places, map(heard, self.result or [None] * len(places)), strict=True)


def heard(value: Value) -> float | None:
    return float(value) if value is not None else None


class Run(NamedTuple):
    """A run's head and figures, the oldest first; and in lines what of it could not be read."""

    path: Path
    head: Head
    figures: list[Figure]
    problems: list[str]


def new_path(folder: Path, commit: str) -> Path:
    """Where a run of that commit is kept that begins now, on the machine whose folder is `folder`."""
    return folder / RUNS / f"{commit[:8]}-{secrets.token_hex(8)}.jsonl"


def paths(folder: Path, commit: str = "") -> list[Path]:
    """The runs on a machine, those of `commit` or all; links are none."""
    found = (folder / RUNS).glob(f"{commit[:8]}*.jsonl")
    return sorted(path for path in found if NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink())


def add(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line to a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parents[2]):
        append_line(path, numbers.line(line))


def complete(path: Path, **more: Any) -> None:
    """Say that nothing is missing of a run."""
    add(path, {"what": "complete", "time": time.time(), **more})


def lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The lines of a run and what they are; one that a kill has cut short is none. Raises Odd, OSError."""
    if path.stat().st_size > LARGEST_FILE:
        raise Odd(f"over {LARGEST_FILE >> 20} MiB")
    kind = msgspec.json.Decoder(Line)
    with path.open("rb") as file:
        for line in file:
            try:
                yield kind.decode(line).what, line
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue


def head(path: Path) -> Head:
    """What a run was of. Raises Odd, OSError."""
    with path.open("rb") as file:
        return head_of(path, file.readline(ledger.LONGEST_LINE))


def head_of(path: Path, line: bytes) -> Head:
    try:
        told = msgspec.json.decode(line, type=Head)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Odd(f"it does not say what it is of: {error}") from error
    if told.machine != path.parents[1].name:
        raise Odd(f"it is of machine {told.machine!r}; it belongs into that one's folder")
    if not path.name.startswith(told.commit[:8]):
        raise Odd(f"it is of commit {told.commit[:8]}, which its name says otherwise")
    return told


def read(path: Path) -> Run:
    """A run's figures. What is odd of them is left out and named. Raises Odd, OSError if it is no run."""
    figures: list[Figure] = []
    problems: list[str] = []
    about: Head | None = None
    for what, line in lines(path):
        if what == "run" and about is None:
            about = head_of(path, line)
        elif what == "figure":
            try:
                figures.append(msgspec.json.decode(line, type=Figure).checked())
            except (msgspec.DecodeError, UnicodeDecodeError, Odd) as error:
                problems.append(f"a figure: {error}")
    if about is None:
        raise Odd("it does not say what it is of")
    return Run(path, about, figures, problems)


def entries(path: Path) -> list[Entry]:
    """What the harness told in a run. Raises Odd, OSError."""
    of = head(path)
    ours = [one for one in ledger.read(path) if one["what"] not in OURS and belongs(one, of)]
    return ledger.last_part(ours)


def belongs(entry: Entry, head: Head) -> bool:
    """Whether an entry is of that commit and environment; where asv did not build it, only asv knows the commit."""
    return entry.get("commit") in (head.commit, None) and entry.get("environment") == head.environment


def is_complete(path: Path) -> bool:
    """Whether the last line of a run says so."""
    last = ""
    for last, _ in lines(path):  # noqa: B007
        pass
    return last == "complete"
