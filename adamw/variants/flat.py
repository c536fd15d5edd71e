"""Small leaves of one dtype packed end to end into one buffer, which one fused kernel updates: few launches.

w, m and v stay packed from step to step; the parameters that a step returns are views of the buffer. Gradients come
leaf by leaf, so packing those is part of every step: 2N bytes of the packed leaves, on top of 7N. It pays where a
launch costs more than that; a larger leaf is updated alone, unpacked.
"""

import math
import zlib
from functools import cache
from itertools import accumulate, count
from typing import Any, NamedTuple, cast

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map

from adamw.base import CompiledAdamW, fused_leaf

DEFAULT_LARGEST_PACKED = 2**17

PACKED = "packed-moments"
"""Where `state` has the moments of every buffer, in place of upstream's of every leaf. No name of a module's child."""


class Leaf(NamedTuple):
    """What decides where a leaf lies: its shape, and the dtypes of its parameter and gradient."""

    shape: tuple[int, ...]
    parameter: mx.Dtype
    gradient: mx.Dtype


class Layout(NamedTuple):
    """Which leaf lies where: a tree of the leaves' numbers, the leaves, and the numbers of those in every buffer."""

    tree: Any
    leaves: list[Leaf]
    buffers: list[list[int]]

    def shapes(self, buffer: list[int]) -> list[tuple[int, ...]]:
        return [self.leaves[number].shape for number in buffer]

    def checksum(self) -> mx.array:
        """What tells this layout from others in a checkpoint."""
        paths = cast(list[tuple[str, int]], tree_flatten(self.tree))
        shapes = [(path, self.leaves[number].shape) for path, number in paths]
        return mx.array(zlib.crc32(repr((shapes, self.buffers)).encode()), mx.uint32)


class AdamW(CompiledAdamW):
    """`mlx.optimizers.AdamW` that updates all small leaves of one dtype at once.

    `state` holds the moments of a few buffers, not those of every leaf. `upstream_state()` gives those, and a state in
    upstream's layout may be set at any time. A step whose gradients do not cover the tree is upstream's, unpacked.
    Parameters other than those that the last step returned are packed anew: 2N bytes more. **The buffer wins**: an
    array that a step returned and that is changed since by `array[:] = ...` or `array *= ...` comes back in the next
    step as if it had not been. To change a parameter assign a new array.

    Args:
        largest_packed (int): bytes of the largest parameter that is packed; 0 packs none.
    """

    kernels_a_leaf = (0, 1)

    def __init__(self, *args: Any, largest_packed: int = DEFAULT_LARGEST_PACKED, **hyper_parameters: Any) -> None:
        if largest_packed < 0:
            raise ValueError(f"AdamW largest_packed should be >=0, {largest_packed} was provided instead")
        super().__init__(*args, **hyper_parameters)
        self.largest_packed = largest_packed
        self._layout: Layout | None = None
        self._packed: list[dict[str, Any]] = []  # of every buffer its weights, and their views that a step returned

    def upstream_state(self) -> dict:
        """The state with m and v in every leaf's place."""
        if PACKED not in self.state:
            return self.state
        if self._layout is None:
            raise ValueError("AdamW state is packed; which leaf lies where is known after the next step")
        moments: dict[int, dict] = {}
        for numbers, buffer in zip(self._layout.buffers, self.state[PACKED]["buffers"], strict=True):
            parts = [unpacked(buffer[name], self._layout.shapes(numbers)) for name in ("m", "v")]
            moments |= {number: {"m": m, "v": v} for number, m, v in zip(numbers, *parts, strict=True)}
        rest = {name: value for name, value in self.state.items() if name != PACKED}
        return rest | tree_map(lambda number: moments[number], self._layout.tree)

    def init(self, parameters: Any) -> None:
        if PACKED in self.state:  # set, and complete
            self._initialized = True
        else:
            super().init(parameters)

    def apply_gradients(self, gradients: Any, parameters: Any) -> Any:
        if not self._initialized:
            self.init(gradients)
        number, leaves = count(), []

        def place(gradient: mx.array, parameter: mx.array) -> int:
            leaves.append((gradient, parameter))
            return next(number)

        tree = tree_map(place, gradients, parameters)
        if not (self.updates_leaves_itself and self._pack_state(tree, leaves)):
            self._set_state(self.upstream_state())
            return super().apply_gradients(gradients, parameters)
        self.prepare(gradients)
        self.count_step()
        updated = self._updated(leaves)
        return tree_map(lambda number: updated[number], tree)

    def _pack_state(self, tree: Any, leaves: list[tuple[mx.array, mx.array]]) -> bool:
        """Have the state packed as `tree` needs it. False if it cannot be: shapes differ, or leaves are missing."""
        kinds = [Leaf(gradient.shape, parameter.dtype, gradient.dtype) for gradient, parameter in leaves]
        if any(parameter.shape != kind.shape for (_, parameter), kind in zip(leaves, kinds, strict=True)):
            return False
        known = self._layout
        if known and PACKED in self.state and (known.tree, known.leaves) == (tree, kinds):
            return True
        layout = Layout(tree, kinds, buffers(kinds, self.largest_packed))
        if PACKED in self.state and not known:
            if self.state[PACKED]["layout"].item() != layout.checksum().item():  # of the checkpoint
                raise ValueError(
                    "AdamW state was packed for another tree, or another largest_packed; set its upstream_state()"
                )
            self._layout = layout
            return True
        state = self.upstream_state()
        rest = {name: value for name, value in state.items() if isinstance(value, mx.array)}
        moments: list[dict] = []
        tree_map(lambda _, state: moments.append(state), tree, state)
        if len(tree_flatten(state)) > len(tree_flatten([rest, moments])):
            return False
        packed_moments = [
            {name: packed([moments[number][name] for number in numbers]) for name in ("m", "v")}
            for numbers in layout.buffers
        ]
        self._layout, self._packed = layout, []
        self._set_state(rest | {PACKED: {"layout": layout.checksum(), "buffers": packed_moments}})
        return True

    def _set_state(self, state: dict) -> None:
        """Put `state` into the dict that is there, which a compiled step may have captured."""
        content = dict(state)
        self.state.clear()
        self.state.update(content)

    def _updated(self, leaves: list[tuple[mx.array, mx.array]]) -> list[mx.array]:
        """The new parameters, in the order of the leaves."""
        assert self._layout
        rates, constants = cache(self.rates), self.constants
        old, self._packed = self._packed or [{"weights": None, "views": []}] * len(self._layout.buffers), []
        updated: dict[int, mx.array] = {}
        for numbers, state, last in zip(self._layout.buffers, self.state[PACKED]["buffers"], old, strict=True):
            gradients, parameters = zip(*(leaves[number] for number in numbers), strict=True)
            same = len(last["views"]) == len(parameters) and all(map(is_same, last["views"], parameters))
            weights = last["weights"] if same else packed(parameters)
            gradient = packed(gradients)
            weights, state["m"], state["v"] = fused_leaf(
                gradient, weights, state["m"], state["v"], rates(gradient.dtype), constants
            )
            views = unpacked(weights, self._layout.shapes(numbers))
            if len(views) > 1:
                self._packed.append({"weights": weights, "views": views})
            else:  # nothing of a leaf that stands alone is packed, nor kept
                self._packed.append({"weights": None, "views": []})
            updated |= zip(numbers, views, strict=True)
        return [updated[number] for number in range(len(leaves))]

    def __getstate__(self) -> dict:
        """A copy packs for itself."""
        state = self.upstream_state() if self._layout else self.state
        return super().__getstate__() | {"_state": state, "_layout": None, "_packed": []}


def is_same(one: mx.array, other: mx.array) -> bool:
    return one is other


def buffers(leaves: list[Leaf], largest_packed: int) -> list[list[int]]:
    """The numbers of the leaves of every buffer: small ones by dtypes, each larger one alone."""
    small: dict[tuple[mx.Dtype, mx.Dtype], list[int]] = {}
    alone: list[list[int]] = []
    for number, leaf in enumerate(leaves):
        if math.prod(leaf.shape) * leaf.parameter.size > largest_packed:
            alone.append([number])
        else:
            small.setdefault((leaf.parameter, leaf.gradient), []).append(number)
    return [*small.values(), *alone]


def packed(arrays: Any) -> mx.array:
    """The elements of all `arrays`, end to end; a single array as it is."""
    return mx.concatenate([array.reshape(-1) for array in arrays]) if len(arrays) > 1 else arrays[0]


def unpacked(buffer: mx.array, shapes: list[tuple[int, ...]]) -> list[mx.array]:
    """Views of the elements of `buffer` in these shapes."""
    if len(shapes) == 1:
        return [buffer.reshape(shapes[0])]
    ends = list(accumulate(math.prod(shape) for shape in shapes))
    return [part.reshape(shape) for part, shape in zip(mx.split(buffer, ends[:-1]), shapes, strict=True)]
