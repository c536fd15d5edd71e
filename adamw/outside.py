"""The door for work that MLX's graph does not contain, so that whoever measures can see it, or hold it back."""

from collections.abc import Callable


def run(work: Callable[[], None], arrays: Callable[[], tuple[list, list]]) -> None:
    """Do `work`, which reads and writes the memory of evaluated arrays by itself.

    `arrays` gives, when asked, those that it reads and those that it writes, each read or written once.
    """
    work()
