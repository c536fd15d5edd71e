"""Whether this machine is ready for its nights, and for all that is not ready what to type.

Nothing is changed and nothing needs root. What cannot be told on a system says so and counts as fine. How to get from a
bare machine to a green night is in NIGHTLY.md.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table
from rich.text import Text

from benchmarks.harness.host import HERE
from scripts import command
from scripts.doctor.everywhere import EVERYWHERE
from scripts.doctor.finding import Finding, Look, failed
from scripts.doctor.linux import LINUX
from scripts.doctor.macos import MAC
from scripts.nightly import settings
from scripts.nightly.settings import Settings

EPILOG = """examples:
  python -m scripts.doctor                                  what is not ready, and what to do about it
  python -m scripts.doctor --settings mac.toml --json doctor.json

exit codes: 0 all is fine, 1 something is to do, 2 error, 130 interrupted
"""

SETTINGS = Path("nightly.toml")


def checks(host: str) -> dict[str, Look]:
    """What is looked at on a host of that name."""
    return {**EVERYWHERE, **{"macOS": MAC, "Linux": LINUX}[host]}


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("--settings", type=Path, default=SETTINGS, metavar="FILE", help=f"default: {SETTINGS}")
    parser.add_argument("--json", type=command.file_path, metavar="FILE", help="write the findings there as well")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = command.console()
    if not Path("asv.conf.json").is_file():
        raise command.UserError("there is no asv.conf.json here; run it in the root of the checkout")
    with command.busy("looking at this machine"):
        found = examine(options.settings)
    if options.json:
        command.write_json(options.json, [{"check": name, **one._asdict()} for name, one in found.items()])
    console.print(table(found))
    for heading, wanted in (("to do", False), ("advice", True)):
        steps = [(name, one.do) for name, one in found.items() if one.do and (one.fit is not False) == wanted]
        for line in [f"\n{heading}:", *(f"  {name}: {do}" for name, do in steps)] if steps else []:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 1 if any(one.fit is False for one in found.values()) else 0


def examine(path: Path) -> dict[str, Finding]:
    """What every check found, by its name; with the settings in `path`, or the usual ones if those cannot be read."""
    try:
        night, readable = settings.read(path), Finding(True, f"{path} can be read")
    except command.UserError as error:
        night, readable = Settings(), failed(error)
    found = {"settings": readable}
    for name, look in checks(HERE.name).items():
        try:
            found[name] = look(night)
        except command.UserError as error:
            found[name] = failed(error)
    return found


def table(found: Mapping[str, Finding]) -> Table:
    """A row a check: its name, whether it is as it should be, and what was found."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("check", "is"):
        shown.add_column(heading, no_wrap=True)
    shown.add_column("finding", overflow="fold")
    for name, one in found.items():
        state, style = {True: ("fine", ""), None: ("not told here", "dim"), False: ("to do", "bold")}[one.fit]
        shown.add_row(Text(name), Text(state, style), Text(one.says))
    return shown


if __name__ == "__main__":
    sys.exit(command.run(main))
