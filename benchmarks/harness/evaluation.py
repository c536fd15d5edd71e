"""Evaluation, taken in hand: held back, so that a step's graph can be read, or said to have happened."""

import copy
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import mlx.core as mx
import mlx.optimizers
from mlx.utils import tree_flatten


class Evaluation(NamedTuple):
    """A call of `mx.eval` (which waits), `mx.async_eval` (which does not) or `mx.synchronize` (which waits for all)."""

    waits: bool
    arrays: list[mx.array]
    for_all: bool = False


class Outside(NamedTuple):
    """Work that MLX's graph does not contain (`adamw.outside`), done after as many evaluations as `stage` says."""

    reads: list[mx.array]
    writes: list[mx.array]
    stage: int


class HeldBack(NamedTuple):
    """What was not done."""

    evaluations: list[Evaluation]
    outside: list[Outside]


@contextmanager
def held_back(observe: Callable[[], object] = lambda: None) -> Iterator[HeldBack]:
    """Evaluation and work outside of MLX turned off: what would be done is collected. No profiler sees it.

    `observe` is called in place of every evaluation.
    """
    held = HeldBack([], [])
    saved = mx.eval, mx.async_eval, mx.synchronize
    outside = sys.modules.get("adamw.outside")  # the one that the variants of now have imported
    run = getattr(outside, "run", None)

    def hold(waits: bool, for_all: bool = False) -> Callable[..., None]:
        def evaluate(*trees: Any) -> None:
            with unprofiled():
                held.evaluations.append(Evaluation(waits, flat(trees), for_all))
                observe()

        return evaluate

    def note(work: object, arrays: Callable[[], tuple[list[mx.array], list[mx.array]]]) -> None:
        with unprofiled():
            held.outside.append(Outside(*arrays(), len(held.evaluations)))

    mx.eval, mx.async_eval, mx.synchronize = hold(True), hold(False), hold(True, for_all=True)
    if outside:
        vars(outside)["run"] = note
    try:
        yield held
    finally:
        mx.eval, mx.async_eval, mx.synchronize = saved
        if outside:
            vars(outside)["run"] = run


@contextmanager
def unprofiled() -> Iterator[None]:
    profiler = sys.getprofile()
    sys.setprofile(None)
    try:
        yield
    finally:
        sys.setprofile(profiler)


@contextmanager
def undone(optimizer: Any) -> Iterator[None]:
    """Everything the optimizer holds is put back afterwards, into the containers it was in."""
    before = [(container, copy.copy(container)) for container in containers(everything(optimizer))]
    try:
        yield
    finally:
        for container, content in before:
            container.clear()
            container.update(content) if isinstance(container, dict) else container.extend(content)


def everything(optimizer: Any) -> list[dict[str, Any]]:
    """All that `optimizer` holds, its state included, and the same of the optimizers among it."""
    inner = [value for value in vars(optimizer).values() if isinstance(value, mlx.optimizers.Optimizer)]
    return [vars(optimizer), *(held for one in inner for held in everything(one))]


def containers(tree: Any) -> list[Any]:
    """The dicts and lists in `tree`, itself included: what can be changed in place."""
    if not isinstance(tree, (dict, list, tuple)):
        return []
    children = tree.values() if isinstance(tree, dict) else tree
    inner = [container for child in children for container in containers(child)]
    return inner if isinstance(tree, tuple) else [tree, *inner]


def replace(tree: Any, instead: dict[int, mx.array]) -> Any:
    """`tree` with other arrays in place of those whose id is in `instead`; dicts and lists are changed in place."""
    if isinstance(tree, dict):
        tree.update({key: replace(child, instead) for key, child in tree.items()})
    elif isinstance(tree, list):
        tree[:] = [replace(child, instead) for child in tree]
    elif isinstance(tree, tuple):
        children = [replace(child, instead) for child in tree]
        return type(tree)(*children) if hasattr(tree, "_fields") else tuple(children)
    return instead.get(id(tree), tree)


def flat(tree: Any) -> list[mx.array]:
    """The arrays of `tree`, in MLX's order."""
    leaves = cast(list[tuple[str, Any]], tree_flatten(tree))
    return [leaf for _, leaf in leaves if isinstance(leaf, mx.array)]


def hollow(shape: Iterable[int], dtype: mx.Dtype) -> mx.array:
    """An array of `shape` that takes no memory: one element, seen everywhere. Not evaluated."""
    return mx.broadcast_to(mx.array(0.5).astype(dtype), tuple(shape))


def as_if_evaluated(arrays: Iterable[mx.array]) -> dict[int, mx.array]:
    """For every array of more than one element, by its id, an evaluated hollow one; the others are evaluated."""
    arrays = list(arrays)
    instead = {id(array): hollow(array.shape, array.dtype) for array in arrays if array.size > 1}
    mx.eval(list(instead.values()), [array for array in arrays if array.size <= 1])
    return instead
