"""A case made ready to run: inputs from fixed seeds, evaluated, and held so that MLX may reuse the old buffers."""

import itertools
import time
from functools import cache
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from benchmarks.harness import trees
from benchmarks.harness.cases import LEARNING_RATE, Case
from benchmarks.harness.evaluation import held_back, undone
from benchmarks.harness.inputs import SEED, STRIDE, TILE, values
from benchmarks.harness.tracing import TraceCounter

TRACES = TraceCounter()
TRACES.install()  # before any variant is imported

import adamw  # noqa: E402


class Step:
    """One update of a whole tree, to be called again and again.

    Only this object holds the parameters, and it gives them away in every step; the optimizer alone holds the state.
    """

    def __init__(self, case: Case) -> None:
        precision = case.precision
        shapes = self.shapes(case)
        random = np.random.default_rng(SEED)
        self.gradients = self.fill(shapes, random, getattr(mx, precision.gradient))
        self.held = [self.fill(shapes, random, getattr(mx, precision.parameter))]
        self.optimizer = adamw.create(case.variant, learning_rate=LEARNING_RATE, bias_correction=case.bias_correction)
        if self.state_is_of_the_parameters(case):
            self.optimizer.init(self.parameters)
        else:
            state_dtype = getattr(mx, precision.state)
            self.optimizer.init(tree_map(lambda array: mx.zeros(array.shape, state_dtype), self.parameters))
        self.evaluate()

    def state_is_of_the_parameters(self, case: Case) -> bool:
        """Whether the optimizer makes its state of the parameters, not of zeros in the precision's dtype."""
        return case.precision.state_is_the_variants

    def shapes(self, case: Case) -> Any:
        return trees.build(case.tree_name)

    def fill(self, shapes: Any, random: np.random.Generator, dtype: mx.Dtype) -> Any:
        return filled(shapes, values(random), dtype)

    @property
    def parameters(self) -> Any:
        return self.held[0]

    def dispatch(self) -> None:
        """Build the graph of one step. Nothing is evaluated, unless the variant evaluates."""
        self.held.append(self.optimizer.apply_gradients(self.gradients, self.held.pop()))

    def dispatch_only(self) -> float:
        """Seconds to build the graph of one step, which is then dropped; evaluation is held back in any variant."""
        with undone(self.optimizer), held_back():
            start = time.perf_counter()
            updated = self.optimizer.apply_gradients(self.gradients, self.parameters)
            elapsed = time.perf_counter() - start
            del updated  # taking the graph apart is not building it
            return elapsed

    def evaluate(self) -> None:
        """Parameters and state both, or the state would grow into an ever longer graph."""
        mx.eval(self.held, self.optimizer.state)
        mx.synchronize()

    def __call__(self) -> None:
        self.dispatch()
        self.evaluate()


def filled(shapes: Any, tile: np.ndarray, dtype: mx.Dtype) -> Any:
    """A tree of evaluated arrays of `shapes`, each with a buffer of its own, holding the tile's values repeated.

    Every leaf starts elsewhere in the tile: leaves of one shape hold different values, so that mixing them up shows.
    A leaf that has a dtype of its own is of that, not of `dtype`.
    """
    number = itertools.count()

    @cache
    def constants(dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
        return mx.array(tile, mx.float32).astype(dtype), mx.array(0, dtype)

    def array(shape: trees.Shape) -> mx.array:
        source, zero = constants(getattr(mx, shape.dtype) if shape.dtype else dtype)
        start = next(number) * STRIDE % TILE
        copies = -(-(start + shape.size) // TILE)
        leaf = (mx.concatenate([source] * copies)[start : start + shape.size] + zero).reshape(tuple(shape))
        mx.eval(leaf)
        return leaf

    return trees.mapped(array, shapes)
