"""Three compiled functions a leaf, each with one output, so that each new array takes over an old one's buffer.

m' is written over m, v' over v and w' over w: no memory beyond the resident 4N, for 10N bytes of traffic (3N for m',
3N for v', 4N for w') instead of 7N. The buffers are reused only if nobody else holds the old arrays.
"""

from functools import cache
from typing import Any

import mlx.core as mx

from adamw.base import CompiledAdamW, Rates, first_moment, new_parameter, second_moment
from adamw.walk import filled

# Shapeless: one trace serves every leaf of a dtype and number of dimensions.
compiled_first_moment = mx.compile(first_moment, shapeless=True)
compiled_second_moment = mx.compile(second_moment, shapeless=True)
compiled_parameter = mx.compile(new_parameter, shapeless=True)


def update_leaf(
    gradient: mx.array, parameter: mx.array, state: dict, rates: Rates, eps: mx.array, b1: float, b2: float
) -> mx.array:
    """The new parameter; m and v of `state` are replaced. Nothing is evaluated."""
    state["m"] = compiled_first_moment(gradient, state["m"], b1)
    state["v"] = compiled_second_moment(gradient, state["v"], b2)
    return compiled_parameter(parameter, state["m"], state["v"], rates, eps)


class AdamW(CompiledAdamW):
    """`mlx.optimizers.AdamW` that updates in the buffers it has: least memory, more traffic."""

    kernels_a_leaf = (3, 3)

    def take_step(self, gradients: Any, parameters: Any) -> Any:
        _, places, dtypes = self.gathered(gradients, parameters)
        if dtypes is None or not self.updates_leaves_itself:
            return super().take_step(gradients, parameters)
        b1, b2, *_ = self.prepare()
        self.count_step()
        rates, epsilon = cache(self.rates), cache(self.epsilon)
        updated = [
            update_leaf(g, w, state, rates(g.dtype), epsilon(g.dtype, state["v"].dtype), b1, b2)
            for g, w, state in places
        ]
        return filled(gradients, iter(updated))
