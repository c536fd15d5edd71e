"""What every command shares: its parser, one-line errors, JSON files."""

import argparse
import json
import math
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TextIO

import psutil
from rich.console import Console
from rich.text import Text

from benchmarks.harness import numbers
from benchmarks.harness.files import write_whole
from scripts import git_environment

PARENT = "ADAMW_BENCH_PARENT"
"""The environment variable that tells a command, or asv, which process it must not outlive."""

WIDTH = 100
"""Columns of what is printed where there is no terminal."""

COLOURS = ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "PY_COLORS", "PYTHON_COLORS")
"""Environment variables that ask for colours, or for what only a terminal shows, wherever the output goes."""

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()*+].|[@-Z\\^_])")
"""What a terminal takes for colours, titles, or movements of the cursor."""

OWN_WORK = "in the measured processes' own work"
"""Part of the line with which a run ends, so that a command can find it in asv's output."""


class UserError(Exception):
    """Something the user can mend: its message names the cause and the next step, in one line."""


def parser(description: str | None, epilog: str) -> argparse.ArgumentParser:
    """A parser whose help ends with examples, printed as they are."""
    called = Path(sys.argv[0])
    return argparse.ArgumentParser(
        prog=f"python -m scripts.{called.parent.name if called.stem == '__main__' else called.stem}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(main: Callable[[], int]) -> int:
    """The exit code of `main`; 2 and one line for a UserError or a file that cannot be written, 130 if interrupted.

    A closed terminal and a polite kill end the command as Ctrl-C does, so that nothing stays behind.
    """
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda number, frame: sys.exit(128 + number))
    end_with_parent()
    git_environment.forget_repository()
    try:
        return main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; files written before are whole", file=sys.stderr)
        return 130


def end_with_parent() -> None:
    """Interrupt this process as soon as the one that PARENT names is gone: a killed command leaves nothing running."""
    if PARENT not in os.environ:
        return
    parent = int(os.environ.pop(PARENT))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who was started in the background ignores it

    def watch() -> None:
        while psutil.pid_exists(parent):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Clean up without being interrupted: who asks twice, as a cancelled job does, would leave processes behind."""
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(name, signal.SIG_IGN) for name in names]
    try:
        yield
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)


def kill(process: subprocess.Popen) -> None:
    """End a process, its group, and all that they started, in whatever session that is; it is gone afterwards."""
    started: list[psutil.Process] = []
    with suppress(psutil.Error):
        started = psutil.Process(process.pid).children(recursive=True)
    with suppress(ProcessLookupError, PermissionError):  # the latter on macOS, of one that just ended
        os.killpg(process.pid, signal.SIGKILL)
    for one in started:
        with suppress(psutil.Error):
            one.kill()
    process.wait()


def console(stderr: bool = False, width: int | None = None, record: bool = False) -> Console:
    """A console on standard output, or on standard error; without a terminal it has WIDTH columns and nothing moves.

    A pipe gets colours where they are asked for (FORCE_COLOR), a file gets none: there they would be text.
    """
    file = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        width=width or (None if file.isatty() else WIDTH),
        force_terminal=False if is_kept(file) else None,
        force_interactive=file.isatty(),
        record=record,
    )


def is_kept(file: TextIO) -> bool:
    """Whether what is written to `file` stays there: on a disk or in memory."""
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):
        return True


def uncoloured() -> dict[str, str]:
    """This process's environment for a program whose output is read or kept: nothing in it asks for colours."""
    return {name: value for name, value in os.environ.items() if name not in COLOURS} | {"NO_COLOR": "1"}


def busy(what: str) -> AbstractContextManager[object]:
    """Says what takes a while: beside a spinner on a terminal, else once, in a line."""
    told = console(stderr=True)
    if told.is_interactive:
        return told.status(Text(what))
    print(what, file=sys.stderr)
    return nullcontext()


def file_path(text: str) -> Path:
    """An argument that names a file to write: refused at once, not after the work, if it cannot be one."""
    path = Path(text)
    if path.is_dir() or not path.name:
        raise argparse.ArgumentTypeError(f"{text!r} is a folder; name a file")
    if not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: no such folder, or no permission")
    return path


def positive(text: str) -> float:
    """An argument that is a number above zero."""
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError(text)
    return number


def one_line(text: str) -> str:
    """`text` as one printable line of at most 300 characters, without a terminal's colours."""
    plain = ESCAPES.sub("", text)
    return "".join(character for character in " ".join(plain.split()) if character.isprintable())[:300]


def write_json(path: Path, data: Any) -> None:
    """Write `data`: an infinity, which JSON does not know, as the string "Infinity", and what is missing as null."""
    write_whole(path, json.dumps(finite(data), indent=2, allow_nan=False) + "\n")


def finite(data: Any) -> Any:
    """`data` as JSON can have it: None in place of NaN, which is what a frame has where a figure is missing."""
    return numbers.spoken(present(data))


def present(data: Any) -> Any:
    """`data` with None in place of NaN."""
    if isinstance(data, dict):
        return {key: present(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [present(value) for value in data]
    return None if isinstance(data, float) and math.isnan(data) else data
