"""Compare two sides: what one step of every case does, counted exactly. No clock takes part, so no noise can hide it.

A side is a git revision, the working tree (.), or an MLX release (mlx==0.31.2) with the working tree's variants.
"""

import argparse
import sys
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.harness.cases import Case
from benchmarks.harness.counters import FIGURES, Counters, Figure
from scripts import command, counting, sides
from scripts.counting import Counted, Failure

WORSE, MIXED, BETTER, OTHER = "worse", "mixed", "better", "changed"
GONE = "gone"
SHOWN_WORKLOADS = 4

EPILOG = """examples:
  python -m scripts.compare HEAD~1 HEAD --exact             what the last commit changed
  python -m scripts.compare . mlx==0.31.2 --exact           what another MLX release changes
  python -m scripts.compare main . --exact --case 'gpt2$' --json changes.json

exit codes: 0 nothing got worse, 1 something did, 2 error, 130 interrupted
"""


class Change(NamedTuple):
    """What changed in one case: its verdict and the words for it, and every changed figure's two values."""

    case: str
    verdict: str
    words: str
    figures: dict[str, tuple[Any, Any]]


def change(case: Case, base: Counted | None, head: Counted | None) -> Change | None:
    """What is different in `head`, None if nothing is. A figure that one side does not tell is not compared."""
    if base is None or head is None:
        return Change(str(case), OTHER, "new" if base is None else GONE, {})
    if isinstance(base, Failure) or isinstance(head, Failure):
        return failure(case, base, head)
    changed = [
        (figure, getattr(base, figure.name), getattr(head, figure.name))
        for figure in FIGURES
        if differs(figure, base, head)
    ]
    if not changed:
        return None
    worse = [one for one in changed if isinstance(one[2], str) or one[2] > one[1]]
    better = [one for one in changed if one not in worse]
    words = ", but ".join("; ".join(phrases(case, base, head, part)) for part in (worse, better) if part)
    verdict = MIXED if worse and better else WORSE if worse else BETTER
    return Change(str(case), verdict, words, {figure.name: (old, new) for figure, old, new in changed})


def phrases(case: Case, base: Counters, head: Counters, changed: list[tuple[Figure, Any, Any]]) -> list[str]:
    """The words for every figure that another of the `changed` does not tell already."""
    names = {figure.name for figure, _, _ in changed}
    told = [figure for figure, _, _ in changed if not names.intersection(figure.unless)]
    return [figure.change(base, head, case) for figure in told]


def failure(case: Case, base: Counted, head: Counted) -> Change | None:
    if isinstance(head, Failure):
        verdict = OTHER if isinstance(base, Failure) else WORSE
        return Change(str(case), verdict, f"cannot be counted: {head.message}", {})
    return Change(str(case), BETTER, "can be counted, could not before", {})


def differs(figure: Figure, base: Counters, head: Counters) -> bool:
    old, new = getattr(base, figure.name), getattr(head, figure.name)
    return None not in (old, new) and old != new


def table(changes: list[Change]) -> Table:
    """A row for what changed, with all workloads in which the same did."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "variant", "workloads", "now, and before"):
        shown.add_column(heading, overflow="fold")
    groups: dict[tuple[str, str, str], list[str]] = {}
    for one in changes:
        variant, _, workload = one.case.partition("/")
        groups.setdefault((one.verdict, variant, one.words), []).append(workload)
    order = [WORSE, MIXED, OTHER, BETTER]
    for (verdict, variant, words), workloads in sorted(groups.items(), key=lambda item: order.index(item[0][0])):
        more = f" and {len(workloads) - SHOWN_WORKLOADS} more" * (len(workloads) > SHOWN_WORKLOADS)
        shown.add_row(*map(Text, (verdict, variant, ", ".join(workloads[:SHOWN_WORKLOADS]) + more, words)))
    return shown


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("base", metavar="BASE", help="what it is compared with")
    parser.add_argument("head", metavar="HEAD", help="what is judged")
    parser.add_argument("--exact", action="store_true", required=True, help="count, and time nothing")
    counting.add_arguments(parser)
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else command.WIDTH)
    pair = [sides.resolve(options.base), sides.resolve(options.head)]
    with counting.Worker(pair[0]) as base_worker, counting.Worker(pair[1]) as head_worker:
        workers = [base_worker, head_worker]
        wanted = counting.select(workers, options.profile, options.case)
        base, head = counting.count(workers, wanted, console)
    changes = [found for case in wanted if (found := change(case, base.get(str(case)), head.get(str(case))))]
    if changes:
        console.print(table(changes))
        console.print()
    described = [counting.describe(base_worker, base), counting.describe(head_worker, head)]
    for line in [f"base: {described[0][0]}", *described[0][1:], f"head: {described[1][0]}", *described[1][1:]]:
        console.print(line, markup=False, highlight=False)
    console.print(summary(changes, len(head)), highlight=False)
    if options.json:
        both = {"base": counting.as_json(base_worker, base), "head": counting.as_json(head_worker, head)}
        command.write_json(options.json, both | {"changes": [one._asdict() for one in changes]})
    return 1 if any(one.verdict in (WORSE, MIXED) for one in changes) else 0


def summary(changes: list[Change], count: int) -> str:
    """How many cases got worse, and so on, of the `count` that the head has."""
    verdicts = [one.verdict for one in changes]
    told = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in (WORSE, MIXED, OTHER, BETTER))
    same = count - sum(one.words != GONE for one in changes)
    return f"{told}, {same} the same in all {len(FIGURES)} figures"


if __name__ == "__main__":
    sys.exit(command.run(main))
