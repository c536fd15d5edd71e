"""What a few steps with well-behaved gradients do not show of a variant.

The check before a measurement uses gradients near 1 for three steps. Training has gradients of zero (rows of an
embedding that no batch contains), tiny ones, and thousands of steps. In half precision eps = 1e-8 is 0 in float16, and
b2 = 0.999 is 1 in bfloat16: the first makes zero gradients NaN, with the second v never decays.
"""

from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from benchmarks.harness import accuracy, trees
from benchmarks.harness.accuracy import DECAY_STEPS, ELEMENTS, TINY, Run, float64
from benchmarks.harness.evaluation import flat
from benchmarks.harness.model import ModelCase, leaf
from benchmarks.harness.modelstep import ModelStep

SIDE = 16
"""Elements in each of a small leaf's dimensions."""

MOST_DIMENSIONS = 4

CONSTANT_STEPS = 100
LONG_RUN = 2000

LARGEST_ERROR = 0.5
"""Of the parameters' way in the long run. 1 is as wrong as not to move at all."""

ANOTHER_WAY = 1.5
"""An error of constant gradients, where not to move is no fault: the rounding of half precision may bring it about."""

FAR = 1e9
"""An error that is not finite, which JSON does not know."""

LARGEST_ERROR_OF_V = 0.1
"""v that does not decay is 65 % too large after 500 steps."""


class Behaviour(NamedTuple):
    """long_run    error of the parameters' way in 2000 steps with gradients of many sizes
    faults      in what it is not AdamW, in lines
    overwrites  whether it changes memory that somebody else still looks at
    traceable   whether a step can be part of a compiled function
    """

    long_run: float
    faults: list[str]
    overwrites: bool
    traceable: bool


def observe(case: ModelCase) -> Behaviour:
    """The behaviour of `case` in its precision: on one small leaf, and on a small tree with the dtypes of its model."""
    small = ModelCase(*case)
    small.tree = small_tree(case.tree)
    error = long_run(case)
    found = [constant_gradients(case, 0.0), constant_gradients(case, TINY), decay_of_v(case)]
    if LARGEST_ERROR < error < np.inf:
        found.append(f"after {LONG_RUN} steps of 0.001 its parameters, near 1, are {error:.0%} of AdamW's way off")
    return Behaviour(min(error, FAR), [fault for fault in found if fault], overwrites(small), traceable(small))


def long_run(case: ModelCase) -> float:
    run = Run(case.variant, case.precision, bias_correction=case.bias_correction)
    random = np.random.default_rng(1)
    for _ in range(LONG_RUN):
        run.step(random.normal(0.02, 0.1, ELEMENTS))
    return run.error()


def constant_gradients(case: ModelCase, value: float) -> str | None:
    """What goes wrong in the parameters with gradients of `value`."""
    run = Run(case.variant, case.precision, bias_correction=case.bias_correction)
    for _ in range(CONSTANT_STEPS):
        run.step(np.full(ELEMENTS, value))
    error = run.error()
    if np.isinf(error):
        return f"gradients of {value:g} make parameters infinite or NaN"
    if value and error > ANOTHER_WAY:  # without gradients the way is so short that all rounding is more
        return f"with gradients of {value:g} parameters go another way than AdamW's"
    return None


def decay_of_v(case: ModelCase) -> str | None:
    """Whether v falls as it should, by b2 a step, when the gradients are zero."""
    error = accuracy.v_decay(case.variant, case.precision)
    if error <= LARGEST_ERROR_OF_V:
        return None
    return f"after {DECAY_STEPS} steps without gradients v is {error:.0%} off: it does not decay as b2 says"


def small_tree(tree: Any) -> Any:
    """For every dtype of `tree` two leaves, with as many dimensions as its largest leaf: they take the same kernels.

    Two, because with one leaf MLX puts a step's scalar arithmetic into the leaf's kernel.
    """
    largest = {str(one.dtype): one for one in sorted(trees.leaves(tree), key=lambda one: one.size)}
    shapes = {dtype: [SIDE] * min(max(len(one), 1), MOST_DIMENSIONS) for dtype, one in sorted(largest.items())}
    return {"leaves": [leaf(shape, dtype) for dtype, shape in shapes.items() for _ in range(2)]}


def overwrites(case: ModelCase) -> bool:
    """Whether a step changes the memory of old parameters that somebody else still looks at, through a view."""
    step = ModelStep(case)
    step()  # which may copy what it does not own yet
    views = [parameter.reshape(-1) for parameter in flat(step.parameters)]
    before = [float64(view) for view in views]
    step()
    return any((float64(view) != old).any() for view, old in zip(views, before, strict=True))


def traceable(case: ModelCase) -> bool:
    step = ModelStep(case)
    captured = [step.optimizer.state]
    compiled = mx.compile(step.optimizer.apply_gradients, inputs=captured, outputs=captured)
    try:
        mx.eval(compiled(step.gradients, step.parameters), step.optimizer.state)
    except Exception:  # whatever MLX, or a variant that leaves MLX, has against it
        return False
    return True
