"""What became of every alert: a line an event in results/MACHINE/alerts.jsonl, only ever added to.

Git joins two machines' or two nights' lines without a conflict (merge=union in .gitattributes), and the state is what
the events say together, whatever their order in the file.
"""

import hashlib
import itertools
import json
import math
import re
import sys
from collections.abc import Container, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from scripts import command
from scripts.search import Alert, Suspicion

FILE = "alerts.jsonl"
LARGEST_FILE = 64 * 2**20

SUSPECTED, CONFIRMED, REFUTED, UNDECIDED = "suspected", "confirmed", "refuted", "undecided"
ACKNOWLEDGED, CLOSED = "acknowledged", "closed"
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
COMMIT = re.compile("[0-9a-f]{40,64}")
NEWEST = re.compile(rb'"when": "(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00)"')

Key = tuple[str, str, str]


class Known(NamedTuple):
    """An alert that has been seen before.

    good, bad  full hashes of the last commit surely before the step and of the first surely after it
    levels     of every series before and after the step
    reason     what was said of it last
    culprit    what came of looking for its commit
    rate       of a drift, how far it goes in 100 commits, as a share; None of a step
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


def read(results: Path, machine: str) -> tuple[list[Known], list[str]]:
    """The alerts of a machine as they are now, and what is wrong with its file, in lines."""
    path = results / machine / FILE
    try:
        if path.stat().st_size > LARGEST_FILE:
            return [], [f"{path}: over {LARGEST_FILE >> 20} MiB; shorten it"]
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"{path}: {error.strerror}"]
    known: dict[str, Known] = {}
    later: list[tuple[str, dict[str, Any]]] = []
    problems = []
    for number, line in enumerate(lines, 1):
        try:
            when, event = parsed(line)
            if event["event"] == DRIFTS:
                begun(machine, event)
            if event["event"] == SUSPECTED:
                known.setdefault(event["alert"], begun(machine, event))
            else:
                later.append((when, event))
        except MALFORMED:
            problems.append(f"{path}:{number}: no event of an alert; it is passed over")
    for _, event in sorted(later, key=lambda one: one[0]):
        if event["alert"] in known:
            known[event["alert"]] = changed(known[event["alert"]], event)
    return list(known.values()), problems


MALFORMED = (ValueError, LookupError, TypeError, ArithmeticError, RecursionError, AttributeError)


def parsed(line: str) -> tuple[str, dict[str, Any]]:
    """When an event was, and what it says. Raises one of MALFORMED."""
    event = json.loads(line)
    if event["event"] not in (*STATES, GROWN, DRIFTS, SEARCHED) or not NAME.fullmatch(event["alert"]):
        raise ValueError(line)
    if "series" in event:
        event["series"] = levels(event["series"])
    return str(event["when"]), event


def levels(series: Sequence[Any]) -> dict[Key, tuple[float, float]]:
    """The levels before and after, by series, as they stand in a file. Raises one of MALFORMED."""
    found = {}
    for environment, metric, case, before, after in series:
        key = command.one_line(environment), command.one_line(metric), command.one_line(case)
        found[key] = float(before), float(after)
    if any(math.isnan(level) or level == -math.inf for pair in found.values() for level in pair):
        raise ValueError(series)
    return found


def begun(machine: str, event: dict[str, Any]) -> Known:
    good, bad = event["good"], event["bad"]
    if not (COMMIT.fullmatch(good) and COMMIT.fullmatch(bad)):
        raise ValueError(event)
    rate = None if event.get("rate") is None else float(event["rate"])
    if rate is not None and not -1 < rate < math.inf:
        raise ValueError(event)
    return Known(
        event["alert"], machine, SUSPECTED, bool(event["worse"]), good, bad, event["series"], rate=rate or None
    )


def changed(known: Known, event: dict[str, Any]) -> Known:
    """What is known after one more event."""
    if event["event"] == GROWN:
        return known._replace(levels=event.get("series", {}) | known.levels)
    if event["event"] == DRIFTS:
        now = begun(known.machine, event)
        return known._replace(good=now.good, bad=now.bad, levels=known.levels | now.levels, rate=now.rate)
    if event["event"] == SEARCHED:
        return known._replace(culprit=command.one_line(str(event.get("reason", ""))))
    return known._replace(state=event["event"], reason=command.one_line(str(event.get("reason", ""))))


def add(results: Path, machine: str, events: Sequence[dict[str, Any]]) -> None:
    """Add `events` to the file of a machine, in one piece; what others add at the same time stays.

    They count as newer than all that is there, whatever the clock says.
    """
    with (results / machine / FILE).open("a+b") as file:
        file.seek(0)
        told = file.read()
        newest = max(NEWEST.findall(told), default=b"").decode()
        when = max(datetime.now(UTC).isoformat(timespec="seconds"), newest)
        lines = [json.dumps({"when": when} | command.finite(event)) + "\n" for event in events]
        file.write(b"\n" * (told[-1:] not in (b"", b"\n")) + "".join(lines).encode())
