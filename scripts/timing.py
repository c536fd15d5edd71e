"""Times two sides until every match is decided or its seconds are spent."""

import random
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import psutil

from benchmarks.harness.cases import Case
from scripts import pairs, verdict
from scripts.matching import Match
from scripts.pairs import Contestant, Pair
from scripts.sides import Side


class Limits(NamedTuple):
    """When to stop.

    budget      seconds that a match may take
    min_effect  the smallest difference that matters; 0.02 is 2 %
    """

    budget: float
    min_effect: float


class Outcome:
    """What is known of a match so far."""

    def __init__(self) -> None:
        self.pairs: list[Pair] = []
        self.spent = 0.0
        self.ended = False
        """Whether no further pair can be had, although others could."""
        self.lost = 0
        """Pairs that failed, after others that did not: a process may be killed for another's sake."""
        self.reasons = ["", ""]
        """Why the base, and the head, cannot be timed; empty for one that can."""

    @property
    def failed(self) -> bool:
        return any(self.reasons)

    @property
    def estimate(self) -> verdict.Estimate | None:
        return verdict.estimate([pair.log for pair in self.pairs])

    @property
    def milliseconds(self) -> tuple[float, float] | None:
        """Of a step of the base and of the head: medians over the pairs."""
        if not self.pairs:
            return None
        base, head = (statistics.median(pair.seconds[side] for pair in self.pairs) * 1e3 for side in (0, 1))
        return base, head

    @property
    def disturbed(self) -> float:
        """The share of the rounds in which another process held a core."""
        marked = sum(pair.disturbed for pair in self.pairs)
        return marked / max(1, sum(pair.taken for pair in self.pairs))

    def finished(self, limits: Limits, matches: int) -> bool:
        """Whether no further pair is needed, or would still fit the budget, with as many `matches` to judge."""
        if self.failed or self.ended or verdict.decided(self.estimate, matches, limits.min_effect):
            return True
        return self.spent + self.spent / max(1, len(self.pairs)) > limits.budget


def compare(
    sides: tuple[Side, Side],
    wanted: list[Match],
    limits: Limits,
    show: Callable[[dict[str, Outcome]], None] = lambda outcomes: None,
) -> dict[str, Outcome]:
    """The outcome of every match, each of which both sides must have. `show` is called after every pair.

    A pair of every open match in turn, in random order, so that all of them see all of the machine's moods.
    """
    outcomes = {match.name: Outcome() for match in wanted}
    still_open = list(wanted)
    while still_open:
        for match in random.sample(still_open, len(still_open)):
            advance(sides, match, outcomes[match.name], limits)
            show(outcomes)
        still_open = [match for match in still_open if not outcomes[match.name].finished(limits, len(wanted))]
    return outcomes


def advance(sides: tuple[Side, Side], match: Match, outcome: Outcome, limits: Limits) -> None:
    """Take one more pair of processes, or note why there can be none."""
    assert match.both
    begin = time.monotonic()
    if reason := too_large(match.both):
        outcome.ended = bool(outcome.pairs)
        outcome.reasons = ["", ""] if outcome.ended else [reason, reason]
        return
    contestants = [Contestant.of(sides[number], str(match.both[number]), number) for number in (0, 1)]
    try:
        timeout, seconds = max(pairs.TIMEOUT, limits.budget), pairs.balance(outcome.pairs)
        session = pairs.run(contestants, check=not outcome.pairs, timeout=timeout, seconds=seconds)
        outcome.pairs.append(pairs.pair(session))
    except pairs.Failed as failed:
        outcome.lost += 1
        if not outcome.pairs or outcome.lost > 1:
            outcome.reasons = failed.reasons
    outcome.spent += time.monotonic() - begin


def too_large(cases: tuple[Case, Case]) -> str:
    """Why both cases do not fit the memory at the same time; empty if they do."""
    needed, free = sum(case.needed_bytes for case in cases), psutil.virtual_memory().available
    return f"both sides need {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free" if needed > free else ""
