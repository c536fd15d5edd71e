"""The compiled update, evaluated in windows of a chosen number of bytes, so that one step recycles its own buffers.

`compiled` allocates three new arrays for every leaf before the first old one is free. Here a window of leaves is
evaluated, its old arrays return to MLX's cache, and the next window's new arrays take them over: the peak falls from
7N to 4N plus about 3 windows' worth of new arrays (and the same again for the window that is evaluated meanwhile).
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import mlx.core as mx

from adamw.base import CompiledAdamW, Dtypes, fused_leaf, unchanged_on_error
from adamw.variants.split import update_leaf
from adamw.walk import filled

SMALLEST_WINDOW, LARGEST_WINDOW = 2**20, 16 * 2**20
WINDOWS_A_TREE = 24
"""Two windows' new arrays are 6 windows: a quarter of the parameters."""


class Leaf:
    """One leaf's place: its gradient, its state, and where its parameter stands."""

    __slots__ = ("container", "gradient", "key", "state")

    def __init__(self, gradient: mx.array, container: Any, key: Any, state: dict) -> None:
        self.gradient, self.container, self.key, self.state = gradient, container, key, state

    @property
    def parameter(self) -> mx.array:
        return self.container[self.key]

    @parameter.setter
    def parameter(self, array: mx.array) -> None:
        self.container[self.key] = array


class AdamW(CompiledAdamW):
    """`mlx.optimizers.AdamW` with a compiled update that is evaluated window by window.

    It evaluates inside `apply_gradients` and `update`: both return evaluated arrays, neither can be traced by
    `mx.compile` or `mx.grad`, and the host waits there for the device.

    Memory is saved only if nobody else holds the old arrays. `update(model, gradients)` replaces the model's
    parameters window by window; a caller of `apply_gradients` should give its tree away
    (`tree = optimizer.apply_gradients(gradients, trees.pop())`), or the old parameters stay: N bytes more.

    Args:
        window_bytes (int): parameter bytes evaluated at once; more than 0. Default: a 24th of the parameters, from
            1 MiB to 16 MiB. A leaf larger than that is updated by `split`'s three functions, in the buffers it has.
    """

    kernels_a_leaf = (1, 3)
    evaluates_itself = True

    def __init__(self, *args: Any, window_bytes: int | None = None, **hyper_parameters: Any) -> None:
        if window_bytes is not None and window_bytes <= 0:
            raise ValueError(f"AdamW window_bytes should be >0, {window_bytes} was provided instead")
        super().__init__(*args, **hyper_parameters)
        self.window_bytes = window_bytes

    def apply_gradients(self, gradients: Any, parameters: Any) -> Any:
        with unchanged_on_error(self, self.changing()):
            self.make_ready(gradients, parameters)
            _, gathered, dtypes = self.gathered(gradients, parameters)
            replace = None
            if dtypes is not None and self.updates_leaves_itself:
                updated = [parameter for _, parameter, _ in gathered]
                places = [Leaf(gradient, updated, number, leaf) for number, (gradient, _, leaf) in enumerate(gathered)]
                replace = self._begin(gradients, dtypes)
        if not replace:
            return super().apply_gradients(gradients, parameters)
        del parameters, gathered, _
        self._update_in_place(places, replace)
        return filled(gradients, iter(updated))

    def update(self, model: Any, gradients: Any) -> None:
        with unchanged_on_error(self, self.changing()):
            self.make_ready(gradients, model)
            places = list(leaves(gradients, model, self.state))
            tied = len({(id(place.container), place.key) for place in places}) < len(places)
            dtypes = self.gathered(gradients, model)[2]
            ours = self.updates_leaves_itself and not tied
            replace = self._begin(gradients, dtypes) if ours and dtypes is not None else None
        if replace:
            self._update_in_place(places, replace)
        else:
            super().update(model, gradients)  # which reads a tied parameter twice before it writes

    def _begin(self, gradients: Any, dtypes: Dtypes) -> Callable[[Leaf, bool], None]:
        """Count the step. What puts a leaf's new arrays in the place of the old ones: in their buffers if it is large.

        The scalars of all leaves are made here, before the first leaf is changed.
        """
        b1, b2, *_ = self.prepare()
        self.count_step()
        rates = {gradient: self.rates(gradient) for gradient, *_ in dtypes}
        epsilon = cache(self.epsilon)

        def replace(leaf: Leaf, is_large: bool) -> None:
            gradient, parameter, state = leaf.gradient, leaf.parameter, leaf.state
            scalars = rates[gradient.dtype], epsilon(gradient.dtype, state["v"].dtype), b1, b2
            if is_large:
                leaf.parameter = update_leaf(gradient, parameter, state, *scalars)
            else:
                leaf.parameter, state["m"], state["v"] = fused_leaf(
                    gradient, parameter, state["m"], state["v"], *scalars
                )

        return replace

    def _update_in_place(self, places: list[Leaf], replace: Callable[[Leaf, bool], None]) -> None:
        """Replace the arrays in `places` and of the state, one window after the other, two in flight.

        An exception leaves the leaves before it updated and those after it as they were, as it does in upstream's step.
        """
        window_bytes = self.window_bytes or default_window(sum(place.parameter.nbytes for place in places))
        in_flight: list[mx.array] = []
        for window in windows(places, window_bytes):
            for leaf in window:
                replace(leaf, leaf.parameter.nbytes > window_bytes)
            started = [array for leaf in window for array in (leaf.parameter, leaf.state["m"], leaf.state["v"])]
            mx.async_eval(started)
            mx.eval(in_flight)
            in_flight = started
        mx.eval(in_flight, self.step)


def default_window(parameter_bytes: int) -> int:
    return min(max(parameter_bytes // WINDOWS_A_TREE, SMALLEST_WINDOW), LARGEST_WINDOW)


def leaves(gradients: Any, tree: Any, state: Any) -> Iterator[Leaf]:
    """Every leaf of `gradients` with its place in `tree` and its state, in tree order."""
    items = gradients.items() if isinstance(gradients, dict) else enumerate(gradients)
    for key, child in items:
        if isinstance(child, (dict, list, tuple)):
            yield from leaves(child, tree[key], state[key])
        else:
            yield Leaf(child, tree, key, state[key])


def windows(all_leaves: list[Leaf], window_bytes: int) -> Iterator[list[Leaf]]:
    """Consecutive leaves, in lists of at most `window_bytes` of parameters; a larger leaf stands alone."""
    window: list[Leaf] = []
    size = 0
    for leaf in all_leaves:
        nbytes = leaf.parameter.nbytes
        if window and size + nbytes > window_bytes:
            yield window
            window, size = [], 0
        window.append(leaf)
        size += nbytes
    if window:
        yield window
