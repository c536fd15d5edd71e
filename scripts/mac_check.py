"""Hold what was assumed of Macs against this one: ten minutes, and one file to send back.

The project was written without a Mac. What it assumes of one was proven otherwise (MAC.md says how); here each
assumption is looked at, and turns red where it was wrong. Nothing needs root, and the file names no person, no machine
and no folder.
"""

import argparse
import getpass
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness.host import HERE
from scripts import assumptions, command, git
from scripts.assumptions import ASSUMPTIONS, Found

FILE = Path("mac-check.json")

SECONDS = 600.0
"""After which nothing more is begun."""

LONGEST = 2000
"""Characters of a finding."""

NO_TIME = "no time was left"
STATES = {True: "as assumed", False: "WRONG", None: "not told"}

EPILOG = """examples:
  python -m scripts.mac_check                          all of it, ten minutes; `make mac-check` is the same
  python -m scripts.mac_check --only pages --only wheel

exit codes: 0 nothing assumed was wrong, 1 something was, or was not looked at, 2 error, 130 interrupted

The file is written after each: whatever ends the command, it has what was found, and what was under way.
"""


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("--only", action="append", metavar="NAME", help="only this one; may be given several times")
    parser.add_argument("--skip", action="append", metavar="NAME", help="not this one; may be given several times")
    parser.add_argument("--json", type=command.file_path, default=FILE, metavar="FILE", help=f"default: {FILE}")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if HERE.name != "macOS":
        raise command.UserError(f"this is {HERE.name}; mac-check is for a Mac with Apple silicon")
    for name in [*(options.only or ()), *(options.skip or ())]:
        if name not in ASSUMPTIONS:
            raise command.UserError(f"nothing is assumed by the name {name!r}; names are: {', '.join(ASSUMPTIONS)}")
    console = command.console()
    told: dict[str, Any] = {"commit": git.here(), **assumptions.about(), "findings": []}
    until = time.monotonic() + SECONDS
    for name, (assumed, look) in ASSUMPTIONS.items():
        if (options.only and name not in options.only) or name in (options.skip or ()):
            continue
        command.write_json(options.json, told | {"under way": name})  # so that it is known what ended this process
        start = time.monotonic()
        holds, found = (None, NO_TIME) if start > until else looked(look, name)
        seconds, found = time.monotonic() - start, nameless(found)
        told["findings"].append({"name": name, "assumed": assumed, "holds": holds, "found": found, "seconds": seconds})
        line = f"{STATES[holds]:10}  {name}: {found}"
        console.print(line, style="bold red" if holds is False else "", markup=False, highlight=False, soft_wrap=True)
    command.write_json(options.json, told)
    wrong = sum(one["holds"] is False for one in told["findings"])
    left = sum(one["found"] == NO_TIME for one in told["findings"])
    last = f"{len(told['findings'])} assumptions, {wrong} wrong, {left} not looked at; please send back {options.json}"
    console.print(last, markup=False, highlight=False, soft_wrap=True)
    return int(bool(wrong or left))


def looked(look: Callable[[], Found], name: str) -> Found:
    """What was found; an assumption whose look fails was wrong."""
    try:
        with command.busy(f"looking at {name}"):
            return look()
    except Exception as error:  # whatever a Mac has in store
        return False, f"{type(error).__name__}: {command.one_line(str(error))}"


def nameless(text: str) -> str:
    """`text`, printable, without this user's and this machine's name, and without their folders."""
    text = "".join(character for character in text if character.isprintable())[:LONGEST]
    temporary = tempfile.gettempdir()
    names = {
        str(Path.cwd()): ".",
        str(Path.home()): "~",
        temporary: "TMP",
        os.path.realpath(temporary): "TMP",
        platform.node(): "HOST",
        platform.node().partition(".")[0]: "HOST",
        getpass.getuser(): "USER",
    }
    for name in sorted(names, key=len, reverse=True):
        if name.strip("/"):
            begins = "" if name.startswith("/") else r"(?<!\w)"
            text = re.sub(rf"{begins}{re.escape(name)}(?!\w)", names[name], text)
    return text


if __name__ == "__main__":
    sys.exit(command.run(main))
