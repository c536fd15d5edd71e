"""What is measured of a case, as plain data: written by the process that measures, read by those that report."""

import statistics
from typing import Any, NamedTuple

from benchmarks.harness.counters import Counters


class Samples(NamedTuple):
    """Seconds a call, one figure a sample; `number` calls made each sample.

    `busy` is the process's CPU time over the wall time of all samples. On MLX's CPU backend a value below about 0.95
    says that another process held the core.
    """

    seconds: list[float]
    number: int
    busy: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Memory(NamedTuple):
    """Bytes in the steady state: MLX's counters, and what the process really holds (RSS; on macOS the footprint)."""

    peak: int
    active: int
    cache: int
    process: int


class Energy(NamedTuple):
    """The energy of a step, by the machine's own counter.

    joules      a step, what the idle machine uses in that time subtracted
    idle_watts  of the machine when nothing is asked of it
    watts       of the machine while steps were repeated, all of it
    seconds     of the window
    steps       in it
    source      who counted, and the energy of what
    """

    joules: float
    idle_watts: float
    watts: float
    seconds: float
    steps: int
    source: str


class Traffic(NamedTuple):
    """The bytes that one step moved from and to DRAM, by the device's own counters; `source` says which."""

    read: float
    written: float
    source: str


class Measurement(NamedTuple):
    """Everything measured of one case in one process.

    first_step  seconds of the first step with cold caches: tracing, compiling kernels, running
    step        seconds a step
    host        seconds to build the graph of a step, nothing evaluated; one figure a sample
    work        what a step does; counted once a run, as it is always the same
    error       largest relative error against the float64 reference after agreement.STEPS steps
    wall        seconds that measuring took, all of it
    energy      of a step; None if it was not asked for or cannot be told here
    traffic     of a step; likewise
    """

    first_step: float
    step: Samples
    host: list[float]
    memory: Memory
    work: Counters
    error: float
    wall: float
    energy: Energy | None = None
    traffic: Traffic | None = None

    def to_dict(self) -> dict[str, Any]:
        plain = {name: value for name, value in self._asdict().items() if value is not None}
        plain |= {name: plain[name]._asdict() for name in PARTS if name in plain}
        plain["host"] = rounded(self.host)
        plain["step"]["seconds"] = rounded(self.step.seconds)
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Measurement":
        return cls(**(plain | {name: part(**plain[name]) for name, part in PARTS.items() if name in plain}))


PARTS: dict[str, Any] = {
    "step": Samples,
    "memory": Memory,
    "work": Counters,
    "energy": Energy,
    "traffic": Traffic,
}
"""What of a Measurement is no number; what may be missing was not measured."""


def rounded(seconds: list[float]) -> list[float]:
    """Six significant digits: no clock is better, and the files stay small."""
    return [float(f"{value:.6g}") for value in seconds]
