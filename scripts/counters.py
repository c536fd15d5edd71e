"""Print what one step of every case does, counted exactly: kernels, traffic, peak memory, host calls. No clock runs."""

import argparse
import sys

from rich.table import Table

from benchmarks.harness import cases
from benchmarks.harness.cases import Case
from benchmarks.harness.counters import FIGURES
from scripts import command, counting, sides
from scripts.counting import Counted, Failure

COLUMNS = {
    "kernels": "kernels\na leaf",
    "scalar_kernels": "\nscalar",
    "modelled_bytes": "\ntraffic",
    "peak_bytes": "peak\nup to",
    "traces": "\ntraces",
    "calls": "calls\na leaf",
}

EPILOG = """examples:
  python -m scripts.counters                              the working tree, all cases of the default profile
  python -m scripts.counters mlx==0.31.2 --case gpt2      the same variants on another MLX
"""


def table(wanted: list[Case], counted: dict[str, Counted]) -> Table:
    """A block a workload, a row a variant; a dash where this MLX does not tell."""
    figures = [figure for name in COLUMNS for figure in FIGURES if figure.name == name]
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("\nworkload", no_wrap=True)
    shown.add_column("\nvariant", no_wrap=True)
    for heading in COLUMNS.values():
        shown.add_column(heading, justify="right", no_wrap=True)
    last = ""
    order = list(dict.fromkeys(case.workload for case in wanted))
    for case in sorted(wanted, key=lambda case: order.index(case.workload)):
        if last and case.workload != last:
            shown.add_row()
        one = counted[str(case)]
        if isinstance(one, Failure):
            told = ["failed"]
        else:
            told = [figure.text(one, case) if getattr(one, figure.name) is not None else "-" for figure in figures]
        shown.add_row(case.workload if case.workload != last else "", case.variant, *told)
        last = case.workload
    return shown


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument(
        "side", metavar="SIDE", nargs="?", default=".", help="a git revision, . or mlx==VERSION; default: ."
    )
    parser.add_argument(
        "--case", metavar="REGEX", help="only the cases whose name it finds; default: all of the profile"
    )
    parser.add_argument("--profile", choices=cases.PROFILES, default="default", help="default: default")
    parser.add_argument("--json", type=command.file_path, metavar="FILE", help="also write every figure as JSON")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = command.console()
    with counting.Counter(sides.resolve(options.side)) as counter:
        wanted = counting.select(counter.variants, options.profile, options.case)
        (counted,) = counting.count([counter], [[str(case) for case in wanted]], console)
    console.print(table(wanted, counted))
    console.print()
    for line in counting.describe(counter, counted):
        console.print(line, markup=False, highlight=False)
    failures = {name: one.message for name, one in counted.items() if isinstance(one, Failure)}
    for name, message in failures.items():
        console.print(f"FAILED {name}: {message}", markup=False, highlight=False, style="red")
    if options.json:
        command.write_json(options.json, counting.as_json(counter, counted))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(command.run(main))
