"""AdamW as one loop over the memory of leaves, compiled by numba for the machine it runs on; float32 arithmetic.

A loop reads w, g, m and v once and writes w, m and v over them: the least traffic there is. Half precision is stored
only: it is widened when it is read and rounded once, to the nearest, when it is written.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, config, njit, types
from numba.extending import intrinsic

from adamw.base import Unavailable

THREADS: int = config.NUMBA_NUM_THREADS

STORED = {"float32": np.float32, "bfloat16": np.uint16, "float16": np.uint16}
"""The dtypes a loop can read and write, by MLX's names, and how NumPy sees their elements."""

COLUMNS = ("gradient", "parameter", "m", "v", "elements")
"""A row of a loop's table: four addresses, and how many elements lie there."""


SIGNATURE = types.void(types.int64[:, ::1], types.float32[::1], types.int64, types.int64, types.int64)
"""What a loop is called with: the table, the scalars, leaf, element, number of elements."""


def unavailable() -> str | None:
    """Why numba compiles nothing here, in one line; None if it does."""
    if config.DISABLE_JIT or not hasattr(same, "signatures"):
        return "inplace needs numba's compiler, which is turned off; unset NUMBA_DISABLE_JIT"
    return None


def reinterpret(source: Any, target: Any, through: list[Any], instruction: str) -> Any:
    """A function from `source` to `target`: the bits seen as the first type of `through`, cast to the second, back."""

    @intrinsic
    def function(context: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            seen = builder.bitcast(arguments[0], through[0])
            return builder.bitcast(getattr(builder, instruction)(seen, through[1]), through[2])

        return target(source), generate

    return function


FLOAT, HALF, BITS_16, BITS_32 = ir.FloatType(), ir.HalfType(), ir.IntType(16), ir.IntType(32)
widen = reinterpret(types.uint16, types.float32, [HALF, FLOAT, FLOAT], "fpext")
narrow = reinterpret(types.float32, types.uint16, [FLOAT, HALF, BITS_16], "fptrunc")
bits_to_float = reinterpret(types.uint32, types.float32, [FLOAT, FLOAT, FLOAT], "bitcast")
float_to_bits = reinterpret(types.float32, types.uint32, [BITS_32, BITS_32, BITS_32], "bitcast")


@intrinsic
def pointer(context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@njit(inline="always")
def same(value: Any) -> Any:
    return value


@njit
def float16_to_float(bits: Any) -> Any:
    return widen(bits)


@njit
def float_to_float16(value: Any) -> Any:
    return narrow(value)


@njit
def bfloat16_to_float(bits: Any) -> Any:
    return bits_to_float(np.uint32(bits) << np.uint32(16))


@njit
def float_to_bfloat16(value: Any) -> Any:
    """Rounded to the nearest, ties to even; a NaN stays one."""
    bits = float_to_bits(value)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.uint16(rounded) if value == value else np.uint16(0x7FC0)


LOAD = {"float32": same, "bfloat16": bfloat16_to_float, "float16": float16_to_float}
STORE = {"float32": same, "bfloat16": float_to_bfloat16, "float16": float_to_float16}


@cache
def loop(parameter: str, gradient: str, state: str) -> Callable[..., None]:
    """The loop over leaves whose parameters, gradients and moments have these dtypes.

    It is called with the table of the leaves (int64, a row of COLUMNS each), the scalars (float32: b1, 1 - b1, b2,
    1 - b2, eps, decay, rate, scale as in `adamw.base`), the leaf and the element to begin with, and how many elements
    to update from there on. It is compiled when this returns. Raises Unavailable.
    """
    if reason := unavailable():
        raise Unavailable(reason)
    load_parameter, load_gradient, load_state = LOAD[parameter], LOAD[gradient], LOAD[state]
    store_parameter, store_state = STORE[parameter], STORE[state]
    parameter_type, gradient_type, state_type = STORED[parameter], STORED[gradient], STORED[state]

    @njit(
        SIGNATURE, nogil=True, error_model="numpy"
    )  # divides as the hardware does, or the loop would not be vectorised
    def update(table: Any, scalars: Any, leaf: int, begin: int, count: int) -> None:
        b1, rest1, b2, rest2, eps, decay, rate, scale = scalars
        while count > 0:
            size = table[leaf, 4]
            end = min(size, begin + count)
            ws = carray(pointer(table[leaf, 1]), (size,), parameter_type)[begin:end]
            gs = carray(pointer(table[leaf, 0]), (size,), gradient_type)[begin:end]
            ms = carray(pointer(table[leaf, 2]), (size,), state_type)[begin:end]
            vs = carray(pointer(table[leaf, 3]), (size,), state_type)[begin:end]
            for i in range(end - begin):
                g = load_gradient(gs[i])
                m = b1 * load_state(ms[i]) + rest1 * g
                v = b2 * load_state(vs[i]) + rest2 * (g * g)
                ms[i] = store_state(m)
                vs[i] = store_state(v)
                ws[i] = store_parameter(load_parameter(ws[i]) * decay - rate * m / (scale * np.sqrt(v) + eps))
            count -= end - begin
            leaf, begin = leaf + 1, 0

    return update
