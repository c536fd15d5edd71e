"""How often the search of the history is wrong, and what it finds: on series whose truth is known.

Each has one step, or none. What is suspected is confirmed by the rules of `scripts.compare`, on pairs of runs that are
as noisy as the nights were. With --others asv's own detector looks at such series too, and ruptures' and Otava's where
they are installed.
"""

import argparse
import importlib.util
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from asv import step_detect
from rich.progress import track
from rich.table import Table

from scripts import changes, command, figures, verdict
from scripts.changes import Change, Values

POINTS, STEP_AT = 60, 40
NEAR = 3
"""How far from the truth a step may be found."""

OUTLIERS, FAR = 0.05, 0.30
"""The share of the points that are off in the noise with heavy tails, and by how much."""

RHO = 0.5
"""The autocorrelation of the noise with a memory."""

Random = np.random.Generator
Detector = Callable[[Values], list[int]]
Noise = Callable[[Random, float, int], Values]

EPILOG = """examples:
  python -m scripts.simulate                      1000 series a cell, a few minutes
  python -m scripts.simulate --series 100 --seed 7

exit codes: 0 done, 2 error, 130 interrupted
"""


def normal(random: Random, sigma: float, count: int) -> Values:
    return random.normal(0, sigma, count)


def heavy(random: Random, sigma: float, count: int) -> Values:
    """One point in twenty is far too slow."""
    return normal(random, sigma, count) + FAR * (random.random(count) < OUTLIERS)


def lasting(random: Random, sigma: float, count: int) -> Values:
    """Noise that stays for a while, of standard deviation `sigma` in all: AR(1)."""
    fresh = random.normal(0, sigma * math.sqrt(1 - RHO**2), count)
    fresh[0] = random.normal(0, sigma)
    for number in range(1, count):
        fresh[number] += RHO * fresh[number - 1]
    return fresh


class Model(NamedTuple):
    """A kind of noise: of the nights, and of the runs of a confirmation, where both sides share what lasts."""

    name: str
    nights: Noise
    runs: Noise


MODELS = (Model("normal", normal, normal), Model("heavy tails", heavy, heavy), Model("AR(1)", lasting, normal))
SIGMAS, STEPS, NEWEST = (0.01, 0.02, 0.05), (0.02, 0.05), 0.10


class Cell(NamedTuple):
    """What came of `total` series of one kind.

    suspected      that have a step suspected near the true one; without a step, anywhere
    confirmed      of those, the ones that were confirmed
    confirmations  in all
    pairs          of runs that they took
    """

    total: int
    suspected: int
    confirmed: int
    confirmations: int
    pairs: int


def series(
    model: Model, sigma: float, step: float, options: argparse.Namespace, first: int = STEP_AT
) -> Iterator[Values]:
    """The logs of POINTS nights, slower by `step` from `first` on; whatever the step, the same noise."""
    random = np.random.default_rng([options.seed, MODELS.index(model), SIGMAS.index(sigma)])
    for _ in range(options.series):
        noise = np.log(np.maximum(0.1, 1 + model.nights(random, sigma, POINTS)))
        yield noise + math.log1p(step) * (np.arange(POINTS) >= first)


def cell(model: Model, sigma: float, step: float, options: argparse.Namespace) -> Cell:
    random = np.random.default_rng([options.seed, MODELS.index(model), SIGMAS.index(sigma), 1])
    suspected = confirmed = confirmations = pairs = 0
    for values in series(model, sigma, step, options):
        near = sure = False
        for change in changes.changes(values):
            right = change.size > 0 and (not step or abs(change.first - STEP_AT) <= NEAR)
            taken, same = confirmation(model, sigma, change, step, STEP_AT, random)
            confirmations, pairs = confirmations + 1, pairs + taken
            near |= right
            sure |= right and same if step else same
        suspected, confirmed = suspected + near, confirmed + sure
    return Cell(options.series, suspected, confirmed, confirmations, pairs)


def confirmation(
    model: Model, sigma: float, change: Change, step: float, first: int, random: Random
) -> tuple[int, bool]:
    """How many pairs of runs were taken, and whether they say what the history says."""
    good, bad = change.around(POINTS)
    truth = math.log1p(step) if good < first <= bad else 0.0
    least = changes.least(change.size)
    logs: list[float] = []
    for _ in range(figures.MOST_PAIRS):
        base, head = np.log(np.maximum(0.1, 1 + model.runs(random, sigma, 2)))
        logs.append(truth + head - base)
        if len(logs) in verdict.LOOKS and verdict.decided(verdict.estimate(logs), 1, least):
            break
    (judged,) = verdict.judge({"": verdict.estimate(logs)}, least).values()
    return len(logs), judged == (verdict.SLOWER if change.size > 0 else verdict.FASTER)


def others() -> Iterator[tuple[str, Detector]]:
    """Detectors to compare with: their names, and what gives the upward steps that they see in the logs of a series."""
    yield "asv", by_asv
    if importlib.util.find_spec("ruptures"):
        yield "ruptures (PELT, l1)", by_ruptures
    if importlib.util.find_spec("otava"):
        yield "Otava", by_otava


def upwards(values: Values, firsts: list[int]) -> list[int]:
    bounds = [0, *firsts, len(values)]
    levels = [np.median(values[start:end]) for start, end in itertools.pairwise(bounds)]
    return [first for first, (old, new) in zip(firsts, itertools.pairwise(levels), strict=True) if new > old]


def by_asv(values: Values) -> list[int]:
    return upwards(values, [left for left, *_ in step_detect.detect_steps(np.exp(values).tolist())][1:])


def by_ruptures(values: Values) -> list[int]:
    import ruptures

    scale = changes.deviation(np.diff(values)) / math.sqrt(2)
    found = ruptures.Pelt(model="l1", min_size=3, jump=1).fit(values / scale).predict(pen=2 * math.log(len(values)))
    return upwards(values, found[:-1])


def by_otava(values: Values) -> list[int]:
    from otava.analysis import compute_change_points

    found, _ = compute_change_points(np.exp(values).tolist())
    return upwards(values, [one.index for one in found])


def other(sees: Detector, model: Model, sigma: float, step: float, options: argparse.Namespace) -> float:
    """In which share of the series a detector sees the step, or without one sees any."""
    seen = (sees(values) for values in series(model, sigma, step, options))
    return sum(any(not step or abs(first - STEP_AT) <= NEAR for first in firsts) for firsts in seen) / options.series


def newest(model: Model, sigma: float, step: float, options: argparse.Namespace) -> tuple[float, float]:
    """In which share of the series a step in the last point is suspected at once, and confirmed."""
    random = np.random.default_rng([options.seed, MODELS.index(model), SIGMAS.index(sigma), 2])
    last = POINTS - 1
    found = [
        confirmation(model, sigma, change, step, last, random)[1]
        for values in series(model, sigma, step, options, last)
        for change in changes.changes(values)
        if change.first == last
    ]
    return len(found) / options.series, sum(found) / options.series


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("--series", type=int, default=1000, metavar="N", help="a cell; default: 1000")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="default: 1")
    parser.add_argument("--others", action="store_true", help="also what other detectors see")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.series < 1:
        raise command.UserError("--series must be 1 or more")
    console = command.console()
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    shown.add_column("noise", no_wrap=True)
    for heading in ("flat", "confir-\nmations", "pairs", *(f"+{step:.0%}" for step in STEPS), "newest"):
        shown.add_column(heading, justify="right", no_wrap=True)
    kinds = [(model, sigma) for model in MODELS for sigma in SIGMAS]
    progress = command.console(stderr=True)
    for kind in track(kinds, "simulating", console=progress, transient=True, disable=not progress.is_interactive):
        shown.add_row(*ours(*kind, options))
        for name, sees in others() if options.others else ():
            shown.add_row(f"  {name}", *theirs(sees, *kind, options))
    console.print(shown)
    for line in (
        "",
        f"{options.series} series of {POINTS} points a cell, seed {options.seed}; a step at {STEP_AT} counts if found",
        f"within {NEAR}. % of the series: suspected, then confirmed. flat: without a step, and what confirmations",
        f"a series costs, of how many pairs of runs. newest: with +{NEWEST:.0%} in the last point alone.",
    ):
        console.print(line, markup=False, highlight=False)
    return 0


def ours(model: Model, sigma: float, options: argparse.Namespace) -> list[str]:
    """A line of the table."""
    flat = cell(model, sigma, 0.0, options)
    stepped = [cell(model, sigma, step, options) for step in STEPS]
    suspected, confirmed = newest(model, sigma, NEWEST, options)
    return [
        f"{model.name}, {sigma:.0%}",
        f"{flat.suspected / flat.total:.1%}  {flat.confirmed / flat.total:.2%}",
        f"{flat.confirmations / flat.total:.3f}",
        f"{flat.pairs / flat.total:.1f}",
        *(f"{one.suspected / one.total:.1%}  {one.confirmed / one.total:.1%}" for one in stepped),
        f"{suspected:.1%}  {confirmed:.1%}",
    ]


def theirs(sees: Detector, model: Model, sigma: float, options: argparse.Namespace) -> list[str]:
    """A line of another detector, which confirms nothing."""
    seen = [f"{other(sees, model, sigma, step, options):.1%}" for step in (0.0, *STEPS)]
    return [seen[0], "", "", *seen[1:], ""]


if __name__ == "__main__":
    sys.exit(command.run(main))
