"""What the history makes one suspect: the steps of every series, in words, and those of one cause together."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from benchmarks.harness import numbers
from scripts import changes
from scripts.changes import Change
from scripts.history import History, Series, series

CONTROLS = "controls."
"""How the metrics begin that no commit can change."""

EXACT = "work."
"""How the metrics begin that have no noise: every change of one is a fact."""

WORDS = {"seconds": ("slower", "faster"), "x roofline": ("slower", "faster"), "bytes": ("more memory", "less memory")}
"""What more and less of a unit are; of any other they are "more" and "less", and its name says of what."""


class Suspicion(NamedTuple):
    """A step in a series.

    worse          whether it goes upwards: all that asv tracks is better when it is less
    before, after  the level of the series, in its unit
    good, bad      positions, in history, of the last commit surely before the step and of the first surely after it;
                   of a drift, of the last before it began and of the first at its end
    likely         the same, of where it most likely is
    around         positions of the commits to measure again: a few before against a few after
    """

    series: Series
    unit: str
    change: Change
    worse: bool
    before: float
    after: float
    good: int
    bad: int
    likely: tuple[int, int]
    around: tuple[int, int]

    @property
    def exact(self) -> bool:
        return self.series.metric.startswith(EXACT)

    @property
    def words(self) -> str:
        """The direction."""
        more, less = WORDS.get(self.unit, (f"more {self.unit}".strip(), f"less {self.unit}".strip()))
        return more if self.worse else less

    @property
    def rate(self) -> float | None:
        """How far a drift goes in 100 commits, as a share; None of a step."""
        return float(np.expm1(100 * self.change.size / (self.bad - self.good))) if self.change.drift else None

    @property
    def size(self) -> str:
        """How far, with its interval, and of a drift how fast; of what has no noise the figures themselves."""
        if self.exact or min(self.before, self.after) <= 0 or not math.isfinite(self.before + self.after):
            return f"{numbers.in_words(self.after, '.6g')}, was {numbers.in_words(self.before, '.6g')}"
        low, high = (np.expm1(limit) for limit in self.change.interval)
        far = f"{np.expm1(self.change.size):+.1%} ({low:+.1%} to {high:+.1%})"
        return far if self.rate is None else f"{far}, a drift over {self.bad - self.good} commits: {speed(self.rate)}"


def speed(rate: float) -> str:
    """The rate of a drift in words."""
    return f"{rate:+.1%} per 100 commits"


Levels = dict[str, dict[tuple[str, str, str], float]]
"""Where series are, by machine and key."""


class Found(NamedTuple):
    """What the series show.

    suspicions  every step in every series that a commit can change
    controls    the series that none can change
    levels      where the others are now
    """

    suspicions: list[Suspicion]
    controls: list[Series]
    levels: Levels


def search(known: History) -> Found:
    found = Found([], [], {})
    for one in series(known.points):
        if one.metric.startswith(CONTROLS):
            found.controls.append(one)
        else:
            steps = suspicions(one, known.units.get(one.metric, ""))
            found.suspicions.extend(steps)
            found.levels.setdefault(one.machine, {})[one.key] = (
                steps[-1].after if steps else float(np.median(one.values))
            )
    return found


def suspicions(one: Series, unit: str) -> list[Suspicion]:
    """The steps in a series, as suspicions."""
    steps = exact(one) if one.metric.startswith(EXACT) else changes.changes(logs(one.values))
    bounds = [0, *(step.first for step in steps), len(one.values)]
    return [
        suspicion(one, unit, step, start, end) for start, step, end in zip(bounds[:-2], steps, bounds[2:], strict=True)
    ]


def suspicion(one: Series, unit: str, step: Change, start: int, end: int) -> Suspicion:
    """The step between those at `start` and `end`."""
    first, last = step.around(len(one.values))
    good, bad = int(one.positions[step.low - 1]), int(one.positions[step.high])
    nearest = max(step.low, step.first - changes.FEW) - 1, min(step.high, step.first + changes.FEW)
    return Suspicion(
        one,
        unit,
        step,
        step.size > 0,
        *levels(one, step, start, end),
        good,
        bad,
        (good, bad) if step.drift else (int(one.positions[nearest[0]]), int(one.positions[nearest[1]])),
        (int(one.positions[first]), int(one.positions[last])),
    )


def levels(one: Series, step: Change, start: int, end: int) -> tuple[float, float]:
    """Where the series is before a step, since the change at `start`, and after it, up to that at `end`.

    Of a drift it is where that begins and ends: half of it to either side of its middle.
    """
    if step.drift:
        middle = float(np.median(logs(one.values)[step.low - 1 : step.high + 1]))
        return math.exp(middle - step.size / 2), math.exp(middle + step.size / 2)
    return float(np.median(one.values[start : step.first])), float(np.median(one.values[step.first : end]))


def logs(values: changes.Values) -> changes.Values:
    """Of the values; zero or less counts as half of the smallest above, infinity as twice the largest below."""
    some = values[(values > 0) & np.isfinite(values)]
    if not len(some):
        return np.where(values > 0, 1.0, 0.0)
    return np.log(np.clip(values, some.min() / 2, some.max() * 2))


def exact(one: Series) -> list[Change]:
    """Every change of a figure that has no noise."""
    scale = logs(one.values)
    return [
        Change(int(first), int(first), int(first), float(scale[first] - scale[first - 1]), 0.0, 0.0)
        for first in np.flatnonzero(one.values[1:] != one.values[:-1]) + 1
    ]


class Alert(NamedTuple):
    """Suspicions that have one cause, as far as history tells: on a machine, in a direction, at a place.

    members  the clearest first; it is the one that says where the step is
    """

    members: list[Suspicion]

    @property
    def machine(self) -> str:
        return self.members[0].series.machine

    @property
    def worse(self) -> bool:
        return self.members[0].worse

    @property
    def good(self) -> int:
        """Position of the last commit surely before the step."""
        return self.members[0].good

    @property
    def bad(self) -> int:
        """Position of the first commit surely after it."""
        return self.members[0].bad

    def may_have_caused(self, one: Suspicion) -> bool:
        """Whether both most likely are at the same place. Where they could be is too wide: false steps fit anywhere.

        So is a drift: of another it must share half of the commits, and of steps it made those in its own case.
        """
        lead = self.members[0]
        if (one.series.machine, one.worse) != (self.machine, self.worse):
            return False
        shared = min(one.likely[1], lead.likely[1]) - max(one.likely[0], lead.likely[0])
        if lead.change.drift and one.change.drift:
            return 2 * shared >= min(lead.bad - lead.good, one.bad - one.good)
        if lead.change.drift or one.change.drift:
            return shared > 0 and lead.change.drift and one.series.case == lead.series.case
        return shared > 0


def clearest(one: Suspicion) -> tuple[bool, bool, float, float]:
    """What to sort by so that the clearest comes first; a drift before the steps for which others may take it."""
    return not one.exact, not one.change.drift, one.change.chance, -abs(one.change.size)


def grouped(found: Iterable[Suspicion]) -> list[Alert]:
    """The suspicions by cause, the newest first: each with the clearest one that it may share a cause with."""
    alerts: list[Alert] = []
    for one in sorted(found, key=clearest):
        cause = next((alert for alert in alerts if alert.may_have_caused(one)), None)
        if cause:
            cause.members.append(one)
        else:
            alerts.append(Alert([one]))
    return sorted(alerts, key=lambda alert: (-alert.bad, alert.machine, not alert.worse))
