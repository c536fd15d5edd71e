"""A process that is asked by another: lines on its standard input, a line of JSON for each on its standard output.

It ends when its input ends, or whoever started it is gone, even in the middle of an answer.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO


def hold(serve: Callable[[TextIO], Iterable[dict[str, Any]]]) -> None:
    """Answer what `serve` makes of the lines of standard input."""
    answers = own_output()
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    for answer in serve(sys.stdin):
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def own_output() -> TextIO:
    """Standard output for the answers alone: whatever a variant prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def failure(error: BaseException) -> dict[str, str]:
    """The answer to what went wrong."""
    return {"failed": f"{type(error).__name__}: {error}"[:500]}
