"""AdamW in float64 NumPy: what every variant's result is held against.

Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019, in MLX's parametrisation (mlx 0.32.4,
mlx/optimizers/optimizers.py): eps is added outside the root, the decay is multiplied by the learning rate, and bias
correction is off unless asked for.
"""

from typing import NamedTuple

import numpy as np


class Leaf(NamedTuple):
    """One leaf's parameter w and moments m and v: float64 arrays of one shape."""

    w: np.ndarray
    m: np.ndarray
    v: np.ndarray


def start(w: np.ndarray) -> Leaf:
    """The state before the first step: both moments zero."""
    w = np.asarray(w, dtype=np.float64)
    return Leaf(w, np.zeros_like(w), np.zeros_like(w))


def step(
    leaf: Leaf,
    gradient: np.ndarray,
    t: int,
    *,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    bias_correction: bool = False,
) -> Leaf:
    """The leaf after step number `t`, counted from 1.

    m' = b1 m + (1 - b1) g
    v' = b2 v + (1 - b2) g^2
    w' = w - a (m^ / (sqrt(v^) + eps) + lambda w),  m^ = m' / (1 - b1^t) and v^ = v' / (1 - b2^t) with bias correction
    """
    b1, b2 = betas
    g = np.asarray(gradient, dtype=np.float64)
    m = b1 * leaf.m + (1 - b1) * g
    v = b2 * leaf.v + (1 - b2) * g**2
    m_hat, v_hat = (m / (1 - b1**t), v / (1 - b2**t)) if bias_correction else (m, v)
    w = leaf.w - learning_rate * (m_hat / (np.sqrt(v_hat) + eps) + weight_decay * leaf.w)
    return Leaf(w, m, v)
