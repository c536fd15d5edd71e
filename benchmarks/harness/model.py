"""The tree of a model to be trained: read from the headers of its files, or taken from `trees` by name."""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import cases, header, namefilter, roles, shards, tied, trees
from benchmarks.harness.cases import Case, Precision
from benchmarks.harness.header import Tensor, printable
from benchmarks.harness.roles import Judged, said
from benchmarks.harness.tied import Tied
from benchmarks.harness.trees import Shape

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float32"}
"""What MLX trains a tensor in. It computes float64 on a CPU only, and reads none from safetensors (mlx 0.32.4)."""

MOST_TENSORS = 300_000

LARGEST_DIMENSION = 2**31 - 1
"""MLX's dimensions are 32-bit integers."""

LARGEST_TEMPORARY = 4
"""Bytes a parameter, of what one operation of upstream's hands to the next: float32."""


LARGEST_CONFIG = 2**20
"""Bytes."""

SCALED = "quantized: numbers of 8 bits or less are counted as if they were trained, in the dtype that is asked for"

NO_TIES = Tied({}, {})


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


def load(sources: list[str], dtype: str | None = None, without: str | None = None) -> Model:
    """The model in the files, index or folder `sources`, or the tree of that one name; in `dtype` if one is given.

    Tensors whose name `without` finds are left out. A tree has no dtype of its own: it is float32 by default. Raises
    BadModel, header.BadFile and OSError.
    """
    if len(sources) == 1 and not os.path.lexists(sources[0]):
        if without is not None:
            raise BadModel(f"{printable(sources[0])}: a tree has no names of tensors; --without is for files")
        return from_catalogue(sources[0], dtype or "float32")
    paths, notes, promised = shards.files(sources)
    files = list(read_all(paths))
    tensors = [tensor for file in files for tensor in file]
    if lacking := sorted(promised - {tensor.name for tensor in tensors}):
        other = "the index names tensors that its files do not have, perhaps as it is of another version"
        notes = [*notes, f"{other}: {said(lacking)}"]
    loaded = from_tensors(sources, files, dtype, without, tied.look(paths, files))
    return loaded._replace(notes=notes + about(paths, tensors) + loaded.notes)


def read_all(paths: list[Path]) -> Iterator[list[Tensor]]:
    """The tensors of each of `paths`, up to a bound. Raises BadModel, header.BadFile and OSError."""
    total = 0
    for path in paths:
        yield (tensors := header.read(path))
        total += len(tensors)
        if total > MOST_TENSORS:
            raise BadModel(f"{printable(str(path))}: with it too many tensors, the limit is {MOST_TENSORS}")


def from_catalogue(name: str, dtype: str) -> Model:
    """The tree called `name`, all of it in `dtype`. Raises BadModel."""
    try:
        tree = trees.build(name)
    except ValueError as error:
        if Path(name).suffix or "/" in name:
            raise BadModel(f"{printable(name)}: no such file; name a safetensors file or a tree") from error
        raise BadModel(f"no such file, and {printable(str(error))}") from error
    return Model(name, trees.mapped(lambda shape: checked(leaf(shape, dtype), name), tree), [])


def from_tensors(
    sources: list[str],
    files: list[list[Tensor]],
    dtype: str | None,
    without: str | None = None,
    again: Tied = NO_TIES,
) -> Model:
    """The model whose tensors are in `files`; the notes tell what of them is left out. Raises BadModel."""
    name = called(sources, files)
    tensors = [tensor for file in files for tensor in file]
    twice = [tensor for tensor, count in Counter(tensor.name for tensor in tensors).items() if count > 1]
    if twice:
        raise BadModel(f"{name}: the tensor {printable(twice[0])} is in two files; name every file of one model once")
    removed = [] if without is None else found_by(without, tensors, name)
    gone = set(removed)
    kept = [tensor for tensor in tensors if tensor.name not in gone]
    refuse_quantized(name, kept, dtype)
    judged = roles.judge(kept, [copy for copy, original in again.surely.items() if original not in gone])
    left_out = {"as --without asks": removed} if removed else {}
    left_out |= {f"as not trained: {what}": names for what, names in judged.left_out.items()}
    if not judged.trained:
        reasons = "".join(f"; left out, {why}: {said(names)}" for why, names in left_out.items())
        raise BadModel(f"{name}: of its {len(tensors)} tensors none is trained; name a file with weights{reasons}")
    leaves = [checked(leaf(one.shape, dtype or dtype_of(one, name)), printable(one.name)) for one in judged.trained]
    notes = [f"left out, {why}: {said(names)}" for why, names in left_out.items()]
    return Model(name, {"leaves": leaves}, notes + notes_of(judged, again, dtype) + [SCALED] * roles.scaled(kept))


def called(sources: list[str], files: list[list[Tensor]]) -> str:
    """What the model in `files` is called, by the first of `sources`."""
    first = Path(sources[0])
    name = printable(first.name or first.absolute().name)
    more = f" and {len(sources) - 1} more" * (len(sources) > 1)
    return name + (more or f" ({len(files)} files)" * (len(files) > 1))


def found_by(pattern: str, tensors: list[Tensor], model: str) -> list[str]:
    """The names of `tensors` in which `pattern` finds something. Raises BadModel, also if there is none."""
    names = [tensor.name for tensor in tensors]
    try:
        found = namefilter.found(pattern, names)
    except namefilter.BadPattern as error:
        raise BadModel(f"--without {printable(pattern)!r}: {printable(str(error))}") from error
    if not found:
        raise BadModel(f"{model}: --without finds none of its {len(names)} tensors, called like {said(names)}")
    return [name for name in names if name in found]


def refuse_quantized(name: str, tensors: list[Tensor], dtype: str | None) -> None:
    """Raise BadModel if weights among `tensors` are packed, or scaled and not asked for in another `dtype`."""
    if way := roles.quantized(tensors):
        raise BadModel(
            f"{name}: a quantized model ({way}), whose weights no optimizer trains; "
            "name the file of its adapters, or the model that it was made of"
        )
    if roles.scaled(tensors) and not dtype:
        raise BadModel(
            f"{name}: a quantized model (numbers of 8 bits or less beside scales), which MLX does not train; "
            "to measure these shapes in another dtype add --dtype bfloat16"
        )


def notes_of(judged: Judged, again: Tied, dtype: str | None) -> list[str]:
    """What is counted although it may not be trained, and what is of another dtype, in lines."""
    trained = {one.name for one in judged.trained}
    perhaps = [name for name in again.perhaps if name in trained]
    doubtful = judged.doubtful | ({"may be its embedding, tied and stored twice": perhaps} if perhaps else {})
    widened = [one.name for one in judged.trained if one.dtype == "F64" and not dtype]
    return [
        *(
            f"counted, though it may not be trained ({why}; --without leaves it out): {said(names)}"
            for why, names in doubtful.items()
        ),
        *[f"taken as float32, as MLX reads no float64 from safetensors: {said(widened)}"] * bool(widened),
    ]


def about(paths: list[Path], tensors: list[Tensor]) -> list[str]:
    """What the layers' numbers, and the configuration beside the files, tell against `tensors` as a whole model."""
    found = configuration(paths[0].parent / "config.json")
    numbers = roles.layers(tensors)
    layers = found.get("num_hidden_layers")
    notes = [
        f"config.json names a {way}: if weights are quantized, they are not what is trained"
        for way in ("quantization", "quantization_config")
        if found.get(way)
    ]
    if numbers and isinstance(layers, int) and len(numbers) < layers <= MOST_TENSORS:
        notes.append(f"{len(numbers)} of the {layers} layers of config.json: perhaps a part of a model")
    elif numbers and min(numbers) > 1:
        notes.append(f"its layers begin with number {min(numbers)}: perhaps a part of a model")
    return notes


def configuration(path: Path) -> dict[str, Any]:
    """What the JSON file `path` says; nothing if it is none."""
    try:
        found = json.loads(path.read_bytes()) if path.is_file() and path.stat().st_size <= LARGEST_CONFIG else None
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


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
