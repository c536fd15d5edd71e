"""Files that are complete or untouched, whatever is killed and whenever."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"

UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL)
"""What file systems of networks and of other machines' disks answer: Apple's own sources have three of them."""


def write_whole(path: Path, text: str | bytes, durable: bool = False) -> None:
    """Write `path` in one piece: whoever reads it sees all of the new text or all of the old.

    If it is to be `durable`, that holds when the power goes as well.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
            if durable:
                file.flush()
                synced(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    if durable:
        synced_folder(path.parent)


def append_line(path: Path, line: str, durable: bool = False) -> None:
    """Add a line to `path` in one piece. One that a kill has cut short is lost; this one is not.

    If it is to be `durable`, it stays when the power goes as well.
    """
    with path.open("a+b") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
        cut_short = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * cut_short + line.encode() + b"\n")
        if durable:
            file.flush()
            synced(file.fileno())
    if durable:
        synced_folder(path.parent)


def synced(file: int) -> None:
    """Have the disk itself hold what was written to `file`. Raises OSError if it cannot.

    On a Mac fsync leaves it in the drive's own memory, and F_FULLFSYNC does not.
    """
    full = getattr(fcntl, "F_FULLFSYNC", None)
    with where_supported():
        if full is not None:
            fcntl.fcntl(file, full)
            return
    os.fsync(file)


def synced_folder(folder: Path) -> None:
    """The same for the names in a folder, without which a new file is gone; not every file system has to be asked."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        with where_supported():
            synced(opened)
    finally:
        os.close(opened)


@contextmanager
def where_supported() -> Iterator[None]:
    """Leaves a block of which the file system knows nothing."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


@contextmanager
def locked(results: Path) -> Iterator[None]:
    """Hold the one lock of a folder of results: who adds to a file of it, or replaces one, does so alone.

    A process that is killed holds it no more.
    """
    with (results / LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
