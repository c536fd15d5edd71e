"""What became of every alert: a line an event in results/MACHINE/alerts.jsonl, only ever added to.

Git joins two machines' or two nights' lines without a conflict (merge=union in .gitattributes), and the state is what
the events say together, whatever their order in the file. Every event has an id, and counts once however often its line
is there. It is later than all that whoever wrote it had seen: clocks only order what two did without each other.
"""

import hashlib
import itertools
import json
import math
import re
import secrets
import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec

from benchmarks.harness.files import locked
from scripts import command
from scripts.lines import LARGEST_FILE
from scripts.search import Alert, Suspicion

FILE = "alerts.jsonl"
MOST_SERIES = 2**14
"""Of an event; a whole suite has a tenth of that."""
MOST_PROBLEMS = 20
"""Lines that are no events and are named one by one; the rest is counted."""

SUSPECTED, CONFIRMED, REFUTED, UNDECIDED = "suspected", "confirmed", "refuted", "undecided"
ACKNOWLEDGED, CLOSED = "acknowledged", "closed"
MEASURED = (CONFIRMED, REFUTED, UNDECIDED)
"""The events of an alert that was measured again."""

STATES = (SUSPECTED, UNDECIDED, CONFIRMED, REFUTED, ACKNOWLEDGED, CLOSED)
OPEN = (SUSPECTED, UNDECIDED, CONFIRMED)
"""Those that still want something; the others are quiet."""

GROWN = "grown"
"""The event of an alert that has more series than before."""

DRIFTS = "drifts"
"""The event of an alert that was taken for a step, and is a drift."""

SEARCHED = "searched"
"""The event of an alert whose commit was looked for: `reason` says what came of it."""

DIGITS = 8
NAME = re.compile(f"[0-9a-f]{{{DIGITS}}}")

TICK = timedelta(microseconds=1)
LATEST = datetime(9999, 1, 1, tzinfo=UTC)
"""No event is from then, whatever a clock said: there is always room for a later one."""

Key = tuple[str, str, str]


class Known(NamedTuple):
    """An alert that has been seen before.

    good, bad  full hashes of the last commit surely before the step and of the first surely after it
    levels     of every series before and after the step
    reason     what was said of it last
    culprit    what came of looking for its commit
    rate       of a drift, how far it goes in 100 commits, as a share; None of a step
    tried      how many times it was measured again
    since      when that was last, or when it began
    """

    name: str
    machine: str
    state: str
    worse: bool
    good: str
    bad: str
    levels: dict[Key, tuple[float, float]]
    reason: str = ""
    culprit: str = ""
    rate: float | None = None
    tried: int = 0
    since: datetime = datetime.min.replace(tzinfo=UTC)

    def knows(self, one: Suspicion, positions: Mapping[str, int]) -> bool:
        """Whether this is about the step `one`: in the same series, at a commit that both may mean.

        And about as large, if it was judged: a step that is twice as large, or half, is another. A drift is as large
        as its rate is, however far it has gone; and what is taken for a step in it is the drift.
        """
        good, bad = positions.get(self.good), positions.get(self.bad)
        if (self.machine, self.worse) != (one.series.machine, one.worse) or good is None or bad is None:
            return False
        levels = of_series(self.levels, one.series.key)
        if not levels or not (one.good < bad and good < one.bad):
            return False
        if self.state in (SUSPECTED, UNDECIDED):
            return True
        far = farther((one.before, one.after), levels)
        if self.rate is None:
            return 0.5 < far < 2
        return far < 2 if one.rate is None else 0.5 < math.log1p(one.rate) / math.log1p(self.rate) < 2

    def is_gone(self, current: Mapping[Key, float]) -> bool:
        """Whether most of its series that still are measured are nearer to where they were than to where they went."""
        votes = [
            farther((level, before), (level, after)) < 1
            for key, (before, after) in self.levels.items()
            if (level := of_series(current, key)) is not None
        ]
        return bool(votes) and sum(votes) > len(votes) / 2

    def is_measured(self, current: Mapping[Key, float]) -> bool:
        return any(of_series(current, key) is not None for key in self.levels)


Value = TypeVar("Value")


def of_series(known: Mapping[Key, Value], key: Key) -> Value | None:
    """What is `known` of a series; where only one side names an environment, that of the same case."""
    if key in known:
        return known[key]
    return next((value for other, value in known.items() if other[1:] == key[1:] and "" in (other[0], key[0])), None)


def farther(one: tuple[float, float], other: tuple[float, float]) -> float:
    """How many times as far it is from the one level to the other; as ratios, unless one of them is none."""
    (start, end), (first, last) = ([min(level, sys.float_info.max) for level in levels] for levels in (one, other))
    if min(start, end, first, last) > 0:
        start, end, first, last = map(math.log, (start, end, first, last))
    far, near = abs(end - start), abs(last - first)
    return far / near if near else math.inf


def name(alert: Alert, commits: Sequence[str], taken: Container[str] = ()) -> str:
    """What an alert is called: eight digits, the same whenever the same is found, and none that is `taken`."""
    lead = alert.members[0]
    told = [alert.machine, str(alert.worse), commits[alert.good], commits[alert.bad], *lead.series.key]
    for again in itertools.count():
        found = hashlib.sha256("\0".join([*told, str(again)]).encode()).hexdigest()[:DIGITS]
        if found not in taken:
            return found
    raise AssertionError


def suspected(name: str, alert: Alert, commits: Sequence[str], event: str = SUSPECTED) -> dict[str, Any]:
    """The event with which an alert begins, or with which it is known to be a drift."""
    return {
        "alert": name,
        "event": event,
        "worse": alert.worse,
        "good": commits[alert.good],
        "bad": commits[alert.bad],
        "series": [[*one.series.key, one.before, one.after] for one in alert.members],
        **({"rate": rate} if (rate := alert.members[0].rate) is not None else {}),
    }


def grown(name: str, members: Sequence[Suspicion]) -> dict[str, Any]:
    """The event that says which series take the same step as well."""
    return {
        "alert": name,
        "event": GROWN,
        "series": [[*one.series.key, one.before, one.after] for one in members],
    }


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What a line says at least. Lines of older versions have no id."""

    when: Annotated[datetime, msgspec.Meta(tz=True)]
    alert: Annotated[str, msgspec.Meta(pattern=rf"\A{NAME.pattern}\Z")]
    event: str
    id: Annotated[str, msgspec.Meta(max_length=64)] = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if self.when >= LATEST:
            raise ValueError("it is of no time")


Level = Annotated[float, msgspec.Meta(ge=-sys.float_info.max)] | Literal["Infinity"]
Commit = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{40,64}\Z")]


class Grown(Event, frozen=True, kw_only=True):
    """It names series: of each the environment, the metric, the case, and the levels before and after the step."""

    series: Annotated[list[tuple[str, str, str, Level, Level]], msgspec.Meta(min_length=1, max_length=MOST_SERIES)]

    @property
    def levels(self) -> dict[Key, tuple[float, float]]:
        return {
            (command.one_line(environment), command.one_line(metric), command.one_line(case)): (float(old), float(new))
            for environment, metric, case, old, new in self.series
        }


class Begun(Grown, frozen=True, kw_only=True):
    """A step or a drift: in which direction, and between which commits."""

    worse: bool
    good: Commit
    bad: Commit
    rate: Annotated[float, msgspec.Meta(gt=-1, le=sys.float_info.max)] | None = None


FORMS = dict.fromkeys((*STATES, SEARCHED), Event) | {SUSPECTED: Begun, DRIFTS: Begun, GROWN: Grown}
"""What the lines of every event must say."""

MALFORMED = (ValueError, LookupError, RecursionError)


def parsed(line: bytes) -> Event:
    """What a line says. Raises one of MALFORMED: also of a time that is none, which could be in no order with others.

    All that ever wrote events gave them a whole time stamp. The numbers of older lines are Python's own.
    """
    told = json.loads(line.decode(errors="replace"))
    return msgspec.convert(told, FORMS[msgspec.convert(told, Event).event])


def events_of(lines: Sequence[bytes]) -> tuple[list[Event], list[int]]:
    """The events in `lines`, the oldest first and each once; and the numbers of the lines that are none."""
    found: dict[str | bytes, Event] = {}
    wrong = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                event = parsed(line)
                found.setdefault(event.id or line.strip(), event)
        except MALFORMED:
            wrong.append(number)
    return sorted(found.values(), key=lambda one: (one.when, one.id)), wrong


def read(results: Path, machine: str) -> tuple[list[Known], list[str]]:
    """The alerts of a machine as they are now, those first that began first, and what is wrong with its file, in lines.

    A line that is no event harms no other.
    """
    path = results / machine / FILE
    try:
        if path.stat().st_size > LARGEST_FILE:
            return [], [f"{path}: over {LARGEST_FILE >> 20} MiB; shorten it"]
        found, wrong = events_of(path.read_bytes().split(b"\n"))
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"{path}: {error.strerror}"]
    known: dict[str, Known] = {}
    for event in sorted(found, key=lambda one: one.event != SUSPECTED):  # a clock may have been set back since it began
        if isinstance(event, Begun) and event.event == SUSPECTED:
            known.setdefault(event.alert, begun(machine, event))
        elif event.alert in known:
            known[event.alert] = changed(known[event.alert], event)
    problems = [f"{path}:{number}: no event of an alert; it is passed over" for number in wrong[:MOST_PROBLEMS]]
    more = len(wrong) - len(problems)
    return list(known.values()), [*problems, *([f"{path}: {more} more lines are no events of alerts"] if more else [])]


def begun(machine: str, event: Begun) -> Known:
    return Known(
        event.alert,
        machine,
        SUSPECTED,
        event.worse,
        event.good,
        event.bad,
        event.levels,
        rate=event.rate or None,
        since=event.when,
    )


def changed(known: Known, event: Event) -> Known:
    """What is known after one more event."""
    reason = command.one_line(event.reason)
    if isinstance(event, Begun):
        known.levels.update(event.levels)
        return known._replace(good=event.good, bad=event.bad, rate=event.rate or None)
    if isinstance(event, Grown):
        for key, levels in event.levels.items():
            known.levels.setdefault(key, levels)
        return known
    if event.event == SEARCHED:
        return known._replace(culprit=reason)
    if event.event in MEASURED:
        known = known._replace(tried=known.tried + 1, since=event.when)
    return known._replace(state=event.event, reason=reason)


def in_turn(names: Iterable[str], known: Iterable[Known]) -> list[str]:
    """`names` in the order of measuring them again: by turns what waits longest, and what was tried least often.

    What waits gets nearer to the front, whatever is new; and what is new does not wait for all that stay undecided.
    """
    never = 0, datetime.min.replace(tzinfo=UTC)
    tried = {one.name: (one.tried, one.since) for one in known}
    rarest = sorted(names, key=lambda name: tried.get(name, never))
    longest = sorted(names, key=lambda name: tried.get(name, never)[1])
    return list(dict.fromkeys(itertools.chain(*zip(longest, rarest, strict=True))))


def add(results: Path, machine: str, events: Sequence[dict[str, Any]]) -> None:
    """Add `events` to the file of a machine, in one piece; what others add at the same time stays.

    They are later than all that is there, whatever the clock says.
    """
    with locked(results), (results / machine / FILE).open("a+b") as file:
        file.seek(0)
        told = file.read()
        there, _ = events_of(told.split(b"\n"))
        when = max([datetime.now(UTC), *(one.when + TICK for one in there[-1:])])
        lines = [written(event, when + number * TICK) for number, event in enumerate(events)]
        file.write(b"\n" * (told[-1:] not in (b"", b"\n")) + "".join(lines).encode())


def written(event: dict[str, Any], when: datetime) -> str:
    """The line of an event, which gets its id here."""
    about = {"id": secrets.token_hex(8), "when": when.astimezone(UTC).isoformat(timespec="microseconds")}
    return json.dumps(about | command.finite(event)) + "\n"
