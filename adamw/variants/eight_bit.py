"""Moments of 8 bits an element, with one float32 scale for every block of at most 256: a quarter of float32's state.

    m = scale * sign * (q / 127)^4      q from 0 to 127; the code is 2 q, plus 1 if m is negative
    v = scale * (q / 255)^8             q from 0 to 255, 0 only for a v of 0

Codes that are even in the fourth or eighth root keep small elements of a block apart from zero, as the dynamic codes of
Dettmers et al. (8-bit Optimizers via Block-wise Quantization, ICLR 2022) do, but are formulas, which MLX fuses, and no
tables, which it does not.

m is rounded to nearest. v is not: it changes by 0.1 % a step, far less than a code, and would stay where it is. It is
dithered: floor(q + u), where u goes through [0, 1) by steps of the golden ratio, so that a change of 0.06 codes a step
is one code in every 16th or 17th step.

A scale is not the largest element of the new moments, which would have to be computed and stored before they could be
divided by it, but a bound that is known before: from the block's largest old code and largest gradient. So no float32
array of a leaf's size is ever made. v's scale has room above: codes move when v moves, not when the scale does. It
shrinks by b2 a step as v without gradients does, and such blocks keep their codes; when v no longer fits, it becomes
twice the bound.

Kernels a leaf: 4 reductions (largest and smallest gradient, largest codes), 2 fused ones for the scales, 3 for m, v
and w, as in `split`, each written over its old array. In bytes a parameter: 22 + 10 for the reductions in float32,
14 + 6 in bfloat16. A leaf above 256 elements without a divisor from 64 to 256 is padded inside the step, which
costs copies.
"""

import math
from functools import cache
from typing import Any

import mlx.core as mx

from adamw.base import first_moment, second_moment
from adamw.float32 import Float32AdamW, Scalars, float32_update, with_leaf_states

PRECISIONS = ("float32_8bit", "bfloat16_8bit")

BLOCK = 256
LEAST_BLOCK = 64
"""Elements. With one scale for every 64 the state is still less than 0.27 times float32's."""

HEADROOM = 2
"""A new scale of v over what it must hold."""

GOLDEN = 2654435769
"""2^32 / 1.618...: adding it again and again modulo 2^32 spreads evenly, whatever the period one looks at."""

SMALLEST, LARGEST = 2.0**-126, 3.4e38
"""float32's normal numbers: a scale is divided by, and must not become infinite."""


class AdamW(Float32AdamW):
    """`mlx.optimizers.AdamW` in float32 arithmetic with 8-bit moments.

    The state of a leaf is {"m", "m_scale", "v", "v_scale"}: codes as uint8 in the leaf's shape, and scales as float32
    of shape (blocks, 1). `state` may be set to one in upstream's layout, which the next step packs.

    The parameter is computed from the moments as they are stored. Finite gradients whose squares are finite in float32
    keep the state finite; a gradient that is nan or infinite reaches all parameters of its block.
    """

    kernels_a_leaf = (3, 5)

    def init_single(self, parameter: mx.array, state: dict) -> dict:
        state.update(packed(mx.zeros(parameter.shape), mx.zeros(parameter.shape)))
        return state

    def share(self, gradients: Any) -> tuple[Scalars, mx.array]:
        """The scalars, and this step's dither from 0 up to 1."""
        return self.scalars(), (self.step.astype(mx.uint32) * GOLDEN >> 8).astype(mx.float32) * 2**-24

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        scalars, dither = self._shared or self.share(gradient)
        if "m_scale" not in state:
            state.update(packed(state["m"], state["v"]))
        if gradient.shape == parameter.shape == state["m"].shape:
            return updated_in_blocks(gradient, parameter, state, scalars, dither, *self.betas)
        moments = unpacked(state)
        new, m, v = float32_update(gradient, parameter, moments["m"], moments["v"], scalars, *self.betas)
        state.update(packed(m, v))
        return new.astype(parameter.dtype)

    def upstream_state(self) -> dict[str, Any]:
        """The whole state in upstream's layout: m and v as float32 in every leaf's place."""
        return with_leaf_states(unpacked, self.state)


def updated_in_blocks(
    gradient: mx.array, parameter: mx.array, state: dict, scalars: Scalars, dither: mx.array, b1: float, b2: float
) -> mx.array:
    """The new parameter; codes and scales of `state` are replaced. Nothing is evaluated."""
    shape = parameter.shape
    gradient, parameter, m, v = (in_blocks(array) for array in (gradient, parameter, state["m"], state["v"]))
    largest, smallest = mx.max(gradient, axis=1, keepdims=True), mx.min(gradient, axis=1, keepdims=True)
    m_scale = new_m_scale(largest, smallest, mx.max(m, axis=1, keepdims=True), state["m_scale"], b1)
    v_scale = new_v_scale(largest, smallest, mx.max(v, axis=1, keepdims=True), state["v_scale"], b2)
    m = new_m(gradient, m, state["m_scale"], m_scale, b1)
    v = new_v(gradient, v, state["v_scale"], v_scale, dither, b2)
    new = new_w(parameter, m, m_scale, v, v_scale, scalars)
    state.update(m=out_of_blocks(m, shape), m_scale=m_scale, v=out_of_blocks(v, shape), v_scale=v_scale)
    return out_of_blocks(new, shape)


@cache
def block_size(elements: int) -> int:
    """Elements of a block: the largest divisor that makes blocks of 64 to 256, else 256. A smaller leaf is one block."""
    if elements <= BLOCK:
        return max(elements, 1)
    divisors = (size for size in range(BLOCK, LEAST_BLOCK - 1, -1) if elements % size == 0)
    return next(divisors, BLOCK)


def in_blocks(array: mx.array) -> mx.array:
    """`array` as (blocks, elements), padded with zeros where the last block is not full."""
    size = block_size(array.size)
    missing = -array.size % size
    flat = mx.pad(array.reshape(-1), (0, missing)) if missing else array
    return flat.reshape(-1 if flat.size else 0, size)


def out_of_blocks(blocks: mx.array, shape: tuple[int, ...]) -> mx.array:
    """The elements in their `shape`, without the padding."""
    return blocks.reshape(-1)[: math.prod(shape)].reshape(shape)


def unpacked_m(codes: mx.array, scale: mx.array) -> mx.array:
    sign = 127.0**-4 - 2 * 127.0**-4 * (codes & 1).astype(mx.float32)
    return scale * (sign * mx.square(mx.square((codes >> 1).astype(mx.float32))))


def unpacked_v(codes: mx.array, scale: mx.array) -> mx.array:
    return scale * mx.square(mx.square(mx.square(codes.astype(mx.float32) / 255)))


def unpacked_root_of_v(codes: mx.array, scale: mx.array) -> mx.array:
    return mx.sqrt(scale) * mx.square(mx.square(codes.astype(mx.float32) / 255))


def packed_m(m: mx.array, scale: mx.array) -> mx.array:
    magnitude = mx.round(127 * mx.sqrt(mx.sqrt(mx.abs(m) / scale))).astype(mx.uint8)
    return magnitude << 1 | (m < 0).astype(mx.uint8)


def packed_v(v: mx.array, scale: mx.array, dither: mx.array | float) -> mx.array:
    codes = mx.minimum(255 * mx.sqrt(mx.sqrt(mx.sqrt(v / scale))) + dither, 255).astype(mx.uint8)
    return mx.maximum(codes, (v > 0).astype(mx.uint8))


def packed(m: mx.array, v: mx.array) -> dict[str, mx.array]:
    """A leaf's state that holds float32 moments, each rounded to its nearest code."""
    shape = m.shape
    m, v = in_blocks(m.astype(mx.float32)), in_blocks(v.astype(mx.float32))
    m_scale = mx.clip(mx.max(mx.abs(m), axis=1, keepdims=True), SMALLEST, LARGEST)
    v_scale = mx.clip(mx.max(v, axis=1, keepdims=True) * HEADROOM, SMALLEST, LARGEST)
    m, v = packed_m(m, m_scale), packed_v(v, v_scale, 0.5)
    return {"m": out_of_blocks(m, shape), "m_scale": m_scale, "v": out_of_blocks(v, shape), "v_scale": v_scale}


def unpacked(state: dict) -> dict[str, mx.array]:
    """The float32 moments of a leaf's state, in the leaf's shape."""
    shape = state["m"].shape
    m = unpacked_m(in_blocks(state["m"]), state["m_scale"])
    v = unpacked_v(in_blocks(state["v"]), state["v_scale"])
    return {"m": out_of_blocks(m, shape), "v": out_of_blocks(v, shape)}


# The order of operations is part of each function: so they are one kernel, the longest way through them being as long
# as MLX fuses, and the shorter one being walked last (mlx/compile.cpp, `compile_fuse`). Not shapeless: that is longer.
@mx.compile
def new_m_scale(largest: mx.array, smallest: mx.array, top: mx.array, scale: mx.array, b1: float) -> mx.array:
    """A bound of |m'|, from the block's largest and smallest gradient and its largest code."""
    gradient = mx.maximum(largest, -smallest).astype(mx.float32)
    bound = b1 * mx.abs(unpacked_m(top, scale)) + (1 - b1) * gradient
    return mx.clip(bound, SMALLEST, LARGEST)


@mx.compile
def new_v_scale(largest: mx.array, smallest: mx.array, top: mx.array, scale: mx.array, b2: float) -> mx.array:
    """The old scale decayed, or if the bound of v' is above it, twice the bound."""
    gradient = mx.maximum(largest, -smallest).astype(mx.float32)
    decayed = b2 * scale
    bound = unpacked_v(top, decayed) + (1 - b2) * mx.square(gradient)
    return mx.clip(mx.where(bound <= decayed, decayed, HEADROOM * bound), SMALLEST, LARGEST)


@mx.compile
def new_m(gradient: mx.array, codes: mx.array, scale: mx.array, new_scale: mx.array, b1: float) -> mx.array:
    return packed_m(first_moment(gradient.astype(mx.float32), unpacked_m(codes, scale), b1), new_scale)


@mx.compile
def new_v(
    gradient: mx.array, codes: mx.array, scale: mx.array, new_scale: mx.array, dither: mx.array, b2: float
) -> mx.array:
    return packed_v(second_moment(gradient.astype(mx.float32), unpacked_v(codes, scale), b2), new_scale, dither)


@mx.compile
def new_w(
    parameter: mx.array, m: mx.array, m_scale: mx.array, v: mx.array, v_scale: mx.array, scalars: Scalars
) -> mx.array:
    decay, rate, eps = scalars
    moved = rate * unpacked_m(m, m_scale) / (unpacked_root_of_v(v, v_scale) + eps)
    return (decay * parameter.astype(mx.float32) - moved).astype(parameter.dtype)
