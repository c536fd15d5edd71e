"""Files that are complete or untouched, whatever is killed and whenever."""

import os
from pathlib import Path


def write_whole(path: Path, text: str, durable: bool = False) -> None:
    """Write `path` in one piece: whoever reads it sees all of the new text or all of the old.

    If it is to be `durable`, that holds when the power goes as well.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Add a line to `path` in one piece. One that a kill has cut short is lost; this one is not."""
    with path.open("a+b") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
        cut_short = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * cut_short + line.encode() + b"\n")
