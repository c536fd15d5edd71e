"""What the operating system's commands print: text of any kind, or none."""

import os
import subprocess
from collections.abc import Callable

SECONDS = 20
"""Within which a command must answer."""

MOST = 2**20
"""Characters of an answer that are looked at."""

Run = Callable[..., str]
"""Runs the command that its arguments are, as `output` does. Tests give recorded answers instead."""


def output(*command: str) -> str:
    """What `command` prints, in English; empty if it is missing, fails or takes too long."""
    environment = os.environ | {"LC_ALL": "C", "LANGUAGE": "en"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=True, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")[:MOST]
