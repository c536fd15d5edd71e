"""Updating parameters and state in the memory of MLX's arrays: whose memory that is, and what must be copied first.

MLX's arrays cannot be changed, so this happens outside of MLX: a subclass says how, `InPlaceAdamW` says where.
"""

import weakref
from collections.abc import Callable
from ctypes import addressof, c_char
from functools import cache
from itertools import count
from sys import getrefcount
from typing import Any, NamedTuple

import mlx.core as mx
from mlx.utils import tree_map

from adamw import interrupts, outside
from adamw.base import STORAGE, CompiledAdamW, Held, Unavailable, containers, unchanged_on_error
from adamw.walk import Place, gather

from_buffer: Callable[[Any], Any] = c_char.from_buffer

COPIES: tuple[Callable[[mx.array], mx.array], ...] = (mx.array, lambda array: mx.where(True, array, array))
"""What may copy an array. Before 0.32 `mx.array` gives another array of the same memory."""


New = dict[int, tuple[mx.array, mx.array, mx.array]]
"""The parameter, m and v of the places, by number, that are given other arrays."""


class Own(NamedTuple):
    """The arrays of one leaf that the optimizer made itself, so that their memory is nobody else's; and where they lie.

    shape  of all three
    dtypes  of the parameter and of the moments
    row  the addresses of w, m and v, and the number of elements
    """

    parameter: weakref.ref
    m: mx.array
    v: mx.array
    shape: tuple[int, ...]
    dtypes: tuple[mx.Dtype, mx.Dtype]
    row: tuple[int, int, int, int]

    def lie_where_they_did(self, parameter: mx.array) -> bool:
        """Whether the arrays have the memory they had: `array[:] = other` gives the same array another's."""
        w, m, v, size = self.row
        try:
            return not size or (
                addressof(from_buffer(parameter)) == w
                and addressof(from_buffer(self.m)) == m
                and addressof(from_buffer(self.v)) == v
            )
        except (TypeError, ValueError):
            return False


class InPlaceAdamW(CompiledAdamW):
    """`mlx.optimizers.AdamW` that updates parameters and state where they lie. It mutates arrays.

    The arrays that a step returns, and those in `state`, are the optimizer's own: the next step writes over them, so
    nobody else may hold them and expect them to stay. What can be seen of that is prevented: if a Python variable or
    another container holds one of a leaf's arrays, the leaf is copied and the copy is updated, at the price of its
    memory. What cannot be seen: whatever shares such an array's memory changes with it. `reshape`, a slice,
    `mx.stop_gradient`, a NumPy view and `copy.deepcopy` (of a model, too) share it; so does a graph that is not
    evaluated yet, or is being evaluated on another stream; and before MLX 0.32 `mx.array`. To keep what is now:
    `tree_map(lambda array: array * 1, parameters)`. Arrays that come from elsewhere are copied once and stay as they
    are.

    Let `update(model, gradients)` replace the model's parameters, or give the tree away
    (`tree = optimizer.apply_gradients(gradients, trees.pop())`).

    It evaluates the gradients and waits for the device inside `apply_gradients` and `update`, and cannot be traced by
    `mx.compile` or `mx.grad`. A step in which a leaf has another dtype than those of `STORAGE` is upstream's. What is
    written cannot be taken back, so Ctrl-C is raised when the step is complete.
    """

    kernels_a_leaf = (0, 0)
    evaluates_itself = True

    def __init__(self, *args: Any, **hyper_parameters: Any) -> None:
        super().__init__(*args, **hyper_parameters)
        self._own: dict[int, Own] = {}

    def _finish_readers(self, gradients: Any) -> None:
        """Have whatever still reads the old arrays done before they are written: the gradients, and all of the device.

        A kernel that MLX takes for a reader must not be written behind: Metal's command buffers may overlap.
        """
        mx.eval(gradients, self.learning_rate)
        mx.synchronize()

    def _update(self, places: list[Place], new: New) -> None:
        """Update every leaf in the arrays that `_owned` gives; it is done when this returns.

        `new` receives the arrays of every place that is not updated where it lay, which has the old ones until then.
        What can fail comes before the first array is written.
        """
        raise NotImplementedError

    def _update_all(self, places: list[Place], new: New) -> None:
        self._update(places, new)
        for number, (_, m, v) in new.items():
            places[number][2].update(m=m, v=v)

    def apply_gradients(self, gradients: Any, parameters: Any) -> Any:
        with interrupts.held():
            return super().apply_gradients(gradients, parameters)

    def changing(self) -> Held:
        """The state's own dict: a leaf's is changed when all is done."""
        return [(self.state, {**self.state})] if self._initialized else super().changing()

    def take_step(self, gradients: Any, parameters: Any) -> Any:
        places: list[Place] = []
        updated = gather(gradients, parameters, self.state, places)
        if not (self.updates_leaves_itself and all(self._can_be_updated_in_place(*place) for place in places)):
            with unchanged_on_error(self, containers(self.state)):
                return super().take_step(gradients, parameters)
        self.prepare()
        self._finish_readers(gradients)
        self.count_step()
        new: New = {}
        outside.run(lambda: self._update_all(places, new), lambda: arrays(places))
        return with_new(updated, new) if new else updated

    def _can_be_updated_in_place(self, gradient: mx.array, parameter: mx.array, state: dict) -> bool:
        own, m, v = self._own.get(id(parameter)), state["m"], state["v"]
        if own is not None and own.parameter() is parameter and own.m is m and own.v is v:
            return own.shape == gradient.shape and gradient.dtype in STORAGE
        return (
            gradient.shape == parameter.shape == m.shape == v.shape
            and m.dtype == v.dtype
            and {gradient.dtype, parameter.dtype, m.dtype} <= STORAGE
        )

    def _owned(self, places: list[Place], new: New) -> list[Own]:
        """Every leaf's own arrays: those it has, if nobody else holds them, or copies, which are added to `new`."""
        parameter_alone, moment_alone = alone()
        owned = []
        for number, (_, parameter, state) in enumerate(places):
            own = self._own.get(id(parameter))
            if (
                own is None
                or own.parameter() is not parameter
                or own.m is not state["m"]
                or own.v is not state["v"]
                or not own.lie_where_they_did(parameter)
                or getrefcount(parameter) > parameter_alone
                or getrefcount(own.m) > moment_alone
                or getrefcount(own.v) > moment_alone
            ):
                copy, own = self._copied(parameter, state)
                new[number] = copy, own.m, own.v
            owned.append(own)
        return owned

    def _copied(self, parameter: mx.array, state: dict) -> tuple[mx.array, Own]:
        """A copy of the parameter, and what is known of it and of the copies of its moments."""
        self._own.pop(id(parameter), None)
        copy, m, v = (evaluated(mx.contiguous(copier()(array))) for array in (parameter, state["m"], state["v"]))
        all_own, key = self._own, id(copy)
        known = weakref.ref(copy, lambda _: all_own.pop(key, None))
        row = address(copy), address(m), address(v), copy.size
        all_own[key] = Own(known, m, v, copy.shape, (copy.dtype, m.dtype), row)
        return copy, all_own[key]

    def __getstate__(self) -> dict:
        """A copy's arrays share memory with this optimizer's: from now on neither has arrays of its own."""
        self._own.clear()
        return super().__getstate__()


@cache
def alone() -> tuple[int, int]:
    """What `getrefcount` says, where `_owned` asks it, of a parameter and a moment that nobody else holds."""
    array, moment = mx.array(0.0), mx.array(0.0)
    callers_tree, updated, places = [array], [array], [(None, array, {"m": moment})]
    own = Own(None, moment, None, (), None, None)  # type: ignore[arg-type]
    del array, moment
    for _, parameter, _state in places:
        counts = getrefcount(parameter), getrefcount(own.m)
    del callers_tree, updated
    return counts


@cache
def copier() -> Callable[[mx.array], mx.array]:
    """Of COPIES the one that is seen to give an array memory of its own. Raises Unavailable if none is."""
    sample = evaluated(mx.arange(8))
    for copy in COPIES:
        if address(evaluated(copy(sample))) != address(sample):
            return copy
    raise Unavailable("this MLX copies no array, and the caller's would be written over; use another variant")


def evaluated(array: mx.array) -> mx.array:
    mx.eval(array)
    return array


def arrays(places: list[Place]) -> tuple[list[mx.array], list[mx.array]]:
    """What a step reads and what it writes."""
    written = [array for _, parameter, state in places for array in (parameter, state["m"], state["v"])]
    return [*written, *(gradient for gradient, _, _ in places)], written


def with_new(tree: Any, new: New) -> Any:
    """`tree` with the parameters of `new` in their places."""
    number = count()
    return tree_map(lambda array: new.get(next(number), (array,))[0], tree)


def address(array: mx.array) -> int:
    """Where the elements of an array lie, which is evaluated. Raises TypeError if they do not lie in order."""
    return addressof(from_buffer(array)) if array.size else 0
