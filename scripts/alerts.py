"""What became of every alert: a line an event in results/MACHINE/alerts.jsonl, only ever added to.

Git joins two machines' or two nights' lines without a conflict (merge=union in .gitattributes), and the state is what
the events say together, whatever their order in the file.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness.files import write_whole
from scripts import command
from scripts.search import Alert, Suspicion

FILE = "alerts.jsonl"
LARGEST_FILE = 64 * 2**20

SUSPECTED, CONFIRMED, REFUTED, UNDECIDED = "suspected", "confirmed", "refuted", "undecided"
ACKNOWLEDGED, CLOSED = "acknowledged", "closed"
STATES = (SUSPECTED, UNDECIDED, CONFIRMED, REFUTED, ACKNOWLEDGED, CLOSED)
OPEN = (SUSPECTED, UNDECIDED, CONFIRMED)
"""Those that still want something; the others are quiet."""

Key = tuple[str, str, str]


class Known(NamedTuple):
    """An alert that has been seen before.

    good, bad  full hashes of the last commit surely before the step and of the first surely after it
    levels     of every series before and after the step
    reason     what was said of it last
    """

    name: str
    machine: str
    state: str
    worse: bool
    good: str
    bad: str
    levels: dict[Key, tuple[float, float]]
    reason: str = ""

    def is_about(self, alert: Alert, positions: Mapping[str, int]) -> bool:
        """Whether `alert` is this one, seen with more points: it may lie a commit or two elsewhere."""
        if (self.machine, self.worse) != (alert.machine, alert.worse):
            return False
        good, bad = positions.get(self.good), positions.get(self.bad)
        if good is None or bad is None or not (alert.good < bad and good < alert.bad):
            return False
        return any(self.settles(one) for one in alert.members)

    def settles(self, one: Suspicion) -> bool:
        """Whether what is known here says something of `one`. A refuted step may still be a much smaller one."""
        if one.series.key not in self.levels:
            return False
        before, after = self.levels[one.series.key]
        if self.state != REFUTED or min(before, after) <= 0:
            return True
        return abs(one.change.size) > abs(log(after) - log(before)) / 2

    def is_gone(self, current: Mapping[Key, float]) -> bool:
        """Whether most of its series that still are measured are nearer to where they were than to where they went."""
        votes = [
            abs(log(level) - log(before)) < abs(log(level) - log(after))
            for key, (before, after) in self.levels.items()
            if (level := current.get(key)) is not None
        ]
        return bool(votes) and sum(votes) > len(votes) / 2


def log(level: float) -> float:
    return math.log(level) if level > 0 else -math.inf


def name(alert: Alert, commits: Sequence[str]) -> str:
    """What an alert is called: eight digits, the same whenever the same is found. A step half as large is another."""
    lead = alert.members[0]
    size = round(math.log2(abs(lead.change.size) or 1))
    told = [alert.machine, str(alert.worse), str(size), commits[alert.good], commits[alert.bad], *lead.series.key]
    return hashlib.sha256("\0".join(told).encode()).hexdigest()[:8]


def suspected(alert: Alert, commits: Sequence[str]) -> dict[str, Any]:
    """The event with which an alert begins."""
    return {
        "alert": name(alert, commits),
        "event": SUSPECTED,
        "worse": alert.worse,
        "good": commits[alert.good],
        "bad": commits[alert.bad],
        "series": [[*one.series.key, one.before, one.after] for one in alert.members],
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
    events, problems = [], []
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
            events.append((str(event["when"]), str(event["alert"]), str(event["event"]), event))
        except (ValueError, KeyError, TypeError):
            problems.append(f"{path}:{number}: no event of an alert; it is passed over")
    known: dict[str, Known] = {}
    for _, alert, state, event in sorted(events, key=lambda one: one[:2]):
        try:
            if state == SUSPECTED and alert not in known:
                known[alert] = begun(alert, machine, event)
            elif state in STATES and alert in known:
                known[alert] = known[alert]._replace(state=state, reason=command.one_line(str(event.get("reason", ""))))
        except (ValueError, KeyError, TypeError):
            problems.append(f"{path}: alert {alert[:8]} begins with no commits or series; it is passed over")
    return list(known.values()), problems


def begun(alert: str, machine: str, event: dict[str, Any]) -> Known:
    levels = {
        (str(environment), str(metric), str(case)): (float(before), float(after))
        for environment, metric, case, before, after in event["series"]
    }
    return Known(alert, machine, SUSPECTED, bool(event["worse"]), str(event["good"]), str(event["bad"]), levels)


def add(results: Path, machine: str, events: Sequence[dict[str, Any]]) -> None:
    """Add `events` to the file of a machine, in one piece."""
    path = results / machine / FILE
    told = path.read_text() if path.exists() else ""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    write_whole(path, told + "".join(json.dumps({"when": when} | command.finite(event)) + "\n" for event in events))
