"""A folder for this process's temporary files, below .asv/tmp, removed at its end.

A killed process cannot remove its own: the next one does.
"""

import atexit
import os
import shutil
from pathlib import Path

import psutil

ROOT = Path(".asv/tmp")


def folder() -> Path:
    """This process's folder, made when it is asked for the first time."""
    mine = ROOT.absolute() / str(os.getpid())
    if not mine.exists():
        for other in ROOT.glob("[0-9]*"):
            if other.name.isdecimal() and not psutil.pid_exists(int(other.name)):
                shutil.rmtree(other, ignore_errors=True)
        mine.mkdir(parents=True)
        atexit.register(shutil.rmtree, mine, ignore_errors=True)
    return mine
