"""Which of many names a regular expression finds, within bounds: some expressions would search for years."""

import re
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

LONGEST = 300
"""Characters of a regular expression."""

SECONDS = 10.0
"""Of searching."""


class BadPattern(ValueError):
    """No regular expression that can be searched for; the message, one line, says why."""


def found(pattern: str, names: Iterable[str]) -> set[str]:
    """The names in which `pattern` finds something. Raises BadPattern."""
    search = compiled(pattern).search
    with at_most(SECONDS):
        return {name for name in names if search(name)}


def compiled(pattern: str) -> re.Pattern[str]:
    if len(pattern) > LONGEST:
        raise BadPattern(f"longer than {LONGEST} characters; give a shorter regular expression")
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadPattern(f"no regular expression: {error}") from error


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise BadPattern after `seconds`. Only a process's main thread can be bounded so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def too_long(*_: object) -> NoReturn:
    raise BadPattern(f"not searched for in {SECONDS:g} s; give a simpler regular expression")
