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
