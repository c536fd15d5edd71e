"""The seconds of the variants' steps."""

import statistics
from collections.abc import Iterator
from functools import partial

import mlx.core as mx

import adamw
from adamw.ownership import InPlaceAdamW
from benchmarks.harness import cases, machine, measure
from benchmarks.harness.cases import Case
from benchmarks.harness.gpu.chosen import BUDGET, OWN, PEERS_PRECISIONS, PRECISIONS
from benchmarks.harness.gpu.lines import Line, guarded
from benchmarks.harness.measurement import rounded
from benchmarks.harness.step import Step


def steps(tree: str) -> Iterator[Line]:
    """Yield the steps of every variant on one tree, checked and timed."""
    with measure.private_caches():
        for precision in PRECISIONS:
            for variant in adamw.names():
                if precision not in cases.precisions(variant) or adamw.unavailable(variant):
                    continue
                for corrected in (False, True) if variant in OWN and precision in PEERS_PRECISIONS else (False,):
                    yield from step_of(Case(variant, precision, tree, corrected))


def step_of(case: Case) -> Iterator[Line]:
    """Yield the figures of a case, or why it has none."""
    about = {"what": "step", "case": str(case), "ideal_bytes": case.ideal_bytes}
    mx.synchronize()  # what is freed is given back when the device is done
    free = machine.free_bytes()
    if case.needed_bytes > free:
        needs = f"needs {case.needed_bytes / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
        yield about | {"skipped": needs}
        return
    yield from guarded(about, partial(timed, case))
    mx.clear_cache()


def timed(case: Case) -> Line:
    """The figures of a case whose result is right. Raises check.WrongCase."""
    step = Step(case)
    proof = measure.prove(case, step)
    memory = measure.measure_memory(step)
    samples = measure.sample_untraced(case, step, BUDGET)
    step.dispatch_only()
    works_outside = isinstance(step.optimizer, InPlaceAdamW)  # what it launches is not in the graph that is built
    host = None if works_outside else statistics.median(step.dispatch_only() for _ in range(5))
    return {
        "seconds": rounded(samples.seconds),
        "number": samples.number,
        "first_step": proof.first_step,
        "host": host,
        "resident_bytes": case.resident_bytes,
        **memory._asdict(),
        "error": proof.error,
    }
