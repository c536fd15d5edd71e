"""The least time a step can take on this device.

    roofline seconds = fixed + launch x leaves + ideal bytes / bandwidth ceiling

`fixed` is what MLX needs to evaluate anything at all and `launch` what one more kernel adds, both measured here. One
kernel a leaf is the least that an update leaf by leaf can launch; a variant that takes several leaves in one launch may
come out below 1.
"""

import time
from typing import NamedTuple

import mlx.core as mx

from benchmarks.harness.cases import Case
from benchmarks.harness.ceiling import Ceiling

TINY_LEAVES = 512
REPEATS = 15


class Launch(NamedTuple):
    """Seconds to evaluate one tiny kernel, and seconds that each further one adds."""

    fixed: float
    each: float


class Roofline(NamedTuple):
    """What this machine allows, measured in this run."""

    ceiling: Ceiling
    launch: Launch

    def seconds(self, case: Case) -> float:
        streaming = case.ideal_bytes / self.ceiling.bytes_per_second
        return self.launch.fixed + self.launch.each * case.leaf_count + streaming


def measure_launch() -> Launch:
    """Launch costs of MLX's default device, from the fastest of several evaluations of 1 and of many tiny kernels."""
    tiny = [mx.full((16,), 0.5) for _ in range(TINY_LEAVES)]
    mx.eval(tiny)

    def shortest(arrays: list[mx.array]) -> float:
        best = float("inf")
        for _ in range(REPEATS):
            results = [array + array for array in arrays]
            mx.synchronize()
            start = time.perf_counter()
            mx.eval(results)
            mx.synchronize()
            best = min(best, time.perf_counter() - start)
        return best

    fixed, many = shortest(tiny[:1]), shortest(tiny)
    return Launch(fixed, max(0.0, (many - fixed) / (TINY_LEAVES - 1)))
