"""Files of lines that are only ever added to: an object of JSON a line, which counts once, however often it is there.

Git and people join such files, and may bring a line twice. Each has an id; of older ones, which have none, the same
text is the same line.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from benchmarks.harness import numbers
from benchmarks.harness.files import append_line, locked
from scripts import command

LARGEST_FILE = 64 * 2**20
LONGEST_LINE = 2**20

Text = Annotated[str, Meta(max_length=300, pattern="^[^\\x00-\\x1f\\x7f-\\x9f\u2028\u2029\ud800-\udfff]*$")]
"""On one line, and nothing that cannot be written or sent."""

Whole = Annotated[int, Meta(ge=-(2**53), le=2**53)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Size = Annotated[int, Meta(gt=0, le=2**53)]
Positive = Annotated[float, Meta(gt=0, le=1e300)]
"""Finite, also when it is told in thousandths."""

ODD = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What making sense of somebody's line may raise."""

Entry = dict[str, Any]
Kind = TypeVar("Kind")


class Named(msgspec.Struct):
    """What every line may have; the rest is another's to know."""

    id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


def add(path: Path, *entries: Mapping[str, Any]) -> None:
    """Add a line an entry to a machine's file, in one piece, so that the power may go.

    Each gets an id, unless it has one; then it is added once, however often it is added.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parents[1]):
        known: set[str] = set()
        if any("id" in entry for entry in entries):
            known.update(read(path, lambda _, entry: entry.get("id", ""))[0])
        new = [{**entry, "id": entry.get("id") or secrets.token_hex(8)} for entry in entries]
        told = [numbers.line(entry) for entry in new if entry["id"] not in known]
        if told:
            append_line(path, "\n".join(told), durable=True)


def read(path: Path, make: Callable[[str, Entry], Kind]) -> tuple[list[Kind], list[str]]:
    """What `make` makes of every line of `path` and its place, the oldest first; and what is wrong, in lines.

    Nothing if there is no such file.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            return [], [f"{path}: over {LARGEST_FILE >> 20} MiB; shorten it"]
        texts = path.read_text(errors="replace").split("\n")
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"{path}: {error.strerror}"]
    known: set[str] = set()
    found, problems = [], []
    for number, text in enumerate(map(str.strip, texts), 1):
        place = f"{path}:{number}"
        try:
            if text and (told := parsed(text, known)) is not None:
                found.append(make(place, told))
        except ODD as error:
            problems.append(odd(place, error))
    return found, problems


def parsed(text: str, known: set[str]) -> Entry | None:
    """What a line says; None if it is among those that are `known`, else it is then. Raises one of ODD."""
    if len(text) > LONGEST_LINE:
        raise ValueError(f"over {LONGEST_LINE >> 20} MiB")
    told = json.loads(text)
    name = msgspec.convert(told, Named).id or text
    if name in known:
        return None
    known.add(name)
    return told


def few(problems: list[str]) -> list[str]:
    """The first problem of a file, and how many more there are."""
    more = len(problems) - 1
    return [problems[0] + f" (and {more} more line{'s' * (more > 1)})" * (more > 0)] if problems else []


def odd(place: str, error: Exception) -> str:
    """What is said of a line of which nothing could be made."""
    return command.one_line(f"{place}: it is passed over: {error}")
