"""One figure of one case, measured again on two sides: by one fresh process each."""

import importlib
import json
import math
import operator
import random
import tempfile
import time
from collections.abc import Sequence

from scripts import command, pairs, scratch, workers
from scripts.pairs import Contestant, Failed, Pair
from scripts.search import EXACT
from scripts.sides import Side
from scripts.timing import Limits, Outcome

MODULE = "benchmarks.harness.figure"

TIMED = ("track_seconds", "track_times_roofline")
"""Benchmarks of the step's seconds: both sides take turns for them."""

MOST_PAIRS = 160
"""More would take longer than a night has for one question."""

LIMITLESS = 100.0
"""A log that is larger than any ratio's."""

TIMEOUT = 600.0
"""Seconds within which a figure must be measured."""


def measured(sides: tuple[Side, Side], metric: str, case: str, limits: Limits) -> Outcome:
    """Pairs of fresh processes of both sides, until they are enough or the budget is spent.

    One pair may fail after others that did not. Raises pairs.Failed.
    """
    outcome = Outcome()
    while not outcome.finished(limits, 1):
        begin = time.monotonic()
        try:
            outcome.pairs.append(pair(sides, metric, case, outcome.pairs))
        except Failed:
            outcome.lost += 1
            if not outcome.pairs or outcome.lost > 1:
                raise
        outcome.spent += time.monotonic() - begin
        outcome.ended = exact(metric) or len(outcome.pairs) >= MOST_PAIRS
    return outcome


def pair(sides: Sequence[Side], metric: str, case: str, known: Sequence[Pair] = ()) -> Pair:
    """What a fresh process of either side says of `metric`: the log of the head's figure over the base's.

    Of a step's seconds it is that of turns, see scripts.pairs; where no pair is `known` yet, the results are held
    against the reference first. Raises pairs.Failed.
    """
    if timed(metric):
        contestants = [Contestant.of(side, case, number) for number, side in enumerate(sides)]
        return pairs.pair(pairs.run(contestants, check=not known, seconds=pairs.balance(known)))
    values, reasons = [0.0, 0.0], ["", ""]
    for number in random.sample((0, 1), 2):
        try:
            values[number] = figure(sides[number], metric, case)
        except workers.Lost as lost:
            reasons[number] = str(lost)
    if any(reasons):
        raise Failed(reasons)
    base, head = values
    return Pair(ratio(base, head), (base, head), 1, 0)


def ratio(base: float, head: float) -> float:
    """The log of head over base; LIMITLESS of what grows from nothing."""
    if base == head:
        return 0.0
    return math.log(head / base) if min(base, head) > 0 else math.copysign(LIMITLESS, head - base)


def check(metric: str) -> None:
    """Raise UserError unless there is such a benchmark, as asv names it."""
    module, _, name = metric.partition(".")
    try:
        found = operator.attrgetter(name)(importlib.import_module(f"benchmarks.{module}"))
    except (ImportError, AttributeError, TypeError, ValueError):
        found = None
    if not callable(found):
        raise command.UserError(f"no benchmark {metric[:80]!r}; write it as asv does: memory.Memory.track_peak_bytes")


def timed(metric: str) -> bool:
    return metric.rpartition(".")[2] in TIMED


def exact(metric: str) -> bool:
    """Whether one pair says all."""
    return metric.startswith(EXACT)


def figure(side: Side, metric: str, case: str) -> float:
    """What a fresh process of `side` says. Raises workers.Lost."""
    folder = tempfile.TemporaryDirectory(dir=scratch.folder())
    with folder, workers.Worker(side, MODULE, {"TMPDIR": folder.name, "ADAMW_PROFILE": "full"}, folder.name) as worker:
        worker.tell(json.dumps({"metric": metric, "case": case}))
        answer = worker.answer(TIMEOUT)
    if "failed" in answer:
        raise workers.Lost(command.one_line(answer["failed"]))
    return float(answer["value"])
