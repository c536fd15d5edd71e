"""Measure MLX's releases on this machine, one after the other, and say what each changed about AdamW.

Every release that the package index has for this machine is counted (exact: what a step does), and five cases of each
are measured: seconds of a step, memory, accuracy. What was measured before is not measured again. Seconds that differ
from one release to the next are only suspected, as they were not measured side by side; --confirm does that.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

from asv.machine import Machine
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.harness import cases
from scripts import (
    command,
    counting,
    exact,
    ledger,
    lines,
    machines,
    measuring,
    rows,
    scratch,
    sides,
    timing,
    upstream,
    workers,
)
from scripts import upstream_history as history
from scripts.counting import Counter, Failure
from scripts.ledger import Entry
from scripts.matching import Match
from scripts.sides import Side
from scripts.timing import Limits
from scripts.upstream_history import Known

CASES = (
    "compiled/float32/resnet50",
    "compiled/float32/thousand_leaves",
    "compiled/bfloat16/two_leaves",
    "eager/float32/resnet50",
    "split/float32/two_leaves",
)
"""What is measured: upstream's AdamW as it is compiled and as it is not, many leaves, half precision, donation."""

MODULE = "benchmarks.harness.record"
TIMEOUT = 600.0
"""Seconds within which a case must be measured."""

LEAST = 0.05
"""The smallest difference of seconds, as a share, that is suspected."""

SMALLEST = 0.02
"""The smallest that matters in a comparison in turns."""

EPILOG = """examples:
  python -m scripts.releases --exact            count all releases: a quarter of an hour on two cores
  python -m scripts.releases --last 3 --confirm 120   and time what is suspected, two minutes a question

exit codes: 0 done, 1 a release or a case could not be measured, 2 error, 130 interrupted: what was measured is kept
"""


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--last", type=int, metavar="N", help="only the newest N releases")
    which.add_argument("--release", action="append", metavar="X", help="only this one; may be given several times")
    parser.add_argument("--exact", action="store_true", help="count, and time nothing")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="processes a case and release; default: 2")
    parser.add_argument(
        "--confirm", type=command.positive, metavar="S", help="then time what is suspected in turns, S seconds each"
    )
    parser.add_argument("--machine", metavar="M", help="asv's name of this machine; default: its host name")
    parser.add_argument("--results", type=Path, default=Path("results/mlx"), metavar="DIR", help="default: results/mlx")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = command.console()
    machine = machines.this(options.machine)
    path = options.results / machine / history.FILE
    wanted = chosen(upstream.releases(), options.last, options.release)
    measuring.check_machine(machine)
    Machine.load(machine_name=machine).save(str(options.results))
    problems = count_all(wanted, path, console)
    if not options.exact:
        problems += measure_all(wanted, path, options.rounds, console)
        if options.confirm:
            problems += compare_all(wanted, path, options.confirm, console)
    known = history.read(path, history.taken())
    told(known, wanted, console)
    for line in [*lines.few(known.problems), *problems]:
        console.print(line, markup=False, highlight=False)
    return int(bool(problems))


def chosen(there: list[str], last: int | None, named: list[str] | None) -> list[str]:
    """The releases that are asked for, the oldest first. Raises UserError."""
    if not there:
        supported = upstream.supported()
        raise command.UserError(
            f"the package index has no release of MLX for this machine that the variants run on, mlx{supported}"
        )
    if last is not None and last < 1:
        raise command.UserError(f"--last {last}: name a number above zero")
    for one in named or ():
        if sides.release(one) not in there:
            raise command.UserError(
                f"mlx {one}: the package index has no such release for this machine; it has: {', '.join(there)}"
            )
    return [one for one in there if one in map(sides.release, named)] if named else there[-(last or 0) :]


def count_all(wanted: Sequence[str], path: Path, console: Console) -> list[str]:
    """Count the cases of the quick profile with every release that is not counted yet; what went wrong, in lines.

    One environment is made while the release before is counted.
    """
    known = history.read(path, history.taken())
    missing = [release for release in wanted if release not in known.counters or known.failed.get(release)]
    making = Lock()
    problems: list[str] = []

    def count_one(release: str) -> None:
        try:
            with making:
                side = sides.resolve(f"{sides.RELEASE}{release}")
            entries = counted(side)
        except command.UserError as error:
            problems.append(f"mlx {release}: {error}")
            history.add(path, release, [{"what": "absent", "why": command.one_line(str(error))}])
            return
        failed = [entry for entry in entries if entry["what"] == "failure"]
        problems.extend(f"mlx {release}: {entry['case']}: {entry['message']}" for entry in failed)
        history.add(path, release, entries)

    with progress(console, "counting releases", len(missing)) as shown, ThreadPoolExecutor(2) as pool:
        task = shown.add_task("counting", total=len(missing))
        for _ in pool.map(count_one, missing):
            shown.advance(task)
    return problems


def counted(side: Side) -> list[Entry]:
    """The counters of the quick profile's cases, as entries. Raises UserError."""
    with Counter(side) as counter:
        found = {str(case): counter.count(str(case)) for case in counting.select(counter.variants, "quick", None)}
    return [
        {"what": "failure", "case": name, "message": one.message}
        if isinstance(one, Failure)
        else {"what": "counted", "case": name, "work": one._asdict()}
        for name, one in found.items()
    ]


def measure_all(wanted: Sequence[str], path: Path, rounds: int, console: Console) -> list[str]:
    """Measure CASES with every release, until each has been in as many processes; what went wrong, in lines.

    Round by round in random order, so that a machine that drifts does not make one release look slower.
    """
    problems: list[str] = []
    known = history.read(path, history.taken())
    todo = [
        (number, release)
        for number in range(rounds)
        for release in random.sample(list(wanted), len(wanted))
        if release not in known.absent and any(len(history.medians(known, release, name)) <= number for name in CASES)
    ]
    with progress(console, f"measuring {len(CASES)} cases", len(todo)) as shown:
        task = shown.add_task("measuring", total=len(todo))
        for number, release in todo:
            shown.update(task, description=f"measuring mlx {release}")
            missing = [name for name in CASES if len(history.medians(known, release, name)) <= number]
            try:
                entries, wrong = measured(sides.resolve(f"{sides.RELEASE}{release}"), missing, first=number == 0)
            except command.UserError as error:
                entries, wrong = [], [str(error)]
            history.add(path, release, entries)
            problems += [f"mlx {release}: {line}" for line in wrong]
            shown.advance(task)
    return problems


def measured(side: Side, names: Iterable[str], first: bool) -> tuple[list[Entry], list[str]]:
    """The ledger of a run of `side`, a process a case; the `first` time with the long runs. And what went wrong."""
    asked: list[dict[str, Any]] = [{}]
    asked += [{"case": name} for name in names]
    if first:
        pairs = dict.fromkeys(tuple(name.split("/")[:2]) for name in names)
        asked += [{"accuracy": list(pair)} for pair in pairs]
    wrong = []
    with tempfile.TemporaryDirectory(dir=scratch.folder()) as folder:
        kept = Path(folder, "ledger.jsonl")
        settings = {"TMPDIR": folder, ledger.VARIABLE: str(kept), "ADAMW_PROFILE": "full"}
        for one in asked:
            try:
                with workers.Worker(side, MODULE, settings, folder) as worker:
                    worker.tell(json.dumps(one))
                    answer = worker.answer(TIMEOUT)
            except workers.Lost as lost:
                answer = {"failed": str(lost)}
            if "failed" in answer:
                wrong.append(command.one_line(str(answer["failed"])))
        entries = [entry for entry in ledger.with_ceiling(ledger.read(kept)) if entry["what"] != "started"]
    return entries, wrong


def compare_all(wanted: Sequence[str], path: Path, seconds: float, console: Console) -> list[str]:
    """Time what is suspected, and the oldest release beside the newest, in turns; what went wrong, in lines."""
    known = history.read(path, history.taken())
    problems: list[str] = []
    questions: dict[tuple[str, str], list[str]] = {}
    for name in CASES:
        timed = [release for release in wanted if history.medians(known, release, name)]
        ends = [(timed[0], timed[-1])] if len(timed) > 1 else []
        for pair in [*history.suspects(known, name, LEAST), *ends]:
            if set(pair) <= set(wanted) and history.undecided(known, *pair, name):
                questions.setdefault(pair, []).append(name)
    with progress(console, f"comparing in turns, {seconds:g} s a case", len(questions)) as shown:
        task = shown.add_task("comparing", total=len(questions))
        for (base, head), names in questions.items():
            shown.update(task, description=f"comparing mlx {base} and {head}: {len(names)} cases")
            try:
                entries = compared(base, head, names, seconds)
            except command.UserError as error:
                problems.append(f"mlx {base} and {head}: {error}")
                continue
            history.add(path, head, entries)
            problems += [
                f"mlx {base} and {head}: {one['case']}: {one['why']}" for one in entries if one["ratio"] is None
            ]
            shown.advance(task)
    return problems


def compared(base: str, head: str, names: Sequence[str], seconds: float) -> list[Entry]:
    """The verdicts on cases of two releases, timed in turns, as entries."""
    pair = (sides.resolve(f"{sides.RELEASE}{base}"), sides.resolve(f"{sides.RELEASE}{head}"))
    found = {name: cases.case(*name.split("/", 1)) for name in names}
    wanted = [Match(name, case, case) for name, case in found.items()]
    limits = Limits(seconds, SMALLEST)
    outcomes = timing.compare(pair, wanted, limits)
    kept = ("verdict", "ratio", "low", "high", "pairs", "milliseconds", "disturbed", "why", "logs")
    return [
        {"what": "compared", "base": base, "case": row.name, **{name: getattr(row, name) for name in kept}}
        for row in rows.judge(wanted, outcomes, {}, limits)
    ]


def progress(console: Console, what: str, count: int) -> Progress:
    if not console.is_interactive and count:
        print(f"{what}: {count} to do", file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_interactive)


def told(known: Known, wanted: Sequence[str], console: Console) -> None:
    """Print what every release changed, and what was found of its seconds in turns."""
    counted = [release for release in wanted if release in known.counters]
    changed = [step for step in history.steps(known) if step.release in counted]
    for step in changed:
        console.print(f"mlx {step.release}, as against {step.before}:", markup=False, highlight=False)
        console.print(exact.table(step.changes))
        console.print()
    for one in history.confirmed(known):
        if one["release"] in wanted:
            console.print(
                f"mlx {one['release']}, as against {one['base']}, in turns: {one['case']} {one['verdict']}, "
                f"x {one['ratio']:.3f} ({one['low']:.3f} to {one['high']:.3f}, {one['pairs']} pairs)",
                markup=False, highlight=False,
            )  # fmt: skip
    console.print(
        f"{len(counted)} of {len(wanted)} releases counted, {len(changed)} changed what a step does",
        markup=False, highlight=False,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(command.run(main))
