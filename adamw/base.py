"""What the compiled variants share: upstream's AdamW with its hyper-parameters made safe to compile."""

from typing import Any, NamedTuple

import mlx.core as mx
import mlx.optimizers
from mlx.utils import tree_map


class Unavailable(RuntimeError):
    """This variant cannot run on this machine; the message says why and what to do."""


class Constants(NamedTuple):
    """The hyper-parameters that a compiled update contains as literals.

    Passed to a compiled function as an argument, they are part of `mx.compile`'s cache key: a changed value traces
    again and takes effect, where a value read from `self` inside the function would stay as it was when first traced.
    """

    b1: float
    b2: float
    eps: float
    weight_decay: float
    bias_correction: bool


Rates = tuple[mx.array, ...]
"""The scalars of one step in one gradient dtype, computed once and shared by every leaf of that dtype.

decay  1 - a lambda
rate   a, or with bias correction a / (1 - b1^t)
scale  1 / sqrt(1 - b2^t), only with bias correction

A plain tuple of arrays, because that is what every MLX since 0.26.5 hands on to a compiled function as it is.
"""


class CompiledAdamW(mlx.optimizers.AdamW):
    """Upstream's AdamW for variants that compile parts of the step.

    Where a variant cannot do better than upstream it does as upstream: a leaf whose gradient has another shape, and a
    subclass that overrides `apply_single`, are updated by upstream's own code.

    Two differences from upstream, both deliberate:

    - A parameter keeps its dtype. Upstream's parameter silently becomes float32 when its gradient or state is float32.
    - `betas`, `eps`, `weight_decay` and `bias_correction` are Python numbers; anything else raises TypeError. They may
      be changed at any time and take effect in the next step, at the price of one new trace for each new combination.

    Class attributes:

    kernels_a_leaf    the fewest and the most fused kernels that one leaf's update takes, on the average of a tree
    evaluates_itself  whether a step evaluates arrays, so that it cannot be part of a compiled one
    rounding          how far a stored result may be off, in half units in the last place; to nearest it is 1
    """

    kernels_a_leaf: tuple[float, float] = (1, 1)
    evaluates_itself = False
    rounding = 1

    @property
    def constants(self) -> Constants:
        """The present hyper-parameters. Raises TypeError for one that is not a Python number."""
        b1, b2 = self.betas
        constants = Constants(b1, b2, self.eps, self.weight_decay, self.bias_correction)
        for name, value in constants._asdict().items():
            if not isinstance(value, (int, float)):
                raise TypeError(f"AdamW {name} should be a Python number, {type(value).__name__} was provided instead")
        return constants

    def prepare(self, gradients: Any) -> Constants:
        """What upstream does before the step is counted: initialise lazily, run the schedules. The hyper-parameters.

        It stays outside every compiled function, so a schedule may look at the step's value, as it may upstream.
        Raises TypeError as `constants` does, before anything is changed.
        """
        constants = self.constants
        if not self._initialized:
            self.init(gradients)
        for name, schedule in self._schedulers.items():
            self.state[name] = schedule(self.step)
        return constants

    @property
    def updates_leaves_itself(self) -> bool:
        """Whether nobody overrides `apply_single`, so that a variant may update leaves by code of its own."""
        return type(self).apply_single is CompiledAdamW.apply_single

    def count_step(self) -> None:
        self.state["step"] = self.step + 1

    def rates(self, dtype: mx.Dtype) -> Rates:
        """This step's scalars for gradients of `dtype`, rounded to it where upstream rounds."""
        b1, b2, _, weight_decay, bias_correction = self.constants
        rate = self.learning_rate.astype(dtype)
        decay = 1 - rate * weight_decay
        if not bias_correction:
            return decay, rate
        return decay, (rate / (1 - b1**self.step)).astype(dtype), mx.rsqrt(1 - b2**self.step).astype(dtype)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        return super().apply_single(gradient, parameter, state).astype(parameter.dtype)

    def __getstate__(self) -> dict:
        """Compiled functions are neither copied nor pickled; a copy traces its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_compiled"}


def matching(gradients: Any, parameters: Any) -> tuple[Any, bool]:
    """The part of `parameters` that `gradients` covers, in the containers of `gradients`; and whether the shapes agree.

    Where they do not, nothing may be given to a compiled function: a shapeless one would read beyond the smaller array,
    and one that fails while it is traced leaves MLX's placeholders in the captured state.
    """
    odd: list[mx.array] = []

    def pick(gradient: mx.array, parameter: mx.array) -> mx.array:
        if gradient.shape != parameter.shape:
            odd.append(gradient)
        return parameter

    return tree_map(pick, gradients, parameters), not odd


def first_moment(gradient: mx.array, m: mx.array, b1: float) -> mx.array:
    """m' = b1 m + (1 - b1) g"""
    return b1 * m + (1 - b1) * gradient


def second_moment(gradient: mx.array, v: mx.array, b2: float) -> mx.array:
    """v' = b2 v + (1 - b2) g^2"""
    return b2 * v + (1 - b2) * mx.square(gradient)


def new_parameter(parameter: mx.array, m: mx.array, v: mx.array, rates: Rates, eps: float | mx.array) -> mx.array:
    """w' = decay w - rate m' / (scale sqrt(v') + eps), in w's dtype"""
    decay, rate, *scale = rates
    root = mx.sqrt(v) * scale[0] if scale else mx.sqrt(v)
    return (parameter * decay - rate * m / (root + eps)).astype(parameter.dtype)


def _fused_leaf(
    gradient: mx.array, parameter: mx.array, m: mx.array, v: mx.array, rates: Rates, constants: Constants
) -> tuple[mx.array, mx.array, mx.array]:
    b1, b2, eps, *_ = constants  # by place: before 0.31 MLX makes a plain tuple of it
    m = first_moment(gradient, m, b1)
    v = second_moment(gradient, v, b2)
    return new_parameter(parameter, m, v, rates, eps), m, v


# One kernel with three outputs: the new parameter, m and v. Not shapeless: the broadcasts that a shapeless trace adds
# exceed MLX's limit of depth, and it fuses 2 or 3 kernels where this makes one. The price is a trace for every shape.
fused_leaf = mx.compile(_fused_leaf)
