"""Small leaves of one dtype packed end to end into one buffer, which one fused kernel updates: few launches.

w, m and v stay packed from step to step; the parameters that a step returns are views of the buffer. Gradients come
leaf by leaf, so packing those is part of every step: 2N bytes of the packed leaves, on top of 7N. It pays where a
launch costs more than that; a larger leaf is updated alone, unpacked.
"""

import math
from functools import cache
from itertools import count
from typing import Any, NamedTuple

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map

from adamw import layouts
from adamw.base import CompiledAdamW, are_compatible, fused_leaf, put_back
from adamw.layouts import PACKED, Spot, Spots, views

DEFAULT_LARGEST_PACKED = 2**17


class Leaf(NamedTuple):
    """What decides where a leaf lies: its shape, and the dtypes of its parameter and gradient."""

    shape: tuple[int, ...]
    parameter: mx.Dtype
    gradient: mx.Dtype


class Layout(NamedTuple):
    """Which leaf lies where: a tree of the leaves' numbers, the leaves, the numbers of those in every buffer, and their
    places in the tree."""

    tree: Any
    leaves: list[Leaf]
    buffers: list[list[int]]
    spots: Spots

    def shapes(self, buffer: list[int]) -> list[tuple[int, ...]]:
        return [self.leaves[number].shape for number in buffer]


class AdamW(CompiledAdamW):
    """`mlx.optimizers.AdamW` that updates all small leaves of one dtype at once.

    `state` holds the moments of a few buffers, not those of every leaf, and says what lies where. `upstream_state()`
    gives those of every leaf; a state of any variant may be set at any time, and any variant goes on from this one's.
    `init` unpacks it, so that it may be called again where a tree has grown. A step whose gradients do not cover the
    tree is upstream's, unpacked.

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
        self._described: mx.array | None = None  # the description of what lies where that was read or written last
        self._spots: Spots = []  # and what it says
        self._packed: list[dict[str, Any]] = []  # of every buffer its weights, and their views that a step returned

    def own_layout(self, state: dict) -> dict:
        if PACKED not in state:
            return super().own_layout(state)
        self._read(state[PACKED])  # in a trace it cannot be read
        return state

    def upstream_state(self) -> dict:
        """The state with m and v in every leaf's place."""
        if PACKED not in self.state:
            return self.state
        return layouts.unpacked(self.state, self._read(self.state[PACKED]))

    def init(self, parameters: Any) -> None:
        self._unpack_state()
        super().init(parameters)

    def make_ready(self, gradients: Any, parameters: Any) -> None:
        self.state["step"] = layouts.counted(self.step)
        if not self._initialized:
            self.init(gradients)

    def take_step(self, gradients: Any, parameters: Any) -> Any:
        number, leaves = count(), []

        def place(gradient: mx.array, parameter: mx.array) -> int:
            leaves.append((gradient, parameter))
            return next(number)

        tree = tree_map(place, gradients, parameters)
        if not (self.updates_leaves_itself and self._pack_state(tree, leaves)):
            self._unpack_state()
            layouts.complete(self.state, gradients)
            return super().take_step(gradients, parameters)
        self.prepare()
        self.count_step()
        updated = self._updated(leaves)
        return tree_map(lambda number: updated[number], tree)

    def _read(self, packed: Any) -> Spots:
        """What lies where in packed moments. Raises ValueError.

        In a trace a description cannot be read. There it is the one that was read before, which goes through unchanged.
        """
        if packed.get("layout") is not self._described:
            try:
                self._spots, self._described = layouts.read(packed), packed["layout"]
            except layouts.NotNow:
                if self._described is None or not layouts.agree(self._spots, packed):
                    raise
        return self._spots

    def _pack_state(self, tree: Any, leaves: list[tuple[mx.array, mx.array]]) -> bool:
        """Have the state packed as `tree` needs it. False if it cannot be: arrays do not fit, or leaves are missing."""
        kinds = [Leaf(gradient.shape, parameter.dtype, gradient.dtype) for gradient, parameter in leaves]
        if any(parameter.shape != kind.shape for (_, parameter), kind in zip(leaves, kinds, strict=True)):
            return False
        known, there = self._layout, self.state.get(PACKED)
        if known and there and (known.tree, known.leaves) == (tree, kinds) and self._read(there) == known.spots:
            return True
        state = self.upstream_state()
        places = [place for place in layouts.paths(tree) if place is not None]
        moments = [layouts.at(state, place) for place in places]
        rest = {name: value for name, value in state.items() if not isinstance(value, (dict, list, tuple))}
        if len(places) < len(leaves) or len(tree_flatten(state)) > len(tree_flatten([rest, moments])):
            return False
        if not all(map(fits, kinds, moments)):
            return False
        numbers = buffers(kinds, self.largest_packed)
        spots = [[Spot(places[n], kinds[n].shape) for n in row] for row in numbers]
        packed_moments = [{name: packed([moments[n][name] for n in row]) for name in ("m", "v")} for row in numbers]
        self._layout, self._packed = Layout(tree, kinds, numbers, spots), []
        dtype = packed_moments[0]["m"].dtype if packed_moments else mx.float32
        self._spots, self._described = spots, layouts.described(spots, dtype)
        put_back(self.state, rest | {PACKED: {"layout": self._described, "buffers": packed_moments}})
        return True

    def _unpack_state(self) -> None:
        """Have m and v in every leaf's place, in the dict that is there, which a compiled step may have captured."""
        if PACKED in self.state:
            put_back(self.state, dict(self.upstream_state()))
        self._layout, self._packed = None, []

    def _updated(self, leaves: list[tuple[mx.array, mx.array]]) -> list[mx.array]:
        """The new parameters, in the order of the leaves."""
        assert self._layout
        b1, b2 = self.betas
        rates, epsilon = cache(self.rates), cache(self.epsilon)
        old = self._packed or [{"weights": None, "views": []}] * len(self._layout.buffers)
        new: list[dict[str, Any]] = []
        updated: dict[int, mx.array] = {}
        moments = self.state[PACKED].get("buffers", [])  # a file has none of a tree without leaves
        for numbers, state, last in zip(self._layout.buffers, moments, old, strict=True):
            gradients, parameters = zip(*(leaves[number] for number in numbers), strict=True)
            same = len(last["views"]) == len(parameters) and all(map(is_same, last["views"], parameters))
            weights = last["weights"] if same else packed(parameters)
            gradient = packed(gradients)
            scalars = rates(gradient.dtype), epsilon(gradient.dtype, state["v"].dtype), b1, b2
            weights, state["m"], state["v"] = fused_leaf(gradient, weights, state["m"], state["v"], *scalars)
            returned = views(weights, self._layout.shapes(numbers))
            if len(returned) > 1:
                new.append({"weights": weights, "views": returned})
            else:  # nothing of a leaf that stands alone is packed, nor kept
                new.append({"weights": None, "views": []})
            updated |= zip(numbers, returned, strict=True)
        self._packed = new
        return [updated[number] for number in range(len(leaves))]

    def __getstate__(self) -> dict:
        """A copy packs for itself."""
        itself: dict[str, Any] = {"_layout": None, "_packed": [], "_described": None, "_spots": []}
        return super().__getstate__() | itself | {"_state": self.upstream_state()}


def fits(kind: Leaf, moments: dict) -> bool:
    """Whether a leaf's moments are of its shape, and its arrays such as one kernel takes."""
    m, v = moments["m"], moments["v"]
    return kind.shape == m.shape == v.shape and are_compatible((kind.gradient, kind.parameter, m.dtype, v.dtype))


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
