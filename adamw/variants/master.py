"""Half-precision parameters with float32 master weights and moments: one fused kernel a leaf.

A step reads g, m, v and the master and writes all three and the rounded parameter: with half gradients 28 bytes a
parameter, as in float32, of which 16 are resident. The old parameter itself is never read.
"""

from typing import Any

import mlx.core as mx

from adamw.float32 import Float32AdamW, Scalars, float32_update, with_leaf_states

PRECISIONS = ("master",)

HALF = (mx.bfloat16, mx.float16)


class AdamW(Float32AdamW):
    """`mlx.optimizers.AdamW` that keeps a float32 master of every half-precision parameter.

    The master is what is updated; the parameter is the master, rounded once. The state of such a leaf is
    {"m", "v", "master"}, all float32; that of any other leaf is {"m", "v"}.

    Masters are made of the parameters: by `init(parameters)`, or in the first step. From then on **the master wins**: a
    parameter that is changed outside the optimizer comes back in the next step as if it had not been. To go on from
    changed parameters, forget the masters: `optimizer.state = optimizer.upstream_state()`.

    `state` may be set to one in upstream's layout. Its masters are made of the parameters of the next step.
    """

    kernels_a_leaf = (1, 1)

    def init_single(self, parameter: mx.array, state: dict) -> dict:
        state["m"] = mx.zeros(parameter.shape, mx.float32)
        state["v"] = mx.zeros(parameter.shape, mx.float32)
        if parameter.dtype in HALF:
            state["master"] = parameter.astype(mx.float32)
        return state

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        scalars = self._shared or self.scalars()
        if "master" not in state and parameter.dtype in HALF:
            state["master"] = parameter.astype(mx.float32)
        weights, m, v = state.get("master", parameter), state["m"], state["v"]
        updated, weights, state["m"], state["v"] = new_leaf(gradient, parameter, weights, m, v, scalars, *self.betas)
        if "master" in state:
            state["master"] = weights
        return updated

    def upstream_state(self) -> dict[str, Any]:
        """The whole state in upstream's layout: without the masters."""
        return with_leaf_states(lambda leaf: {"m": leaf["m"], "v": leaf["v"]}, self.state)


# Not shapeless, as in `windowed`: it would become several kernels.
@mx.compile
def new_leaf(
    gradient: mx.array,
    parameter: mx.array,
    weights: mx.array,
    m: mx.array,
    v: mx.array,
    scalars: Scalars,
    b1: float,
    b2: float,
) -> tuple[mx.array, mx.array, mx.array, mx.array]:
    """(the new parameter, the new weights, m', v'); of the old parameter only the dtype matters."""
    weights, m, v = float32_update(gradient, weights, m, v, scalars, b1, b2)
    return weights.astype(parameter.dtype), weights, m, v
