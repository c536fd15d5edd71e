"""What the variants share that launch GPU kernels of our own: the kernels, their launches, a step's scalars.

A launch updates many leaves of one kind, in float32 whatever the storage type.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import mlx.core as mx

from adamw import arithmetic
from adamw.base import CompiledAdamW, Constants, Unavailable

MOST_ARRAYS = {"metal": 31, "cuda": 512}
"""Arrays that a kernel takes: Metal's buffers, and CUDA's 4096 bytes of parameters, 8 a pointer."""

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

STORAGE = (mx.float32, mx.float16, mx.bfloat16)


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
    def arrays(self) -> list[mx.array]:
        """What a step reads, in the order of `arithmetic.READ`."""
        return [self.parameter, self.gradient, self.state["m"], self.state["v"]]

    @property
    def kind(self) -> Kind | None:
        """What kernel updates this leaf; None if the arrays differ in shape or are of a dtype that no kernel takes."""
        arrays = self.arrays
        w, g, m, v = arrays
        if any(array.shape != w.shape or array.dtype not in STORAGE for array in arrays):
            return None
        return Kind(w.dtype, g.dtype, m.dtype, v.dtype, w.size < CONSTANT_SIZE)


class GpuAdamW(CompiledAdamW):
    """AdamW of which leaves are updated by a kernel of our own. Raises Unavailable where MLX's device is not a GPU."""

    kernels_a_leaf = (0, 0)
    name = "kernel"

    def __init__(self, *args: Any, **hyper_parameters: Any) -> None:
        if reason := self.unavailable():
            raise Unavailable(reason)
        super().__init__(*args, **hyper_parameters)
        self.backend = backend()
        self.tables: dict[tuple[int, ...], mx.array] = {}
        self.fixed: dict[Constants, mx.array] = {}

    @classmethod
    def unavailable(cls) -> str | None:
        """Why this variant cannot run here, in one line; None if it can."""
        if backend() != "cpu":
            return None
        return (
            f"{cls.name} needs a GPU, and MLX's default device is the CPU here: run it on a Mac, or with MLX for CUDA"
        )

    def scalars(self) -> mx.array:
        """The scalars of the step that is counted already, in float32, in the order of `arithmetic.SCALARS`.

        What stays the same from step to step is on the device already: whatever the host writes in a step would be
        fetched from its memory by the first kernel that reads it.
        """
        constants = self.constants
        b1, b2, eps, weight_decay, bias_correction = constants
        if constants not in self.fixed:
            numbers = [b1, 1 - b1, b2, 1 - b2, eps, weight_decay, *[1.0] * (0 if bias_correction else 2)]
            logarithms = [math.log(b) if b else -math.inf for b in (b1, b2)] if bias_correction else []
            self.fixed[constants] = mx.array([*numbers, *logarithms], mx.float32)
        fixed, rate = self.fixed[constants], self.learning_rate.astype(mx.float32).reshape(1)
        if not bias_correction:
            return mx.concatenate([fixed, rate])
        # 1 / (1 - b^t) as -1 / expm1(t log b), which keeps the digits that 1 - float32(b)^t loses where b is near 1
        return mx.concatenate([fixed[:6], -1 / mx.expm1(self.step * fixed[6:]), rate])

    def call(self, kind: Kind, arrays: Sequence[mx.array], scalars: mx.array, in_place: bool = False) -> list[mx.array]:
        """The results, not evaluated, of one launch over leaves of a kind, whose `arrays` are in the order of READ."""
        sizes = tuple(array.size for array in arrays[:: len(arithmetic.READ)])
        chunks = first_chunks(sizes)
        if sizes not in self.tables:
            self.tables[sizes] = mx.array([*chunks, *sizes], mx.int64)
        new = [(arrays[place].shape, dtype) for place, dtype in results(kind, len(sizes))]
        shapes, dtypes = ([(1,)], [mx.uint32]) if in_place else zip(*new, strict=True)
        return made_kernel(self.backend, kind, len(sizes), in_place)(
            inputs=[scalars, self.tables[sizes], *(array if array.ndim else array.reshape(1) for array in arrays)],
            template=template(kind, len(sizes)),
            output_shapes=list(shapes),
            output_dtypes=list(dtypes),
            grid=(min(chunks[-1] * GROUP, MOST_THREADS), 1, 1),
            threadgroup=(GROUP, 1, 1),
            stream=mx.gpu,
        )

    def launch(self, kinds: dict[Kind, list[Leaf]], scalars: mx.array) -> None:
        """Update leaves in as few launches as there can be: they hold their new arrays afterwards, not evaluated."""
        for kind, alike in kinds.items():
            for batch in batches(alike, leaves_a_launch(self.backend)):
                new = self.call(kind, [array for leaf in batch for array in leaf.arrays], scalars)
                for leaf, (parameter, m, v) in zip(batch, batches(new, len(arithmetic.WRITTEN)), strict=True):
                    leaf.parameter, leaf.state["m"], leaf.state["v"] = parameter, m, v


def backend() -> str:
    """What MLX runs on here unless told otherwise: "metal", "cuda" or "cpu"."""
    if mx.default_device() == mx.Device(mx.cpu):
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def by_kind(leaves: Iterable[Leaf]) -> tuple[dict[Kind, list[Leaf]], list[Leaf]]:
    """The leaves that are not empty, those of a kind together; and those that no kernel takes."""
    together: dict[Kind, list[Leaf]] = defaultdict(list)
    others: list[Leaf] = []
    for leaf in leaves:
        if (kind := leaf.kind) is None:
            others.append(leaf)
        elif leaf.parameter.size:
            together[kind].append(leaf)
    return together, others


def leaves_a_launch(backend: str, in_place: bool = False) -> int:
    """The most leaves that one launch holds, beside the scalars, the table and, in place, its one output."""
    read, written = len(arithmetic.READ), len(arithmetic.WRITTEN)
    return (MOST_ARRAYS[backend] - 3) // read if in_place else (MOST_ARRAYS[backend] - 2) // (read + written)


def results(kind: Kind, leaves: int) -> Iterator[tuple[int, mx.Dtype]]:
    """For every result of a launch the place of the input that has its shape, and its dtype."""
    dtypes = dict(zip(arithmetic.READ, kind[:4], strict=True))
    return (
        (leaf * len(dtypes) + place, dtype)
        for leaf in range(leaves)
        for place, (name, dtype) in enumerate(dtypes.items())
        if name in arithmetic.WRITTEN
    )


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


def template(kind: Kind, leaves: int) -> list[tuple[str, int | mx.Dtype]]:
    """The kernel's template arguments."""
    numbers = [("LEAVES", leaves), ("CHUNK", CHUNK), ("GROUP", GROUP)]
    return [*numbers, *zip(arithmetic.READ.values(), kind[:4], strict=True)]


def first_chunks(sizes: Sequence[int]) -> list[int]:
    """The chunk with which each leaf of these sizes begins, and the number of all chunks."""
    return [0, *accumulate(-(-size // CHUNK) for size in sizes)]


def batches(items: Sequence[Item], most: int) -> Iterator[Sequence[Item]]:
    """Consecutive `items`, at most `most` at once."""
    return (items[start : start + most] for start in range(0, len(items), most))
