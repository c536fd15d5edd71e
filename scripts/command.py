"""What every command shares: its parser, one-line errors and files written in one piece."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class UserError(Exception):
    """Something the user can mend: its message names the cause and the next step, in one line."""


def parser(description: str | None, epilog: str) -> argparse.ArgumentParser:
    """A parser whose help ends with examples, printed as they are."""
    return argparse.ArgumentParser(
        prog=f"python -m scripts.{Path(sys.argv[0]).stem}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(main: Callable[[], int]) -> int:
    """The exit code of `main`; 2 and one line for a UserError or a file that cannot be written, 130 if interrupted."""
    try:
        return main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was written before is whole", file=sys.stderr)
        return 130


def write_text(path: Path, text: str) -> None:
    """Write `path` so that it is complete or untouched."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=2) + "\n")
