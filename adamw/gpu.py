"""What the variants share that launch GPU kernels of our own: the kernels, their launches, a step's scalars.

A launch updates many leaves of one kind, in float32 whatever the storage type.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from itertools import accumulate, chain
from typing import Any, NamedTuple, TypeVar

import mlx.core as mx

from adamw import arithmetic
from adamw.base import STORAGE, CompiledAdamW, Constants, Unavailable

MOST_ARRAYS = {"metal": 31, "cuda": 512}
"""Arrays that a kernel takes: Metal's buffers, and CUDA's 4096 bytes of parameters, 8 a pointer."""

MOST_LEAVES, MOST_LEAVES_IN_PLACE = 4, 32
"""Leaves of a launch. MLX gives every output of a kernel a list of all its inputs and one of all other outputs
(mlx/array.cpp, make_arrays), so that the host's work grows with the square of the number of leaves: 14 us for 4, 3.6 ms
for 72 (docs/gpu.md). In place there is one output, and more leaves cost less; but the device begins when the first
launch is complete."""

GROUP = 256
"""Threads of a group, which every kernel of every GPU may have."""

CHUNK = 4 * GROUP
"""Elements that a group updates at once: with 4 a thread, 16 loads of a thread are under way together."""

MOST_THREADS = 2**20
"""Threads of a launch, in whole groups: more than any GPU runs at once. With more elements every group takes several
chunks, and no index of MLX's grid, which has 32 bits, is ever too small."""

CONSTANT_SIZE = 8
"""Elements. Smaller arrays are passed otherwise on Metal, by another kernel (mlx/backend/common/metal_kernel.cpp)."""

Item = TypeVar("Item")
Shapes = tuple[tuple[int, ...], ...]
Scalars = tuple[mx.array, mx.array]
"""A step's `arithmetic.SCALARS` and `arithmetic.RATES`."""

Launcher = Callable[[Scalars, Iterable[mx.array]], list[mx.array]]


class Kind(NamedTuple):
    """What one kernel is made for: the dtypes of a leaf's arrays, and whether they are below CONSTANT_SIZE."""

    w: mx.Dtype
    g: mx.Dtype
    m: mx.Dtype
    v: mx.Dtype
    is_small: bool

    def __str__(self) -> str:
        dtypes = [str(dtype).removeprefix("mlx.core.") for dtype in self[:4]]
        return "_".join(dtypes + ["small"] * self.is_small)


class Leaf:
    """One leaf's arrays; `parameter` becomes the new one."""

    __slots__ = ("gradient", "parameter", "state")

    def __init__(self, gradient: mx.array, parameter: mx.array, state: dict) -> None:
        self.gradient, self.parameter, self.state = gradient, parameter, state

    @property
    def arrays(self) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        """What a step reads, in the order of `arithmetic.READ`."""
        return self.parameter, self.gradient, self.state["m"], self.state["v"]


class GpuAdamW(CompiledAdamW):
    """AdamW of which leaves are updated by a kernel of our own. Raises Unavailable where MLX's device is not a GPU."""

    kernels_a_leaf = (0, 0)

    def __init__(self, *args: Any, **hyper_parameters: Any) -> None:
        if reason := self.unavailable():
            raise Unavailable(reason)
        super().__init__(*args, **hyper_parameters)
        self.backend = backend()
        self.tables: dict[tuple[int, ...], mx.array] = {}
        self.fixed: dict[Constants, Scalars] = {}
        self._launchers: dict[tuple, Launcher] = {}

    @classmethod
    def unavailable(cls) -> str | None:
        """Why this variant cannot run here, in one line; None if it can."""
        if backend() != "cpu":
            return None
        name = cls.__module__.rpartition(".")[2]  # as `adamw.load` finds it
        return f"{name} needs a GPU, and MLX's default device is the CPU here: run it on a Mac, or with MLX for CUDA"

    def scalars(self) -> Scalars:
        """`arithmetic.SCALARS` and `arithmetic.RATES` of the step that is counted already, in float32.

        What stays the same from step to step is on the device already: whatever the host writes in a step would be
        fetched from its memory by the first kernel that reads it.
        """
        constants = self.constants
        b1, b2, eps, weight_decay, bias_correction = constants
        if constants not in self.fixed:
            logs = [math.log(b) if b else -math.inf for b in (b1, b2)]
            numbers = [b1, 1 - b1, b2, 1 - b2, eps, weight_decay]
            self.fixed = {constants: (mx.array(numbers, mx.float32), mx.array(logs, mx.float32))}  # not one a step
        scalars, logarithms = self.fixed[constants]
        rate = self.learning_rate.astype(mx.float32).reshape(1)
        if not bias_correction:
            return scalars, rate
        # 1 / (1 - b^t) as -1 / expm1(t log b), which keeps the digits that 1 - float32(b)^t loses where b is near 1
        return scalars, mx.concatenate([rate, -1 / mx.expm1(self.step * logarithms)])

    def launcher(self, kind: Kind, shapes: Shapes, corrected: bool, in_place: bool = False) -> Launcher:
        """What launches the kernel over leaves of a kind and of these shapes, given a step's scalars and arrays."""
        key = kind, shapes, corrected, in_place
        if key not in self._launchers:
            self._launchers[key] = self._made_launcher(*key)
        return self._launchers[key]

    def _made_launcher(self, kind: Kind, shapes: Shapes, corrected: bool, in_place: bool) -> Launcher:
        sizes = tuple(math.prod(shape) for shape in shapes)
        chunks = first_chunks(sizes)
        table = self.tables.setdefault(sizes, mx.array([*chunks, *sizes], mx.int64))
        written = [dtype for name, dtype in zip(arithmetic.READ, kind[:4], strict=True) if name in arithmetic.WRITTEN]
        launched = partial(
            made_kernel(self.backend, kind, len(shapes), in_place),
            template=template(kind, len(shapes), corrected),
            output_shapes=[(1,)] if in_place else [shape for shape in shapes for _ in written],
            output_dtypes=[mx.uint32] if in_place else written * len(shapes),
            grid=(min(chunks[-1] * GROUP, MOST_THREADS), 1, 1),
            threadgroup=(GROUP, 1, 1),
            stream=mx.gpu,
        )

        def launch(scalars: Scalars, arrays: Iterable[mx.array]) -> list[mx.array]:
            if kind.is_small:  # an array without dimensions would be passed by reference
                arrays = [array.reshape(-1) for array in arrays]
            return launched(inputs=[*scalars, table, *arrays])

        return launch

    def launch(self, kinds: dict[Kind, list[Leaf]], scalars: Scalars) -> None:
        """Update leaves in as few launches as pay: they hold their new arrays afterwards, not evaluated."""
        corrected = scalars[1].size > 1
        for kind, alike in kinds.items():
            for batch in batches(alike, leaves_a_launch(self.backend)):
                launch = self.launcher(kind, tuple(leaf.parameter.shape for leaf in batch), corrected)
                new = launch(scalars, chain.from_iterable(leaf.arrays for leaf in batch))
                for leaf, (parameter, m, v) in zip(batch, batches(new, len(arithmetic.WRITTEN)), strict=True):
                    leaf.parameter, leaf.state["m"], leaf.state["v"] = parameter, m, v

    def __getstate__(self) -> dict:
        """Launchers are neither copied nor pickled; a copy makes its own."""
        return super().__getstate__() | {"_launchers": {}}


def backend() -> str:
    """What MLX runs on here unless told otherwise: "metal", "cuda" or "cpu"."""
    if mx.default_device() == mx.Device(mx.cpu):
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def kind_of(w: mx.array, g: mx.array, m: mx.array, v: mx.array) -> Kind | None:
    """What kernel updates a leaf; None if its arrays differ in shape or are of a dtype that no kernel takes."""
    shape, dtypes = w.shape, (w.dtype, g.dtype, m.dtype, v.dtype)
    if g.shape != shape or m.shape != shape or v.shape != shape or not STORAGE.issuperset(dtypes):
        return None
    return Kind(*dtypes, w.size < CONSTANT_SIZE)


def by_kind(leaves: Iterable[Leaf]) -> tuple[dict[Kind, list[Leaf]], list[Leaf]]:
    """The leaves that are not empty, those of a kind together; and those that no kernel takes."""
    together: dict[Kind, list[Leaf]] = defaultdict(list)
    others: list[Leaf] = []
    for leaf in leaves:
        if (kind := kind_of(*leaf.arrays)) is None:
            others.append(leaf)
        elif leaf.parameter.size:
            together[kind].append(leaf)
    return together, others


def leaves_a_launch(backend: str, in_place: bool = False) -> int:
    """How many leaves a launch is given at most: as many as the backend's kernels take, or as many as pay."""
    others = len(("scalars", "rates", "table"))
    if in_place:
        return min((MOST_ARRAYS[backend] - others - len(("done",))) // len(arithmetic.READ), MOST_LEAVES_IN_PLACE)
    return min((MOST_ARRAYS[backend] - others) // (len(arithmetic.READ) + len(arithmetic.WRITTEN)), MOST_LEAVES)


@cache
def made_kernel(backend: str, kind: Kind, leaves: int, in_place: bool = False) -> Callable[..., list[mx.array]]:
    """The kernel for so many leaves of a kind.

    Its name tells it from every other: before 0.32 MLX adds neither the dtypes nor how small arrays are passed, and two
    texts of one name in one graph are a use after free (MLX's pull request 3662).
    """
    return getattr(mx.fast, f"{backend}_kernel")(
        name=f"adamw_{leaves}_{kind}" + "_in_place" * in_place,
        input_names=arithmetic.input_names(leaves),
        output_names=arithmetic.output_names(leaves, in_place),
        source=arithmetic.source(backend, leaves, kind.is_small, in_place),
    )


def template(kind: Kind, leaves: int, corrected: bool) -> list[tuple[str, int | bool | mx.Dtype]]:
    """The kernel's template arguments."""
    numbers = [("LEAVES", leaves), ("CHUNK", CHUNK), ("GROUP", GROUP), ("CORRECTED", corrected)]
    return [*numbers, *zip(arithmetic.READ.values(), kind[:4], strict=True)]


def first_chunks(sizes: Sequence[int]) -> list[int]:
    """The chunk with which each leaf of these sizes begins, and the number of all chunks."""
    return [0, *accumulate(-(-size // CHUNK) for size in sizes)]


def batches(items: Sequence[Item], most: int) -> Iterator[Sequence[Item]]:
    """Consecutive `items`, at most `most` at once."""
    return (items[start : start + most] for start in range(0, len(items), most))
