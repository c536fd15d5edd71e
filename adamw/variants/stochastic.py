"""bfloat16 arrays rounded stochastically: what is too small to be stored in one step is kept on average.

Rounding to nearest loses every update of a parameter below half a unit in the last place, and v's decay by 0.1 % a
step always. Here a float32 result between two bfloat16 neighbours becomes either of them, the nearer one more often, so
that its expectation is the result itself (Gupta et al., Deep Learning with Limited Numerical Precision, ICML 2015).

Kernels a leaf: one that draws 16 random bits for every element of its bfloat16 arrays, and three fused ones with one
output each, written over the old arrays as in `split`. In bytes a parameter 20 and 12 for the bits in bfloat16, 32 and
4 with float32 state. The bits of a leaf are in memory while it is updated: 6 or 2 bytes a parameter.
"""

import math
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from adamw.base import first_moment, new_parameter, second_moment
from adamw.float32 import Float32AdamW, Scalars, is_made_for, widened

PRECISIONS = ("bfloat16", "mixed")

SEEDS = 2**32

REACH = 1.25 / 256
"""A step from a bfloat16 number, relative to it, that rounds to its next neighbour on either side.

A significand is 128 to 255 units, and the step 0.63 to 1.25 units, which rounds to 1. Downwards from 128 units are half
as large: the neighbour is 127.5, and 128 - 0.63 rounds to it.
"""


class AdamW(Float32AdamW):
    """`mlx.optimizers.AdamW` in float32 arithmetic whose bfloat16 results are rounded stochastically.

    That is done to every bfloat16 array, parameter, m or v, as `init` made them: m and v have the parameter's dtype
    unless `init` is given a tree of another. Any other array is rounded to nearest. The parameter is computed from the
    moments as they are stored.

    The random bits follow from the seed, the step and the leaf's place among the gradients: a run that is resumed
    repeats what an uninterrupted one does, and the state is upstream's.

    Args:
        seed (int): from 0 to 2^32 - 1. Default: ``0``
    """

    kernels_a_leaf = (3, 3)
    rounding = 2

    def __init__(self, *args: Any, seed: int = 0, **hyper_parameters: Any) -> None:
        if not 0 <= seed < SEEDS:
            raise ValueError(f"AdamW seed should be in [0, 2^32), {seed} was provided instead")
        super().__init__(*args, **hyper_parameters)
        self.seed = seed

    def share(self, gradients: Any) -> tuple[Scalars, Iterator[mx.array]]:
        """The scalars, and a random key for every leaf."""
        key = mx.stack([mx.array(self.seed, mx.uint32), self.step.astype(mx.uint32)])
        return self.scalars(), iter(mx.random.split(key, max(1, len(tree_flatten(gradients)))))

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        if not is_made_for(gradient, parameter, state["m"], state["v"]):
            return super().apply_single(gradient, parameter, state)
        scalars, keys = self._shared or self.share(gradient)
        arrays = parameter, state["m"], state["v"]
        shape = mx.broadcast_shapes(*(array.shape for array in arrays), gradient.shape)
        bits = random_bits(next(keys), shape, [array.dtype == mx.bfloat16 for array in arrays])
        w_bits, m_bits, v_bits = ([] if one is None else [one] for one in bits)  # older MLX passes on no None
        b1, b2 = self.betas
        state["m"] = new_m(gradient, state["m"], m_bits, b1)
        state["v"] = new_v(gradient, state["v"], v_bits, b2)
        return new_w(parameter, state["m"], state["v"], w_bits, scalars)


def random_bits(key: mx.array, shape: tuple[int, ...], wanted: list[bool]) -> list[mx.array | None]:
    """16 random bits for every element of `shape`, as uint16, once for each of `wanted`; None where it is false.

    `mx.random.split` returns a generator's words as they are, 8 bytes a key; MLX has no other function for raw bits.
    Every array starts at a multiple of 16 bytes.
    """
    size = math.prod(shape)
    keys_an_array = 2 * -(-size // 8)
    if not size or not any(wanted):
        return [mx.zeros(shape, mx.uint16) if want else None for want in wanted]
    words = mx.random.split(key, keys_an_array * sum(wanted)).view(mx.uint16)
    rows = iter(words.reshape(sum(wanted), -1))
    return [next(rows)[:size].reshape(shape) if want else None for want in wanted]


def rounded(exact: mx.array, dtype: mx.Dtype, bits: mx.array | None = None) -> mx.array:
    """float32 `exact` in `dtype`: to nearest without `bits`, to either neighbour in bfloat16 with 16 random `bits`.

    A number that bfloat16 has never changes; nan and the infinities stay. So small that bfloat16 loses precision
    (below 2^-126), or so large that its upper neighbour is infinite, it is rounded to nearest.

    Arithmetic instead of the bit pattern, because MLX does not fuse `view`: the same probabilities, no float32 array
    in between. In this order all of it, and the update before it, is one fused kernel.
    """
    nearest = exact.astype(dtype)
    if bits is None:
        return nearest
    value = nearest.astype(mx.float32)
    error = exact - value
    other = (value + mx.sign(error) * mx.abs(value) * REACH).astype(dtype)
    gap = other.astype(mx.float32) - value
    return mx.where(mx.abs(gap) * (bits.astype(mx.float32) * 2**-16) < mx.abs(error), other, nearest)


# Not shapeless: that takes more operations in a row, and MLX would make several kernels of each.


@mx.compile
def new_m(gradient: mx.array, m: mx.array, bits: list[mx.array], b1: float) -> mx.array:
    return rounded(first_moment(widened(gradient), widened(m), b1), m.dtype, *bits)


@mx.compile
def new_v(gradient: mx.array, v: mx.array, bits: list[mx.array], b2: float) -> mx.array:
    return rounded(second_moment(widened(gradient), widened(v), b2), v.dtype, *bits)


@mx.compile
def new_w(parameter: mx.array, m: mx.array, v: mx.array, bits: list[mx.array], scalars: Scalars) -> mx.array:
    w, m, v = map(widened, (parameter, m, v))
    return rounded(new_parameter(w, m, v, scalars[:2], scalars[2]), parameter.dtype, *bits)
