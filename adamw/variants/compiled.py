"""The whole tree's update under one `mx.compile` with captured state: what MLX's documentation recommends.

Each leaf becomes one kernel with three outputs: 7N bytes of traffic. A kernel with several outputs never reuses its
inputs' buffers (mlx/array.cpp, `array::make_arrays`), so the step's peak is up to 7N where 4N are resident.
"""

import weakref
from functools import cache, cached_property
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map

from adamw.base import CompiledAdamW, scalar, updated_leaf, wider


class AdamW(CompiledAdamW):
    """`mlx.optimizers.AdamW` whose update of the whole tree is one compiled function.

    Where a subclass overrides `apply_single` the function contains all hyper-parameters as literals, and another value
    of any is traced anew.
    """

    def take_step(self, gradients: Any, parameters: Any) -> Any:
        parameters, _, dtypes = self.gathered(gradients, parameters)
        if dtypes is None:
            return super().take_step(gradients, parameters)
        constants = self.prepare()
        compiled, captured = self._compiled
        captured[0] = self.state
        if not self.updates_leaves_itself:
            return compiled(gradients, parameters, *constants)
        weight_decay = {str(gradient): scalar(constants.weight_decay, gradient) for gradient, *_ in dtypes}
        roots = {wider(gradient, v) for gradient, _, _, v in dtypes}
        eps = {str(root): scalar(constants.eps, root) for root in roots}
        return compiled(gradients, parameters, constants.b1, constants.b2, eps, weight_decay, constants.bias_correction)

    @cached_property
    def _compiled(self) -> tuple[Any, list[dict]]:
        captured = [self.state]
        weak_self = weakref.proxy(self)  # a cycle through MLX would keep the state alive until the next collection

        def step(
            gradients: Any, parameters: Any, b1: float, b2: float, eps: Any, weight_decay: Any, _bias_correction: bool
        ) -> Any:
            weak_self.count_step()
            if not weak_self.updates_leaves_itself:
                return tree_map(weak_self.apply_single, gradients, parameters, weak_self.state)
            rates = cache(lambda dtype: weak_self.rates_with(dtype, weight_decay[str(dtype)]))

            def update(gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
                m, v = state["m"], state["v"]
                root = eps[str(wider(gradient.dtype, v.dtype))]
                new, state["m"], state["v"] = updated_leaf(
                    gradient, parameter, m, v, rates(gradient.dtype), root, b1, b2
                )
                return new

            return tree_map(update, gradients, parameters, weak_self.state)

        return mx.compile(step, inputs=captured, outputs=captured), captured
