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


class Measurement(NamedTuple):
    """Everything measured of one case in one process.

    first_step  seconds of the first step with cold caches: tracing, compiling kernels, running
    step        seconds a step
    host        seconds to build the graph of a step, nothing evaluated; one figure a sample
    work        what a step does; counted once a run, as it is always the same
    error       largest relative error against the float64 reference after agreement.STEPS steps
    wall        seconds that measuring took, all of it
    """

    first_step: float
    step: Samples
    host: list[float]
    memory: Memory
    work: Counters
    error: float
    wall: float

    def to_dict(self) -> dict[str, Any]:
        plain = self._asdict()
        plain |= {name: plain[name]._asdict() for name in ("step", "memory", "work")}
        plain["host"] = rounded(self.host)
        plain["step"]["seconds"] = rounded(self.step.seconds)
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Measurement":
        parts = {
            "step": Samples(**plain["step"]),
            "memory": Memory(**plain["memory"]),
            "work": Counters(**plain["work"]),
        }
        return cls(**(plain | parts))


def rounded(seconds: list[float]) -> list[float]:
    """Six significant digits: no clock is better, and the files stay small."""
    return [float(f"{value:.6g}") for value in seconds]
