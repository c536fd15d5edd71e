"""What every command shares: its parser, one-line errors, JSON files."""

import argparse
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.text import Text

from benchmarks.harness.files import write_whole

PARENT = "ADAMW_BENCH_PARENT"
"""The environment variable that tells a command, or asv, which process it must not outlive."""

WIDTH = 100
"""Columns of what is printed where there is no terminal."""

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


def busy(what: str) -> AbstractContextManager[object]:
    """Says what takes a while: beside a spinner on a terminal, else once, in a line."""
    console = Console(stderr=True)
    if console.is_terminal:
        return console.status(Text(what))
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
    """`text` as one printable line of at most 300 characters."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())[:300]


def write_json(path: Path, data: Any) -> None:
    """Write `data`; null in place of a number that is not finite, which JSON does not know."""
    write_whole(path, json.dumps(finite(data), indent=2, allow_nan=False) + "\n")


def finite(data: Any) -> Any:
    """`data` with None in place of infinities and NaN."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
