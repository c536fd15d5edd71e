"""What one step does, read from MLX's own graph: kernels and modelled bytes. Exact, and the same on every machine.

`mx.export_to_dot` names the arrays it is given. The leaves of a case (old and new parameters and moments, gradients)
are given names, so their sizes are known; an array between two kernels has the size of the largest input of the kernel
that made it, as all of AdamW's arithmetic is elementwise. Arrays of one element (rates, constants) count nothing.
"""

import io
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map

from benchmarks.harness.measurement import Work

VIEWS = frozenset({"Broadcast", "Reshape", "Flatten", "Unflatten", "ExpandDims", "Squeeze", "Slice", "Depends"})
"""Primitives that move no bytes when their input is contiguous."""

LEAVES_A_GRAPH = 100
"""MLX takes at most 1024 named arrays, and a leaf has seven."""

NODE = re.compile(r'^\{ (\d+) \[label ="(\w+)"')
INTO = re.compile(r'^"(\w+)" -> \d+$')
OUT = re.compile(r'^\d+ -> "(\w+)"$')


@contextmanager
def held_back() -> Iterator[list[Any]]:
    """Evaluation turned off: what `mx.eval` and `mx.async_eval` are given is collected instead of computed."""
    held: list[Any] = []
    saved = mx.eval, mx.async_eval
    mx.eval = mx.async_eval = lambda *trees: held.extend(trees)
    try:
        yield held
    finally:
        mx.eval, mx.async_eval = saved


@contextmanager
def undone(optimizer: Any) -> Iterator[None]:
    """The optimizer's arrays are put back afterwards, into the containers they were in."""
    state = tree_map(lambda array: array, optimizer.state)
    try:
        yield
    finally:
        put_back(optimizer.state, state)


def put_back(state: Any, saved: Any) -> None:
    for key, value in saved.items() if isinstance(saved, dict) else enumerate(saved):
        if isinstance(value, (dict, list, tuple)):
            put_back(state[key], value)
        else:
            state[key] = value


def step_work(optimizer: Any, gradients: Any, parameters: Any) -> Work:
    """The work of one step of `optimizer`, which is left as it was. Nothing is evaluated."""
    before = leaf_arrays(gradients, gradients, parameters, optimizer.state)
    with undone(optimizer), held_back():
        new_parameters = optimizer.apply_gradients(gradients, parameters)
        after = leaf_arrays(gradients, new_parameters, optimizer.state)
        counters = [array for array in optimizer.state.values() if isinstance(array, mx.array)]
    counts = Counts()
    for first in range(0, len(before), LEAVES_A_GRAPH):
        last = first + LEAVES_A_GRAPH
        inputs = [array for leaf in before[first:last] for array in leaf]
        results = [array for leaf in after[first:last] for array in leaf]
        dot = io.StringIO()
        named = {f"leaf_{number}": array for number, array in enumerate(inputs + results)}
        mx.export_to_dot(dot, *results, *counters, **named)
        counts.add(dot.getvalue(), {name: array.nbytes for name, array in named.items()})
    return counts.work


def flat(tree: Any) -> list[mx.array]:
    """The arrays of `tree`, in MLX's order."""
    return [array for _, array in cast(list[tuple[str, mx.array]], tree_flatten(tree))]


def leaf_arrays(gradients: Any, *rest: Any) -> list[list[mx.array]]:
    """For every leaf of `gradients` the arrays that stand in its place in the other trees; a leaf's state is a dict."""
    leaves: list[list[mx.array]] = []
    tree_map(lambda _, *places: leaves.append(flat(list(places))), gradients, *rest)
    return leaves


class Counts:
    """The work of a step whose graph is read in several parts that share their scalar kernels."""

    def __init__(self) -> None:
        self.kernels = self.fused = self.modelled = 0
        self.scalars: set[tuple[str, str]] = set()

    @property
    def work(self) -> Work:
        return Work(self.kernels, self.fused, len(self.scalars), self.modelled)

    def add(self, dot: str, sizes: dict[str, int]) -> None:
        """Count the graph `dot`, whose named arrays have `sizes` bytes."""
        known = defaultdict(int, sizes)
        for primitive in primitives(dot):  # inputs come first: MLX writes its graph in the order of evaluation
            is_view = primitive.label in VIEWS
            read = [known[array] for array in primitive.inputs]
            size = max(read, default=0)  # all arithmetic here is elementwise; a view of a scalar stays one
            written = [known.setdefault(array, size) for array in primitive.outputs]
            if is_view:
                continue
            if not any(read + written):
                self.scalars.add((primitive.address, primitive.label))
                continue
            self.kernels += 1
            self.fused += primitive.label.startswith("Compiled")
            self.modelled += sum(read + written)


class Primitive(NamedTuple):
    """One operation of the graph: its address in MLX, its label and the names of its arrays."""

    address: str
    label: str
    inputs: list[str]
    outputs: list[str]


def primitives(dot: str) -> Iterator[Primitive]:
    """The primitives of MLX's dot text.

    The number that MLX gives a node is the address of its primitive, and every call of one compiled function shares
    it: a node is told by its place in the text (label, inputs, outputs), not by its number.
    """
    current = None
    for line in dot.splitlines():
        if match := NODE.match(line):
            if current:
                yield current
            current = Primitive(match[1], match[2], [], [])
        elif current and (match := INTO.match(line)):
            current.inputs.append(match[1])
        elif current and (match := OUT.match(line)):
            current.outputs.append(match[1])
    if current:
        yield current


class TraceCounter:
    """Counts how often functions given to `mx.compile` are traced. Install it before any variant is imported.

    A traced function runs in Python only while it is traced, so the counting costs nothing in a timed step. Where
    compilation is off (MLX_DISABLE_COMPILE, no C++ compiler on the CPU) every call counts.
    """

    def __init__(self) -> None:
        self.traces = 0
        self._compile = mx.compile

    def install(self) -> None:
        mx.compile = self._counting_compile  # type: ignore[assignment]

    def _counting_compile(self, function: Callable, *args: Any, **kwargs: Any) -> Callable:
        def traced(*inputs: Any, **named: Any) -> Any:
            self.traces += 1
            return function(*inputs, **named)

        return self._compile(traced, *args, **kwargs)
