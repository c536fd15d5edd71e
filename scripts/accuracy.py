"""How far every variant is from AdamW in the long run, in every precision. Nothing is timed."""

import argparse
import re
import sys
from importlib.metadata import version

from rich.progress import track
from rich.table import Table

import adamw
from benchmarks.harness import accuracy, cases, machine
from benchmarks.harness.accuracy import Accuracy
from scripts import command

EPILOG = """examples:
  python -m scripts.accuracy                        every variant and precision: half a minute
  python -m scripts.accuracy --case 'bfloat16$' --json accuracy.json

exit codes: 0 measured, 2 error, 130 interrupted
"""

HEADINGS = {
    "after_1": "1\nstep",
    "after_100": "100\nsteps",
    "after_2000": "2000\nsteps",
    "v_after_2000": "v after\n2000",
    "v_decay": "v's\ndecay",
    "zero_gradients": "zero\ngradients",
    "tiny_gradients": "tiny\ngradients",
    "loss": "digits,\nloss",
}


def select(pattern: str) -> list[tuple[str, str]]:
    """The variants and precisions that can run here and whose name, like compiled/bfloat16, `pattern` finds."""
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise command.UserError(f"--case {pattern!r} is no regular expression: {error}") from error
    found = [
        (variant, precision)
        for precision in cases.PRECISIONS
        for variant in adamw.names()
        if precision in cases.precisions(variant) and wanted.search(f"{variant}/{precision}")
    ]
    can_run = [(variant, precision) for variant, precision in found if not adamw.unavailable(variant)]
    if not can_run:
        reasons = "; ".join(sorted({adamw.unavailable(variant) or "" for variant, _ in found}))
        raise command.UserError(reasons or f"nothing matches {pattern!r}; names are like compiled/bfloat16")
    return can_run


def table(measured: dict[tuple[str, str], Accuracy]) -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    shown.add_column("\nprecision", no_wrap=True)
    shown.add_column("\nvariant", no_wrap=True)
    for heading in HEADINGS.values():
        shown.add_column(heading, justify="right", no_wrap=True)
    last = ""
    for (variant, precision), found in measured.items():
        if last and precision != last:
            shown.add_row()
        figures = [f"{getattr(found, name):.2g}" for name in HEADINGS]
        shown.add_row(precision if precision != last else "", variant, *figures)
        last = precision
    return shown


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("--case", metavar="REGEX", default="", help="only variant/precision that it finds")
    parser.add_argument("--json", type=command.file_path, metavar="FILE", help="also write the figures as JSON")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = command.console()
    chosen = select(options.case)
    if not console.is_interactive:
        print(f"measuring {len(chosen)}, a second or two each", file=sys.stderr)
    steps = track(chosen, "measuring", console=console, transient=True, disable=not console.is_interactive)
    measured = {(variant, precision): accuracy.measure(variant, precision) for variant, precision in steps}
    console.print(table(measured))
    console.print()
    about = f"mlx {version('mlx')}, {machine.backend()} backend; the columns are errors against AdamW in float64"
    console.print(about, markup=False, highlight=False)
    if options.json:
        plain = {f"{variant}/{precision}": found._asdict() for (variant, precision), found in measured.items()}
        command.write_json(options.json, {"mlx": version("mlx"), "backend": machine.backend(), "accuracy": plain})
    return 0


if __name__ == "__main__":
    sys.exit(command.run(main))
