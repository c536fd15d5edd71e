"""Work that must not be left half done: Python may raise KeyboardInterrupt between any two of its instructions."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
"""Those whose handlers raise something, by habit: Ctrl-C, the end of a job or of a terminal, a limit of time."""


@contextmanager
def held() -> Iterator[None]:
    """Inside, no signal's Python handler is called; those that were due are called at the end.

    They are called in the main thread only: in another nothing is to be held.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))}
    came: list[int] = []
    try:
        for number in handlers:
            signal.signal(number, lambda signal_number, _: came.append(signal_number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for due in came:
            signal.raise_signal(due)
