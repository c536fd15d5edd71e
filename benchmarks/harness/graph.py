"""What one step does, read from MLX's own graph: every kernel, with the bytes it reads and writes.

Two views of the graph are joined. `dot` shows what was fused, but neither shapes nor dtypes; `primitives` has those,
but shows nothing fused. The arrays of a case (parameters, gradients, state, before and after) are known in both, and
from them the arrays in between are told, primitive by primitive.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
from mlx.utils import tree_map

from benchmarks.harness import dot, primitives
from benchmarks.harness.evaluation import Evaluation, everything, flat, held_back, replace, undone
from benchmarks.harness.step import Step

STRIDED = frozenset({"Transpose", "AsStrided"})
"""Views after which the elements no longer lie in order."""

ORDERED = frozenset({"Reshape", "Flatten", "Unflatten", "View"})
"""Views that are copies where the elements do not lie in order."""

VIEWS = STRIDED | ORDERED | {"Broadcast", "ExpandDims", "Squeeze", "Slice", "Split", "StopGradient", "Depends"}
"""Primitives that move no bytes when their input is contiguous."""

MAKERS = frozenset({"Full", "Arange", "RandomBits"})
"""Primitives that make a leaf from no leaf."""

CONSTANT_BYTES = 1024
"""Bytes of arrays that are nobody's, such as random keys, which a step may read uncounted."""

REDUCTIONS = frozenset({"Sum", "Prod", "Max", "Min", "And", "Or", "ArgReduce"})
"""Primitives whose result is taken for a scalar where MLX does not tell its shape."""

OUTSIDE = "outside of MLX"
"""The label of work that a variant does by itself, in its arrays' memory."""

FAMILIES = {
    **dict.fromkeys(("Sum", "Prod", "Max", "Min", "And", "Or"), "Reduce"),
    **dict.fromkeys(("CumSum", "CumProd", "CumMax", "CumMin", "CumLogAddExp"), "Scan"),
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor", "LeftShift", "RightShift"), "BitwiseBinary"),
    **dict.fromkeys(("Log2", "Log10"), "Log"),
    "Rsqrt": "Sqrt",
    "NaNEqual": "Equal",
}
"""What `primitives` calls the labels of `dot`, where it is not the same (mlx/export.cpp, mlx/primitives.h)."""


class Disagreement(RuntimeError):
    """The two views of a graph do not fit together: one of them is misread, or the step reads what is nobody's."""


class Kernel(NamedTuple):
    """One launch: the arrays it reads, each once, and those it writes; `stage` is the evaluation that launches it."""

    label: str
    inputs: list[int]
    outputs: list[int]
    is_fused: bool
    stage: int


class Graph(NamedTuple):
    """The graph of one step.

    kernels          in the order of the graph, views left out; after them the work outside of it
    nbytes           bytes of every array: 0 for a scalar, None where this MLX does not tell
    before, after    numbers of the arrays that a step reads (gradients, parameters, state) and makes
    shared           numbers of the arrays of which the graph takes a view
    stages           for every evaluation in the step, and the harness's own after it: whether it waits, and the latest
                     stage that it waits for
    primitive_count  primitives before fusion, None where this MLX does not tell
    """

    kernels: list[Kernel]
    nbytes: list[int | None]
    before: list[int]
    after: list[int]
    shared: set[int]
    stages: list[tuple[bool, int]]
    primitive_count: int | None

    @property
    def leaf_kernels(self) -> list[Kernel]:
        """The kernels that read or write a leaf."""
        return [one for one in self.kernels if any(self.nbytes[array] != 0 for array in one.inputs + one.outputs)]


def read(step: Step, shapes: bool = True) -> Graph:
    """The graph of the next call of `step`, which is left as it was. Nothing is evaluated.

    Without `shapes` the primitives are not asked for: faster, and as on an MLX that does not tell them.
    """
    optimizer, gradients, parameters = step.optimizer, step.gradients, step.parameters
    before = step_arrays(step)
    with undone(optimizer), held_back() as held:
        new_parameters = optimizer.apply_gradients(gradients, parameters)
        after = flat([new_parameters, optimizer.state])
    evaluations = [*held.evaluations, Evaluation(True, after)]
    evaluated = [array for evaluation in evaluations for array in evaluation.arrays]
    text = dot.read([*before, *evaluated])
    number_before, number_evaluated = text.given[: len(before)], text.given[len(before) :]
    number_after = number_evaluated[len(evaluated) - len(after) :]
    unfused = primitives.read(replay(optimizer, gradients, parameters, before), before) if shapes else None
    nbytes, shared = sizes(text, number_before, number_after, before + after, unfused)
    stage_of_node = node_stages(text, [len(evaluation.arrays) for evaluation in evaluations], number_evaluated)
    stages = waits(evaluations, number_evaluated, text, stage_of_node)
    needed = text.ancestors(number_evaluated)
    views = list(moves_nothing(text.nodes))
    same = reshaped(text, views)
    kernels = [
        Kernel(
            node.label,
            list(dict.fromkeys(same[array] for array in node.inputs)),
            [same[array] for array in node.outputs],
            node.is_fused,
            stage,
        )
        for node, stage, is_view in zip(text.nodes, stage_of_node, views, strict=True)
        if not is_view and needed.intersection(node.outputs)
    ]
    number = {id(array): place for array, place in zip(before, number_before, strict=True)}
    for outside in held.outside:
        reads, writes = ([number[id(array)] for array in leaves(arrays)] for arrays in (outside.reads, outside.writes))
        kernels.append(Kernel(OUTSIDE, reads, writes, False, outside.stage))
    count = len(unfused.all) if unfused else None
    graph = Graph(kernels, nbytes, number_before, [same[array] for array in number_after], shared, stages, count)
    if unfused:
        check_agreement(graph, unfused)
    return graph


def step_arrays(step: Step) -> list[mx.array]:
    """What the next call of `step` may read: gradients, parameters, state and what else the optimizer holds."""
    return leaves([step.gradients, step.parameters, step.optimizer.state, everything(step.optimizer)])


def leaves(tree: Any) -> list[mx.array]:
    """The arrays of more than one element in `tree`, each once. Scalars stay what they are: a step may look at them."""
    return list({id(array): array for array in flat(tree) if array.size > 1}.values())


def replay(optimizer: Any, gradients: Any, parameters: Any, arrays: list[mx.array]) -> Any:
    """The step as a function of `arrays`, which are among its gradients, parameters and the optimizer's own."""

    def step(*traced: mx.array) -> list[mx.array]:
        instead = {id(array): tracer for array, tracer in zip(arrays, traced, strict=True)}
        with undone(optimizer), held_back():
            replace(everything(optimizer), instead)
            trees = tree_map(lambda array: instead.get(id(array), array), [gradients, parameters])
            return flat([optimizer.apply_gradients(*trees), optimizer.state])

    return step


def moves_nothing(nodes: Sequence[dot.Node]) -> Iterator[bool]:
    """For every node whether it is a view of its input, told by the order in which the elements lie."""
    strided: set[int] = set()
    for node in nodes:
        out_of_order = bool(strided.intersection(node.inputs))
        family = family_of(node.label)
        is_view = family in VIEWS and not (family in ORDERED and out_of_order)
        if node.label in STRIDED or (is_view and out_of_order):
            strided.update(node.outputs)
        yield is_view


def reshaped(text: dot.Dot, views: Sequence[bool]) -> list[int]:
    """For every array itself, or the one that it is in another shape: one buffer, which may be written over."""
    same = list(range(text.arrays))
    for node, is_view in zip(text.nodes, views, strict=True):
        if is_view and family_of(node.label) in ORDERED:
            same[node.outputs[0]] = same[node.inputs[0]]
    return same


def sizes(
    text: dot.Dot,
    before: Sequence[int],
    after: Sequence[int],
    arrays: Sequence[mx.array],
    unfused: primitives.Primitives | None,
) -> tuple[list[int | None], set[int]]:
    """Bytes of every array of the graph, and the arrays of which it takes views.

    An array's size is that of the arrays before fusion that it can be: reached from the same inputs by a primitive of
    the same name, or, behind a fused kernel, by any; the widest, if they differ.
    """
    nbytes: list[int | None] = [0] * text.arrays
    places: list[set[str]] = [set() for _ in range(text.arrays)]
    known = dict(zip([*before, *after], arrays, strict=True))
    for number, given in known.items():
        nbytes[number] = primitives.leaf_bytes(given.shape, given.dtype)
    if unfused:
        for number, name in zip([*before, *after], unfused.inputs + unfused.outputs, strict=True):
            places[number].add(name)
    shared: set[int] = set()
    result_bytes = {number: nbytes[number] for number in after}
    for node in reversed(text.nodes):  # a result that is seen in another shape was made with as many bytes
        if family_of(node.label) in ORDERED and node.outputs[0] in result_bytes:
            result_bytes.setdefault(node.inputs[0], result_bytes[node.outputs[0]])
    ambiguous: dict[frozenset[str], list[str]] = {}
    read_by: list[set[str]] = [set() for _ in range(text.arrays)]
    for node in text.nodes:
        for array in node.inputs:
            read_by[array].update([] if node.is_fused else [family_of(node.label)])
    for node in text.nodes:
        leaves = [array for array in node.inputs if nbytes[array] != 0]
        is_view = family_of(node.label) in VIEWS
        if is_view and family_of(node.label) not in ORDERED:
            shared.update(leaves)
        for position, array in enumerate(node.outputs):
            if array in known or (is_view and not leaves):
                continue
            if unfused:
                found = counterparts(node, position, places, unfused, read_by[array]) if leaves else made(node, unfused)
                if leaves and not node.is_fused and len({unfused.nbytes[name] for name in found}) > 1:
                    # Which of them it is cannot be told, and does not matter: each is taken once.
                    waiting = ambiguous.setdefault(frozenset(found), [name for name in unfused.made if name in found])
                    found = {waiting.pop(0)} if waiting else found
                of_size = {name for name in found if unfused.nbytes[name] == result_bytes.get(array)}
                places[array] = of_size or (widest(found, unfused) if node.is_fused else found)
                nbytes[array] = max((unfused.nbytes[name] for name in places[array]), default=0)
            elif node.label in MAKERS or (leaves and node.label not in REDUCTIONS):
                nbytes[array] = None
        if unfused and leaves:
            for array in leaves:
                nbytes[array] = settled(array, node, places, unfused)
    return nbytes, shared


def made(node: dot.Node, unfused: primitives.Primitives) -> set[str]:
    """The arrays before fusion that `node` can make of scalars: of any leaf's size, until it is read."""
    return {name for name in unfused.made_of_scalars(family_of(node.label)) if unfused.nbytes[name]}


def settled(array: int, node: dot.Node, places: list[set[str]], unfused: primitives.Primitives) -> int:
    """The bytes of `array`, which `node` reads; where they may be several, those of what is read with it."""
    found = {unfused.nbytes[name] for name in places[array]}
    if len(found) > 1:
        others = [{unfused.nbytes[name] for name in places[other]} for other in node.inputs if other != array]
        beside = {size for one in others if len(one) == 1 for size in one}
        places[array] = {name for name in places[array] if unfused.nbytes[name] in beside} or places[array]
    return max(unfused.nbytes[name] for name in places[array])


def widest(names: set[str], unfused: primitives.Primitives) -> set[str]:
    """Those of the arrays `names` that have the most bytes."""
    most = max((unfused.nbytes[name] for name in names), default=0)
    return {name for name in names if unfused.nbytes[name] == most}


def counterparts(
    node: dot.Node, position: int, places: list[set[str]], unfused: primitives.Primitives, read_by: set[str]
) -> set[str]:
    """The arrays before fusion that the output number `position` of `node`, which those primitives read, can be."""
    anchor = next(array for array in node.inputs if places[array]) if any(places[i] for i in node.inputs) else None
    if anchor is None:
        raise Disagreement(f"MLX's graph has a kernel {node.label} on arrays that its primitives do not show")
    if node.is_fused:
        found = set().union(*(unfused.descendants(name) for name in places[anchor]))
        return {name for name in found if read_by <= {one.name for one in unfused.consumers[name]}} or found
    family = family_of(node.label)

    def agrees(primitive: primitives.Primitive) -> bool:
        return (
            primitive.name == family
            and len(primitive.inputs) == len(node.inputs)
            and all(
                not places[array] or name in places[array]
                for array, name in zip(node.inputs, primitive.inputs, strict=True)
            )
        )

    readers = [primitive for name in places[anchor] for primitive in unfused.consumers[name] if agrees(primitive)]
    if not readers:
        raise Disagreement(f"MLX's graph has a kernel {node.label} that its primitives do not show")
    return {primitive.outputs[position] for primitive in readers}


def family_of(label: str) -> str:
    """The primitive's name without what it reduces by: `SliceUpdate Sum` is a SliceUpdate."""
    return FAMILIES.get(label, label.partition(" ")[0])


def node_stages(text: dot.Dot, counts: list[int], evaluated: list[int]) -> list[int]:
    """For every node the evaluation that first needs it, from the order in which MLX writes the graph.

    `counts` says how many of the `evaluated` arrays each evaluation was given.
    """
    stage_of_root = [stage for stage, count in enumerate(counts) for _ in range(count)]
    maker = {array: place for place, node in enumerate(text.nodes) for array in node.outputs}
    stages = [len(counts) - 1] * len(text.nodes)
    done = -1
    for array, stage in zip(evaluated, stage_of_root, strict=True):
        last = maker.get(array, -1)
        for place in range(done + 1, last + 1):
            stages[place] = stage
        done = max(done, last)
    return stages


def waits(
    evaluations: list[Evaluation], evaluated: list[int], text: dot.Dot, stage_of_node: list[int]
) -> list[tuple[bool, int]]:
    """For every evaluation whether it waits, and for which stage at the latest."""
    maker = {array: stage for node, stage in zip(text.nodes, stage_of_node, strict=True) for array in node.outputs}
    remaining = iter(evaluated)
    found = []
    for stage, evaluation in enumerate(evaluations):
        latest = max((maker.get(next(remaining), -1) for _ in evaluation.arrays), default=-1)
        found.append((evaluation.waits, stage if evaluation.for_all else latest))
    return found


def check_agreement(graph: Graph, unfused: primitives.Primitives) -> None:
    """Raise Disagreement if the primitives read leaves that are nobody's, or are others than the kernels shown."""
    if unfused.constant_bytes > CONSTANT_BYTES:
        raise Disagreement(
            f"the step reads {unfused.constant_bytes} bytes that are neither parameters nor gradients nor in an "
            "attribute of the optimizer: keep them in its state"
        )
    if any(kernel.is_fused for kernel in graph.kernels):
        return
    shown = Counter(family_of(kernel.label) for kernel in graph.leaf_kernels if kernel.label != OUTSIDE)
    told = Counter(
        primitive.name
        for primitive in unfused.all
        if primitive.name not in VIEWS and any(unfused.nbytes[name] for name in primitive.inputs + primitive.outputs)
    )
    shown = Counter({name: count for name, count in shown.items() if name not in VIEWS})
    if shown.keys() != told.keys() or not told <= shown:  # the same operation done twice is told once
        raise Disagreement(f"MLX's graph shows the kernels {dict(shown)}, its primitives are {dict(told)}")
