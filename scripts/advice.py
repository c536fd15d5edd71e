"""Which of the tried variants to use, and why. Judges figures; measures nothing."""

import statistics
from typing import NamedTuple

from rich.filesize import decimal

from benchmarks.harness.trial import Trial

NOISE = 0.03
"""Two figures closer than this are taken for the same."""

STOCHASTIC = 2
"""Half units in the last place by which stochastic rounding may be off, where rounding to nearest is by one."""

NOT_ADAMW, INEXACT, OVER_LIMIT = "not AdamW", "inexact", "over the limit"


class Row(NamedTuple):
    """A variant in a precision: its trial, or the reason why there is none. `resident` is the ideal's bytes."""

    variant: str
    precision: str
    resident: int = 0
    trial: Trial | None = None
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.variant} ({self.precision})"


class Tried(NamedTuple):
    """The figures of a trial by which it is judged: seconds a step with their quartiles, bytes at the peak."""

    row: Row
    lower: float
    median: float
    upper: float
    peak: int


class Terms(NamedTuple):
    """What a variant must keep to be recommended: the largest error, and the most bytes, if there is a limit."""

    tolerance: float
    memory_limit: float | None = None


def tried(row: Row) -> Tried:
    assert row.trial
    lower, median, upper = statistics.quantiles(row.trial.step.seconds, n=4, method="inclusive")
    return Tried(row, lower, median, upper, row.trial.memory.peak)


def objection(trial: Trial, terms: Terms) -> str:
    """Why the variant of `trial` is not recommended however fast it is, in a word or two; empty if nothing speaks
    against it."""
    if trial.behaviour.faults:
        return NOT_ADAMW
    if trial.error > STOCHASTIC * terms.tolerance:
        return INEXACT
    if terms.memory_limit is not None and trial.memory.peak > terms.memory_limit:
        return OVER_LIMIT
    return ""


def candidates(rows: list[Row], terms: Terms) -> list[Tried]:
    """What can be recommended, the fastest first."""
    fitting = [tried(row) for row in rows if row.trial and not objection(row.trial, terms)]
    return sorted(fitting, key=lambda one: one.median)


def as_fast(one: Tried, fastest: Tried) -> bool:
    """Whether noise could make the difference: the medians are close, or the middle halves of the samples overlap."""
    return one.median <= fastest.median * (1 + NOISE) or one.lower <= fastest.upper


def choose(found: list[Tried]) -> Tried | None:
    """Of the `candidates` those as fast as the fastest; of them those of the least memory; of them the fastest."""
    if not found:
        return None
    fast = [one for one in found if as_fast(one, found[0])]
    least = min(one.peak for one in fast)
    return next(one for one in fast if one.peak <= least * (1 + NOISE))


def why(chosen: Tried, found: list[Tried]) -> str:
    """Why `chosen`, against the runner-up: the fastest other candidate."""
    others = [one for one in found if one is not chosen]
    if not others:
        return "Of what could be measured it is the only one to recommend."
    other = others[0]
    if chosen is found[0]:
        first = "It is the fastest."
    else:
        first = f"It is as fast as {other.row}, within the noise, and needs less memory."
    return f"{first} {other.row} {compared(other, chosen)}."


def compared(other: Tried, chosen: Tried) -> str:
    """`other` told by how it differs: `is 4 % slower and peaks 1.3 GB lower`."""
    ratio, bytes_more = other.median / chosen.median, other.peak - chosen.peak
    faster, slower = as_fast(chosen, other), as_fast(other, chosen)
    if faster and slower:
        speed = "is as fast, within the noise,"
    elif ratio > 2:
        speed = f"takes {ratio:.1f} times as long"
    else:
        speed = f"is {abs(ratio - 1):.0%} {'slower' if ratio > 1 else 'faster'}"
    if abs(bytes_more) <= NOISE * chosen.peak:
        return f"{speed} and peaks at as much memory"
    return f"{speed} and peaks {decimal(abs(bytes_more))} {'higher' if bytes_more > 0 else 'lower'}"


def why_none(rows: list[Row], terms: Terms) -> str:
    """Why nothing can be recommended, and what to do."""
    trials = [row.trial for row in rows if row.trial]
    if not trials:
        return f"nothing could be measured: {rows[0].reason}"
    large = [one.memory.peak for one in trials if objection(one, terms) == OVER_LIMIT]
    if large:
        return f"nothing that is accurate keeps the memory limit; the least it takes is {decimal(min(large))}"
    return "none is AdamW in these dtypes, see the notes; try --dtype float32"
