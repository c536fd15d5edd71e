"""The one routine that owns the timing loop."""

import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from benchmarks.harness.measurement import Samples

MINIMUM_SAMPLES = 7  # asv's significance test cannot tell 6 from 6, however far apart they are
MAXIMUM_SAMPLES = 60
SHORTEST_SAMPLE = 0.01  # seconds: below it the clock and the scheduler are part of the figure
BUDGET = 1.5  # seconds of samples, once there are enough
ROTATION = 2
"""Calls after which MLX's buffers have changed places and back: steps of one large leaf may take 11 ms, 22 ms, 11 ms,
22 ms in one process, and 11 ms always in the next. A sample of fewer would be of one or the other by chance."""

LONG = 0.25  # seconds of a call: so large a tree has many buffers, or costs too much to be called twice a sample
WARM_UP = 0.1  # seconds
WARM_UP_CALLS = 2


def sample(
    call: Callable[[], object],
    synchronize: Callable[[], object] = lambda: None,
    budget: float = BUDGET,
    minimum: int = MINIMUM_SAMPLES,
) -> Samples:
    """Time `call`, which must end synchronised with the device; `synchronize` waits for work begun before the clock.

    A call is repeated within a sample, at least until the sample lasts SHORTEST_SAMPLE; samples are taken until
    `budget` seconds are spent and there are at least `minimum`. The garbage collector is off while the clock runs.
    """
    number = calls(warm_up(call))
    turns: list[Turn] = []
    spent = 0.0
    with no_garbage_collection():
        while len(turns) < minimum or (spent < budget and len(turns) < MAXIMUM_SAMPLES):
            synchronize()
            turns.append(turn(call, number))
            spent += turns[-1].seconds * number
    cpu = sum(one.seconds * one.busy for one in turns) * number
    return Samples([one.seconds for one in turns], number, cpu / spent)


def calls(seconds: float) -> int:
    """How often a call that takes `seconds` is made in a sample."""
    return 1 if seconds >= LONG else ROTATION * math.ceil(SHORTEST_SAMPLE / seconds / ROTATION)


class Turn(NamedTuple):
    """Calls made in one go.

    seconds  a call
    busy     the process's CPU time over wall time
    """

    seconds: float
    busy: float


def turn(call: Callable[[], object], number: int) -> Turn:
    """Time `number` calls."""
    cpu_start, start = time.process_time(), time.perf_counter()
    for _ in range(number):
        call()
    elapsed = time.perf_counter() - start
    cpu = time.process_time() - cpu_start
    return Turn(elapsed / number, cpu / elapsed)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def warm_up(call: Callable[[], object]) -> float:
    """Call until warm; the shortest call's seconds."""
    shortest = math.inf
    spent = calls = 0.0
    while calls < WARM_UP_CALLS or spent < WARM_UP:
        start = time.perf_counter()
        call()
        elapsed = time.perf_counter() - start
        shortest, spent, calls = min(shortest, elapsed), spent + elapsed, calls + 1
    return shortest
