"""The kernels of an unevaluated graph, as `mx.export_to_dot` writes them: what was fused is one node.

MLX's text names arrays, but says neither their shapes nor their dtypes, and the number it gives a node is the address
of its primitive, which every call of one compiled function shares: a node is told by its place in the text.
"""

import io
import re
from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx

NAMES_A_TEXT = 1000
"""MLX takes at most 1024 named arrays."""

LINE = re.compile(
    r"""^ (?: \{\ \d+\ \[label\ ="(?P<node>[^"]+)" | "(?P<input>\w+)"\ ->\  | \d+\ ->\ "(?P<output>\w+)"
        | \{\ rank=source;\ "(?P<source>\w+)" )""",
    re.MULTILINE | re.VERBOSE,
)
MADE = re.compile(r'^(?:\d+ -> |\{ rank=source; )"(\w+)"', re.MULTILINE)
"""The line with which an array enters the graph: as a source, or as a node's output."""


class Node(NamedTuple):
    """One operation: its label, which for a fused one is `Compiled` and all its operations, and its arrays."""

    label: str
    inputs: list[int]
    outputs: list[int]

    @property
    def is_fused(self) -> bool:
        return self.label.startswith("Compiled")


class Dot(NamedTuple):
    """A graph: its nodes, inputs first. Arrays are numbered as they enter it.

    arrays  how many there are
    given   the numbers of the arrays that were asked for, in their order
    """

    nodes: list[Node]
    arrays: int
    given: list[int]

    def ancestors(self, arrays: Sequence[int]) -> set[int]:
        """`arrays` and all arrays that they are computed from."""
        found = set(arrays)
        for node in reversed(self.nodes):
            if found.intersection(node.outputs):
                found.update(node.inputs)
        return found


def read(arrays: Sequence[mx.array]) -> Dot:
    """The graph behind `arrays`, of which some may be evaluated. Nothing is evaluated."""
    number: dict[int, int] = {}
    # A name given to one array changes what MLX calls the others, but not the order in which it writes them. Of the
    # names of one array that is given twice only the last one is written.
    while missing := [array for array in arrays if id(array) not in number][:NAMES_A_TEXT]:
        named = {f"given_{id(array)}": array for array in missing}
        for place, name in enumerate(MADE.findall(text(arrays, named))):
            if name in named:
                number[id(named[name])] = place
    nodes, count = parse(text(arrays))
    return Dot(nodes, count, [number[id(array)] for array in arrays])


def text(arrays: Sequence[mx.array], named: dict[str, mx.array] | None = None) -> str:
    file = io.StringIO()
    mx.export_to_dot(file, *arrays, **(named or {}))
    return file.getvalue()


def parse(dot: str) -> tuple[list[Node], int]:
    """The nodes of MLX's text, and how many arrays there are."""
    number: dict[str, int] = {}
    nodes: list[Node] = []
    for match in LINE.finditer(dot):
        kind, name = match.lastgroup, match[match.lastindex or 0]
        if kind == "node":
            nodes.append(Node(name, [], []))
        elif kind == "input":
            nodes[-1].inputs.append(number[name])
        else:
            number[name] = len(number)
            if kind == "output":
                nodes[-1].outputs.append(number[name])
    return nodes, len(number)
