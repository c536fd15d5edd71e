"""Which of many commits changed something, from measurements that may be noisy, or be impossible."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

SURE = 0.999
"""How likely a commit must be the one."""

TINY = 1e-9
"""A chance that is none: sums of chances are not exact."""


class Skipped(Exception):
    """A commit that cannot be measured; the message says why."""


class Evidence(NamedTuple):
    """What a measurement says of a commit: the log of how likely it is if the commit is bad, and if it is good."""

    bad: float
    good: float


Probe = Callable[[str], Evidence]
"""What says what a measurement of a commit, by its hash, is evidence of. Raises Skipped."""


class Found(NamedTuple):
    """What a search came to.

    chances  of every candidate that it is the one
    skipped  by number, why it could not be measured
    visits   how often every candidate was measured
    """

    chances: list[float]
    skipped: dict[int, str]
    visits: list[int]

    @property
    def likely(self) -> list[int]:
        """The fewest candidates of which one is the one as surely as SURE, the likeliest first."""
        order = np.argsort(self.chances)[::-1]
        enough = int(np.searchsorted(np.cumsum(np.array(self.chances)[order]), SURE)) + 1
        return order[:enough].tolist()


def search(candidates: Sequence[str], probe: Probe, until: float) -> Found:
    """Which of `candidates`, the oldest first, is the first bad one; the last of them is known to be bad.

    Every measurement of one weighs those up to it against those after it (Bayes); the next is the one that halves what
    is left best. Ends when one is sure, nothing is left to ask, or the time is `until`.
    """
    weights = np.zeros(len(candidates))
    skipped: dict[int, str] = {}
    visits = [0] * len(candidates)
    while True:
        chances = np.exp(weights - weights.max())
        chances /= chances.sum()
        before = np.cumsum(chances)[:-1]
        useful = [number for number, half in enumerate(before) if number not in skipped and TINY < half < 1 - TINY]
        if chances.max() >= SURE or not useful or time.monotonic() >= until:
            return Found(chances.tolist(), skipped, visits)
        number = min(useful, key=lambda number: abs(before[number] - 0.5))
        try:
            evidence = probe(candidates[number])
        except Skipped as reason:
            skipped[number] = str(reason)
            continue
        visits[number] += 1
        weights[: number + 1] += evidence.bad
        weights[number + 1 :] += evidence.good


def certain(bad: bool) -> Evidence:
    return Evidence(0.0, -np.inf) if bad else Evidence(-np.inf, 0.0)
