"""Planted defects: each a variant with one thing wrong, and the words of the counters that name it."""

from typing import NamedTuple

import mlx.core as mx
import mlx.optimizers
from mlx.utils import tree_flatten, tree_map, tree_unflatten

import adamw
from benchmarks.harness import cases

Compiled, Split, Eager, Windowed = map(adamw.load, ("compiled", "split", "eager", "windowed"))
BFLOAT16 = cases.case("compiled", "bfloat16/two_leaves")
FLOAT32 = cases.case("compiled", "float32/nested")


class Unfused(Compiled):
    """Fusion broken by an operation that cannot be fused."""

    def apply_single(self, gradient, parameter, state):
        return super().apply_single(gradient + 0 * mx.sum(gradient), parameter, state)


class OneLeafOutside(Compiled):
    """The first leaf is updated outside the compiled function, after it."""

    def apply_gradients(self, gradients, parameters):
        old, state = parameters["weight"][0], dict(self.state["weight"][0])
        updated = super().apply_gradients(gradients, parameters)
        updated["weight"][0] = Eager.apply_single(self, gradients["weight"][0], old, state)
        self.state["weight"][0] = state
        return updated


class Holding(Split):
    """A reference to the old parameters stays: their buffers cannot be written over."""

    def apply_gradients(self, gradients, parameters):
        self.previous = parameters
        return super().apply_gradients(gradients, parameters)


class WideState(Compiled):
    """The state becomes float32, whatever it was."""

    def apply_single(self, gradient, parameter, state):
        updated = super().apply_single(gradient, parameter, state)
        state["m"], state["v"] = (state[name].astype(mx.float32) for name in "mv")
        return updated


class Upcast(Compiled):
    """Gradients are made float32 before the update, outside the compiled function."""

    def apply_gradients(self, gradients, parameters):
        return super().apply_gradients(tree_map(lambda array: array.astype(mx.float32), gradients), parameters)

    def apply_single(self, gradient, parameter, state):
        dtype = state["m"].dtype
        updated = super().apply_single(gradient, parameter, state)
        state["m"], state["v"] = (state[name].astype(dtype) for name in "mv")
        return updated


class Retracing(Compiled):
    """Changes a literal of the compiled function in every step."""

    def apply_gradients(self, gradients, parameters):
        self.betas = [self.betas[0], self.betas[1] - 1e-9]
        return super().apply_gradients(gradients, parameters)


class DecayArray(Compiled):
    """The decay of v is an array that is scheduled, and read out as a number for the compiled function."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.decay = mx.array(self.betas[1])

    def apply_gradients(self, gradients, parameters):
        self.decay = self.decay * 0.999
        self.betas = [self.betas[0], self.decay.item()]
        return super().apply_gradients(gradients, parameters)


class Averaging(Compiled):
    """State that nobody evaluates: an average of the parameters outside the optimizer's state."""

    average = None

    def apply_gradients(self, gradients, parameters):
        updated = super().apply_gradients(gradients, parameters)
        self.average = tree_map(lambda new, old: 0.9 * old + 0.1 * new, updated, self.average or updated)
        return updated


class Clipping(Compiled):
    """The gradients are read once more for their norm."""

    def apply_gradients(self, gradients, parameters):
        clipped, _ = mlx.optimizers.clip_grad_norm(gradients, 1.0)
        return super().apply_gradients(clipped, parameters)


class Waiting(Windowed):
    """Waits for every window before it starts the next."""

    def _update_in_place(self, places, replace):
        start, mx.async_eval = mx.async_eval, mx.eval
        try:
            super()._update_in_place(places, replace)
        finally:
            mx.async_eval = start


class Wrong(Compiled):
    """Does less than AdamW."""

    def apply_single(self, gradient, parameter, state):
        super().apply_single(gradient, parameter, state)
        return parameter


class Momentum(Compiled):
    """Another moment, in a private list of dicts of tuples."""

    momentum = None

    def apply_gradients(self, gradients, parameters):
        names, arrays = zip(*tree_flatten(gradients), strict=True)
        old = self.momentum or [{"pair": (mx.zeros_like(array),)} for array in arrays]
        self.momentum = [{"pair": (0.9 * one["pair"][0] + array,)} for one, array in zip(old, arrays, strict=True)]
        smooth = [0.0 * one["pair"][0] + array for one, array in zip(self.momentum, arrays, strict=True)]
        return super().apply_gradients(tree_unflatten(list(zip(names, smooth, strict=True))), parameters)


class HalfEager(Compiled):
    """Half precision silently takes the eager path."""

    def apply_gradients(self, gradients, parameters):
        if gradients["weight"][0].dtype == mx.bfloat16:
            return mlx.optimizers.AdamW.apply_gradients(self, gradients, parameters)
        return super().apply_gradients(gradients, parameters)


class Defect(NamedTuple):
    """A class that takes the place of the variant `of`, and words of what the counters then say of `case`."""

    planted: type
    of: str
    case: cases.Case
    words: tuple[str, ...]


DEFECTS = (
    Defect(Unfused, "compiled", BFLOAT16, ("2 kernels a leaf, was 1; traffic 8N, was 7N",)),
    Defect(OneLeafOutside, "compiled", BFLOAT16, ("7 kernels a leaf, was 1",)),
    Defect(
        Holding,
        "split",
        FLOAT32,
        (
            "24 old arrays held by somebody while the step runs, was 0",
            "peak up to 5N, was 4N",
            "24 arrays left behind after the step, was 0",
        ),
    ),
    Defect(WideState, "compiled", BFLOAT16, ("state becomes float32, was bfloat16",)),
    Defect(Upcast, "compiled", BFLOAT16, ("6 kernels a leaf, was 1; traffic 25N, was 7N",)),
    Defect(Retracing, "compiled", FLOAT32, ("traced 10 times in 10 steps, was 1",)),
    Defect(DecayArray, "compiled", FLOAT32, ("traced 10 times in 10 steps, was 1",)),
    Defect(Averaging, "compiled", FLOAT32, ("the graph grows by 120 operations a step, was 0", "memory grows by ")),
    Defect(
        Clipping,
        "compiled",
        FLOAT32,
        ("4 kernels a leaf, was 1; 30 scalar kernels, was 2; traffic 12N, was 7N",),
    ),
    Defect(Waiting, "windowed", FLOAT32, ("9 waits for the device inside a step, was 5",)),
    Defect(Wrong, "compiled", FLOAT32, ("wrong result: 1, was 0",)),
    Defect(Momentum, "compiled", BFLOAT16, ("5 kernels a leaf, was 1",)),
    Defect(
        HalfEager,
        "compiled",
        BFLOAT16,
        ("13 kernels a leaf, was 1; 9 scalar kernels, was 3; traffic 30N, was 7N",),
    ),
)
