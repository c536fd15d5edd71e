"""Moments of 8 bits an element with one float32 scale a block of at most 256: a quarter of float32's state.

    m = scale * sign * (q / 127)^4      q from 0 to 127; the code is 2 q, and 1 more if m is negative
    v = scale * (q / 255)^8             q from 0 to 255, 0 only where v is 0

Codes that lie evenly in the fourth and the eighth root keep the small elements of a block apart from zero, as the
dynamic codes of Dettmers et al. do (8-bit Optimizers via Block-wise Quantization, ICLR 2022). They are formulas, which
MLX fuses, and not tables, which it does not.

A block's scales are the moments that its largest gradient of every step would have, m' and v' of max |g|: bounds of all
its elements that are known before m' and v' are. An exact maximum would need both as float32 arrays first. Where the
gradients are zero scales decay as the moments do, and codes stay as they are.

m is rounded to nearest. v is not, because it changes by 0.1 % in a step, far less than one code, and would never
move: it is dithered, floor(q + u), with the same u everywhere, which goes through [0, 1) in steps of the golden ratio.
A change of 0.03 codes a step becomes one code in every 33rd step.

Kernels a leaf: 2 reductions of the gradient, 2 fused ones for the scales, and 3 for m, v and w with one output each,
written over the old arrays as in `split`. In bytes a parameter 8 + 22 in float32 and 4 + 14 in bfloat16. A leaf
of more than 256 elements without a divisor from 64 to 256 is padded inside the step, at the price of copies.
"""

import math
from functools import cache
from typing import Any

import mlx.core as mx

from adamw.base import first_moment, second_moment
from adamw.float32 import Float32AdamW, Scalars, float32_update, is_made_for, widened, with_leaf_states

PRECISIONS = ("float32_8bit", "bfloat16_8bit")

BLOCK = 256
LEAST_BLOCK = 64
"""Elements. With one scale for 64 of them the state is 0.266 of float32's, with one for 256 it is 0.254."""

GOLDEN = 2654435769
"""2^32 / 1.618...: its multiples modulo 2^32 are spread evenly, whichever stretch of them one looks at."""

PARTS = {"m", "m_scale", "v", "v_scale"}
"""The state of a leaf."""

SMALLEST_SCALE = 2.0**-126
"""float32's smallest normal number: moments are divided by a scale."""


class AdamW(Float32AdamW):
    """`mlx.optimizers.AdamW` in float32 arithmetic with 8-bit moments.

    The state of a leaf is {"m", "m_scale", "v", "v_scale"}: codes as uint8 in the leaf's shape, and scales as float32
    of shape (blocks, 1). `state` may be set to one in upstream's layout, which is packed in the next step.

    The parameter is computed from the moments as they are stored. A gradient that is nan or infinite, or whose square
    is infinite in float32, spoils the parameters of its whole block.
    """

    kernels_a_leaf = (3, 5)

    def own_leaf(self, leaf: dict, name: str) -> dict:
        return leaf if leaf.keys() >= PARTS else super().own_leaf(leaf, name)

    def init_single(self, parameter: mx.array, state: dict) -> dict | None:
        if not is_made_for(parameter):
            return super().init_single(parameter, state)
        state.update(packed(mx.zeros(parameter.shape), mx.zeros(parameter.shape)))
        return state

    def share(self, gradients: Any) -> tuple[Scalars, mx.array]:
        """The scalars, and this step's dither, from 0 up to 1."""
        return self.scalars(), (self.step.astype(mx.uint32) * GOLDEN >> 8).astype(mx.float32) * 2**-24

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        if not is_made_for(gradient, parameter):
            return super().apply_single(gradient, parameter, state)
        scalars, dither = self._shared or self.share(gradient)
        if "m_scale" not in state:
            state.update(packed(state["m"], state["v"]))
        if gradient.shape == parameter.shape == state["m"].shape:
            return updated(gradient, parameter, state, scalars, dither, *self.betas)
        old = unpacked(state)
        new, m, v = float32_update(gradient, parameter, old["m"], old["v"], scalars, *self.betas)
        state.update(packed(m, v))
        return new.astype(parameter.dtype)

    def upstream_state(self) -> dict[str, Any]:
        """The whole state in upstream's layout, with float32 m and v in every leaf's place."""
        return with_leaf_states(lambda leaf: unpacked(leaf) if "m_scale" in leaf else leaf, self.state)


def updated(
    gradient: mx.array, parameter: mx.array, state: dict, scalars: Scalars, dither: mx.array, b1: float, b2: float
) -> mx.array:
    """The new parameter; codes and scales of `state` are replaced. Nothing is evaluated."""
    if not parameter.size:
        return parameter
    shape = parameter.shape
    gradient, parameter, m, v = (in_blocks(array) for array in (gradient, parameter, state["m"], state["v"]))
    extremes = mx.max(gradient, axis=1, keepdims=True), mx.min(gradient, axis=1, keepdims=True)
    m_scale = new_m_scale(*extremes, state["m_scale"], b1)
    v_scale = new_v_scale(*extremes, state["v_scale"], b2)
    m = new_m(gradient, m, state["m_scale"], m_scale, b1)
    v = new_v(gradient, v, state["v_scale"], v_scale, dither, b2)
    state.update(m=out_of_blocks(m, shape), m_scale=m_scale, v=out_of_blocks(v, shape), v_scale=v_scale)
    return out_of_blocks(new_w(parameter, m, m_scale, v, v_scale, scalars), shape)


@cache
def block_size(elements: int) -> int:
    """Elements of a block: the largest divisor from 256 down to 64, or 256. A leaf up to 256 is one block."""
    if elements <= BLOCK:
        return max(elements, 1)
    divisors = (size for size in range(BLOCK, LEAST_BLOCK - 1, -1) if elements % size == 0)
    return next(divisors, BLOCK)


def in_blocks(array: mx.array) -> mx.array:
    """`array` as (blocks, elements), the last block filled up with zeros."""
    size = block_size(array.size)
    missing = -array.size % size
    filled = mx.pad(array.reshape(-1), (0, missing)) if missing else array
    return filled.reshape(filled.size // size, size)


def out_of_blocks(blocks: mx.array, shape: tuple[int, ...]) -> mx.array:
    """The elements in their `shape` again."""
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
    """The state of a leaf with these moments, each rounded to its nearest code."""
    shape = m.shape
    m, v = in_blocks(m.astype(mx.float32)), in_blocks(v.astype(mx.float32))
    m_scale, v_scale = (mx.maximum(largest(moment), SMALLEST_SCALE) for moment in (mx.abs(m), v))
    m, v = packed_m(m, m_scale), packed_v(v, v_scale, 0.5)
    return {"m": out_of_blocks(m, shape), "m_scale": m_scale, "v": out_of_blocks(v, shape), "v_scale": v_scale}


def largest(blocks: mx.array) -> mx.array:
    """The largest element of every block; of none it is none, where older MLX raises an error."""
    return mx.max(blocks, axis=1, keepdims=True) if blocks.size else blocks


def unpacked(state: dict) -> dict[str, mx.array]:
    """The moments in the state of a leaf, in its shape."""
    shape = state["m"].shape
    m = unpacked_m(in_blocks(state["m"]), state["m_scale"])
    v = unpacked_v(in_blocks(state["v"]), state["v_scale"])
    return {"m": out_of_blocks(m, shape), "v": out_of_blocks(v, shape)}


# Each of these is one kernel, because of the order of its operations: the longest way through it has as many as MLX
# fuses, and where two ways lead to a value the shorter is walked last (mlx/compile.cpp, `compile_fuse`). They are not
# shapeless, which would make every way longer.


@mx.compile
def new_m_scale(largest: mx.array, smallest: mx.array, scale: mx.array, b1: float) -> mx.array:
    gradient = mx.maximum(largest, -smallest).astype(mx.float32)
    return mx.maximum(first_moment(gradient, scale, b1), SMALLEST_SCALE)


@mx.compile
def new_v_scale(largest: mx.array, smallest: mx.array, scale: mx.array, b2: float) -> mx.array:
    gradient = mx.maximum(largest, -smallest).astype(mx.float32)
    return mx.maximum(second_moment(gradient, scale, b2), SMALLEST_SCALE)


@mx.compile
def new_m(gradient: mx.array, codes: mx.array, scale: mx.array, new_scale: mx.array, b1: float) -> mx.array:
    return packed_m(first_moment(widened(gradient), unpacked_m(codes, scale), b1), new_scale)


@mx.compile
def new_v(
    gradient: mx.array, codes: mx.array, scale: mx.array, new_scale: mx.array, dither: mx.array, b2: float
) -> mx.array:
    return packed_v(second_moment(widened(gradient), unpacked_v(codes, scale), b2), new_scale, dither)


@mx.compile
def new_w(
    parameter: mx.array, m: mx.array, m_scale: mx.array, v: mx.array, v_scale: mx.array, scalars: Scalars
) -> mx.array:
    decay, rate, eps = scalars
    change = rate * unpacked_m(m, m_scale) / (unpacked_root_of_v(v, v_scale) + eps)
    return (decay * parameter.astype(mx.float32) - change).astype(parameter.dtype)
