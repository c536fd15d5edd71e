"""What the variants with low-precision arrays share: a leaf's update in float32, and the walk over the leaves."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map

from adamw.base import STORAGE, CompiledAdamW, first_moment, matching, new_parameter, second_moment

Scalars = tuple[mx.array, mx.array, mx.array]
"""What one step multiplies with, in float32: (decay, rate, eps).

w' = decay w - rate m' / (sqrt(v') + eps). With bias correction rate and eps contain it, both divided by
1 / sqrt(1 - b2^t): the same formula with one operation less on the longest way through it. MLX fuses no more than 11
operations in a row (mlx/compile.cpp, `max_compile_depth`), and rounding and unpacking need the rest.
"""


class Float32AdamW(CompiledAdamW):
    """AdamW whose arithmetic is float32, whatever the dtypes of its arrays; neither are hyper-parameters rounded.

    A variant defines `apply_single`, the update of one leaf. A subclass that overrides it is honoured as upstream
    honours it: its `super().apply_single(...)` is the variant's own update, on the variant's own state.

    Unlike upstream a lazy first step initialises from the parameters, not from the gradients. A leaf of another dtype
    than those of `STORAGE` (float64, complex, integers) has upstream's state and upstream's update.
    """

    _shared: Any = None

    def scalars(self) -> Scalars:
        """This step's scalars."""
        decay, rate, *scale = self.rates(mx.float32)
        eps = mx.array(self.eps, mx.float32)
        return (decay, rate / scale[0], eps / scale[0]) if scale else (decay, rate, eps)

    def share(self, gradients: Any) -> Any:
        """What all leaves of this step share, made once a step."""
        return self.scalars()

    def first_tree(self, gradients: Any, parameters: Any) -> Any:
        return matching(gradients, parameters)

    def take_step(self, gradients: Any, parameters: Any) -> Any:
        self.prepare()
        self.count_step()
        self._shared = self.share(gradients)
        try:
            return tree_map(self.apply_single, gradients, parameters, self.state)
        finally:
            self._shared = None  # it would keep the graph of this step


def is_made_for(*arrays: mx.array) -> bool:
    """Whether float32 holds what these arrays hold; else a leaf is upstream's to update."""
    return STORAGE.issuperset(array.dtype for array in arrays)


def widened(array: mx.array) -> mx.array:
    """`array` in float32.

    float16 goes by way of a product: up to 0.31.1 MLX names a kernel by its operations and not by the dtypes of what it
    reads, and takes the kernel for float16 for bfloat16's (MLX's pull request 3427).
    """
    return (array * 1 if array.dtype == mx.float16 else array).astype(mx.float32)


def float32_update(
    gradient: mx.array, parameter: mx.array, m: mx.array, v: mx.array, scalars: Scalars, b1: float, b2: float
) -> tuple[mx.array, mx.array, mx.array]:
    """(w', m', v') in float32, from arrays of any float dtype."""
    gradient, parameter, m, v = map(widened, (gradient, parameter, m, v))
    m = first_moment(gradient, m, b1)
    v = second_moment(gradient, v, b2)
    return new_parameter(parameter, m, v, scalars[:2], scalars[2]), m, v


def is_leaf_state(node: Any) -> bool:
    """Whether `node` is the state of one leaf; a parameter that is itself called `m` has a dict there."""
    return isinstance(node, dict) and isinstance(node.get("m"), mx.array)


def with_leaf_states(function: Callable[[dict], dict], state: Any) -> Any:
    """A copy of an optimizer's `state` with `function(leaf_state)` in every leaf's place."""
    return tree_map(lambda node: function(node) if isinstance(node, dict) else node, state, is_leaf=is_leaf_state)
