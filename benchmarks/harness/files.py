"""Files that are complete or untouched, whatever is killed and whenever."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write `path` in one piece: whoever reads it sees all of the new text or all of the old."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
