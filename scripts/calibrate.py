"""Measure the comparison itself on this machine: how often it is wrong about equals, and what slowdowns it finds.

Fresh pairs of processes run the same case, both without and with several amounts of extra arithmetic after each step.
All of these take turns, so that from one stream of pairs comparisons of equals and of every slowdown can be held by the
rules of `scripts.compare`, on what this machine really did. The same seconds are judged by `asv continuous`'s rule and
by pyperf's as well, which measure one side after the other.
"""

import argparse
import contextlib
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from asv.commands.compare import _is_result_better
from asv_runner.statistics import compute_stats
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from scipy import stats

from benchmarks.harness import machine
from scripts import command, git, lines, machines, pairs, rows, sides, verdict, workers
from scripts.lines import Count, Entry, Size, Text
from scripts.pairs import Contestant, Kind, Pair, Session
from scripts.timing import Limits, Outcome

EFFECTS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.10)
"""Slowdowns that are aimed at: none is A against A."""

ASV_FACTORS = (1.05, 1.1)
"""`asv continuous --factor`: the one that most use, and its default."""

PYPERF = 0.05
"""The chance at which pyperf calls a difference significant."""

STRIDE = 5
"""Pairs from the beginning of one comparison to that of the next: most overlap, so fewer are independent."""

PROBES = 6
"""Sessions from which the amount of extra arithmetic is found."""

PROBE = 20_000
"""Multiplications of a small array in a probe's slowed turns: tens of milliseconds."""

FILE = "calibration.jsonl"

EPILOG = """examples:
  python -m scripts.calibrate                              half an hour; leave the machine alone
  python -m scripts.calibrate --minutes 10 --hog           with a process that keeps a core busy

exit codes: 0 measured and saved, 2 error, 130 interrupted
"""


class Stream(NamedTuple):
    """Pairs of processes one after the other, each process slowed by each of EFFECTS in turn.

    A process that took more turns than the other would not be its equal.

    extras  how much arithmetic the EFFECTS are
    """

    sessions: list[Session]
    extras: list[int]


def kind(process: int, effect: int) -> int:
    """The number among a session's kinds of `process` slowed by EFFECTS[effect]."""
    return process * len(EFFECTS) + effect


def spent(session: Session) -> float:
    """Seconds that a pair of processes would have taken in which only two kinds take turns."""
    return session.starting + session.running / len(EFFECTS)


def contests(effect: int) -> list[tuple[int, int]]:
    """The kinds to compare, base and head, for a slowdown of EFFECTS[effect]; each process is the base in turn.

    Equals are two processes that are slowed by the same, whatever that is.
    """
    if not EFFECTS[effect]:
        return [(kind(0, each), kind(1, each)) for each in range(len(EFFECTS))]
    return [(kind(0, 0), kind(1, effect)), (kind(1, 0), kind(0, effect))]


class Found(NamedTuple):
    """What comparisons of the head slowed by `aimed` found.

    slowdown   the true one: that of the slowed turns beside the unslowed ones of the same processes, all pairs together
    separate   how many of the comparisons have no process in common
    verdicts   how many comparisons came to which verdict
    seconds    median seconds that a comparison took
    holds      share of the 95 % intervals that hold the true slowdown
    asv        comparisons in which `asv continuous` reports a regression, by its factor
    pyperf     comparisons in which pyperf reports a slower head
    """

    aimed: float
    slowdown: float
    comparisons: int
    separate: int
    verdicts: dict[str, int]
    seconds: float
    holds: float
    asv: dict[str, int]
    pyperf: int


def collect(contestants: Sequence[Contestant], seconds: float, progress: Any = lambda spent: None) -> Stream:
    """Pairs for `seconds`. Raises pairs.Failed."""
    extras = amounts(contestants)
    kinds = [Kind(process, extra) for process in (0, 1) for extra in extras]
    sessions: list[Session] = []
    known: list[Pair] = []
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        sessions.append(pairs.run(contestants, kinds, seconds=pairs.balance(known)))
        known.append(pairs.pair(sessions[-1], *contests(0)[0]))
        progress(time.monotonic() - begin)
    return Stream(sessions, extras)


def amounts(contestants: Sequence[Contestant]) -> list[int]:
    """How much extra arithmetic is how much of a step: for each of EFFECTS."""
    step, slowed = [], []
    for number in range(PROBES):
        for turns in pairs.run(contestants, [Kind(1), Kind(1, PROBE)], check=number == 0).rounds:
            step.append(turns[0].seconds)
            slowed.append(turns[1].seconds)
    one = statistics.median(more - less for less, more in zip(step, slowed, strict=True)) / PROBE
    if one <= 0:
        raise command.UserError(
            "a step takes so long, or varies so much, that extra arithmetic does not show; take a shorter case"
        )
    return [round(effect * statistics.median(step) / one) for effect in EFFECTS]


def evaluate(stream: Stream, limits: Limits) -> list[Found]:
    return [evaluate_one(stream, number, limits) for number in range(len(EFFECTS))]


def evaluate_one(stream: Stream, effect: int, limits: Limits) -> Found:
    """Hold as many comparisons of EFFECTS[effect] as the stream has pairs for."""
    slowdown = true_slowdown(stream, effect)
    verdicts = dict.fromkeys((verdict.SLOWER, verdict.SAME, verdict.UNDECIDED, verdict.FASTER), 0)
    asv, pyperf = dict.fromkeys(map(str, ASV_FACTORS), 0), 0
    seconds, holds, separate = [], 0, 0
    for number, contest in enumerate(contests(effect)):
        end = 0
        for start, sessions, outcome in comparisons(stream, *contest, limits):
            known = outcome.estimate
            assert known
            verdicts[verdict.judge({"": known}, limits.min_effect)[""]] += 1
            holds += abs(known.log - slowdown) <= known.half_width
            seconds.append(outcome.spent)
            base, head = in_sequence(sessions, *contest)
            for factor in ASV_FACTORS:
                asv[str(factor)] += asv_reports(base, head, factor)
            pyperf += pyperf_reports(base, head)
            if number == 0 and start >= end:  # all contests are between the same processes
                separate, end = separate + 1, start + len(sessions)
    count = len(seconds)
    if not count:
        raise command.UserError("too few pairs for one comparison; give it more --minutes, or a smaller --budget")
    share, median = holds / count, statistics.median(seconds)
    return Found(EFFECTS[effect], math.expm1(slowdown), count, separate, verdicts, median, share, asv, pyperf)


def true_slowdown(stream: Stream, effect: int) -> float:
    """On the log scale, of all pairs: within the processes, so that nothing but the extra arithmetic differs."""
    if not EFFECTS[effect]:
        return 0.0
    logs = [pairs.pair(one, kind(each, 0), kind(each, effect)).log for one in stream.sessions for each in (0, 1)]
    return float(stats.trim_mean(logs, verdict.TRIMMED))


def comparisons(stream: Stream, base: int, head: int, limits: Limits) -> Iterator[tuple[int, list[Session], Outcome]]:
    """Comparisons of two kinds, begun with every STRIDE-th pair: its number, the sessions used, and what came out."""
    found = [pairs.pair(session, base, head) for session in stream.sessions]
    for start in range(0, len(found), STRIDE):
        outcome = Outcome()
        for number in range(start, len(found)):
            outcome.pairs.append(found[number])
            outcome.spent += spent(stream.sessions[number])
            if outcome.finished(limits, 1):
                if outcome.estimate:
                    yield start, stream.sessions[start : number + 1], outcome
                break


def in_sequence(sessions: list[Session], base: int, head: int) -> tuple[list[float], list[float]]:
    """The samples of both sides, had they been measured one after the other: the base's from the first half."""
    half = len(sessions) // 2
    before = [turns[base].seconds for session in sessions[:half] for turns in session.rounds]
    after = [turns[head].seconds for session in sessions[half:] for turns in session.rounds]
    return before, after


def asv_reports(base: list[float], head: list[float], factor: float) -> bool:
    """Whether `asv continuous` calls the head worse: asv's own test."""
    (old, old_stats), (new, new_stats) = compute_stats(base, 1), compute_stats(head, 1)
    return bool(_is_result_better(old, new, (old_stats, base), (new_stats, head), factor))


def pyperf_reports(base: list[float], head: list[float]) -> bool:
    """Whether the means differ by Welch's test at pyperf's level, and the head's is larger."""
    test = stats.ttest_ind(head, base, equal_var=False)
    return bool(test.pvalue < PYPERF and test.statistic > 0)


def table(found: list[Found]) -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    of_compare = ("\nslower", "\nsame", "un-\ndecided", "\nfaster", "\nseconds", "interval\nholds it")
    others = [*(f"asv\n{factor}" for factor in ASV_FACTORS), "\npyperf"]
    headings = ("\nslowdown", "compari-\nsons", "sepa-\nrate", *of_compare, *others)
    for heading in headings:
        shown.add_column(heading, justify="right", no_wrap=True)
    for one in found:
        counts = [one.verdicts[word] for word in (verdict.SLOWER, verdict.SAME, verdict.UNDECIDED, verdict.FASTER)]
        reports = [*one.asv.values(), one.pyperf]
        shown.add_row(
            f"{one.slowdown:.1%}" if one.aimed else "none",
            str(one.comparisons),
            str(one.separate),
            *(f"{count / one.comparisons:.1%}" if count else "0" for count in counts),
            f"{one.seconds:.0f}",
            f"{one.holds:.1%}",
            *(f"{count / one.comparisons:.0%}" for count in reports),
        )
    return shown


@contextlib.contextmanager
def hog() -> Iterator[None]:
    """A process that keeps one core busy."""
    program = f"import os\nwhile os.getppid() == {os.getpid()}: pass"  # it ends with this process, however that ends
    busy = subprocess.Popen([sys.executable, "-c", program])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("--minutes", type=command.positive, default=30.0, metavar="M", help="default: 30")
    parser.add_argument(
        "--case", default="eager/float32/llama_1b_lora", metavar="NAME", help="default: eager/float32/llama_1b_lora"
    )
    parser.add_argument(
        "--budget", type=command.positive, default=60.0, metavar="S", help="of a comparison; default: 60"
    )
    parser.add_argument("--min-effect", type=command.positive, default=0.02, metavar="E", help="default: 0.02")
    parser.add_argument("--hog", action="store_true", help="keep a core busy meanwhile")
    parser.add_argument("--machine", metavar="NAME", help="asv's name of this machine; default: its host name")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = command.console()
    path = options.results / machines.this(options.machine) / FILE
    limits = Limits(options.budget, options.min_effect)
    side = sides.resolve(".")
    workers.check(side)
    contestants = [Contestant.of(side, options.case, number) for number in (0, 1)]
    with hog() if options.hog else contextlib.nullcontext():
        try:
            stream = collected(contestants, options.minutes * 60, console)
        except pairs.Failed as failed:
            raise command.UserError(f"{options.case}: {failed}") from failed
    found = evaluate(stream, limits)
    entry = {
        "case": options.case,
        "commit": git.find_commit("HEAD"),
        "date": time.strftime("%Y-%m-%d"),
        "hog": options.hog,
        "description": str(machine.identify()),
        "settings": machine.settings(),
        "milliseconds": statistics.median(turns[0].seconds for one in stream.sessions for turns in one.rounds) * 1e3,
        "pairs": len(stream.sessions),
        "extras": stream.extras,
        "found": [one._asdict() for one in found],
        **limits._asdict(),
    }
    console.print(table(found))
    for line in description(entry):
        console.print(line, markup=False, highlight=False)
    lines.add(path, command.present(entry))
    console.print(f"saved: {path}", markup=False, highlight=False)
    return 0


def collected(contestants: Sequence[Contestant], seconds: float, console: Console) -> Stream:
    """The stream, with progress."""
    if not console.is_interactive:
        print(f"calibrating for {rows.duration(seconds)}", file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_interactive) as progress:
        task = progress.add_task(f"calibrating for {rows.duration(seconds)}", total=seconds)
        return collect(contestants, seconds, lambda spent: progress.update(task, completed=spent))


def description(entry: Entry) -> list[str]:
    """What was measured on what, and how to read the table, in lines."""
    return [
        "",
        f"{entry['description']}, mlx {entry['settings']['mlx']}",
        *(["one core kept busy"] if entry["hog"] else []),
        f"{entry['case']}, {entry['milliseconds']:.3g} ms a step, {entry['pairs']} pairs of processes; "
        f"budget {entry['budget']:g} s, effects from {entry['min_effect']:.1%}",
        "separate: comparisons that have no process in common; the rest overlap. asv, pyperf: how often",
        "`asv continuous --factor` and pyperf's test say slower in the same seconds, side after side",
    ]


class Reports(msgspec.Struct):
    """Comparisons that asv calls a regression at the first of ASV_FACTORS."""

    first: Count = msgspec.field(name=str(ASV_FACTORS[0]))


class Verdicts(msgspec.Struct):
    slower: Count
    faster: Count


class Rates(msgspec.Struct):
    """What a calibration says of one slowdown: of a Found what others read."""

    slowdown: Annotated[float, msgspec.Meta(gt=-1, le=1000)]
    comparisons: Size
    separate: Count
    verdicts: Verdicts
    asv: Reports
    pyperf: Count


class Calibration(msgspec.Struct):
    """What a line must say to be read; the first ones did not name their commit."""

    case: Text
    date: Text
    description: Text
    hog: bool
    found: list[Rates]
    commit: Text = ""


def read(path: Path) -> tuple[list[tuple[str, Calibration]], list[str]]:
    """The calibrations in `path`, each with its place, the oldest first, and what is none, in lines."""
    return lines.read(path, lambda place, entry: (place, msgspec.convert(entry, Calibration)))


if __name__ == "__main__":
    sys.exit(command.run(main))
