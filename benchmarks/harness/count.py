"""The exact counters of a case: what one of its steps does, counted without running it at its size.

A case's arrays have their real shapes and dtypes, but take no memory and are never computed: the graph of a step, its
traces and the host's work do not depend on values. What only evaluation can show (what stays in memory after a step,
whether the graph grows) is seen in a few real steps of the same tree in miniature.
"""

import sys
import weakref
from pathlib import Path
from types import FrameType
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.harness import agreement, check, donation, dot, graph, trees
from benchmarks.harness.cases import Case
from benchmarks.harness.counters import Counters, Donation
from benchmarks.harness.evaluation import as_if_evaluated, everything, flat, held_back, hollow, replace, undone
from benchmarks.harness.sampling import no_garbage_collection
from benchmarks.harness.step import TRACES, Step
from benchmarks.harness.tracing import untraced_variants

TRACED_STEPS = 10
MINIATURE = trees.Shape((64, 128))
"""What every leaf becomes: small, and larger than all of a step's scalars together; in every dtype a page of 16 KiB, a
part of one, or whole ones, since Metal allocates whole pages and what it adds would look like an array left behind.
"""

HARNESS = str(Path(__file__).parent)


class HollowStep(Step):
    """A case whose arrays take no memory; to evaluate them is to say that it was done."""

    def fill(self, shapes: Any, random: np.random.Generator, dtype: mx.Dtype) -> Any:
        return trees.mapped(lambda shape: hollow(shape, dtype), shapes)

    def dispatch(self) -> None:
        with held_back():
            super().dispatch()

    def evaluate(self) -> None:
        """Results, and what the optimizer holds beside its state if they depend on it; anything else stays pending."""
        results = flat([self.gradients, self.held, self.optimizer.state])
        known = {id(array) for array in results}
        private = [array for array in flat(everything(self.optimizer)) if id(array) not in known]
        if private:
            text = dot.read([*results, *private])
            needed = text.ancestors(text.given[: len(results)])
            private = [one for one, number in zip(private, text.given[len(results) :], strict=True) if number in needed]
        instead = as_if_evaluated([*results, *private])
        replace([self.__dict__, everything(self.optimizer), self.optimizer.state], instead)


class MiniatureStep(Step):
    """A case with the same tree of small leaves."""

    def shapes(self, case: Case) -> Any:
        return trees.mapped(lambda shape: MINIATURE, super().shapes(case))


def count(case: Case, donates: Donation | None = None) -> Counters:
    """The counters of one step of `case`, where MLX `donates` as is known, or is measured here.

    Variants are imported anew, so that every case counts its own traces.
    """
    with no_garbage_collection():
        with untraced_variants():
            counters = at_full_size(case, donates or donation.measure())
        with untraced_variants():
            return counters._replace(**in_miniature(case))


def at_full_size(case: Case, donates: Donation) -> Counters:
    """What needs no evaluation: the graph of a step, its traces, the host's calls."""
    traces = TRACES.traces
    step = HollowStep(case)
    for _ in range(TRACED_STEPS):
        step()
    traces = TRACES.traces - traces
    calls = python_calls(step)
    found = graph.read(step)
    held = held_arrays(step, found)
    kernels = found.leaf_kernels
    results = set(found.after)
    reads = [found.nbytes[array] for kernel in kernels for array in kernel.inputs]
    writes = [found.nbytes[array] for kernel in kernels for array in kernel.outputs]
    between = [array for kernel in kernels for array in kernel.outputs if array not in results]
    new = donation.allocations(found, donates, held)
    state = graph.leaves(step.optimizer.state)
    parameters = graph.leaves(step.parameters)
    return Counters(
        kernels=len(kernels),
        fused_kernels=sum(kernel.is_fused for kernel in kernels),
        scalar_kernels=len(found.kernels) - len(kernels),
        modelled_bytes=total(reads + writes),
        bytes_read=total(reads),
        primitives=found.primitive_count,
        temporaries=sum(found.nbytes[array] != 0 for array in between),
        allocated_bytes=None if new is None else sum(sum(one.new.values()) for one in new),
        peak_bytes=None if new is None else donation.peak_bytes(found, new, held),
        held_arrays=len(held) - len(graph.leaves(step.gradients)),
        evaluations=len(found.stages) - 1,
        waits=sum(waits for waits, _ in found.stages) - 1,
        traces=traces,
        calls=calls,
        parameter_dtypes=dtypes(parameters),
        state_dtypes=dtypes(state),
        result_bytes=sum(array.nbytes for array in parameters + state),
    )


def total(sizes: list[int | None]) -> int | None:
    return None if None in sizes else sum(size or 0 for size in sizes)


def dtypes(arrays: list[mx.array]) -> str:
    return ", ".join(sorted({str(array.dtype).removeprefix("mlx.core.") for array in arrays}))


def held_arrays(step: HollowStep, found: graph.Graph) -> set[int]:
    """The arrays of `found.before` that somebody still holds when the kernel that reads them last is evaluated.

    `found` is the graph of the step's next call, which is made here.
    """
    last_stage = {array: kernel.stage for kernel in found.kernels for array in kernel.inputs}
    results = set(found.after)
    watched = [
        (number, last_stage.get(number, len(found.stages) - 1), weakref.ref(array))
        for number, array in zip(found.before, graph.step_arrays(step), strict=True)
        if number not in results  # an array that is written where it lies stays
    ]
    held: set[int] = set()
    stages = iter(range(len(found.stages)))

    def observe() -> None:
        now = next(stages)
        held.update(number for number, stage, array in watched if stage == now and array() is not None)

    with held_back(observe):
        Step.dispatch(step)
    observe()
    step.evaluate()
    return held


def python_calls(step: HollowStep) -> int:
    """Python functions and builtins called while the host builds the graph of one step; the harness's not counted."""
    calls = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        if event in ("call", "c_call") and not frame.f_code.co_filename.startswith(HARNESS):
            calls += 1

    with undone(step.optimizer), held_back():
        before = sys.getprofile()
        sys.setprofile(profile)
        try:
            step.optimizer.apply_gradients(step.gradients, step.parameters)
        finally:
            sys.setprofile(before)
    return calls


def in_miniature(case: Case) -> dict[str, Any]:
    """What only evaluation shows: what stays in memory after a step, and whether anything grows from step to step."""
    limit = mx.set_cache_limit(0)  # a recycled buffer may be larger than what it holds
    mx.clear_cache()  # Metal would take one all the same
    try:
        before = mx.get_active_memory()
        step = MiniatureStep(case)
        expected = check.Check(case, step)
        active, graphs = [], []
        for _ in range(agreement.STEPS):
            step()
            active.append(mx.get_active_memory())
            graphs.append(graph_size(step))
        own = {id(array): array.nbytes for array in flat([step.gradients, step.held, step.optimizer.state])}
        kept = active[-1] - before - sum(own.values())
        return {
            "kept_arrays": kept // min(array.nbytes for array in flat(step.parameters)),
            "graph_growth": graphs[-1] - graphs[-2],
            "memory_growth": active[-1] - active[-2],
            "wrong_results": int(is_wrong(expected, step)),
        }
    finally:
        mx.set_cache_limit(limit)


def is_wrong(expected: check.Check, step: Step) -> bool:
    """Whether the steps so far gave something else than AdamW, beyond the tolerance of the case's precision."""
    try:
        expected.error(step)
    except check.WrongCase:
        return True
    return False


def graph_size(step: Step) -> int:
    """Operations in the graph of the next step and of all that the optimizer holds; fused ones counted as one."""
    with undone(step.optimizer), held_back():
        parameters = step.optimizer.apply_gradients(step.gradients, step.parameters)
        return len(dot.parse(dot.text(flat([parameters, everything(step.optimizer)])))[0])
