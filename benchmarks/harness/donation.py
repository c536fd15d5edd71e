"""Which kernels write over a buffer they read, and what a step allocates because others do not.

MLX gives an input's buffer to the output when nobody else needs it ("donation"). Whether this release does so for a
plain kernel, a fused one, and a fused one with several outputs is measured, not assumed: mlx 0.30.0 did not for fused
kernels, 0.31.2 does, and none until 0.32.4 does for several outputs. The rest follows from the graph.

How high a step's memory really rises depends on how far MLX runs ahead of the device: a buffer is free again only when
the kernel that read it last is done. Counted is what holds however far it runs ahead: between two moments at which the
step waits, everything that is allocated is there at once. MLX's own peak counter shows that or less, unless the variant
keeps temporaries.
"""

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import mlx.core as mx

from benchmarks.harness.counters import Donation
from benchmarks.harness.graph import Graph, Kernel

ELEMENTWISE = frozenset(
    {
        *("Abs", "Add", "AsType", "Divide", "Exp", "Log", "Maximum", "Minimum", "Multiply", "Negative", "Power"),
        *("Rsqrt", "Select", "Sigmoid", "Sign", "Sqrt", "Square", "Subtract", "Tanh"),
    }
)
"""Plain kernels that donate; others are taken to allocate."""

PROBE = 2**20
"""Elements of the arrays with which donation is measured."""


@cache
def measure() -> Donation:
    """Evaluate one kernel of each kind, its input given away, and see whether memory rises. It compiles two kernels."""
    single = mx.compile(lambda array: array * 2.0 + 1.0)
    several = mx.compile(two_results)
    return Donation(
        plain=donates(lambda array: [array * 2.0]),
        fused=donates(lambda array: [single(array)]),
        several_outputs=donates(lambda array: list(several(array))),
    )


def two_results(array: mx.array) -> tuple[mx.array, mx.array]:
    """The second computed from the first, as w' from m': MLX fuses them into one kernel."""
    first = array * 2.0 + 1.0
    return first, first * 3.0 - 1.0


def donates(function: Callable[[mx.array], list[mx.array]]) -> bool:
    """Whether `function`, one kernel, allocates less than it returns."""
    limit = mx.set_cache_limit(0)  # a recycled buffer may be larger than what it holds
    mx.clear_cache()  # Metal would take one all the same
    try:
        held = [mx.full((PROBE,), 0.5)]
        mx.eval(held)
        mx.synchronize()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        results = function(held.pop())
        mx.eval(results)
        mx.synchronize()
        return mx.get_peak_memory() - before < sum(array.nbytes for array in results) - PROBE
    finally:
        mx.set_cache_limit(limit)


class Allocation(NamedTuple):
    """What one kernel allocates: its new arrays with their bytes, and the inputs it writes over instead."""

    new: dict[int, int]
    given: set[int]


def allocations(graph: Graph, donation: Donation, held: set[int]) -> list[Allocation] | None:
    """Every kernel's allocation; None where this MLX does not tell the sizes of all arrays.

    `held` are the arrays of `graph.before` that somebody else keeps, so that they cannot be written over.
    """
    if any(graph.nbytes[array] is None for kernel in graph.kernels for array in kernel.outputs):
        return None
    readers = Counter(array for kernel in graph.kernels for array in kernel.inputs)
    needed = held | graph.shared | set(graph.after)
    free = {array for array, count in readers.items() if count == 1 and array not in needed}
    return [allocation(kernel, graph.nbytes, donation, free) for kernel in graph.kernels]


def allocation(kernel: Kernel, nbytes: list[int | None], donation: Donation, free: set[int]) -> Allocation:
    """The allocation of `kernel`, which may write over those of its inputs that are `free`."""
    if len(kernel.outputs) > 1:
        donates = kernel.is_fused and donation.several_outputs
    else:
        donates = donation.fused if kernel.is_fused else donation.plain and kernel.label in ELEMENTWISE
    givers = [array for array in kernel.inputs if donates and array in free]
    new: dict[int, int] = {}
    given: set[int] = set()
    for output in kernel.outputs:
        if output in kernel.inputs:
            continue  # written where it lies
        size = nbytes[output] or 0
        giver = next((array for array in givers if nbytes[array] == size and array not in given), None)
        if giver is not None:
            given.add(giver)
        elif size:
            new[output] = size
    return Allocation(new, given)


def peak_bytes(graph: Graph, allocations: list[Allocation], held: set[int]) -> int:
    """The most that can be there at once: what the step starts with, and what it allocates between two waits.

    When the step waits, what was evaluated so far is done: its temporaries are free again, and so are the old arrays
    that nobody holds and no later kernel reads.
    """
    results = set(graph.after)
    last_reader = {array: kernel.stage for kernel in graph.kernels for array in kernel.inputs}
    old = {array for array in graph.before if array in last_reader} - held - results
    old -= {array for new in allocations for array in new.given}
    there = {array for array in graph.before if array in last_reader or array in held}
    resident = peak = sum(graph.nbytes[array] or 0 for array in there)
    in_flight: list[int] = []
    done = -1
    for stage, (waits, latest) in enumerate(graph.stages):
        here = [new for kernel, new in zip(graph.kernels, allocations, strict=True) if kernel.stage == stage]
        resident += sum(sum(new.new.values()) for new in here)
        peak = max(peak, resident)
        lost = [size for new in here for array, size in new.new.items() if array not in results]
        in_flight.append(sum(lost) + sum(graph.nbytes[array] or 0 for array in old if last_reader[array] == stage))
        if waits and latest > done:
            resident -= sum(in_flight[done + 1 : latest + 1])
            done = latest
    return peak
