"""One case in one process: checked, then measured, every metric of it."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import mlx.core as mx

from benchmarks.harness import agreement, check, extras, machine
from benchmarks.harness.cases import Case
from benchmarks.harness.count import count
from benchmarks.harness.counters import Counters, Donation
from benchmarks.harness.host import HERE
from benchmarks.harness.measurement import Measurement, Memory, Samples
from benchmarks.harness.sampling import BUDGET, MINIMUM_SAMPLES, no_garbage_collection, sample
from benchmarks.harness.step import TRACES, Step

MEMORY_STEPS = 3
HOST_SAMPLES = 15


def measure(case: Case, work: Counters | None = None, donates: Donation | None = None) -> Measurement:
    """Measure `case` in this process, which should be a fresh one. Its `work` is counted, unless it is known already.

    Raises check.WrongCase.
    """
    begin = time.perf_counter()
    with private_caches():
        step = Step(case)
        proof = prove(case, step)
        memory = measure_memory(step)
        seconds = sample_untraced(case, step)
        with no_garbage_collection():
            step.dispatch_only()
            host = [step.dispatch_only() for _ in range(HOST_SAMPLES)]
        energy = extras.energy_of(str(case), step)
        work = work or count(case, donates)  # last: it leaves its marks on the process's memory
        check.check_counters(case, work, proof.kernels)
        wall = time.perf_counter() - begin
        return Measurement(proof.first_step, seconds, host, memory, work, proof.error, wall, energy)


class Proof(NamedTuple):
    """What the first steps of a case showed, which are right.

    first_step  seconds of the very first one
    error       the largest relative error of parameters and moments
    kernels     of a step that touch a leaf, and how many of them are fused
    """

    first_step: float
    error: float
    kernels: tuple[int, int]


def prove(case: Case, step: Step) -> Proof:
    """Take the first steps of a case. Raises check.WrongCase if their results, dtypes or kernels are not the case's."""
    expected = check.Check(case, step)
    start = time.perf_counter()
    step()
    first_step = time.perf_counter() - start
    for _ in range(agreement.STEPS - 1):
        step()
    error = expected.error(step)
    check.check_dtypes(case, step)
    kernels = check.check_kernels(case, step)
    step()
    return Proof(first_step, error, kernels)


def sample_untraced(case: Case, step: Step, budget: float = BUDGET, minimum: int = MINIMUM_SAMPLES) -> Samples:
    """Seconds of `step`, as `sampling.sample` takes them. Raises check.WrongCase if one of the steps was traced."""
    traces = TRACES.traces
    samples = sample(step, mx.synchronize, budget, minimum)
    if TRACES.traces != traces:
        raise check.WrongCase(f"{case}: traced {TRACES.traces - traces} times while the clock ran")
    return samples


def measure_memory(step: Step) -> Memory:
    mx.reset_peak_memory()
    for _ in range(MEMORY_STEPS):
        step()
    active = mx.get_active_memory()
    # The peak counter starts from 0, not from what is active: a step that donates everything would report none.
    return Memory(max(mx.get_peak_memory(), active), active, mx.get_cache_memory(), HERE.footprint_bytes())


@contextmanager
def private_caches() -> Iterator[None]:
    """A kernel cache of this process alone, and no limit on MLX's buffer cache.

    MLX finds its compiled kernels on disk by name and version, not by content, so two commits would share them. Its
    CPU backend keeps only 32 MiB of freed buffers, and giving the rest back to the system would be part of every step.
    """
    folder = tempfile.mkdtemp(prefix="adamw-kernels-", dir=os.getcwd() if "ASV" in os.environ else None)
    saved = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = folder
    limit = mx.set_cache_limit(machine.buffer_cache_limit())
    try:
        yield
    finally:
        mx.set_cache_limit(limit)
        if saved is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = saved
        shutil.rmtree(folder, ignore_errors=True)
