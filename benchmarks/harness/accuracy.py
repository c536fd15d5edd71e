"""How far a variant is from AdamW in the long run, in a precision: where half precision stops being AdamW, it shows.

Every run is held against `adamw.reference` in float64, which gets the very gradients that the variant gets. The error
is that of the way the parameters have gone: |w - w_reference| / |w_reference - w_start|, in the Euclidean norm. 0 is
right, and 1 is as wrong as not to move at all.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

import adamw
from adamw import reference
from benchmarks.harness.cases import PRECISIONS, Precision

ELEMENTS = 2**9
LEARNING_RATE = 1e-3
DECAY_STEPS = 500
TINY = 1e-6
"""A gradient of which (1 - b2) g^2 is less than float16 can hold."""

Gradient = Callable[[int], np.ndarray]


class Accuracy(NamedTuple):
    """Errors, and the loss that a small training run ends with. Infinite where a value is not finite.

    after_1, after_100, after_2000  error of w after so many steps with random gradients
    v_after_2000                    relative error of v then, in the Euclidean norm
    v_decay                         relative error of v after one step and 500 more with zero gradients
    zero_gradients                  error of w after 100 steps with zero gradients: only the weight decay moves it
    tiny_gradients                  error of w after 100 steps with gradients of 1e-6
    loss                            of the digits, see `digits_loss`
    """

    after_1: float
    after_100: float
    after_2000: float
    v_after_2000: float
    v_decay: float
    zero_gradients: float
    tiny_gradients: float
    loss: float


class Run:
    """A leaf that a variant and the reference update side by side, with AdamW's `settings`.

    Where `rounded`, the reference rounds w, m and v to the precision's dtypes after every step: what is left of the
    error then is the arithmetic's, not the storage's.
    """

    def __init__(self, variant: str, precision: Precision, rounded: bool = False, **settings: Any) -> None:
        self.settings = {"learning_rate": LEARNING_RATE} | settings
        self.precision, self.rounded = precision, rounded
        self.optimizer = adamw.create(variant, **self.settings)
        start = np.random.default_rng(0).uniform(0.5, 1.5, ELEMENTS)
        self.held = [{"w": stored(start, precision.parameter)}]
        initialise(self.optimizer, precision, self.held[0])
        self.start = float64(self.held[0]["w"])
        self.expected = reference.start(self.start)
        self.steps = 0

    def step(self, gradient: np.ndarray) -> None:
        given = stored(gradient, self.precision.gradient)
        rate = self.settings["learning_rate"]
        settings = self.settings | {"learning_rate": rate(mx.array(self.steps)).item() if callable(rate) else rate}
        self.steps += 1
        self.expected = reference.step(self.expected, float64(given), self.steps, **settings)
        if self.rounded:
            w, *moments = self.expected
            moments = [float64(stored(moment, self.precision.state)) for moment in moments]
            self.expected = reference.Leaf(float64(stored(w, self.precision.parameter)), *moments)
        self.held.append(self.optimizer.apply_gradients({"w": given}, self.held.pop()))
        mx.eval(self.held, self.optimizer.state)

    def error(self) -> float:
        way = self.expected.w - self.start
        return relative(float64(self.held[0]["w"]) - self.expected.w, way)

    def error_of_v(self) -> float:
        state = self.optimizer.upstream_state() if hasattr(self.optimizer, "upstream_state") else self.optimizer.state
        return relative(float64(state["w"]["v"]) - self.expected.v, self.expected.v)


def initialise(optimizer: Any, precision: Precision, parameters: Any) -> None:
    """Give `optimizer` its state in the dtype that `precision` wants."""
    if precision.state_is_the_variants:
        optimizer.init(parameters)
    else:
        dtype = getattr(mx, precision.state)
        optimizer.init(tree_map(lambda array: mx.zeros(array.shape, dtype), parameters))


def measure(variant: str, precision_name: str) -> Accuracy:
    """The accuracy of `variant` in a precision: some thousands of steps of a small leaf, a few seconds."""
    precision = PRECISIONS[precision_name]
    random = np.random.default_rng(1)
    run = Run(variant, precision)
    errors = {}
    for step in range(1, 2001):
        run.step(random.normal(0.02, 0.1, ELEMENTS))
        if step in (1, 100, 2000):
            errors[step] = run.error()
    return Accuracy(
        errors[1],
        errors[100],
        errors[2000],
        run.error_of_v(),
        v_decay(variant, precision),
        constant(variant, precision, 0.0, weight_decay=1.0),
        constant(variant, precision, TINY),
        digits_loss(variant, precision),
    )


def v_decay(variant: str, precision: Precision) -> float:
    run = Run(variant, precision)
    run.step(np.full(ELEMENTS, 1.0))
    for _ in range(DECAY_STEPS):
        run.step(np.zeros(ELEMENTS))
    return run.error_of_v()


def constant(variant: str, precision: Precision, value: float, **settings: Any) -> float:
    run = Run(variant, precision, bias_correction=True, **settings)
    for _ in range(100):
        run.step(np.full(ELEMENTS, value))
    return run.error()


def digits_loss(variant: str, precision: Precision, epochs: int = 20) -> float:
    """The mean cross entropy with which a small network ends that is trained on scikit-learn's 1797 digits.

    The parameters and gradients have the precision's dtypes, forward and backward pass are float32.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    inputs, targets = mx.array(pixels / 16, mx.float32), mx.array(labels)
    mx.random.seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    held = [tree_map(lambda array: array.astype(getattr(mx, precision.parameter)), model.parameters())]
    optimizer = adamw.create(variant, learning_rate=LEARNING_RATE, bias_correction=True)
    initialise(optimizer, precision, held[0])

    def loss(parameters: Any, inputs: mx.array, targets: mx.array) -> mx.array:
        model.update(tree_map(lambda array: array.astype(mx.float32), parameters))
        return nn.losses.cross_entropy(model(inputs), targets, reduction="mean")

    gradients_of = mx.grad(loss)
    order = np.random.default_rng(0)
    for _ in range(epochs):
        for rows in np.array_split(order.permutation(len(labels)), 15):
            batch = mx.array(rows)
            gradients = gradients_of(held[0], inputs[batch], targets[batch])
            gradients = tree_map(lambda array: array.astype(getattr(mx, precision.gradient)), gradients)
            mx.eval(gradients)
            held.append(optimizer.apply_gradients(gradients, held.pop()))
            mx.eval(held, optimizer.state)
    final = float(np.array(loss(held[0], inputs, targets)))
    return final if np.isfinite(final) else np.inf


def relative(difference: np.ndarray, size: np.ndarray) -> float:
    """|difference| / |size|; infinite where the difference is not finite."""
    error = float(np.linalg.norm(difference) / np.linalg.norm(size))
    return error if np.isfinite(error) else np.inf


def stored(values: np.ndarray, dtype: str) -> mx.array:
    """`values` rounded to MLX's `dtype`, over float32."""
    return mx.array(values, mx.float32).astype(getattr(mx, dtype))


def float64(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32)).astype(np.float64)
