"""Compare two sides: is a step of HEAD faster or slower than one of BASE, and what does it do differently?

A side is a git revision, the working tree (.), or, of the working tree, an MLX release (mlx==0.31.2), a variant
(variant:windowed) or another interpreter's packages (python:PATH). With --lane mlx revisions are MLX's own. Both sides
run at the same time and take turns. What they do is counted as well, exactly; with --exact only that.
"""

import argparse
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.harness import cases, machine
from benchmarks.harness.counters import Counters
from benchmarks.harness.files import write_whole
from scripts import command, counting, exact, git, lanes, matching, rows, sides, timing
from scripts.counting import Counted, Counter, Failure
from scripts.exact import Change
from scripts.matching import Match
from scripts.sides import Side
from scripts.timing import Limits, Outcome

EPILOG = """examples:
  python -m scripts.compare main .                          is my change slower? about a minute a case
  python -m scripts.compare HEAD~1 HEAD --case 'compiled/float32/(gpt2|resnet50)$' --budget 120
  python -m scripts.compare variant:compiled variant:windowed --case gpt2
  python -m scripts.compare mlx==0.31.2 mlx==0.32.4 --exact   what another MLX release changes, nothing timed
  python -m scripts.compare --lane mlx v0.32.1 main         MLX's newest commit, built from source, against a release

exit codes: 0 nothing slower (with --exact: nothing worse), 1 something is, 2 error, 3 all undecided, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("base", metavar="BASE", help="what it is compared with")
    parser.add_argument("head", metavar="HEAD", help="what is judged")
    lanes.add_argument(parser)
    parser.add_argument("--exact", action="store_true", help="count, and time nothing")
    parser.add_argument(
        "--case", metavar="REGEX", help="only the cases whose name it finds; default: all of the profile"
    )
    parser.add_argument("--profile", choices=cases.PROFILES, help="default: quick; with --exact or --case: default")
    parser.add_argument(
        "--budget", type=command.positive, default=60.0, metavar="S", help="seconds a case may take; default: 60"
    )
    parser.add_argument(
        "--min-effect",
        type=command.positive,
        default=0.02,
        metavar="E",
        help="smaller differences do not matter; default: 0.02",
    )
    parser.add_argument("--json", type=command.file_path, metavar="FILE", help="also write all of it as JSON")
    parser.add_argument("--html", type=command.file_path, metavar="FILE", help="also write what is printed as a page")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    profile = options.profile or ("default" if options.exact or options.case else "quick")
    console = command.console(record=bool(options.html))
    live = command.console()  # progress is not part of the page
    base_name, head_name = (sides.in_lane(options.lane, name) for name in (options.base, options.head))
    pair = (sides.resolve(base_name), sides.resolve(head_name))
    with Counter(pair[0]) as base, Counter(pair[1]) as head:
        counters = [base, head]
        wanted = matching.matches(pair, [one.variants for one in counters], profile, options.case)
        unequal = [match for match in wanted if not match.same_code(*pair)]
        counted = count(counters, unequal, live)
    changes = {match.name: found for match in unequal if (found := change(match, counted))}
    if options.exact:
        code, told = judge_exactly(pair[1], unequal, changes, counted[1], console)
    else:
        limits = Limits(options.budget, options.min_effect)
        outcomes, conditions = timed(pair, unequal, limits, live)
        code, told = judge_by_time(unequal, outcomes, conditions, changes, limits, console)
    said = [counting.describe(counter, one) for counter, one in zip(counters, counted, strict=True)]
    lines = [f"base: {said[0][0]}", f"head: {said[1][0]}", *dict.fromkeys([*said[0][1:], *said[1][1:]])]
    for line in [*lines, *told.pop("notes"), *equal(wanted, unequal), *uncommitted(pair)]:
        console.print(line, markup=False, highlight=False)
    if options.json:
        both = {
            name: counting.as_json(counter, one)
            for name, counter, one in zip(("base", "head"), counters, counted, strict=True)
        }
        command.write_json(options.json, both | told | {"changes": [one._asdict() for one in changes.values()]})
    if options.html:
        write_whole(options.html, console.export_html())
    return code


def count(counters: list[Counter], wanted: list[Match], console: Console) -> list[dict[str, Counted]]:
    """The counters of the base's and of the head's cases, by the name of the match."""
    names = [
        {match.name: str(case) for match in wanted if (case := (match.base, match.head)[number])} for number in (0, 1)
    ]
    counted = counting.count(counters, [list(of_side.values()) for of_side in names], console)
    return [
        {match: found[case] for match, case in of_side.items()} for of_side, found in zip(names, counted, strict=True)
    ]


def change(match: Match, counted: list[dict[str, Counted]]) -> Change | None:
    return exact.change(match, counted[0].get(match.name), counted[1].get(match.name))


def judge_exactly(
    head: Side, wanted: list[Match], changes: dict[str, Change], counted: dict[str, Counted], console: Console
) -> tuple[int, dict[str, Any]]:
    """Print what the counters differ in; the exit code, and the rest of what is told. Raises UserError if none are."""
    if wanted and not any(isinstance(one, Counters) for one in counted.values()):
        reason = next((one.message for one in counted.values() if isinstance(one, Failure)), "it has no such variant")
        raise command.UserError(f"{head}: no case can be counted: {reason}")
    found = list(changes.values())
    if found:
        console.print(exact.table(found))
        console.print()
    worse = any(one.verdict == exact.WORSE for one in found)
    return int(worse), {"notes": [exact.summary(found, len(counted))] if wanted else []}


def judge_by_time(
    wanted: list[Match],
    outcomes: dict[str, Outcome],
    conditions: dict[str, dict[str, Any]],
    changes: dict[str, Change],
    limits: Limits,
    console: Console,
) -> tuple[int, dict[str, Any]]:
    """Print the verdicts; the exit code, and the rest of what is told."""
    judged = rows.judge(wanted, outcomes, changes, limits)
    if judged:
        console.print(rows.table(judged))
        console.print()
    notes = [*rows.summary(judged, limits), *rows.warnings(judged, conditions, limits)] if judged else []
    told = {"verdicts": [row._asdict() for row in judged], "conditions": conditions, **limits._asdict()}
    return rows.exit_code(judged), told | {"notes": notes}


def timed(
    pair: tuple[Side, Side], wanted: list[Match], limits: Limits, console: Console
) -> tuple[dict[str, Outcome], dict[str, dict[str, Any]]]:
    """The outcomes of what both sides have, with progress; and the machine's conditions before and after."""
    both = [match for match in wanted if match.both]
    before = machine.conditions()
    total = limits.budget * len(both)
    if not console.is_interactive and both:
        print(f"timing {len(both)} case{'s' * (len(both) > 1)}, about {rows.duration(total)} at most", file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_interactive) as progress:
        task = progress.add_task(f"timing, about {rows.duration(total)} at most", total=total)

        def show(outcomes: dict[str, Outcome]) -> None:
            done = [one for one in outcomes.values() if one.finished(limits, len(both))]
            spent = sum(limits.budget if one in done else one.spent for one in outcomes.values())
            said = f"timing, {len(done)} of {len(both)} cases done, about {rows.duration(total - spent)} more at most"
            progress.update(task, completed=spent, description=said)

        outcomes = timing.compare(pair, both, limits, show)
    return outcomes, {"before": before, "after": machine.conditions()}


def equal(wanted: list[Match], timed: list[Match]) -> list[str]:
    """What was left out because it is the same code on both sides."""
    left = len(wanted) - len(timed)
    if not left:
        return []
    count = "all cases run" if not timed else f"{left} case{'s run' if left > 1 else ' runs'}"
    return [f"{count} the same code with the same MLX on both sides: there is nothing to compare in them"]


def uncommitted(pair: tuple[Side, Side]) -> list[str]:
    """A note for those who compare the commit that they are on and have changed it since."""
    commits = [side.commit for side in pair]
    if None in commits or git.find_commit("HEAD") not in commits or not git.changed("adamw"):
        return []
    return ["note: adamw/ has uncommitted changes, which took no part; . is the working tree"]


if __name__ == "__main__":
    sys.exit(command.run(main))
