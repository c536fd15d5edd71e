"""The change points of a series: where its level steps, how far, and how surely.

A scan over all splits compares the ranks before with those after, so that a point far off weighs no more than the
largest. Its chance is corrected for the number of splits, and for noise that stays from one point to the next. What is
found divides the series, and both parts are searched again. What a drift describes better than steps is told as one.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from scripts import drifts

Values = NDArray[np.float64]

WORSE, BETTER = 0.09, 0.001
"""The chance of a step upwards, and of one downwards, anywhere in a series without any. A step upwards is what is
looked for: it may be suspected more often, because a suspicion only costs a confirmation."""

SHORTEST = 3
"""Points on either side of a step."""

FEW = 3
"""Points by which a step that is hardly clear may lie elsewhere."""

UNLIKELY = 3e-5
"""The chance at which a single newest point is suspected: 4 standard deviations where many points are known."""

SETTLED = 8
"""Points that must be known before a single one can be off."""

MEMORY = 0.4
"""How much of the correction for noise with a memory is made: the exponent of what the variance of a mean grows by. All
of it, 1, would find hardly any step; none, 0, would suspect a step in every second such series."""

NEARLY = 0.95
"""Of the most that any point has, how much likelihood must lie within FEW of the one that is taken for the step."""

FAR = 3.5
"""Standard deviations beyond which a point is no farther off, where a step is located."""

NORMAL_MAD = 1.4826
"""The standard deviation of normal noise, in median absolute deviations."""

SMALLEST = 0.01
"""The least difference that is asked about; 0.01 is 1 %."""

WIDE = 10.0
"""How much less the squared statistic may be where a step might be as well: nine in ten ranges hold the step."""


class Change(NamedTuple):
    """A step of the level.

    first      index of the first point of the new level
    low, high  indices between which that is: a step is seldom known to the point
    size       log of the new level over the old
    error      standard error of `size`
    chance     of a step at least as clear, in that direction, in as many points without any
    drift      whether the level goes there little by little, from `low` - 1 to `high`; `first` is that of the
               clearest step that it was taken for
    """

    first: int
    low: int
    high: int
    size: float
    error: float
    chance: float
    drift: bool = False

    def around(self, count: int) -> tuple[int, int]:
        """Of `count` points the indices of one surely before the step, and of one surely after it."""
        if not self.error or self.drift:
            return self.low - 1, self.high
        return max(0, min(self.low - 1, self.first - 1 - FEW)), min(count - 1, max(self.high, self.first + FEW))

    @property
    def interval(self) -> tuple[float, float]:
        """Of `size`, 95 %."""
        half_width = float(stats.norm.ppf(0.975)) * self.error
        return self.size - half_width, self.size + half_width


def least(size: float) -> float:
    """The difference to ask about when a step of `size`, a log, is measured again: half of it; 0.02 is 2 %.

    A step that is half as large is as far from none as from the one that was seen.
    """
    return max(SMALLEST, math.expm1(abs(size)) / 2)


def changes(values: Values, worse: float = WORSE, better: float = BETTER) -> list[Change]:
    """The steps in the logs of a series, in order; the last may be its newest point alone."""
    found = checked(values, divide(values, 0, len(values), worse, better), worse, better)
    bounds = [0, *(one.first for one in found), len(values)]
    described = [
        describe(values[start:end], one, start) for start, one, end in zip(bounds[:-2], found, bounds[2:], strict=True)
    ]
    drifting = among(values, described)
    straight = values.copy()
    for steps, ramp in drifting:
        straight[bounds[steps.start] : bounds[steps.stop + 1]] += ramp.fitted[-1] - ramp.fitted
    alone = newest(straight, bounds)
    return [*told(described, drifting, bounds), *([alone] if alone else [])]


def among(values: Values, steps: list[Change]) -> list[tuple[range, drifts.Ramp]]:
    """The drifts that describe some `steps` better, and which: neighbours in one direction, the longest run first."""
    if not steps:
        return []
    bounds = [0, *(one.first for one in steps), len(values)]
    levels = [part - np.median(part) for part in np.split(values, bounds[1:-1])]
    spread = deviation(np.concatenate(levels))
    found: list[tuple[range, drifts.Ramp]] = []
    count = len(steps)
    runs = [range(start, start + length) for length in range(count, 0, -1) for start in range(count - length + 1)]
    for run in runs:
        upwards = {steps[number].size > 0 for number in run}
        if len(upwards) > 1 or any(number in other for other, _ in found for number in run):
            continue
        start = bounds[run.start]
        firsts = [steps[number].first - start for number in run]
        ramp = drifts.better(values[start : bounds[run.stop + 1]], firsts, spread)
        if ramp and (ramp.size > 0) in upwards:
            found.append((run, ramp))
    return found


def told(steps: list[Change], drifting: list[tuple[range, drifts.Ramp]], bounds: list[int]) -> list[Change]:
    """The `steps` in order, each drift once in place of its own."""
    gone = {number for run, _ in drifting for number in run}
    changes = [one for number, one in enumerate(steps) if number not in gone]
    for run, ramp in drifting:
        start, end = bounds[run.start] + ramp.start, bounds[run.start] + ramp.end
        clearest = min((steps[number] for number in run), key=lambda one: one.chance)
        first = min(max(clearest.first, start + 1), end)
        changes.append(Change(first, start + 1, end, ramp.size, ramp.error, clearest.chance, drift=True))
    return sorted(changes, key=lambda one: one.first)


class Split(NamedTuple):
    """The clearest step of a part: index of the first point after it, statistic, chance."""

    first: int
    statistic: float
    chance: float


def divide(values: Values, start: int, end: int, worse: float, better: float) -> list[Split]:
    """The steps between `start` and `end`, in order."""
    found = split(values, start, end, worse, better)
    if not found:
        return []
    before = divide(values, start, found.first, worse, better)
    return [*before, found, *divide(values, found.first, end, worse, better)]


def checked(values: Values, found: list[Split], worse: float, better: float) -> list[Split]:
    """Those that are still steps between their neighbours: one that was found first may be two others' shadow."""
    while True:
        bounds = [0, *(one.first for one in found), len(values)]
        parts = zip(bounds[:-2], bounds[2:], strict=True)
        again = [known for start, end in parts if (known := split(values, start, end, worse, better))]
        firsts = sorted({one.first for one in again})
        if firsts == [one.first for one in found]:
            return again
        if len(again) >= len(found):  # moved only: they would go on moving
            return found
        found = again


def split(values: Values, start: int, end: int, worse: float, better: float) -> Split | None:
    """The clearest step between `start` and `end`, if it is clear enough.

    A part has of the series' chance what it has of its points: else every step found would bring false ones.
    """
    part = values[start:end]
    if len(part) < 2 * SHORTEST:
        return None
    statistics, share = scan(part), len(part) / len(values)
    best = None
    for sign, level in ((1, worse), (-1, better)):
        number = int(np.argmax(sign * statistics))
        first = number + SHORTEST
        statistic = float(sign * statistics[number])
        chance = chance_of(statistic / memory(part, first) ** (MEMORY / 2), len(part))
        if chance < level * share and (best is None or chance < best.chance):
            best = Split(start + located(part, first), statistic, chance)
    return best


def located(values: Values, first: int) -> int:
    """Where a step near `first` is: of the points within FEW of which it most surely is, the likeliest.

    Ranks find that there is a step; where it is they tell less well. Here it is the likelihood of normal noise around
    the levels on its two sides, with distances that count as FAR at the most: a point far off beside a step would move
    it.
    """
    before, after = values - np.median(values[:first]), values - np.median(values[first:])
    spread = deviation(np.concatenate([before[:first], after[first:]]))
    if not spread:
        return first
    farther = np.cumsum(np.minimum((before / spread) ** 2, FAR**2) - np.minimum((after / spread) ** 2, FAR**2))
    splits = np.arange(SHORTEST, len(values) - SHORTEST + 1)
    likelihood = np.exp((farther[splits - 1].min() - farther[splits - 1]) / 2)
    around = np.convolve(likelihood, np.ones(2 * FEW + 1))[FEW:-FEW]
    return int(splits[np.argmax(np.where(around >= NEARLY * around.max(), likelihood, 0))])


def scan(values: Values) -> Values:
    """For every split that leaves SHORTEST points on either side: how much higher the ranks after it are, standardised.

    Wilcoxon's rank sum, with the variance that it has among the series' own ranks, equal ones included.
    """
    ranks = stats.rankdata(values)
    count = len(ranks)
    ranks -= ranks.mean()
    after = np.arange(SHORTEST, count - SHORTEST + 1)
    spread = float(ranks @ ranks) / (count - 1)
    if not spread:
        return np.zeros(len(after))
    sums = -np.cumsum(ranks)[after - 1]
    return sums / np.sqrt(spread * after * (count - after) / count)


def memory(values: Values, first: int) -> float:
    """What the variance of a mean is multiplied by because points resemble their neighbours; at least 1.

    Of the ranks, within the two levels: (1 + r) / (1 - r), with the lag-one autocorrelation r. What it is in most
    series without memory, one standard error, is not held against them.
    """
    left = np.concatenate([centred(stats.rankdata(part)) for part in (values[:first], values[first:])])
    total = float(left @ left)
    if not total:
        return 1.0
    lag = float(left[1:] @ left[:-1]) / total - 1 / math.sqrt(len(values))
    lag = min(max(lag, 0.0), 0.9)
    return (1 + lag) / (1 - lag)


def centred(values: Values) -> Values:
    return values - values.mean()


def chance_of(statistic: float, count: int) -> float:
    """How likely a statistic at least as large is somewhere in a scan of `count` points without a step.

    The tail of the maximum of a standardised random walk with both ends tied, one-sided: Siegmund, Sequential Analysis
    (1985), with his correction for discrete time.
    """
    if statistic <= 1:
        return 1.0
    before = np.arange(SHORTEST, count - SHORTEST + 1)
    rate = count / (before * (count - before))
    overshoot = np.exp(-0.583 * statistic * np.sqrt(rate))
    passed = float((rate * overshoot).sum()) * statistic * float(stats.norm.pdf(statistic)) / 2
    return min(1.0, passed + float(stats.norm.sf(statistic)))


def describe(values: Values, found: Split, start: int) -> Change:
    """The step in `values`, the part of a series from `start` to the next step."""
    first = found.first - start
    squares, lasting = scan(values) ** 2, memory(values, first)
    likely = np.flatnonzero(squares >= found.statistic**2 - WIDE * lasting) + SHORTEST
    low, high = (int(likely.min()), int(likely.max())) if len(likely) else (first, first)
    before, after = values[:first], values[first:]
    return Change(
        found.first,
        min(low, first) + start,
        max(high, first) + start,
        float(np.median(after) - np.median(before)),
        error(before, after) * math.sqrt(lasting),
        found.chance,
    )


def error(before: Values, after: Values) -> float:
    """The standard error of the difference of two medians of noise that is the same around both."""
    spread = deviation(np.concatenate([before - np.median(before), after - np.median(after)]))
    return spread * math.sqrt(math.pi / 2 * (1 / len(before) + 1 / len(after)))


def deviation(residuals: Values) -> float:
    """The standard deviation, from the median absolute deviation: points far off do not count."""
    return NORMAL_MAD * float(np.median(np.abs(residuals)))


def newest(values: Values, bounds: list[int]) -> Change | None:
    """The step up to the last points, too few for a scan, if they are far off their level, and farther than any before.

    Where points have been far off for a night, one more is no news: then the next will tell.
    """
    for count in range(SHORTEST - 1, 0, -1):
        first = len(values) - count
        levels = [values[start : min(end, first)] for start, end in itertools.pairwise(bounds)]
        if first < SETTLED or len(levels[-1]) < count:
            continue
        off = values[first:].min() - np.median(levels[-1])
        residuals = np.concatenate([level - np.median(level) for level in levels])
        spread, freedom = deviation(residuals), first - len(levels)
        chance = float(stats.t.sf(off / spread, freedom)) if spread else float(off <= 0)
        if chance <= UNLIKELY and off > residuals.max():
            return Change(first, first, len(values) - 1, float(off), spread, chance)
    return None
