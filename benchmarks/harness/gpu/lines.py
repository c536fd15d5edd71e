"""What the parts tell: lines, which become JSON."""

import gc
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

from benchmarks.harness import energy
from benchmarks.harness.host.meter import Meter

Line = dict[str, Any]

BUS = "ADAMW_BUS"
"""The environment variable that tells a part without MLX the bus on which MLX's card is."""


def guarded(about: Line, look: Callable[[], Line]) -> Iterator[Line]:
    """Yield `about` with what `look` finds, or with `why` it finds nothing."""
    try:
        yield about | look()
    except Exception as error:
        yield about | {"why": in_words(error)}
    gc.collect()


def joules_twice(about: Line, step: Callable[[], object], meter: Meter, idle: float) -> Iterator[Line]:
    """Yield `about` with the energy of `step`, measured twice; `idle` is what the machine uses else, in watts."""
    for _ in range(2):
        yield from guarded(about, lambda: energy.measure(step, meter, idle)._asdict())


def in_words(error: Exception) -> str:
    """What an exception says, in one line of bounded length."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def importable(package: str) -> bool:
    """Whether Python finds `package`; it is not imported."""
    return find_spec(package) is not None
