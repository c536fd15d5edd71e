"""Evaluation, taken in hand: held back, so that a step's graph can be read, or said to have happened."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map


class Evaluation(NamedTuple):
    """A call of `mx.eval` (which waits) or of `mx.async_eval` (which does not), and the arrays it was given."""

    waits: bool
    arrays: list[mx.array]


@contextmanager
def held_back(observe: Callable[[], object] = lambda: None) -> Iterator[list[Evaluation]]:
    """Evaluation turned off: what `mx.eval` and `mx.async_eval` are given is collected, and `observe` is called."""
    held: list[Evaluation] = []
    saved = mx.eval, mx.async_eval

    def hold(waits: bool) -> Callable[..., None]:
        def evaluate(*trees: Any) -> None:
            held.append(Evaluation(waits, flat(trees)))
            observe()

        return evaluate

    mx.eval, mx.async_eval = hold(True), hold(False)
    try:
        yield held
    finally:
        mx.eval, mx.async_eval = saved


@contextmanager
def undone(optimizer: Any) -> Iterator[None]:
    """The optimizer's attributes are put back afterwards, and its state's arrays into the containers they were in."""
    attributes = dict(vars(optimizer))
    state = tree_map(lambda array: array, optimizer.state)
    try:
        yield
    finally:
        vars(optimizer).update(attributes)
        put_back(optimizer.state, state)


def put_back(state: Any, saved: Any) -> None:
    for key, value in saved.items() if isinstance(saved, dict) else enumerate(saved):
        if isinstance(value, (dict, list, tuple)):
            put_back(state[key], value)
        else:
            state[key] = value


def flat(tree: Any) -> list[mx.array]:
    """The arrays of `tree`, in MLX's order."""
    leaves = cast(list[tuple[str, Any]], tree_flatten(tree))
    return [leaf for _, leaf in leaves if isinstance(leaf, mx.array)]


def hollow(shape: Iterable[int], dtype: mx.Dtype) -> mx.array:
    """An array of `shape` that takes no memory: one element, seen everywhere. Not evaluated."""
    return mx.broadcast_to(mx.array(0.5).astype(dtype), tuple(shape))


def as_if_evaluated(tree: Any) -> Any:
    """`tree` with a hollow array in place of every array of more than one element; the others are evaluated."""

    def replaced(array: Any) -> Any:
        if not isinstance(array, mx.array) or array.size <= 1:
            return array
        return hollow(array.shape, array.dtype)

    hollowed = tree_map(replaced, tree)
    mx.eval(flat(hollowed))
    return hollowed
