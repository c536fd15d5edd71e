"""Which files machines share through the results branch, and why others are not: of those nothing goes unsaid."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from scripts import command, machines
from scripts.history import BENCHMARKS, LARGEST_FILE

ENDINGS = (".json", ".jsonl", ".earlier")
"""Of the files of results in a machine's folder; nothing else is carried."""

NO_RESULT = "no file of results"

FEW = 5
"""Files that are left out and named; the rest is counted."""


class Entry(NamedTuple):
    """A path of results, on the branch or here: git's name of its content on the branch, why it is not carried."""

    path: str
    blob: str
    why_not: str


def why_not(path: str, size: int, plain: bool) -> str:
    """Why a file of that size is not carried; empty if it is. A `plain` one is no link and cannot be run."""
    folder, _, name = path.partition("/")
    odd = "/" in name or name.startswith((".", "-")) or set(machines.odd(name)) - set("[]")
    if path != BENCHMARKS and (odd or Path(name).suffix not in ENDINGS):
        return NO_RESULT
    if path != BENCHMARKS and machines.why_not(folder):
        return machines.refusal(folder)
    if not plain:
        return "a link, or a program"
    return f"over {LARGEST_FILE >> 20} MiB" if size > LARGEST_FILE else ""


def same_folder(results: Path, there: Iterable[str]) -> dict[str, str]:
    """The machines of the branch whose folder is another's where case makes no difference, as on a Mac; and whose.

    Those that are in `results` come first.
    """
    taken = {folder.name.casefold(): folder.name for folder in machines.folders(results)[0]}
    owners = {name: taken.setdefault(name.casefold(), name) for name in sorted({machine_of(path) for path in there})}
    return {name: other for name, other in owners.items() if name != other}


def machine_of(path: str) -> str:
    return path.partition("/")[0]


def refuse_another(ours: Iterable[str], there: Iterable[str]) -> None:
    """Raise UserError if a machine of `ours` would share a folder with another one's that is `there` on a Mac."""
    known_names = {machine_of(path) for path in there}
    spelled = {name.casefold(): name for name in known_names}
    for name in {machine_of(path) for path in ours} - known_names:
        if other := spelled.get(name.casefold()):
            raise command.UserError(
                f"the branch has a machine {other!r}, and {name!r} is the same folder on a Mac; call this one otherwise"
            )


def told(left_out: Mapping[str, str]) -> list[str]:
    """What is not carried, in lines: some by name, the rest counted."""
    lines = [f"left out: {command.one_line(path)}: {why}" for path, why in left_out.items()]
    return [*lines[:FEW], *([f"left out: {len(lines) - FEW} more files"] if len(lines) > FEW else [])]
