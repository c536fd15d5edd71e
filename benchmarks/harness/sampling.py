"""The one routine that owns the timing loop."""

import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.harness.measurement import Samples

MINIMUM_SAMPLES = 7  # asv's significance test cannot tell 6 from 6, however far apart they are
MAXIMUM_SAMPLES = 60
SHORTEST_SAMPLE = 0.01  # seconds: below it the clock and the scheduler are part of the figure
BUDGET = 1.5  # seconds of samples, once there are enough
WARM_UP = 0.1  # seconds
WARM_UP_CALLS = 2


def sample(
    call: Callable[[], object],
    synchronize: Callable[[], object] = lambda: None,
    budget: float = BUDGET,
    minimum: int = MINIMUM_SAMPLES,
) -> Samples:
    """Time `call`, which must end synchronised with the device; `synchronize` waits for work begun before the clock.

    A short call is repeated within a sample until the sample lasts SHORTEST_SAMPLE; samples are taken until `budget`
    seconds are spent and there are at least `minimum`. The garbage collector is off while the clock runs.
    """
    number = max(1, math.ceil(SHORTEST_SAMPLE / warm_up(call)))
    seconds: list[float] = []
    cpu = 0.0
    with no_garbage_collection():
        while len(seconds) < minimum or (sum(seconds) * number < budget and len(seconds) < MAXIMUM_SAMPLES):
            synchronize()
            cpu_start, start = time.process_time(), time.perf_counter()
            for _ in range(number):
                call()
            elapsed = time.perf_counter() - start
            cpu += time.process_time() - cpu_start
            seconds.append(elapsed / number)
    return Samples(seconds, number, cpu / (sum(seconds) * number))


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
