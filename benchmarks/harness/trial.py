"""A variant tried on a model, in a process of its own, for `scripts.advise`.

The process reads a request from its standard input and answers with a trial; both are JSON. When whoever started it is
gone, so is the process.
"""

import json
import os
import sys
import threading
import time
from typing import Any, NamedTuple

from benchmarks.harness import agreement, behaviour, check, model
from benchmarks.harness.behaviour import Behaviour
from benchmarks.harness.conversation import end_with_parent, own_output
from benchmarks.harness.evaluation import flat
from benchmarks.harness.measure import measure_memory, private_caches, sample_untraced
from benchmarks.harness.measurement import Memory, Samples, rounded
from benchmarks.harness.model import ModelCase
from benchmarks.harness.modelstep import ModelStep

LONGEST_SAMPLING = 4.0  # seconds
FEWEST_SAMPLES = 3


class Request(NamedTuple):
    """What to try. `until` is when sampling should be over, in seconds since the epoch."""

    variant: str
    precision: str
    sources: list[str]
    dtype: str | None
    without: str | None
    bias_correction: bool
    until: float


class Trial(NamedTuple):
    """seconds a step, memory in bytes, the largest relative error of the first steps, and the variant's behaviour."""

    step: Samples
    memory: Memory
    error: float
    behaviour: Behaviour

    def to_dict(self) -> dict[str, Any]:
        step = self.step._replace(seconds=rounded(self.step.seconds))
        return {
            "step": step._asdict(),
            "memory": self.memory._asdict(),
            "error": self.error,
            "behaviour": self.behaviour._asdict(),
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Trial":
        return cls(Samples(**plain["step"]), Memory(**plain["memory"]), plain["error"], Behaviour(**plain["behaviour"]))


def run(case: ModelCase, until: float) -> Trial:
    """Check `case`, then measure it. Raises check.WrongCase."""
    step = ModelStep(case)
    expected = check.Check(case, step)
    dtypes = [array.dtype for array in flat(step.parameters)]
    for _ in range(agreement.STEPS):
        step()
    error = expected.error(step)
    if [array.dtype for array in flat(step.parameters)] != dtypes:
        raise check.WrongCase(f"{case}: a parameter's dtype changed")
    check.check_kernels(case, step)
    step()
    memory = measure_memory(step)
    observed = behaviour.observe(case)
    samples = sample_untraced(case, step, min(LONGEST_SAMPLING, until - time.time()), FEWEST_SAMPLES)
    return Trial(samples, memory, error, observed)


def main() -> None:
    answers = own_output()
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    request = Request(**json.load(sys.stdin))
    try:
        loaded = model.load(request.sources, request.dtype, request.without)
        case = model.case(loaded, request.variant, request.precision, request.bias_correction)
        with private_caches():
            answer: dict[str, Any] = {"trial": run(case, request.until).to_dict()}
    except Exception as error:
        answer = {"failed": f"{type(error).__name__}: {error}"[:500]}
    answers.write(json.dumps(answer))


if __name__ == "__main__":
    main()
