"""A folder for this process's temporary files, below .asv/tmp, removed at its end.

A killed process cannot remove its own: the next one does.
"""

import atexit
import os
import shutil
from pathlib import Path
from threading import Lock

import psutil

ROOT = Path(".asv/tmp")

MADE: set[Path] = set()
"""By this process: what else it finds in its place is what a killed one of the same number left."""

MAKING = Lock()


def folder() -> Path:
    """This process's folder, made when it is asked for the first time."""
    mine = ROOT.absolute() / str(os.getpid())
    with MAKING:
        if mine not in MADE:
            for other in mine.parent.glob("[0-9]*"):
                if other == mine or (other.name.isdecimal() and not psutil.pid_exists(int(other.name))):
                    shutil.rmtree(other, ignore_errors=True)
            mine.mkdir(parents=True)
            MADE.add(mine)
            atexit.register(shutil.rmtree, mine, ignore_errors=True)
    return mine
