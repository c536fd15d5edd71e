"""What is known already of the steps that the history shows, and what became of alerts that it shows no more."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from scripts import alerts, search
from scripts.alerts import Key, Known
from scripts.search import Alert, Levels, Suspicion

NEW = "new"

GONE, UNCLEAR, UNMEASURED = (
    "its step has gone away",
    "its step is not seen any more",
    "its series are not measured any more",
)


IN_A_DRIFT = "it is part of the drift {}"


class Listed(NamedTuple):
    """An alert, what it is called, and what was known of it before; None of a new one."""

    name: str
    alert: Alert
    before: Known | None

    @property
    def state(self) -> str:
        return self.before.state if self.before else NEW

    @property
    def is_open(self) -> bool:
        return self.state in (NEW, *alerts.OPEN)

    @property
    def joined(self) -> list[Suspicion]:
        """The members that were not known before."""
        known = self.before.levels if self.before else {}
        return [one for one in self.alert.members if alerts.of_series(known, one.series.key) is None]

    @property
    def is_drift_now(self) -> bool:
        """Whether a drift was recorded as a step."""
        return bool(self.before and self.before.rate is None and self.alert.members[0].change.drift)

    def may_take(self, one: Suspicion) -> bool:
        """Whether a step that nobody knew may have the same cause. One that is twice as large has more than that."""
        if not self.is_open or not self.alert.may_have_caused(one):
            return False
        return self.state != alerts.CONFIRMED or abs(one.change.size) < 2 * abs(self.alert.members[0].change.size)


class Recalled(NamedTuple):
    """What there is, the newest first.

    closed  what was known and is not there any more, and why
    unseen  what was not settled and cannot be seen now, and why
    """

    listed: list[Listed]
    closed: list[tuple[Known, str]]
    unseen: list[tuple[Known, str]]


def recall(
    remembered: Sequence[Known],
    found: Iterable[Suspicion],
    followed: Sequence[Suspicion],
    levels: Levels,
    commits: Sequence[str],
) -> Recalled:
    """Put what was `found` beside what is `remembered`; steps that `followed` the machine are nobody's doing."""
    positions = {commit: position for position, commit in enumerate(commits)}
    current = {one.name: now(one, followed, levels, positions) for one in remembered}
    gone = {one.name for one in remembered if one.is_gone(current[one.name])}
    by_name: dict[str, list[Suspicion]] = {}
    unknown: list[Suspicion] = []
    for one in found:
        known = match(one, remembered, gone, positions)
        (by_name.setdefault(known.name, []) if known else unknown).append(one)
    listed = [Listed(one.name, Alert(by_name[one.name]), one) for one in remembered if one.name in by_name]
    new: list[Suspicion] = []
    for one in unknown:
        cause = next((known for known in listed if known.is_open and known.may_take(one)), None)
        (cause.alert.members if cause else new).append(one)
    taken = {one.name for one in remembered}
    listed += [Listed(alerts.name(alert, commits, taken), alert, None) for alert in search.grouped(new)]
    for each in listed:
        each.alert.members.sort(key=search.clearest)
    listed.sort(key=lambda each: (-each.alert.bad, each.alert.machine, not each.alert.worse))
    parts = in_drifts(remembered, set(by_name), listed, positions)
    closed, unseen = ended(remembered, {*by_name, *parts}, gone - set(parts), current)
    closed += [(one, IN_A_DRIFT.format(parts[one.name])) for one in remembered if one.name in parts]
    return Recalled(listed, closed, unseen)


def in_drifts(
    remembered: Iterable[Known], seen: set[str], listed: Iterable[Listed], positions: Mapping[str, int]
) -> dict[str, str]:
    """The open alerts of steps that are part of a drift now, and the name of that."""
    parts = {}
    drifts = [(one.name, step) for one in listed for step in one.alert.members if step.change.drift]
    for known in remembered:
        good, bad = positions.get(known.good), positions.get(known.bad)
        if known.state not in alerts.OPEN or known.name in seen or good is None or bad is None:
            continue
        for name, step in drifts:
            if alerts.of_series(known.levels, step.series.key) and (known.machine, known.worse, True) == (
                step.series.machine,
                step.worse,
                good < step.bad and step.good < bad,
            ):
                parts[known.name] = name
    return parts


def now(
    known: Known, followed: Sequence[Suspicion], levels: Levels, positions: Mapping[str, int]
) -> Mapping[Key, float]:
    """Where the series of an alert's machine are, without what the machine did to them after the alert's step."""
    since = positions.get(known.bad, len(positions))
    current = dict(levels.get(known.machine, {}))
    for one in followed:
        if one.series.machine == known.machine and one.bad > since and one.series.key in current:
            current[one.series.key] *= math.exp(-one.change.size)
    return current


def match(one: Suspicion, remembered: Sequence[Known], gone: set[str], positions: Mapping[str, int]) -> Known | None:
    """The alert that is about `one`: an open one first, then the last that began. A closed one must still be gone."""
    knowing = (known for known in reversed(remembered) if known.state != alerts.CLOSED or known.name in gone)
    return min(
        (known for known in knowing if known.knows(one, positions)),
        key=lambda known: known.state not in alerts.OPEN,
        default=None,
    )


def ended(
    remembered: Iterable[Known], seen: set[str], gone: set[str], current: Mapping[str, Mapping[Key, float]]
) -> tuple[list[tuple[Known, str]], list[tuple[Known, str]]]:
    """What can be closed, and what is not settled but cannot be seen; each with the reason."""
    closed, unseen = [], []
    for one in remembered:
        if one.name in gone and one.state in (*alerts.OPEN, alerts.ACKNOWLEDGED):
            closed.append((one, GONE))
        elif one.name in seen or one.state not in alerts.OPEN:
            continue
        elif not one.is_measured(current[one.name]):
            unseen.append((one, UNMEASURED))
        elif one.state == alerts.CONFIRMED:
            unseen.append((one, UNCLEAR))
        else:
            closed.append((one, UNCLEAR))
    return closed, unseen
