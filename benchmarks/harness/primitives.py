"""The primitives of a function before anything is fused, with the shape and dtype of every array.

From `mx.export_function` with a callback (mlx 0.29.3 and newer). MLX inlines compiled functions there, and counts the
same operation on the same arrays once, however often it is done.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any, NamedTuple

import mlx.core as mx


class Primitive(NamedTuple):
    """One operation and the names of its arrays."""

    name: str
    inputs: list[str]
    outputs: list[str]


class Primitives:
    """All primitives of a function.

    nbytes     bytes of every array in memory, by name; 0 for an array of one element, whatever its dtype
    consumers  for every array the primitives that read it
    constant_bytes  bytes of the arrays that are read but are not among the inputs
    """

    def __init__(self) -> None:
        self.all: list[Primitive] = []
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self.nbytes: dict[str, int] = {}
        self.consumers: dict[str, list[Primitive]] = defaultdict(list)
        self.constant_bytes = 0
        self._made: dict[str, list[str]] | None = None

    def receive(self, part: dict[str, Any]) -> None:
        """One call of MLX's callback."""
        kind = part["type"]
        if kind == "constants":
            constants = {name: leaf_bytes(array.shape, array.dtype) for name, array in part[kind]}
            self.nbytes |= constants
            self.constant_bytes = sum(constants.values())
        elif kind == "primitive":
            primitive = Primitive(part["name"], self._names(part["inputs"]), self._names(part["outputs"]))
            if primitive.name == "Broadcast" and not any(self.nbytes[name] for name in primitive.inputs):
                self.nbytes |= dict.fromkeys(primitive.outputs, 0)  # a scalar seen everywhere is one in memory
            self.all.append(primitive)
            for name in dict.fromkeys(primitive.inputs):
                self.consumers[name].append(primitive)
        elif kind == "inputs":
            self.inputs = self._names(part[kind])
        elif kind == "outputs":
            self.outputs = self._names(part[kind])

    def _names(self, described: list[tuple[str, tuple[int, ...], mx.Dtype]]) -> list[str]:
        for name, shape, dtype in described:
            self.nbytes.setdefault(name, leaf_bytes(shape, dtype))
        return [name for name, _, _ in described]

    @property
    def made(self) -> list[str]:
        """What the primitives make, in their order."""
        return [name for primitive in self.all for name in primitive.outputs]

    def made_of_scalars(self, family: str) -> list[str]:
        """What primitives called `family` make that read no leaf."""
        if self._made is None:
            self._made = defaultdict(list)
            for primitive in self.all:
                if not any(self.nbytes[name] for name in primitive.inputs):
                    self._made[primitive.name] += primitive.outputs
        return self._made[family]

    def descendants(self, name: str) -> set[str]:
        """All arrays that depend on the array `name`."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            for primitive in self.consumers[waiting.pop()]:
                new = set(primitive.outputs) - found
                found |= new
                waiting += new
        return found


def leaf_bytes(shape: Sequence[int], dtype: mx.Dtype) -> int:
    """Bytes of an array; 0 for a scalar, which counts nothing."""
    size = prod(shape)
    return size * dtype.size if size > 1 else 0


@cache
def available() -> bool:
    """Whether this MLX tells its primitives."""
    try:
        mx.export_function(lambda part: None, lambda array: [array + 1], mx.array(0.5))
    except TypeError:
        return False
    return True


def read(function: Callable[..., list[mx.array]], arrays: Sequence[mx.array]) -> Primitives | None:
    """The primitives of `function(*arrays)`, which is traced; None if this MLX does not tell them."""
    if not available():
        return None
    found = Primitives()
    mx.export_function(found.receive, function, *arrays)
    return found
