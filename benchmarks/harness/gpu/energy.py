"""Joules of the variants' steps."""

import gc
from collections.abc import Iterator

import mlx.core as mx

from benchmarks.harness import cases, machine
from benchmarks.harness import energy as counted
from benchmarks.harness.gpu.chosen import ENERGY
from benchmarks.harness.gpu.lines import Line, joules_twice
from benchmarks.harness.step import Step


def energy() -> Iterator[Line]:
    """Yield the joules a step of every case of ENERGY, each measured twice."""
    mx.eval(mx.ones(3))
    try:
        meter, idle = counted.idle_meter(machine.backend(), machine.bus())
    except counted.NotMeasured as error:
        yield {"what": "energy", "why": f"not available here: {error}"}
        return
    for name in ENERGY:
        case = cases.case(*name.split("/", 1))
        about = {"what": "energy", "case": name, "parameters": case.parameter_count}
        if case.needed_bytes > machine.free_bytes():
            yield about | {"why": "needs more memory than is free"}
            continue
        step = Step(case)
        for _ in range(3):
            step()
        yield from joules_twice(about, step, meter, idle)
        del step
        gc.collect()
        mx.clear_cache()
