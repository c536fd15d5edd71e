"""Shared by the tests of the variants with low-precision arrays."""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from adamw import reference
from benchmarks.harness import graph
from benchmarks.harness.cases import Case
from benchmarks.harness.step import Step


def float64(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32)).astype(np.float64)


def values(size: int, seed: int = 0) -> np.ndarray:
    """Magnitudes from 0.5 to 1.5 of either sign, in float32."""
    random = np.random.default_rng(seed)
    return (random.uniform(0.5, 1.5, size) * random.choice([-1.0, 1.0], size)).astype(np.float32)


def tree(dtype: mx.Dtype, seed: int = 0) -> Any:
    """Nested containers and leaves of several blocks, of less than one, and of part of one more."""

    def leaf(number: int, *shape: int) -> mx.array:
        return mx.array(values(int(np.prod(shape)), 10 * seed + number)).reshape(shape).astype(dtype)

    return {"a": leaf(0, 3, 256), "list": [leaf(1, 7), (leaf(2, 257), leaf(3, 2, 2))], "m": {"v": leaf(4, 5)}}


def train(optimizer: Any, parameters: Any, gradients: Callable[[int], Any], steps: Sequence[int]) -> Any:
    """The parameters after `steps`, given by their numbers."""
    for step in steps:
        parameters = optimizer.apply_gradients(gradients(step), parameters)
        mx.eval(parameters, optimizer.state)
    return parameters


def reference_leaf(parameter: np.ndarray, gradients: Sequence[np.ndarray], **settings: Any) -> reference.Leaf:
    """The leaf after these gradients, in float64."""
    leaf = reference.start(parameter)
    for t, gradient in enumerate(gradients, start=1):
        leaf = reference.step(leaf, gradient, t, **settings)
    return leaf


def assert_identical(actual: Any, expected: Any) -> None:
    left, right = tree_flatten(actual), tree_flatten(expected)
    assert [path for path, _ in left] == [path for path, _ in right]
    for (path, a), (_, b) in zip(left, right, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), path
        np.testing.assert_array_equal(float64(a), float64(b), err_msg=path)


def assert_close(actual: Any, expected: Any, relative: float) -> None:
    left, right = tree_flatten(actual), tree_flatten(expected)
    assert [path for path, _ in left] == [path for path, _ in right]
    for (path, a), (_, b) in zip(left, right, strict=True):
        assert a.shape == b.shape, path
        np.testing.assert_allclose(float64(a), float64(b), rtol=relative, err_msg=path)


def kernels(variant: str, precision: str, elements: int, bias_correction: bool = False) -> list[str]:
    """The labels of the kernels of a step that touch its one leaf or what is made of it, rates left out."""
    step = Step(Case(variant, precision, f"leaf_{elements}", bias_correction))
    step()
    return [kernel.label.partition(" ")[0] for kernel in graph.read(step, shapes=False).leaf_kernels]
