"""Whether a variant's step is AdamW in float32, each result rounded once: against float64, element by element."""

from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from adamw import reference

HALF_UNIT = {mx.float32: 2.0**-24, mx.float16: 2.0**-11, mx.bfloat16: 2.0**-8}
"""The largest relative error of rounding to a dtype, where it has all its digits."""

TINIEST = {mx.float32: 2.0**-149, mx.float16: 2.0**-24, mx.bfloat16: 2.0**-133}
"""The smallest positive number of a dtype, which is the distance of the numbers about zero."""


class Dtypes(NamedTuple):
    parameter: mx.Dtype
    gradient: mx.Dtype
    m: mx.Dtype
    v: mx.Dtype


SETTINGS: tuple[dict[str, Any], ...] = (
    {"learning_rate": 1e-2},
    {"learning_rate": 3e-3, "betas": [0.8, 0.95], "eps": 1e-3, "weight_decay": 0.3, "bias_correction": True},
)
"""Hyper-parameters of runs: the usual ones, and others in which each has its part."""

DTYPES = {
    "float32": Dtypes(mx.float32, mx.float32, mx.float32, mx.float32),
    "float16": Dtypes(mx.float16, mx.float16, mx.float16, mx.float16),
    "bfloat16": Dtypes(mx.bfloat16, mx.bfloat16, mx.bfloat16, mx.bfloat16),
    "mixed": Dtypes(mx.bfloat16, mx.bfloat16, mx.float32, mx.float32),
    "all_different": Dtypes(mx.float16, mx.bfloat16, mx.float32, mx.bfloat16),
}


class Run:
    """An optimizer over leaves of given sizes in some dtypes, with a state as after some steps.

    Nobody but this holds the parameters, so that a variant may write over them.
    """

    def __init__(self, optimizer: Any, dtypes: Dtypes, sizes: list[int], steps_before: int = 6) -> None:
        self.optimizer = optimizer
        self.held = [{"list": [values(size, dtypes.parameter, 4 * leaf) for leaf, size in enumerate(sizes)]}]
        self.gradients = {"list": [values(size, dtypes.gradient, 4 * leaf + 1) for leaf, size in enumerate(sizes)]}
        optimizer.init(self.held[0])
        for leaf, (state, size) in enumerate(zip(optimizer.state["list"], sizes, strict=True)):
            state["m"] = values(size, dtypes.m, 4 * leaf + 2)
            state["v"] = mx.abs(values(size, dtypes.v, 4 * leaf + 3))
        optimizer.state["step"] = mx.array(steps_before, mx.uint64)

    @property
    def leaves(self) -> list[dict[str, mx.array]]:
        """What is stored of every leaf."""
        return [
            {"w": w, "m": state["m"], "v": state["v"]}
            for w, state in zip(self.held[0]["list"], self.optimizer.state["list"], strict=True)
        ]

    def step(self) -> None:
        self.held.append(self.optimizer.apply_gradients(self.gradients, self.held.pop()))

    def excess(self, **settings: Any) -> float:
        """One step. The largest error against float64, in units of what one rounding of float32's result allows."""
        before = [reference.Leaf(*map(float64, leaf.values())) for leaf in self.leaves]
        dtypes = [{name: array.dtype for name, array in leaf.items()} for leaf in self.leaves]
        self.step()
        t = self.optimizer.step.item()
        worst = 0.0
        for old, gradient, new, kinds in zip(before, self.gradients["list"], self.leaves, dtypes, strict=True):
            expected = reference.step(old, float64(gradient), t, **settings)
            for name, ideal in expected._asdict().items():
                assert new[name].dtype == kinds[name]
                assert new[name].shape == gradient.shape
                if ideal.size:
                    error = np.nan_to_num(np.abs(float64(new[name]) - ideal), nan=np.inf)
                    worst = max(worst, float(np.max(error / allowed(ideal, kinds[name]))))
        return worst


def values(size: int, dtype: mx.Dtype, seed: int) -> mx.array:
    """Magnitudes from 0.5 to 1.5 of either sign."""
    random = np.random.default_rng(seed)
    return mx.array(random.uniform(0.5, 1.5, size) * random.choice([-1.0, 1.0], size), mx.float32).astype(dtype)


def float64(array: mx.array) -> np.ndarray:
    """A copy in float64. Looking at an array itself would move it to the host's memory on CUDA, for good."""
    return np.array(mx.array(array).astype(mx.float32)).astype(np.float64)


def allowed(ideal: np.ndarray, dtype: mx.Dtype) -> np.ndarray:
    """The error of an accurate float32 result, rounded once to `dtype`.

    Accurate: within 6 roundings of float32 relative to the terms of the sum, which are below 2 in size here.
    """
    rounded = 0 if dtype == mx.float32 else HALF_UNIT[dtype] * np.abs(ideal) + TINIEST[dtype] / 2
    return rounded + 6 * HALF_UNIT[mx.float32] * np.maximum(np.abs(ideal), 2)
