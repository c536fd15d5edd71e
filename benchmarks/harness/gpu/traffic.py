"""Steps for a profiler that counts the bytes which kernels move."""

import ctypes
import gc
from collections.abc import Iterator

import mlx.core as mx

from benchmarks.harness import cases
from benchmarks.harness.gpu.chosen import TRAFFIC
from benchmarks.harness.gpu.lines import Line
from benchmarks.harness.step import Step


def traffic(*names: str) -> Iterator[Line]:
    """Take one step of every case, of TRAFFIC if none is named, for a profiler that is told when it begins and ends."""
    driver = ctypes.CDLL("libcuda.so.1")
    ones = mx.ones(32)
    mx.eval(ones)
    for name in names or TRAFFIC:
        step = Step(cases.case(*name.split("/", 1)))
        for _ in range(2):
            step()
        driver.cuProfilerStart()
        mx.eval(mx.sin(ones))  # ncu.MARKER, alone
        mx.synchronize()
        step()
        driver.cuProfilerStop()
        yield {"what": "profiled", "case": name}
        del step
        gc.collect()
        mx.clear_cache()
