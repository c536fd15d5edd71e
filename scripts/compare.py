"""Compare two sides: what one step of every case does, counted exactly. No clock takes part, so no noise can hide it.

A side is a git revision, the working tree (.), or an MLX release (mlx==0.31.2) with the working tree's variants.
"""

import argparse
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from benchmarks.harness import cases
from benchmarks.harness.cases import Case
from benchmarks.harness.counters import FIGURES, Counters, Figure
from scripts import command, counting, sides
from scripts.counting import Counted, Failure

WORSE, MIXED, BETTER, OTHER = "worse", "mixed", "better", "changed"
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
        return Change(str(case), OTHER, "new" if base is None else "gone", {})
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


def missing(counted: dict[str, Counted]) -> list[str]:
    """The names of the figures that were not told in some case."""
    told = [counters for counters in counted.values() if isinstance(counters, Counters)]
    return [figure.name for figure in FIGURES if any(getattr(counters, figure.name) is None for counters in told)]


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


def select(variants: list[str], profile: str, pattern: str | None) -> list[Case]:
    """The cases of `profile` whose name `pattern` finds. Raises UserError if there are none."""
    try:
        wanted = re.compile(pattern or "")
    except re.error as error:
        raise command.UserError(f"--case {pattern!r} is no regular expression: {error}") from error
    found = [case for case in cases.chosen(variants, profile) if wanted.search(str(case))]
    if not found:
        raise command.UserError(
            f"no case of profile {profile} matches {pattern!r}; names are like compiled/float32/gpt2"
        )
    return found


def count_both(
    pair: list[sides.Side], hellos: list[dict[str, Any]], wanted: list[Case], console: Console
) -> list[dict[str, Counted]]:
    """The counters of every case on each side, both at once, with progress."""
    names = [[str(case) for case in wanted if case.variant in hello["variants"]] for hello in hellos]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("counting", total=sum(map(len, names)))

        def done(case: str) -> None:
            progress.update(task, advance=1, description=case)

        with ThreadPoolExecutor() as pool:
            return list(pool.map(lambda side, chosen: counting.count(side, chosen, done), pair, names))


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("base", metavar="BASE", help="what it is compared with")
    parser.add_argument("head", metavar="HEAD", help="what is judged")
    parser.add_argument("--exact", action="store_true", required=True, help="count, and time nothing")
    parser.add_argument(
        "--case", metavar="REGEX", help="only the cases whose name it finds; default: all of the profile"
    )
    parser.add_argument("--profile", choices=cases.PROFILES, default="default", help="default: default")
    parser.add_argument("--json", type=command.file_path, metavar="FILE", help="also write every figure as JSON")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else command.WIDTH)
    pair = [sides.resolve(options.base), sides.resolve(options.head)]
    hellos = [counting.describe(side) for side in pair]
    wanted = select(sorted({name for hello in hellos for name in hello["variants"]}), options.profile, options.case)
    base, head = count_both(pair, hellos, wanted, console)
    changes = [found for case in wanted if (found := change(case, base.get(str(case)), head.get(str(case))))]
    report(console, pair, hellos, (base, head), changes)
    if options.json:
        command.write_json(options.json, as_json(pair, hellos, (base, head), changes))
    return 1 if any(one.verdict in (WORSE, MIXED) for one in changes) else 0


def report(console: Console, pair: list, hellos: list, counted: tuple, changes: list[Change]) -> None:
    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False)

    if changes:
        console.print(table(changes))
        say("")
    for name, side, hello, figures in zip(("base", "head"), pair, hellos, counted, strict=True):
        say(f"{name}: {side}, {hello['backend']} backend, Python {hello['python']}, {len(figures)} cases")
        if absent := missing(figures):
            say(f"  not available in mlx {hello['mlx']}, for some cases or all: {', '.join(absent).replace('_', ' ')}")
    verdicts = [one.verdict for one in changes]
    same = len(counted[1]) - len([one for one in changes if one.words != "gone"])
    summary = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in (WORSE, MIXED, OTHER, BETTER))
    say(f"{summary}, {same} the same in all {len(FIGURES)} figures")


def as_json(pair: list, hellos: list, counted: tuple, changes: list[Change]) -> dict[str, Any]:
    def plain(one: Counted) -> dict[str, Any]:
        return {"failed": one.message} if isinstance(one, Failure) else one._asdict()

    described = [
        {
            "name": side.name,
            "commit": side.commit,
            **hello,
            "cases": {name: plain(one) for name, one in figures.items()},
        }
        for side, hello, figures in zip(pair, hellos, counted, strict=True)
    ]
    return {"base": described[0], "head": described[1], "changes": [one._asdict() for one in changes]}


if __name__ == "__main__":
    sys.exit(command.run(main))
