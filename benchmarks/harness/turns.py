"""A process that times one case for `scripts.compare`, in turns with another process that times the other side.

Its first line is the case; the answer says that it is ready. Every further line asks for a turn. Between turns it
waits, and holds no core.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from benchmarks.harness import conversation, machine, sampling
from benchmarks.harness.cases import Case
from benchmarks.harness.host import HERE
from benchmarks.harness.sampling import no_garbage_collection

SMALL = 4096
"""Elements of the array that the extra arithmetic goes over: it fits a first-level cache."""


def serve(lines: TextIO) -> Iterator[dict[str, Any]]:
    """The answers: {"seconds": of a warm step, "backend": MLX's}, then a sampling.Turn for every turn.

    The first line is {"case": NAME, "check": whether to hold it against the reference}; each other one asks for a turn
    with {"steps": how many, "extra": arithmetic after each of them, "core": where to begin}.
    """
    try:
        asked = json.loads(next(lines))
        step, seconds, traces = ready(asked["case"], asked["check"])
        yield {"seconds": seconds, "backend": machine.backend()}
        with no_garbage_collection():
            for line in lines:
                taken = turn(step, **json.loads(line))
                if traces():
                    raise RuntimeError(f"{asked['case']}: traced again while the clock ran")
                yield taken._asdict()
    except Exception as error:
        yield conversation.failure(error)


def ready(name: str, checked: bool) -> tuple[Callable[[], None], float, Callable[[], int]]:
    """The warm step of the case called `name`, the seconds it takes, and what counts the traces from now on.

    A first one is made, stepped and dropped: in memory that a process has never used a large leaf's steps take twice
    as long in one process of four (see sampling.ROTATION), in memory that has been used before they do not.
    """
    import mlx.core as mx

    import adamw
    from benchmarks.harness import cases
    from benchmarks.harness.step import TRACES, Step

    mx.set_cache_limit(machine.buffer_cache_limit())
    variant, _, workload = name.partition("/")
    case = cases.case(variant, workload, adamw.names())
    rehearse(case, checked)
    mx.clear_cache()
    step = Step(case)
    seconds = sampling.warm_up(step)
    traces = TRACES.traces
    return step, seconds, lambda: TRACES.traces - traces


def rehearse(case: Case, checked: bool) -> None:
    """Take the first steps of `case`. With `checked` raise WrongCase unless they are AdamW's."""
    from benchmarks.harness import agreement, check
    from benchmarks.harness.step import Step

    step = Step(case)
    expected = check.Check(case, step) if checked else None
    for _ in range(agreement.STEPS):
        step()
    if expected:
        expected.error(step)
        check.check_dtypes(case, step)
        check.check_kernels(case, step)


def turn(step: Callable[[], None], steps: int, extra: int = 0, core: int | None = None) -> sampling.Turn:
    """`steps` steps by the clock, after one that is not: the other side's turn has emptied the caches.

    That one runs on `core`, so that both sides begin there: cores are not equally fast, least of all a virtual
    machine's, and a process would stay on its own. The steps by the clock may use all cores.
    """
    call = slowed(step, extra) if extra else step
    with HERE.on_core(core):
        call()
    return sampling.turn(call, steps)


def slowed(step: Callable[[], None], extra: int) -> Callable[[], None]:
    """`step`, and after it `extra` multiplications of a small array: a slowdown of a known cause, and no sleep."""
    import numpy as np

    array, one = np.ones(SMALL, np.float32), np.float32(1)

    def call() -> None:
        step()
        for _ in range(extra):
            np.multiply(array, one, out=array)

    return call


if __name__ == "__main__":
    conversation.hold(serve)
