"""What a few steps with well-behaved gradients do not show of a variant, seen on a small tree.

The check before a measurement uses gradients near 1 for three steps. Training has gradients of zero (rows of an
embedding that no batch contains), small ones, and thousands of steps. In half precision eps = 1e-8 is 0 in float16, and
b2 = 0.999 is 1 in bfloat16: the first makes zero gradients NaN, with the second v never decays.
"""

from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from adamw import reference
from benchmarks.harness import check, trees
from benchmarks.harness.cases import LEARNING_RATE
from benchmarks.harness.evaluation import flat
from benchmarks.harness.model import ModelCase, leaf
from benchmarks.harness.modelstep import ModelStep

SIDE = 16
"""Elements in each of a small leaf's dimensions."""

MOST_DIMENSIONS = 4

TINY = 1e-4
"""A gradient whose square, times 1 - b2, is below float16's smallest number."""

QUIET_STEPS = 100
B2 = 0.999


class Behaviour(NamedTuple):
    """faults    in what it is not AdamW, in lines
    overwrites  whether it changes memory that somebody else still looks at
    traceable   whether a step can be part of a compiled function
    """

    faults: list[str]
    overwrites: bool
    traceable: bool


def observe(case: ModelCase) -> Behaviour:
    """The behaviour of `case` in its precision, on a small tree with the dtypes of its model."""
    small = ModelCase(*case)
    small.tree = small_tree(case.tree)
    faults = [gradients_of(small, 0.0), gradients_of(small, TINY), decay_of_v(small)]
    return Behaviour([fault for fault in faults if fault], overwrites(small), traceable(small))


def small_tree(tree: Any) -> Any:
    """For every dtype of `tree` two leaves, with as many dimensions as its largest leaf: they take the same kernels.

    Two, because with one leaf MLX puts a step's scalar arithmetic into the leaf's kernel.
    """
    largest = {str(one.dtype): one for one in sorted(trees.leaves(tree), key=lambda one: one.size)}
    shapes = {dtype: [SIDE] * min(max(len(one), 1), MOST_DIMENSIONS) for dtype, one in sorted(largest.items())}
    return {"leaves": [leaf(shape, dtype) for dtype, shape in shapes.items() for _ in range(2)]}


def gradients_of(case: ModelCase, value: float) -> str | None:
    """What goes wrong in the parameters with gradients of `value`. They may be half of their way off."""
    step = ModelStep(case)
    step.gradients = tree_map(lambda gradient: mx.full(gradient.shape, value, gradient.dtype), step.gradients)
    start = [values(parameter) for parameter in flat(step.parameters)]
    for _ in range(check.STEPS):
        step()
    for before, parameter in zip(start, flat(step.parameters), strict=True):
        found = values(parameter)
        if not np.isfinite(found).all():
            return f"gradients of {value:g} make parameters {'NaN' if np.isnan(found).any() else 'infinite'}"
        expected = reference.start(before)
        for t in range(1, check.STEPS + 1):
            gradient = np.full_like(before, value)
            expected = reference.step(
                expected, gradient, t, learning_rate=LEARNING_RATE, bias_correction=case.bias_correction
            )
        way = np.abs(expected.w - before).max()
        if value and np.abs(found - expected.w).max() > way / 2:
            return f"with gradients of {value:g} parameters go another way than AdamW's"
    return None


def decay_of_v(case: ModelCase) -> str | None:
    """Whether v falls as it should, by b2 a step, once the gradients are zero."""
    step = ModelStep(case)
    step()
    before = [values(state["v"]).mean() for state in check.leaf_states(step)]
    step.gradients = tree_map(mx.zeros_like, step.gradients)
    for _ in range(QUIET_STEPS):
        step()
    after = [values(state["v"]).mean() for state in check.leaf_states(step)]
    due = B2**QUIET_STEPS
    left = max((new / old for old, new in zip(before, after, strict=True)), key=lambda one: abs(one - due))
    if abs(left - due) < (1 - due) / 2:
        return None
    speed = "slowly" if left > due else "fast"
    return f"v decays too {speed}: {left:.0%} of it is left after {QUIET_STEPS} steps without gradients, not {due:.0%}"


def overwrites(case: ModelCase) -> bool:
    """Whether a step changes the memory of old parameters that somebody else still looks at, through a view."""
    step = ModelStep(case)
    step()  # which may copy what it does not own yet
    views = [parameter.reshape(-1) for parameter in flat(step.parameters)]
    before = [values(view) for view in views]
    step()
    return any((values(view) != old).any() for view, old in zip(views, before, strict=True))


def traceable(case: ModelCase) -> bool:
    step = ModelStep(case)
    captured = [step.optimizer.state]
    compiled = mx.compile(step.optimizer.apply_gradients, inputs=captured, outputs=captured)
    try:
        mx.eval(compiled(step.gradients, step.parameters), step.optimizer.state)
    except Exception:  # whatever MLX, or a variant that leaves MLX, has against it
        return False
    return True


def values(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32)).astype(np.float64)
