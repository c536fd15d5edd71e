"""Half-precision parameters with float32 master weights and moments: one fused kernel a leaf.

A step reads g, m, v and the master and writes all three and the rounded parameter: with half gradients 28 bytes a
parameter, as in float32, of which 16 are resident. The old parameter itself is never read.
"""

from typing import Any

import mlx.core as mx

from adamw import layouts
from adamw.float32 import Float32AdamW, Scalars, float32_update, is_made_for, with_leaf_states

PRECISIONS = ("master",)

HALF = (mx.bfloat16, mx.float16)


class AdamW(Float32AdamW):
    """`mlx.optimizers.AdamW` that keeps a float32 master of every half-precision parameter.

    The master is what is updated; the parameter is the master, rounded once. The state of such a leaf is
    {"m", "v", "master"}, all float32; that of any other leaf is {"m", "v"}.

    Masters are made of the parameters: by `init(parameters)`, or in the first step. Where a parameter that comes in is
    not the array that the last step returned, its elements are compared with the master's rounding: what was loaded or
    clipped meanwhile goes on from its new value, everything else from its master, so that a checkpoint loses no digit.
    That takes a kernel of its own. **The master wins** only over a change of the array itself,
    `array[:] = ...` or `array *= ...`. To go on from that, forget the masters:
    `optimizer.state = optimizer.upstream_state()`. A parameter that becomes float32 has no master any more.

    `state` may be set to that of any variant. Masters that it lacks are made of the parameters of the next step.
    """

    kernels_a_leaf = (1, 1)

    def __init__(self, *args: Any, **hyper_parameters: Any) -> None:
        super().__init__(*args, **hyper_parameters)
        self._rounded: dict[int, mx.array] = {}  # by the id of a leaf's state the array that is its master, rounded

    def own_layout(self, state: dict) -> dict:
        self._rounded.clear()  # it would keep the parameters of another state
        return super().own_layout(state)

    def own_leaf(self, leaf: dict, name: str) -> dict:
        rest = {key: value for key, value in leaf.items() if key != "master"}
        own = super().own_leaf(rest, name)
        if own is rest:
            return leaf
        return own | {"master": layouts.as_array(leaf["master"])} if "master" in leaf else own

    def init_single(self, parameter: mx.array, state: dict) -> dict | None:
        if not is_made_for(parameter):
            return super().init_single(parameter, state)
        state["m"] = mx.zeros(parameter.shape, mx.float32)
        state["v"] = mx.zeros(parameter.shape, mx.float32)
        if parameter.dtype in HALF:
            state["master"] = parameter.astype(mx.float32)
            self._rounded[id(state)] = parameter
        return state

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        if parameter.dtype not in HALF:
            state.pop("master", None)
        if not is_made_for(gradient, parameter, state["m"], state["v"]):
            return super().apply_single(gradient, parameter, state)
        scalars = self._shared or self.scalars()
        weights, m, v = self._weights(parameter, state), state["m"], state["v"]
        updated, weights, state["m"], state["v"] = new_leaf(gradient, parameter, weights, m, v, scalars, *self.betas)
        if parameter.dtype in HALF:
            state["master"] = weights
            self._rounded[id(state)] = updated
        return updated

    def _weights(self, parameter: mx.array, state: dict) -> mx.array:
        """What the next step starts from: the parameter, or its master where the parameter is only its rounding."""
        if parameter.dtype not in HALF:
            return parameter
        master, rounded = state.get("master"), self._rounded.get(id(state))
        if master is None or master.shape != parameter.shape:
            return parameter.astype(mx.float32)
        return master if rounded is parameter else reconciled(parameter, master)

    def upstream_state(self) -> dict[str, Any]:
        """The whole state in upstream's layout: without the masters."""
        return with_leaf_states(lambda leaf: {"m": leaf["m"], "v": leaf["v"]}, self.state)

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_rounded": {}}


@mx.compile
def reconciled(parameter: mx.array, master: mx.array) -> mx.array:
    """The master, with the parameter's elements in place of those that it does not round to."""
    return mx.where(parameter == master.astype(parameter.dtype), master, parameter.astype(mx.float32))


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
