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

WORSE, BETTER, OTHER = "worse", "better", "changed"
GONE = "gone"
SHOWN_WORKLOADS = 4

EPILOG = """examples:
  python -m scripts.compare HEAD~1 HEAD --exact             what the last commit changed
  python -m scripts.compare . mlx==0.31.2 --exact           what another MLX release changes
  python -m scripts.compare main . --exact --case 'gpt2$' --json changes.json

exit codes: 0 nothing got worse, 1 something did, 2 error, 130 interrupted
"""


class Change(NamedTuple):
    """What changed in one case.

    words    for every changed figure but the Python calls
    calls    Python calls a step more than before
    figures  every changed figure's two values
    """

    case: str
    verdict: str
    words: str
    calls: int
    figures: dict[str, tuple[Any, Any]]


def change(case: Case, base: Counted | None, head: Counted | None) -> Change | None:
    """What is different in `head`, None if nothing is. A figure that one side does not tell is not compared."""
    if base is None or head is None:
        return Change(str(case), OTHER, "new" if base is None else GONE, 0, {})
    if isinstance(head, Failure):
        return Change(str(case), OTHER if isinstance(base, Failure) else WORSE, f"failed: {head.message}", 0, {})
    if isinstance(base, Failure):
        return Change(str(case), BETTER, "can be counted, could not before", 0, {})
    changed = {
        figure: (getattr(base, figure.name), getattr(head, figure.name))
        for figure in FIGURES
        if differs(figure, base, head)
    }
    if not changed:
        return None
    worse = {figure for figure, (old, new) in changed.items() if isinstance(new, str) or new > old}
    names = {figure.name for figure in changed}
    told = [figure for figure in changed if figure.name != "calls" and not names.intersection(figure.unless)]
    parts = [
        [figure.change(base, head, case) for figure in told if (figure in worse) == part] for part in (True, False)
    ]
    words = "; but better: ".join("; ".join(part) for part in parts if part)
    old_calls, new_calls = next((pair for figure, pair in changed.items() if figure.name == "calls"), (0, 0))
    values = {figure.name: pair for figure, pair in changed.items()}
    return Change(str(case), WORSE if worse else BETTER, words, new_calls - old_calls, values)


def differs(figure: Figure, base: Counters, head: Counters) -> bool:
    old, new = getattr(base, figure.name), getattr(head, figure.name)
    return None not in (old, new) and old != new


def table(changes: list[Change]) -> Table:
    """A row for what changed, with all workloads in which the same did; the Python calls in rows of their own."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    calls: dict[tuple[str, str], dict[str, int]] = {}
    for one in changes:
        variant, _, workload = one.case.partition("/")
        if one.words:
            groups.setdefault((one.verdict, variant, one.words), []).append(workload)
        if one.calls:
            calls.setdefault((WORSE if one.calls > 0 else BETTER, variant), {})[workload] = abs(one.calls)
    for (verdict, variant), counts in calls.items():
        lowest, highest = min(counts.values()), max(counts.values())
        number = str(lowest) if lowest == highest else f"{lowest} to {highest}"
        words = f"{number} {'more' if verdict == WORSE else 'fewer'} Python call{'s' * (highest > 1)} a step"
        groups[verdict, variant, words] = list(counts)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "variant", "workloads", "now, and before"):
        shown.add_column(heading, overflow="fold")
    order = [WORSE, OTHER, BETTER]
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
    if not any(isinstance(one, Counters) for one in head.values()):
        reason = next((one.message for one in head.values() if isinstance(one, Failure)), "it has no such variant")
        raise command.UserError(f"{pair[1]}: no case can be counted: {reason}")
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
    return 1 if any(one.verdict == WORSE for one in changes) else 0


def summary(changes: list[Change], count: int) -> str:
    """How many cases got worse, and so on, of the `count` that the head has."""
    verdicts = [one.verdict for one in changes]
    told = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in (WORSE, OTHER, BETTER))
    same = count - sum(one.words != GONE for one in changes)
    return f"{told}, {same} the same in all figures that both sides tell"


if __name__ == "__main__":
    sys.exit(command.run(main))
