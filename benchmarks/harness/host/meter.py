"""What counts energy, wherever there is something that does."""

from collections.abc import Callable
from typing import NamedTuple


class Meter(NamedTuple):
    """A counter of energy.

    source  who counts, and the energy of what
    joules  what it says now: joules since a moment that stays the same for as long as this process lives
    """

    source: str
    joules: Callable[[], float]
