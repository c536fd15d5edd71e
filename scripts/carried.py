"""Which files machines share through the results branch, and why others are not: of those nothing goes unsaid."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from scripts import command, legacy, machines, runs

NO_RESULT = "no file of results"

FEW = 5
"""Files that are left out and named; the rest is counted."""


class Place(NamedTuple):
    """Where a file of results is: the machine, and the path in its folder."""

    machine: str
    name: str

    @classmethod
    def of(cls, path: str) -> "Place":
        return cls(*path.partition("/")[::2])

    @property
    def is_run(self) -> bool:
        folder, _, name = self.name.partition("/")
        return folder == runs.RUNS and bool(runs.NAME.fullmatch(name))

    @property
    def is_older(self) -> bool:
        """Whether an older version wrote it: it comes as a run."""
        return "/" not in self.name and bool(legacy.NAME.fullmatch(self.name)) and len(self.name) < 200

    @property
    def grows(self) -> bool:
        """Whether it is a set of lines."""
        return self.is_run or self.name in machines.EVENTS


def why_not(path: str, size: int, plain: bool) -> str:
    """Why a file of that size is not carried; empty if it is. A `plain` one is no link and cannot be run."""
    place = Place.of(path)
    if not (place.grows or place.is_older or place.name == machines.FILE):
        return NO_RESULT
    if machines.why_not(place.machine):
        return machines.refusal(place.machine)
    if not plain:
        return "a link, or a program"
    return f"over {runs.LARGEST_FILE >> 20} MiB" if size > runs.LARGEST_FILE else ""


def odd(path: str, text: bytes) -> str:
    """Why what is in a file that is carried is none of a result; empty if it is one."""
    place = Place.of(path)
    try:
        if place.is_run:
            runs.head_of(Path(path), text.partition(b"\n")[0])
        elif place.name == machines.FILE:
            machines.described(Path(path).parent.name, text)
    except (runs.Odd, ValueError, RecursionError) as error:
        return command.one_line(str(error))
    return ""


def joined(one: bytes, other: bytes) -> bytes:
    """The lines of both: those of `one`, and after them those that only `other` has."""
    known = set(lines(one))
    more = [line for line in lines(other) if line not in known]
    return b"".join(line + b"\n" for line in [*lines(one), *more])


def lines(text: bytes) -> list[bytes]:
    """The lines of a text; one that is cut short, by a kill or because it is just being written, is none."""
    *whole, last = text.split(b"\n")
    return [line for line in [*whole, last if is_json(last) else b""] if line]


def is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def same_folder(results: Path, there: Iterable[str]) -> dict[str, str]:
    """The machines of the branch whose folder is another's where case makes no difference, as on a Mac; and whose.

    Those that are in `results` come first.
    """
    here = sorted(folder.name for folder in results.iterdir() if folder.is_dir()) if results.is_dir() else []
    taken = {name.casefold(): name for name in here}
    owners = {
        name: taken.setdefault(name.casefold(), name) for name in sorted({Place.of(path).machine for path in there})
    }
    return {name: other for name, other in owners.items() if name != other}


def refuse_another(ours: Iterable[str], there: Iterable[str]) -> None:
    """Raise UserError if a machine of `ours` would share a folder with another one's that is `there` on a Mac."""
    known_names = {Place.of(path).machine for path in there}
    spelled = {name.casefold(): name for name in known_names}
    for name in {Place.of(path).machine for path in ours} - known_names:
        if other := spelled.get(name.casefold()):
            raise command.UserError(
                f"the branch has a machine {other!r}, and {name!r} is the same folder on a Mac; call this one otherwise"
            )


def told(left_out: Mapping[str, str]) -> list[str]:
    """What is not carried, in lines: some by name, the rest counted."""
    lines = [f"left out: {command.one_line(path)}: {why}" for path, why in left_out.items()]
    return [*lines[:FEW], *([f"left out: {len(lines) - FEW} more files"] if len(lines) > FEW else [])]
