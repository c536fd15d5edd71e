"""Hold what was assumed of Macs against this one: ten minutes, and one file to send back.

The project was written without a Mac. What it assumes of one was proven otherwise (MAC.md says how); here each
assumption is looked at, and turns red where it was wrong. Nothing is changed, nothing needs root, and the file names no
person, no machine and no folder.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.harness.host import HERE
from scripts import assumptions, command, git
from scripts.assumptions import ASSUMPTIONS, Found

FILE = Path("mac-check.json")

SECONDS = 600.0
"""After which nothing more is begun."""

STATES = {True: "as assumed", False: "WRONG", None: "not told"}

EPILOG = """examples:
  python -m scripts.mac_check                          all of it, ten minutes; `make mac-check` is the same
  python -m scripts.mac_check --only pages --only wheel

exit codes: 0 nothing assumed was wrong, 1 something was, 2 error, 130 interrupted: the file has what was found
"""


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("--only", action="append", metavar="NAME", help="only this one; may be given several times")
    parser.add_argument("--json", type=command.file_path, default=FILE, metavar="FILE", help=f"default: {FILE}")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if HERE.name != "macOS":
        raise command.UserError(f"this is {HERE.name}; mac-check is for a Mac with Apple silicon")
    for name in options.only or ():
        if name not in ASSUMPTIONS:
            raise command.UserError(f"nothing is assumed by the name {name!r}; names are: {', '.join(ASSUMPTIONS)}")
    console = Console(width=None if sys.stdout.isatty() else command.WIDTH)
    told: dict[str, Any] = {"commit": git.output("rev-parse", "HEAD"), **assumptions.about(), "findings": []}
    until = time.monotonic() + SECONDS
    for name, (assumed, look) in ASSUMPTIONS.items():
        if options.only and name not in options.only:
            continue
        write(options.json, told | {"under way": name})  # so that it is known what ended this process
        start = time.monotonic()
        holds, found = (None, "no time was left") if start > until else looked(look, name)
        told["findings"].append(
            {"name": name, "assumed": assumed, "holds": holds, "found": found, "seconds": time.monotonic() - start}
        )
        line = f"{STATES[holds]:10}  {name}: {found}"
        console.print(line, style="bold red" if holds is False else "", markup=False, highlight=False, soft_wrap=True)
    write(options.json, told)
    wrong = [one["name"] for one in told["findings"] if one["holds"] is False]
    last = f"{len(told['findings'])} assumptions, {len(wrong)} wrong; please send back {options.json}"
    console.print(last, markup=False, highlight=False, soft_wrap=True)
    return int(bool(wrong))


def looked(look: Callable[[], Found], name: str) -> Found:
    """What was found; an assumption whose look fails was wrong."""
    try:
        with command.busy(f"looking at {name}"):
            return look()
    except Exception as error:  # whatever a Mac has in store
        return False, f"{type(error).__name__}: {command.one_line(str(error))}"


def write(path: Path, told: dict[str, Any]) -> None:
    """Write the file, without this machine's name and folders, in whatever text they may be."""
    text = json.dumps(command.finite(told), indent=2)
    for private, instead in ((str(Path.cwd()), "."), (str(Path.home()), "~"), (platform.node(), "HOST")):
        if len(private) > 3:
            text = text.replace(json.dumps(private)[1:-1], instead)
    command.write_whole(path, text + "\n")


if __name__ == "__main__":
    sys.exit(command.run(main))
