"""A GPU kernel of our own (Metal or CUDA), launched over many leaves at once, in float32 whatever the storage type.

`mx.compile` makes one kernel a leaf and rounds every intermediate result to the leaf's dtype. Here several leaves share
a launch, and a result is rounded once, when it is stored: 7N bytes of traffic. A custom kernel's outputs are always new
arrays (mlx/backend/metal/custom_kernel.cpp), so the step's peak is up to 7N, as `compiled`'s.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import mlx.core as mx
from mlx.utils import tree_map

from adamw import arithmetic
from adamw.base import CompiledAdamW, Unavailable

ARRAYS_A_LEAF = len(arithmetic.READ) + len(arithmetic.WRITTEN)

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
        if any(array.shape != self.parameter.shape or array.dtype not in STORAGE for array in arrays):
            return None
        w, g, m, v = (array.dtype for array in arrays)
        return Kind(w, g, m, v, is_small=self.parameter.size < CONSTANT_SIZE)


class AdamW(CompiledAdamW):
    """`mlx.optimizers.AdamW` by a GPU kernel of our own, in float32 arithmetic. Nothing is evaluated.

    Where upstream rounds the learning rate and every intermediate result of a half-precision leaf to its dtype, here
    only the stored w, m and v are rounded. A leaf of any other dtype than float32, float16 and bfloat16, and one whose
    gradient or state has another shape, is updated by upstream's own code.

    Raises Unavailable where MLX's default device is not a GPU.
    """

    kernels_a_leaf = (0, 0)

    def __init__(self, *args: Any, **hyper_parameters: Any) -> None:
        if reason := self.unavailable():
            raise Unavailable(reason)
        super().__init__(*args, **hyper_parameters)
        self.backend = backend()
        self.tables: dict[tuple[int, ...], mx.array] = {}

    @staticmethod
    def unavailable() -> str | None:
        """Why this variant cannot run here, in one line; None if it can."""
        if backend() != "cpu":
            return None
        return "kernel needs a GPU, and MLX's default device is the CPU here: run it on a Mac, or with MLX for CUDA"

    def apply_gradients(self, gradients: Any, parameters: Any) -> Any:
        if not self.updates_leaves_itself:
            return super().apply_gradients(gradients, parameters)
        self.prepare(gradients)
        scalars = self._counted_step()
        leaves: list[Leaf] = []
        tree_map(lambda *arrays: leaves.append(Leaf(*arrays)), gradients, parameters, self.state)
        together: dict[Kind, list[Leaf]] = defaultdict(list)
        for leaf in leaves:
            if (kind := leaf.kind) is None:
                leaf.parameter = self.apply_single(leaf.gradient, leaf.parameter, leaf.state)
            elif leaf.parameter.size:
                together[kind].append(leaf)
        for kind, alike in together.items():
            for batch in batches(alike, leaves_a_launch(self.backend)):
                self._launch(kind, batch, scalars)
        updated = iter(leaves)
        return tree_map(lambda _: next(updated).parameter, gradients)

    def _counted_step(self) -> mx.array:
        """Count the step. Its scalars in float32, in the order of `arithmetic.SCALARS`."""
        b1, b2, eps, weight_decay, bias_correction = self.constants
        self.count_step()
        fixed = mx.array([b1, 1 - b1, b2, 1 - b2, eps, weight_decay], mx.float32)
        scales = self._correction(b1, b2) if bias_correction else mx.array([1.0, 1.0])
        return mx.concatenate([fixed, scales, self.learning_rate.astype(mx.float32).reshape(1)])

    def _correction(self, b1: float, b2: float) -> mx.array:
        """1 / (1 - b1^t) and 1 / (1 - b2^t).

        As -1 / expm1(t log b), which keeps the digits that 1 - float32(b)^t loses where b is near 1.
        """
        logarithms = mx.array([math.log(b) if b else -math.inf for b in (b1, b2)], mx.float32)
        return -1 / mx.expm1(self.step * logarithms)

    def _launch(self, kind: Kind, leaves: Sequence[Leaf], scalars: mx.array) -> None:
        """Update `leaves` in one launch: they hold their new parameters and state afterwards, not yet evaluated."""
        sizes = tuple(leaf.parameter.size for leaf in leaves)
        chunks = first_chunks(sizes)
        if sizes not in self.tables:
            self.tables[sizes] = mx.array([*chunks, *sizes], mx.int64)
        arrays = [array if array.ndim else array.reshape(1) for leaf in leaves for array in leaf.arrays]
        new = made_kernel(self.backend, kind, len(leaves))(
            inputs=[scalars, self.tables[sizes], *arrays],
            template=template(kind, len(leaves)),
            output_shapes=[leaf.parameter.shape for leaf in leaves for _ in arithmetic.WRITTEN],
            output_dtypes=[kind.w, kind.m, kind.v] * len(leaves),
            grid=(min(chunks[-1] * GROUP, MOST_THREADS), 1, 1),
            threadgroup=(GROUP, 1, 1),
            stream=mx.gpu,
        )
        for leaf, (parameter, m, v) in zip(leaves, batches(new, len(arithmetic.WRITTEN)), strict=True):
            leaf.parameter, leaf.state["m"], leaf.state["v"] = parameter, m, v


def backend() -> str:
    """What MLX runs on here unless told otherwise: "metal", "cuda" or "cpu"."""
    if mx.default_device() == mx.Device(mx.cpu):
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def leaves_a_launch(backend: str) -> int:
    """The most leaves that one launch holds, beside the scalars and the table."""
    return (MOST_ARRAYS[backend] - 2) // ARRAYS_A_LEAF


@cache
def made_kernel(backend: str, kind: Kind, leaves: int) -> Callable[..., list[mx.array]]:
    """The kernel for so many leaves of a kind.

    Its name tells it from every other: before 0.32 MLX adds neither the dtypes nor how small arrays are passed, and two
    texts of one name in one graph are a use after free (MLX's pull request 3662).
    """
    return getattr(mx.fast, f"{backend}_kernel")(
        name=f"adamw_{leaves}_{kind}",
        input_names=arithmetic.input_names(leaves),
        output_names=arithmetic.output_names(leaves),
        source=arithmetic.source(backend, leaves, kind.is_small),
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
