"""What a check of the doctor is: what it found, and what to type."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from scripts import command
from scripts.nightly.settings import Settings

RUNNER, LABEL = "actions.runner.", "adamw.nightly"
"""What begins the name of a GitHub runner's service, and the name of scripts/nightly/adamw.nightly.plist."""


class Finding(NamedTuple):
    """What a check found.

    fit   whether it is as it should be; None: it cannot be told here
    says  the finding in words
    do    what to type; of a check that is fine it is advice
    """

    fit: bool | None
    says: str
    do: str = ""


Look = Callable[[Settings], Finding]
NOT_TOLD = Finding(None, "no answer that tells")


def failed(error: command.UserError) -> Finding:
    """A UserError's message: the cause and, behind the semicolon, the next step."""
    cause, _, step = str(error).partition("; ")
    return Finding(False, cause, step or cause)


def text_of(path: Path) -> str:
    """What is in a file; empty if it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
