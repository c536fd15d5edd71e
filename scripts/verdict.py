"""From the log ratios of many process pairs to a verdict: faster, slower, same or undecided, with an interval.

The estimate is the 20 % trimmed mean, and its interval Yuen's: both hold up where one pair in twenty is far off.
Sampling stops by the width of the interval, hardly by where it lies, and looks seldom: a rule that stops as soon as a
difference shows favours chance differences, and its intervals miss the truth more often than they say.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

FASTER, SLOWER, SAME, UNDECIDED = "faster", "slower", "same", "undecided"

TRIMMED = 0.2
"""The share of the pairs that is left out at either end."""

FEWEST = 6
"""Pairs for a verdict: where a pair takes many seconds the budget may have no room for more."""

LOOKS = [round(20 * 1.3**number) for number in range(40)]
"""The numbers of pairs after which it is asked whether they are enough."""

CONFIDENCE = 0.95
"""Of the interval that is shown."""

FALSE_DISCOVERIES = 0.005
"""Of the cases called faster or slower, the share that may be so by chance (Benjamini-Hochberg), at one look."""

POWER = 0.9
"""How often the smallest detectable difference is found."""

FINEST = 1e-9
"""The least standard error: no clock tells more, and equal ratios must not divide by zero."""

COARSE = 1 / 8
"""The half-width that is narrow enough for a large difference, as a part of it."""


class Estimate(NamedTuple):
    """How long a step of the head takes, as a multiple of the base's.

    log         of the ratio
    half_width  of its interval, on the log scale
    chance      how likely a difference at least as large is between equals, one case alone
    pairs       that it rests on
    error       standard error, on the log scale
    """

    log: float
    half_width: float
    chance: float
    pairs: int
    error: float

    @property
    def ratio(self) -> float:
        return math.exp(self.log)

    @property
    def interval(self) -> tuple[float, float]:
        return math.exp(self.log - self.half_width), math.exp(self.log + self.half_width)

    def detectable(self, min_effect: float, count: int = 1) -> float:
        """The smallest slowdown that as many pairs find with about probability POWER; 0.03 is 3 %.

        It is looked for in one of `count` cases, and the only one there is.
        """
        freedom = degrees(self.pairs)
        threshold = max(math.log1p(min_effect), stats.t.isf(FALSE_DISCOVERIES / count / 2, freedom) * self.error)
        return math.expm1(threshold + stats.t.ppf(POWER, freedom) * self.error)


def degrees(pairs: int) -> int:
    """Degrees of freedom of the trimmed mean of `pairs` values."""
    return pairs - 2 * int(TRIMMED * pairs) - 1


def estimate(logs: Sequence[float]) -> Estimate | None:
    """The estimate from the pairs' log ratios; None from fewer than three, which have no interval.

    Standard error and degrees of freedom of the trimmed mean: Yuen, Biometrika 61 (1974), 165-170.
    """
    if len(logs) < 3:
        return None
    values = np.sort(logs)
    cut, freedom = int(TRIMMED * len(values)), degrees(len(values))
    winsorized = np.clip(values, values[cut], values[-cut - 1])
    error = float(winsorized.std(ddof=1)) * math.sqrt((len(values) - 1) / (freedom * (freedom + 1)))
    error = max(error, FINEST)
    middle = float(values[cut : len(values) - cut].mean())
    half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return Estimate(middle, half_width, float(2 * stats.t.sf(abs(middle) / error, freedom)), len(values), error)


def one(found: Estimate, chance: float, min_effect: float) -> str:
    """The verdict on a case whose `chance` has been corrected for the number of cases.

    Same: the interval lies inside the smallest effect that matters. Slower or faster: no chance, and that large.
    """
    edge = math.log1p(min_effect)
    if found.pairs < FEWEST:
        return UNDECIDED
    if abs(found.log) + found.half_width < edge:
        return SAME
    if chance < FALSE_DISCOVERIES and abs(found.log) >= edge:
        return SLOWER if found.log > 0 else FASTER
    return UNDECIDED


def judge(found: Mapping[str, Estimate | None], min_effect: float) -> dict[str, str]:
    """The verdict on every case, corrected for how many there are."""
    chances = [known.chance for known in found.values() if known]
    corrected = iter(stats.false_discovery_control(chances).tolist() if chances else [])
    return {name: one(known, next(corrected), min_effect) if known else UNDECIDED for name, known in found.items()}


def decided(found: Estimate | None, count: int, min_effect: float) -> bool:
    """Whether more pairs would not change the verdict on one of `count` cases: the interval is narrow and clear."""
    if not found or found.pairs not in LOOKS:
        return False
    if found.half_width > max(math.log1p(min_effect) / 2, abs(found.log) * COARSE):
        return False
    return one(found, min(1.0, found.chance * count), min_effect) != UNDECIDED
