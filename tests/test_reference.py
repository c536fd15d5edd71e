"""The float64 reference is MLX's AdamW, and not the AdamW of MLX's older documentation page."""

import inspect

import mlx.core as mx
import mlx.optimizers
import numpy as np
import pytest

from adamw import reference

W = np.array([0.5, -1.25, 2.0, 1.0])
G = np.array([1e-4, -2e-4, 5e-5, 3e-4])
"""Small gradients: here eps decides, inside the root or outside."""


def mlx_steps(steps: int, **settings) -> np.ndarray:
    optimizer = mlx.optimizers.AdamW(**settings)
    tree = {"w": mx.array(W, mx.float32)}
    for _ in range(steps):
        tree = optimizer.apply_gradients({"w": mx.array(G, mx.float32)}, tree)
    return np.array(tree["w"])


def reference_steps(steps: int, step=reference.step, **settings) -> np.ndarray:
    leaf = reference.start(W)
    for t in range(1, steps + 1):
        leaf = step(leaf, G, t, **settings)
    return leaf.w


@pytest.mark.parametrize("bias_correction", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 25])
def test_agrees_with_mlx(steps, bias_correction):
    settings = {"learning_rate": 1e-2, "bias_correction": bias_correction}
    np.testing.assert_allclose(mlx_steps(steps, **settings), reference_steps(steps, **settings), rtol=2e-5)


def test_agrees_with_mlx_for_other_hyper_parameters():
    settings = {"learning_rate": 3e-3, "betas": (0.7, 0.9), "eps": 1e-4, "weight_decay": 0.4, "bias_correction": True}
    np.testing.assert_allclose(mlx_steps(5, **settings), reference_steps(5, **settings), rtol=5e-6)


def eps_inside(leaf, gradient, t, *, learning_rate, eps):
    """One step as MLX's older page has it: sqrt(v + eps), everything else the same."""
    m = 0.9 * leaf.m + 0.1 * gradient
    v = 0.999 * leaf.v + 0.001 * gradient**2
    return reference.Leaf(leaf.w - learning_rate * (m / np.sqrt(v + eps) + 0.01 * leaf.w), m, v)


def test_eps_stands_outside_the_root():
    settings = {"learning_rate": 1e-2, "eps": 1e-8}
    ours, page = reference_steps(3, **settings), reference_steps(3, eps_inside, **settings)
    upstream = mlx_steps(3, **settings)
    np.testing.assert_allclose(upstream, ours, rtol=5e-6)
    assert np.min(np.abs(upstream - page) / np.abs(page)) > 1e-3


def test_default_weight_decay_is_a_hundredth():
    default = mlx_steps(3, learning_rate=0.5)
    np.testing.assert_allclose(default, reference_steps(3, learning_rate=0.5), rtol=5e-6)
    without = reference_steps(3, learning_rate=0.5, weight_decay=0.0)
    assert np.min(np.abs(default - without) / np.abs(without)) > 5e-4


def test_defaults_are_upstreams():
    upstream = inspect.signature(mlx.optimizers.AdamW).parameters
    ours = inspect.signature(reference.step).parameters
    for name in ("betas", "eps", "weight_decay", "bias_correction"):
        left, right = upstream[name].default, ours[name].default
        assert (tuple(left) if name == "betas" else left) == right


def test_computes_in_float64():
    leaf = reference.step(reference.start(np.ones(3, np.float32)), np.ones(3, np.float16), 1, learning_rate=1e-3)
    assert {array.dtype for array in leaf} == {np.dtype(np.float64)}
