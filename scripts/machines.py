"""What a machine can be called, and whose results are below a folder.

A machine's name is a folder on macOS and on Linux, a key of asv's file, a path on the results branch and in what a
workflow carries, and a word in every report. One rule holds for all of them, and whoever takes a name asks it here.
"""

import json
import platform
import unicodedata
from pathlib import Path

from benchmarks.harness.ledger import RUNS
from scripts import command

FILE = "machine.json"
"""What asv writes into a machine's folder."""

EVENTS = ("alerts.jsonl", "calibration.jsonl", "nights.jsonl", "releases.jsonl")
"""What happened on a machine: each file is a set of lines that only grows."""

VERSION = 1
"""Of that file."""

MOST_TEXT = 1000
"""Characters of what it says."""

MOST_BYTES = 100
"""Of a name: beside it a file's name has a lane, a commit and an ending, and a file system allows 255 for all."""

FORBIDDEN = '"*/:<>?[\\]|'
"""What separates paths, is a pattern, or what a workflow's artifact cannot carry."""

RESERVED = ("benchmarks.json", "git~1", "gpu", "mlx", "version")
"""Taken, in any case: files and folders beside the machines', git's own folder by another name, a key of asv's file."""


def why_not(name: str) -> str:
    """Why a machine cannot be called `name`; empty if it can."""
    if odd(name):
        return f"it has {', '.join(map(spelled, odd(name)))}"
    if not name or name != " ".join(name.split()):
        return "it is empty, or has a space too many"
    if name.startswith((".", "-")) or name.endswith("."):
        return "it begins or ends with what a folder's name should not"
    if not unicodedata.is_normalized("NFC", name):
        return "its accents are characters of their own"
    if len(name.encode()) > MOST_BYTES:
        return f"it is longer than {MOST_BYTES} bytes"
    return "that is taken" if name.casefold() in RESERVED else ""


def odd(name: str) -> list[str]:
    """The characters of `name` that no machine's name has."""
    return sorted({one for one in name if one in FORBIDDEN or not one.isprintable()})


def spelled(character: str) -> str:
    return f"{character!r}" if character.isprintable() else f"U+{ord(character):04X}"


def allowed(name: str) -> str:
    """A name like `name` that a machine can have."""
    words = unicodedata.normalize("NFC", name).split()
    plain = " ".join("".join("-" if one in odd(word) else one for one in word) for word in words)
    plain = plain.strip("-. ").encode()[:MOST_BYTES].decode(errors="ignore").strip("-. ")
    return f"mac-{plain}".rstrip("-") if why_not(plain) else plain


def refusal(name: str) -> str:
    """What is said of a name that a machine cannot have, in one line."""
    shown = "".join(one if one.isprintable() or one == "\xa0" else ascii(one)[1:-1] for one in name[:255])
    return f"no machine can be called '{shown}': {why_not(name)}; '{allowed(name)}' would do"


def named(name: str) -> str:
    """`name`, if a machine can have it. Raises UserError."""
    if why_not(name):
        raise command.UserError(refusal(name))
    return name


def this(name: str | None = None) -> str:
    """What this machine is called: `name`, or without one its host name. Raises UserError."""
    return named(name or platform.node())


def for_asv(name: str) -> str:
    """What one types so that asv knows a machine of that name."""
    quoted = "'" + name.replace("'", "'\\''") + "'"
    return f".venv/bin/python -m asv machine --yes --machine {quoted}"


def folders(results: Path) -> tuple[list[Path], list[str]]:
    """The machines' folders below `results`; and in lines which others have results, and why they are no machine's."""
    found, left_out = [], []
    for folder in sorted(results.iterdir()) if results.is_dir() else []:
        described = any((folder / name).exists() for name in (FILE, RUNS, *EVENTS))
        if not described and (not folder.is_dir() or not has_results(folder)):
            continue
        if why_not(folder.name):
            left_out.append(f"{results}: {refusal(folder.name)}")
        elif not described:
            left_out.append(f"{folder}: it has results, but no {FILE} that says of which machine")
        else:
            found.append(folder)
    return found, left_out


def has_results(folder: Path) -> bool:
    """Whether files of results are in a folder itself. A lane's has its machines' folders, and what asv describes."""
    names = {path.name for path in folder.iterdir()}
    return RUNS in names or any(Path(one).suffix in (".json", ".jsonl") and one not in RESERVED for one in names)


def described(name: str, text: bytes) -> None:
    """Raise ValueError unless that is asv's file of the machine called `name`."""
    told = json.loads(text)
    if not isinstance(told, dict) or told.get("machine") != name:
        raise ValueError(f"it is not asv's file of machine {name!r}")
    if told.get("version") != VERSION or not all(is_text(value) for key, value in told.items() if key != "version"):
        raise ValueError("it is no file of asv's of a machine")


def is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) < MOST_TEXT and value.isprintable()
