"""The tree of a model to be trained: read from the headers of its files, or taken from `trees` by name."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import cases, header, trees
from benchmarks.harness.cases import Case, Precision
from benchmarks.harness.header import Tensor, printable
from benchmarks.harness.trees import Shape

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float32"}
"""What MLX trains a tensor in. It computes float64 on a CPU only, and reads none from safetensors (mlx 0.32.4)."""

NOT_TRAINED = frozenset({"BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64"})

LARGEST_DIMENSION = 2**31 - 1
"""MLX's dimensions are 32-bit integers."""

LARGEST_TEMPORARY = 4
"""Bytes a parameter, of what one operation of upstream's hands to the next: float32."""


class BadModel(ValueError):
    """Nothing that can be trained as it is; the message, one line, says why and what to do."""


def leaf(shape: Iterable[int], dtype: str) -> Shape:
    """A leaf whose parameter and gradient are of `dtype`."""
    made = Shape(shape)
    made.dtype = dtype
    return made


class Model(NamedTuple):
    """A tree of leaves with dtypes, what it is called, and what of its files is not as it was, in lines."""

    name: str
    tree: Any
    notes: list[str]

    @property
    def leaves(self) -> list[Shape]:
        return list(trees.leaves(self.tree))

    @property
    def parameter_count(self) -> int:
        return trees.parameter_count(self.tree)

    @property
    def dtypes(self) -> Counter[str]:
        """How many leaves there are of each dtype, the coarsest first."""
        found = Counter(str(leaf.dtype) for leaf in self.leaves)
        return Counter({dtype: found[dtype] for dtype in sorted(found, key=coarseness, reverse=True)})

    @property
    def precisions(self) -> list[str]:
        """The precisions that are this model's: of parameters in its coarsest dtype."""
        coarsest = next(iter(self.dtypes))
        return [name for name, precision in cases.PRECISIONS.items() if precision.parameter == coarsest]

    @property
    def tolerance(self) -> float:
        """The error that is still correct in the coarsest dtype."""
        return max(map(coarseness, self.dtypes))


def coarseness(dtype: str) -> float:
    return cases.PRECISIONS[dtype].tolerance


def load(sources: list[str], dtype: str | None = None) -> Model:
    """The model in the files `sources`, or the tree of that one name; in `dtype` if one is given.

    A tree has no dtype of its own: it is float32 by default. Raises BadModel, header.BadFile and OSError.
    """
    if len(sources) == 1 and not Path(sources[0]).exists():
        return from_catalogue(sources[0], dtype or "float32")
    return from_tensors(sources, [header.read(Path(source)) for source in sources], dtype)


def from_catalogue(name: str, dtype: str) -> Model:
    """The tree called `name`, all of it in `dtype`. Raises BadModel."""
    try:
        tree = trees.build(name)
    except ValueError as error:
        if Path(name).suffix or "/" in name:
            raise BadModel(f"{printable(name)}: no such file; name a safetensors file or a tree") from error
        raise BadModel(f"no such file, and {printable(str(error))}") from error
    return Model(name, trees.mapped(lambda shape: checked(leaf(shape, dtype), name), tree), [])


def from_tensors(sources: list[str], files: list[list[Tensor]], dtype: str | None) -> Model:
    """The model whose tensors are in `files`; the notes tell what of them is left out. Raises BadModel."""
    name = printable(Path(sources[0]).name) + f" and {len(sources) - 1} more" * (len(sources) > 1)
    tensors = [tensor for file in files for tensor in file]
    twice = [tensor for tensor, count in Counter(tensor.name for tensor in tensors).items() if count > 1]
    if twice:
        raise BadModel(f"{name}: the tensor {printable(twice[0])} is in two files; name every file of one model once")
    whole = [tensor for tensor in tensors if tensor.dtype in NOT_TRAINED]
    empty = [tensor for tensor in tensors if 0 in tensor.shape and tensor.dtype not in NOT_TRAINED]
    trained = [tensor for tensor in tensors if 0 not in tensor.shape and tensor.dtype not in NOT_TRAINED]
    if not trained:
        raise BadModel(
            f"{name}: of its {len(tensors)} tensors none is trained; name a file with floating-point tensors"
        )
    tree = {"leaves": [checked(leaf(one.shape, dtype or dtype_of(one, name)), printable(one.name)) for one in trained]}
    widened = [tensor for tensor in trained if tensor.dtype == "F64" and not dtype]
    notes = {
        "left out, as they are not trained: integer or bool tensors": len(whole),
        "left out: tensors without elements": len(empty),
        "taken as float32, as MLX reads no float64 from safetensors: float64 tensors": len(widened),
    }
    return Model(name, tree, [f"{note}, {count}" for note, count in notes.items() if count])


def dtype_of(tensor: Tensor, model: str) -> str:
    """What MLX trains `tensor` in. Raises BadModel."""
    if tensor.dtype not in DTYPES:
        raise BadModel(
            f"{model}: {printable(tensor.name)} is {tensor.dtype}, which MLX does not train; "
            "to measure these shapes in another dtype add --dtype bfloat16"
        )
    return DTYPES[tensor.dtype]


def checked(leaf: Shape, name: str) -> Shape:
    """`leaf`, if MLX can have it. Raises BadModel."""
    if max(leaf, default=1) > LARGEST_DIMENSION:
        raise BadModel(f"{name}: a dimension of {max(leaf)} is more than MLX's arrays have ({LARGEST_DIMENSION})")
    return leaf


class ModelCase(Case):
    """A variant in a precision on a model: the case of `Step` and `Check`, each leaf in a dtype of its own.

    The precision decides the state's dtype. Where that is the parameters', as in upstream, it is each leaf's own.
    """

    tree: Any

    @property
    def leaf_count(self) -> int:
        """Leaves of more than one element: others are scalars to the kernels that are counted."""
        return sum(leaf.size > 1 for leaf in trees.leaves(self.tree))

    @property
    def parameter_count(self) -> int:
        return trees.parameter_count(self.tree)

    @property
    def resident_bytes(self) -> int:
        return self._total(lambda precision: precision.resident_bytes)

    @property
    def needed_bytes(self) -> int:
        return self._total(lambda precision: precision.resident_bytes + precision.output_bytes + LARGEST_TEMPORARY)

    @property
    def state_is_each_leafs(self) -> bool:
        return self.precision.state == self.precision.parameter

    def _total(self, bytes_a_parameter: Callable[[Precision], float]) -> int:
        return math.ceil(sum(one.size * bytes_a_parameter(self._precision_of(one)) for one in trees.leaves(self.tree)))

    def _precision_of(self, leaf: Shape) -> Precision:
        dtype = str(leaf.dtype)
        state = dtype if self.state_is_each_leafs else self.precision.state
        return self.precision._replace(parameter=dtype, gradient=dtype, state=state)


def case(model: Model, variant: str, precision: str, bias_correction: bool = False) -> ModelCase:
    made = ModelCase(variant, precision, model.name, bias_correction)
    made.tree = model.tree
    return made
