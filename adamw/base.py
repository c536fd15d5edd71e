"""What the variants share: a state one can go on from, and hyper-parameters made safe to compile."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.optimizers
from mlx.utils import tree_map

from adamw import layouts
from adamw.walk import Place, gather


class Unavailable(RuntimeError):
    """This variant cannot run on this machine; the message says why and what to do."""


class Constants(NamedTuple):
    """The hyper-parameters of one step."""

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


STORAGE = frozenset({mx.float32, mx.bfloat16, mx.float16})
"""The dtypes that float32 arithmetic is done on: it holds all that they hold."""

FLOATING = STORAGE | {mx.float64}

Held = list[tuple[Any, Any]]
"""Containers, each with a copy of what it holds."""

Dtypes = set[tuple[mx.Dtype, mx.Dtype, mx.Dtype, mx.Dtype]]
"""Of a tree's leaves the dtypes of gradient, parameter, m and v, each combination once."""


class ResumableAdamW(mlx.optimizers.AdamW):
    """Upstream's AdamW that goes on from what any variant, or upstream, saved.

    A state in the layout of another variant that is set is converted; the dict that was given stays as it is. Of what
    cannot be converted ValueError is raised, and the optimizer is as it was.
    """

    @property
    def state(self) -> dict:
        """The optimizer's state dictionary."""
        return self._state

    @state.setter
    def state(self, state: dict) -> None:
        self._state, self._initialized = self.own_layout(state), False

    def own_leaf(self, leaf: dict, name: str) -> dict:
        """What this optimizer goes on from, of a leaf's state in any layout. Raises ValueError."""
        return layouts.upstream_leaf(leaf, name)

    def own_layout(self, state: dict) -> dict:
        """`state` in this optimizer's layout: itself where it is already. Raises ValueError."""
        if layouts.PACKED in state:
            state = layouts.unpacked(state, layouts.read(state[layouts.PACKED]))
        return layouts.with_leaves(state, self.own_leaf)

    def take_over(self) -> None:
        """Have what was put into `state` since it was set in this optimizer's layout, in the dict that is there."""
        converted = self.own_layout(self.state)
        if converted is not self.state:
            put_back(self.state, dict(converted))

    def init(self, parameters: Any) -> None:
        self.take_over()
        super().init(parameters)


class CompiledAdamW(ResumableAdamW):
    """Upstream's AdamW for variants that compile parts of the step.

    Where a variant cannot do better than upstream it does as upstream: a leaf whose gradient has another shape, one of
    integers, and a subclass that overrides `apply_single`, are updated by upstream's own code.

    Four differences from upstream, all deliberate:

    - A parameter keeps its floating dtype. Upstream's silently becomes float32 when its gradient or state is float32.
    - `betas`, `eps`, `weight_decay` and `bias_correction` are Python numbers; anything else raises TypeError. They may
      be changed at any time and take effect in the next step. New betas cost a new trace, and so does whether the bias
      is corrected; a weight decay, an eps or a learning rate may change in every step.
    - After an exception from anywhere in a step `state` is what it was before the step.
    - A step counter that is a Python number, as JSON has it, counts on.

    A variant defines `take_step`. Class attributes:

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

    def apply_gradients(self, gradients: Any, parameters: Any) -> Any:
        with unchanged_on_error(self, self.changing()):
            self.make_ready(gradients, parameters)
            return self.take_step(gradients, parameters)

    def changing(self) -> Held:
        """The containers of the state that a step may change, and what they hold."""
        return containers(self.state)

    def make_ready(self, gradients: Any, parameters: Any) -> None:
        """Have a state that a step can go on from: in this optimizer's layout, and made where there is none yet."""
        self.state["step"] = layouts.counted(self.step)
        if not self._initialized:
            self.init(self.first_tree(gradients, parameters))
        elif layouts.PACKED in self.state:
            self.take_over()

    def first_tree(self, gradients: Any, parameters: Any) -> Any:
        """What a state that is made in the first step is made like."""
        return gradients

    def take_step(self, gradients: Any, parameters: Any) -> Any:
        """The new parameters; `state` is that after the step. Here both are upstream's."""
        return super().apply_gradients(gradients, parameters)

    def prepare(self) -> Constants:
        """The hyper-parameters; the schedules have run, as upstream runs them before the step is counted.

        It stays outside every compiled function, so a schedule may look at the step's value, as it may upstream.
        Raises TypeError as `constants` does, before anything is changed.
        """
        constants = self.constants
        for name, schedule in self._schedulers.items():
            self.state[name] = schedule(self.step)
        return constants

    def gathered(self, gradients: Any, parameters: Any) -> tuple[Any, list[Place], Dtypes | None]:
        """The part of `parameters` that `gradients` covers, in its containers; its leaves; and the dtypes there are.

        No dtypes where a leaf's arrays do not fit each other: then nothing may be given to a compiled function, for a
        shapeless one would read beyond the smaller array. Raises KeyError, as upstream does, for a leaf without state.
        """
        places: list[Place] = []
        covered = gather(gradients, parameters, self.state, places)
        dtypes = {(g.dtype, w.dtype, state["m"].dtype, state["v"].dtype) for g, w, state in places}
        for gradient, parameter, state in places:
            if not gradient.shape == parameter.shape == state["m"].shape == state["v"].shape:
                return covered, places, None
        return covered, places, dtypes if all(map(are_compatible, dtypes)) else None

    @property
    def updates_leaves_itself(self) -> bool:
        """Whether nobody overrides `apply_single`, so that a variant may update leaves by code of its own."""
        return type(self).apply_single is CompiledAdamW.apply_single

    def count_step(self) -> None:
        self.state["step"] = self.step + 1

    def rates(self, dtype: mx.Dtype) -> Rates:
        """This step's scalars for gradients of `dtype`, rounded to it where upstream rounds."""
        return self.rates_with(dtype, scalar(self.constants.weight_decay, dtype))

    def rates_with(self, dtype: mx.Dtype, weight_decay: mx.array) -> Rates:
        b1, b2 = self.betas
        rate = self.learning_rate.astype(dtype)
        decay = 1 - rate * weight_decay
        if not self.bias_correction:
            return decay, rate
        return decay, (rate / (1 - b1**self.step)).astype(dtype), mx.rsqrt(1 - b2**self.step).astype(dtype)

    def epsilon(self, gradient: mx.Dtype, v: mx.Dtype) -> mx.array:
        """eps, rounded to what the root of v is computed in."""
        return scalar(self.eps, wider(gradient, v))

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        if "m_scale" in state:
            put_back(state, dict(layouts.upstream_leaf(state, "a leaf")))
        updated = super().apply_single(gradient, parameter, state)
        return updated.astype(parameter.dtype) if {updated.dtype, parameter.dtype} <= FLOATING else updated

    def __getstate__(self) -> dict:
        """Compiled functions are neither copied nor pickled; a copy traces its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_compiled"}


@contextmanager
def unchanged_on_error(optimizer: Any, before: Held) -> Iterator[None]:
    """Whatever is raised inside, the optimizer's state is left as it is now, its containers with what is `before`.

    MLX puts placeholders into a captured state while it traces, and an exception would leave them there. The arrays of
    now are held meanwhile: what evaluates would not get their memory, and must do so afterwards.
    """
    state, initialized = optimizer.state, optimizer._initialized
    try:
        yield
    except BaseException:
        for container, content in before:
            put_back(container, content)
        optimizer._state, optimizer._initialized = state, initialized
        raise


def containers(tree: Any) -> Held:
    """Every dict and list in `tree`, itself included, with a copy of what it holds.

    It is part of every step: what is an array is not asked whether it is a container.
    """
    found: Held = []
    waiting = [tree]
    for node in waiting:
        children = node
        if isinstance(node, dict):
            found += ((node, {**node}),)
            children = node.values()
        elif isinstance(node, list):
            found += ((node, [*node]),)
        for child in children:
            if child.__class__ is not mx.array and isinstance(child, (dict, list, tuple)):
                waiting += (child,)
    return found


def put_back(container: Any, content: Any) -> None:
    """Have `content` in a container that others may hold, an optimizer's compiled step among them."""
    if isinstance(container, dict):
        container.clear()
        container.update(content)
    else:
        container[:] = content


def matching(gradients: Any, parameters: Any) -> Any:
    """The part of `parameters` that `gradients` covers, in the containers of `gradients`."""
    return tree_map(lambda _, parameter: parameter, gradients, parameters)


def are_compatible(dtypes: tuple[mx.Dtype, ...]) -> bool:
    """Whether a leaf's arrays are all of floating dtypes, or all complex."""
    return FLOATING.issuperset(dtypes) or set(dtypes) == {mx.complex64}


@lru_cache(maxsize=64)
def scalar(value: float, dtype: mx.Dtype) -> mx.array:
    """`value` as an array of `dtype`, or of float32 if that is of integers: as MLX takes a number beside such an array.

    A compiled function takes it as an argument, so that another value is not another function. Kept, because what the
    host writes in a step a GPU fetches from its memory.
    """
    return mx.array(value, dtype if mx.issubdtype(dtype, mx.inexact) else mx.float32)


@cache
def wider(one: mx.Dtype, other: mx.Dtype) -> mx.Dtype:
    """The dtype of what is computed from arrays of two dtypes."""
    return one if one == other else (mx.zeros((), one) * mx.zeros((), other)).dtype


def first_moment(gradient: mx.array, m: mx.array, b1: float) -> mx.array:
    """m' = b1 m + (1 - b1) g"""
    return b1 * m + (1 - b1) * gradient


def second_moment(gradient: mx.array, v: mx.array, b2: float) -> mx.array:
    """v' = b2 v + (1 - b2) g^2"""
    return b2 * v + (1 - b2) * mx.square(gradient)


def new_parameter(parameter: mx.array, m: mx.array, v: mx.array, rates: Rates, eps: mx.array) -> mx.array:
    """w' = decay w - rate m' / (scale sqrt(v') + eps), in w's dtype"""
    decay, rate, *scale = rates
    root = mx.sqrt(v) * scale[0] if scale else mx.sqrt(v)
    return (parameter * decay - rate * m / (root + eps)).astype(parameter.dtype)


def updated_leaf(
    gradient: mx.array, parameter: mx.array, m: mx.array, v: mx.array, rates: Rates, eps: mx.array, b1: float, b2: float
) -> tuple[mx.array, mx.array, mx.array]:
    """(the new parameter, m', v')"""
    m = first_moment(gradient, m, b1)
    v = second_moment(gradient, v, b2)
    return new_parameter(parameter, m, v, rates, eps), m, v


# One kernel with three outputs: the new parameter, m and v. Not shapeless: the broadcasts that a shapeless trace adds
# exceed MLX's limit of depth, and it fuses 2 or 3 kernels where this makes one. The price is a trace for every shape.
fused_leaf = mx.compile(updated_leaf)
