"""Joules a step, by the machine's own counter of energy, where it has one (`host`: Meter).

A step takes a hundredth to a thousandth of the time between two movements of such a counter, so steps are repeated
for at least SHORTEST seconds, from one movement of the counter to another. What the idle machine uses in that time is
subtracted.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.harness.host import HERE
from benchmarks.harness.host.meter import Meter
from benchmarks.harness.measurement import Energy

SHORTEST = 2.0
"""Seconds of a window. NVML's counter moves every 10 to 100 ms, IOReport's and RAPL's every millisecond."""

LONGEST_TICK = 0.5
"""Seconds within which a counter that counts must move."""

POLL = 0.002


class NotMeasured(RuntimeError):
    """No figure, because it would be none; the message says why, in one line."""


class Reading(NamedTuple):
    """What the counter said, at the moment when it moved."""

    joules: float
    seconds: float


def idle_meter(backend: str, bus: str) -> tuple[Meter, float]:
    """The machine's counter of energy, and the watts of the idle machine by it. Raises NotMeasured if nothing counts.

    It is to be called before anything is asked of the machine. `bus` is that of MLX's card, empty for any.
    """
    meter = HERE.energy(backend, bus)
    if meter is None:
        raise NotMeasured("nothing counts energy, or nothing that may be read")
    return meter, idle_watts(meter)


def idle_watts(meter: Meter, seconds: float = SHORTEST) -> float:
    """Watts while nothing is asked of the machine. Raises NotMeasured."""
    start = tick(meter, lambda: time.sleep(POLL))
    time.sleep(seconds)
    end = tick(meter, lambda: time.sleep(POLL))
    return (end.joules - start.joules) / (end.seconds - start.seconds)


def measure(call: Callable[[], object], meter: Meter, idle: float, seconds: float = SHORTEST) -> Energy:
    """The energy of `call`, which ends synchronised with the device; `idle` is what the machine uses else, in watts.

    Raises NotMeasured for a window below SHORTEST, a counter that stands still, or one that says less than idle.
    """
    if seconds < SHORTEST:
        raise NotMeasured(f"a window of {seconds:g} s is too short for a counter of energy; at least {SHORTEST:g} s")
    steps = 0

    def step() -> None:
        nonlocal steps
        call()
        steps += 1

    start = tick(meter, step)
    steps = 0
    until = start.seconds + seconds
    while time.perf_counter() < until:
        step()
    end = tick(meter, step)
    window = end.seconds - start.seconds
    used = end.joules - start.joules
    above = used - idle * window
    if above <= 0:
        raise NotMeasured(f"{used / window:.1f} W while steps ran, {idle:.1f} W idle: nothing that is the steps' own")
    return Energy(above / steps, idle, used / window, window, steps, meter.source)


def tick(meter: Meter, meanwhile: Callable[[], object]) -> Reading:
    """The counter's next movement, `meanwhile` being called again and again. Raises NotMeasured if it does not move."""
    before, begin = meter.joules(), time.perf_counter()
    while True:
        meanwhile()
        now, joules = time.perf_counter(), meter.joules()
        if joules != before:
            return Reading(joules, now)
        if now - begin > LONGEST_TICK:
            raise NotMeasured(f"{meter.source}: the counter stands still")
