"""Find the commit that changed a case, between one that is known good and one that is known bad.

What a step does is counted first, which takes seconds a commit and has no noise. Where that is the same the case is
timed: good against one commit after the other, in turns. No single pair decides: each one shifts how likely every
commit is the one, the next is taken where it tells most, and a commit may be visited again. Other figures, as memory,
are searched for with --metric.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from packaging.version import Version
from scipy import stats

from benchmarks.harness import cases
from benchmarks.harness.counters import Counters
from scripts import (
    changes,
    command,
    exact,
    figures,
    git,
    lanes,
    matching,
    pairs,
    rows,
    sides,
    timing,
    upstream,
    verdict,
    workers,
)
from scripts.counting import Counted, Counter, Failure
from scripts.culprit import Evidence, Found, Probe, Skipped, certain, search
from scripts.matching import Match
from scripts.sides import Side
from scripts.timing import Limits, Outcome

SECONDS = "step.Step.track_seconds"

TAILS = 4
"""Degrees of freedom of the noise of a pair, on the log scale: pairs far off are no surprise."""

FINEST = 1 / 20
"""The least scale of that noise, as a part of the difference: a figure that always repeats could not be doubted."""

ATTEMPTS = 2
"""Pairs that must fail before a commit is passed over: one may be bad luck."""

EPILOG = """examples:
  python -m scripts.bisect v1.0 HEAD --case '^compiled/float32/resnet50$'
  python -m scripts.bisect mlx==0.29.0 mlx==0.32.4 --case '^compiled/float32/nested$'
  python -m scripts.bisect --lane mlx v0.30.0 v0.30.1 --case '^split/float32/two_leaves$'
  python -m scripts.bisect 1f6a09c2 main --case windowed/float32/gpt2 --metric memory.Memory.track_peak_bytes

exit codes: 0 found, 1 the two do not differ, 2 error, 3 undecided: the commits that may be it are listed
"""


def by_counters(case: str, change: exact.Change) -> Probe:
    """Counts `case`, and looks at the clearest figure that changed.

    A commit in which it cannot be counted is bad where that is what is looked for, and else no evidence.
    """
    name = clearest(change)

    def probe(commit: str) -> Evidence:
        counted = count(side_of(commit), case)
        if not name:
            return certain(isinstance(counted, Failure))
        value = None if isinstance(counted, Failure) else getattr(counted, name)
        if value is None:
            raise Skipped(counted.message if isinstance(counted, Failure) else f"{name} cannot be counted")
        return certain(is_bad(value, *change.figures[name]))

    return probe


def clearest(change: exact.Change) -> str | None:
    """The figure to look at: one that got worse before one that got better, Python calls last; None of a failure."""
    order = sorted(change.figures, key=lambda name: (name == "calls", not exact.is_worse(*change.figures[name])))
    return order[0] if order else None


def is_bad(value: Any, good: Any, bad: Any) -> bool:
    """Whether a figure without noise is nearer to the bad one: another commit may have changed it a little."""
    return value != good if isinstance(value, str) else abs(value - bad) < abs(value - good)


def by_figure(metric: str, case: str, good: float, bad: float) -> Probe:
    """Measures a figure without noise, once a commit."""

    def probe(commit: str) -> Evidence:
        try:
            return certain(is_bad(figures.figure(side_of(commit), metric, case), good, bad))
        except workers.Lost as lost:
            raise Skipped(str(lost)) from lost

    return probe


def by_pairs(good: Side, metric: str, case: str, logs: Sequence[float]) -> Probe:
    """Takes a pair of the good commit and another; `logs` are those of the good one and the bad one."""
    size = float(stats.trim_mean(logs, verdict.TRIMMED))
    centred = np.array(logs) - np.median(logs)
    scale = max(changes.deviation(centred), FINEST * abs(size))

    def probe(commit: str) -> Evidence:
        side, reasons = side_of(commit), [""]
        for _ in range(ATTEMPTS):
            try:
                log = figures.pair((good, side), metric, case).log
            except pairs.Failed as failed:
                reasons = failed.reasons
            else:
                return Evidence(*(float(stats.t.logpdf(log, TAILS, loc=level, scale=scale)) for level in (size, 0.0)))
        raise Skipped(next(filter(None, reversed(reasons))))

    return probe


def side_of(commit: str) -> Side:
    """Raises Skipped."""
    try:
        return sides.resolve(commit)
    except command.UserError as error:
        raise Skipped(str(error)) from error


def count(side: Side, case: str) -> Counted:
    """The counters of `case`; a Failure of a side that does not even start."""
    try:
        with Counter(side) as counter:
            return counter.count(case)
    except command.UserError as error:
        return Failure(str(error))


def candidates(good: Side, bad: Side, variant: str, lane: Path = lanes.ADAMW) -> list[str]:
    """The sides after the good one, up to the bad one, that may change what `variant` runs, the oldest first.

    MLX's releases all may; in its own lane its commits are searched where no release lies between. A commit that leaves
    the variant's code as it was cannot; one that cannot be had may.
    """
    if not good.commit:
        between = releases(good, bad)
        in_own_lane = lane.name == lanes.MLX.name
        return between if len(between) > 1 or not in_own_lane else upstream.between(good.name, bad.name)
    found, last = [], good
    for name in commits(good, bad):
        try:
            side = sides.resolve(name)
        except command.UserError:
            found.append(name)
            continue
        if not sides.same(last, side, (variant, variant)):
            found.append(name)
            last = side
    return found


def releases(good: Side, bad: Side) -> list[str]:
    """MLX's releases after the good one, up to the bad one; none unless both are releases."""
    if not all(side.name.startswith(sides.RELEASE) for side in (good, bad)):
        return []
    low, high = Version(good.mlx), Version(bad.mlx)
    return [f"{sides.RELEASE}{release}" for release in upstream.releases() if low < Version(release) <= high]


def commits(good: Side, bad: Side) -> list[str]:
    """The commits after the good one, up to the bad one, that touch what a side runs, the oldest first."""
    asked = f"{good.commit}..{bad.commit}"
    return git.output("rev-list", "--first-parent", "--reverse", asked, "--", *sides.PATHS).splitlines()


class Difference(NamedTuple):
    """What tells bad from good: a case, in words by how much, and how a commit is asked which it is."""

    case: str
    told: str
    probe: Probe


def difference(good: Side, bad: Side, options: argparse.Namespace) -> Difference | None:
    """The clearest difference between the two; None if there is none. Raises UserError, or NothingFound."""
    with Counter(good) as base, Counter(bad) as head:
        found = matching.matches((good, bad), [base.variants, head.variants], options.profile, options.case)
        wanted = [match for match in found if match.both and not match.same_code(good, bad)]
        if not wanted:
            raise NothingFound("no commit between the two changes what these cases run; nothing was measured", 1)
        if options.metric:
            return of_metric(good, bad, options.metric, wanted, options)
        for match in wanted:
            counted = base.count(match.name), head.count(match.name)
            change = exact.change(match, *counted)
            if change and isinstance(counted[0], Counters):
                return Difference(match.name, change.told, by_counters(match.name, change))
    return by_time(good, bad, wanted, options)


def of_metric(
    good: Side, bad: Side, metric: str, wanted: list[Match], options: argparse.Namespace
) -> Difference | None:
    """The difference in one figure of the one case that is asked for."""
    if len(wanted) > 1:
        raise command.UserError(f"--case {options.case!r} finds {len(wanted)} cases; with --metric name one")
    case = wanted[0].name
    try:
        if figures.exact(metric):
            old, new = (figures.figure(side, metric, case) for side in (good, bad))
            told = f"{metric} {new:g}, was {old:g}"
            return Difference(case, told, by_figure(metric, case, old, new)) if old != new else None
        outcome = figures.measured((good, bad), metric, case, Limits(options.budget / 2, options.min_effect))
    except (workers.Lost, pairs.Failed) as error:
        raise command.UserError(f"{case}: {error}") from error
    return of_outcome(good, metric, case, outcome, options.min_effect)


def by_time(good: Side, bad: Side, wanted: list[Match], options: argparse.Namespace) -> Difference | None:
    """The clearest difference in the seconds of a step."""
    limits = Limits(options.budget / 2 / len(wanted), options.min_effect)
    outcomes = timing.compare((good, bad), wanted, limits)
    failed = [f"{name}: {'; '.join(filter(None, one.reasons))}" for name, one in outcomes.items() if one.failed]
    clear = {name: one for name, one in outcomes.items() if one.estimate}
    if not clear:
        raise command.UserError(failed[0] if failed else "no pair was measured; raise --budget")
    name = min(clear, key=lambda name: clear[name].estimate.chance)  # type: ignore[union-attr]
    return of_outcome(good, SECONDS, name, clear[name], options.min_effect)


def of_outcome(good: Side, metric: str, case: str, outcome: Outcome, min_effect: float) -> Difference | None:
    """The difference that was measured, if it is one; None if both are the same. Raises NothingFound."""
    known = outcome.estimate
    judged = verdict.judge({case: known}, min_effect)[case]
    if judged == verdict.SAME:
        return None
    if not known or judged == verdict.UNDECIDED:
        raise NothingFound(f"{case}: it is not clear that the two differ; raise --budget, or end other programs", 3)
    low, high = known.interval
    told = f"{metric} {known.ratio - 1:+.1%} ({low - 1:+.1%} to {high - 1:+.1%})"
    return Difference(case, told, by_pairs(good, metric, case, [pair.log for pair in outcome.pairs]))


class NothingFound(Exception):
    """There is nothing to search for, or it is not known that there is; the message says why."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("good", metavar="GOOD", help="a commit before the change, or an MLX release")
    parser.add_argument("bad", metavar="BAD", help="one after it")
    parser.add_argument("--case", required=True, metavar="REGEX", help="the cases whose name it finds")
    lanes.add_argument(parser)
    parser.add_argument("--metric", metavar="M", help="asv's name of a figure; default: the counters, else the seconds")
    parser.add_argument("--profile", choices=cases.PROFILES, default="default", help="default: default")
    parser.add_argument(
        "--budget", type=command.positive, default=900.0, metavar="S", help="seconds to measure; default: 900"
    )
    parser.add_argument(
        "--min-effect", type=command.positive, default=0.02, metavar="E", help="as of scripts.compare; default: 0.02"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = command.console()
    names = [sides.in_lane(options.lane, name) for name in (options.good, options.bad)]
    if len({name.startswith((sides.RELEASE, sides.UPSTREAM)) for name in names}) > 1:
        raise command.UserError("one is a release of MLX and the other is not; name two commits, or two releases")
    if options.metric:
        figures.check(options.metric)
    good, bad = (sides.resolve(name) for name in names)
    check_order(good, bad)
    until = time.monotonic() + options.budget
    try:
        with command.busy(f"how {options.good} and {options.bad} differ; seconds if the counters tell, else minutes"):
            differs = difference(good, bad, options)
    except NothingFound as error:
        console.print(str(error), markup=False, highlight=False)
        return error.code
    if not differs:
        console.print(
            f"{options.good} and {options.bad} do not differ in {options.case}", markup=False, highlight=False
        )
        return 1
    console.print(f"{differs.case}: {differs.told}", markup=False, highlight=False)
    names = candidates(good, bad, differs.case.partition("/")[0], options.lane)
    if not names:
        console.print("no commit between the two touches what a step runs", markup=False, highlight=False)
        return 3
    with command.busy(f"which of {many(names)} it is; at most {rows.duration(options.budget)} in all"):
        found = search(names, differs.probe, until)
    for line in described(names, found):
        console.print(line, markup=False, highlight=False)
    return 0 if len(found.likely) == 1 else 3


def check_order(good: Side, bad: Side) -> None:
    """Raise UserError unless both are commits, or both releases of MLX, and the good one is the older one."""
    if all(side.name.startswith(sides.RELEASE) for side in (good, bad)):
        if Version(good.mlx) >= Version(bad.mlx):
            raise command.UserError(f"{good.name} is not older than {bad.name}; name the older one first")
        return
    if all(side.name.startswith((sides.RELEASE, sides.UPSTREAM)) for side in (good, bad)):
        if not upstream.is_older(good.name, bad.name):
            raise command.UserError(f"{good.name} is not older than {bad.name}; name the older one first")
        return
    for side in (good, bad):
        if not side.commit:
            raise command.UserError(f"{side.name} is no commit; bisect searches between two commits, or two releases")
    if good.commit == bad.commit:
        raise command.UserError(f"{good.name} and {bad.name} are the same commit; name one before the change")
    if not git.is_ancestor(str(good.commit), str(bad.commit)):
        raise command.UserError(f"{good.name} is no ancestor of {bad.name}{git.shallow()}; name the older one first")


def described(commits: Sequence[str], found: Found) -> list[str]:
    """Which commit it is, or may be, how surely, and what could not be measured, in lines."""
    likely, visited = found.likely, sum(count > 0 for count in found.visits)
    lines = [f"{called(commits[number])}: {found.chances[number]:.1%} likely" for number in likely]
    if len(likely) > 1:
        these = many([commits[number] for number in likely])
        lines.insert(0, f"one of these {these}; raise --budget for fewer, where they can be measured:")
    lines.append(f"{many(commits)} may change what it runs; {visited} were measured, {sum(found.visits)} times in all")
    skipped = ((commits[number], reason) for number, reason in found.skipped.items())
    return [*lines, *(f"skipped {called(commit)}: {reason}" for commit, reason in skipped)]


def many(names: Sequence[str]) -> str:
    """How many commits, or releases."""
    what = "release" if names[0].startswith(sides.RELEASE) else "commit"
    return f"{len(names)} {what}{'s' * (len(names) > 1)}"


def called(side: str) -> str:
    """A release, or a commit's hash and the first line of its message: somebody's text, made printable and short."""
    if side.startswith(sides.RELEASE):
        return side
    if side.startswith(sides.UPSTREAM):
        return upstream.described(side)
    return f"{side[:10]} {command.one_line(git.subject(side))[:60]}"


if __name__ == "__main__":
    sys.exit(command.run(main))
