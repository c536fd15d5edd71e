"""`stochastic`: bfloat16 results rounded so that their expectation is exact, from bits that repeat."""

from typing import Any

import mlx.core as mx
import mlx.optimizers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from low_precision import assert_close, assert_identical, float64, kernels, reference_leaf, train, tree, values
from mlx.utils import tree_flatten

import adamw
from adamw.variants.stochastic import new_m, random_bits, rounded

EVERY_DRAW = np.arange(2**16, dtype=np.uint16)


def stochastic(**settings: Any) -> Any:
    return adamw.create("stochastic", **{"learning_rate": 1e-2} | settings)


def pattern(array: mx.array) -> np.ndarray:
    return np.array(array.view(mx.uint16)).astype(np.int64)


def from_pattern(bits: Any) -> np.ndarray:
    """The float32 of a bfloat16's pattern."""
    return (np.asarray(bits, dtype=np.uint32) << 16).view(np.float32)


def compiled(exact: np.ndarray, bits: np.ndarray) -> mx.array:
    """`rounded` as a step runs it: m' with b1 = 0 is the gradient."""
    return new_m(mx.array(exact), mx.zeros(exact.shape, mx.bfloat16), [mx.array(bits)], 0.0)


def plain(exact: np.ndarray, bits: np.ndarray) -> mx.array:
    return rounded(mx.array(exact), mx.bfloat16, mx.array(bits))


def float32_above(neighbour: int, fraction: int) -> np.float32:
    """The float32 whose pattern is that of the bfloat16 `neighbour` and 16 bits more."""
    return np.array([neighbour << 16 | fraction], np.uint32).view(np.float32)[0]


@pytest.mark.parametrize("round_", [plain, compiled])
@pytest.mark.parametrize("sign", [0, 0x8000])
@pytest.mark.parametrize("below", [0x3F80, 0x3F81, 0x3FC3, 0x3FFF, 0x3EFF, 0x0081, 0x0480, 0x7F7E, 0x5D5E])
def test_of_all_draws_exactly_the_right_share_rounds_away_from_zero(round_, sign, below):
    for fraction in (1, 2, 3, 777, 32767, 32768, 32769, 50000, 65534, 65535):
        exact = np.full(2**16, float32_above(sign | below, fraction))
        found, counts = np.unique(pattern(round_(exact, EVERY_DRAW)), return_counts=True)
        assert found.tolist() == [sign | below, sign | below + 1]
        assert counts.tolist() == [2**16 - fraction, fraction]


def test_numbers_that_bfloat16_has_never_change():
    numbers = np.arange(2**16)
    numbers = numbers[(numbers & 0x7FFF == 0) | (numbers & 0x7FFF >= 0x80)]  # a GPU may take subnormals for zero
    for bits in (0, 1, 0x8000, 0xFFFF):
        for round_ in (plain, compiled):
            found = float64(round_(from_pattern(numbers), np.full(len(numbers), bits, np.uint16)))
            np.testing.assert_array_equal(found, from_pattern(numbers))


def test_every_number_has_both_its_neighbours():
    normal = np.arange(0x0081, 0x7F7F)
    numbers = from_pattern(normal)
    for towards, neighbour in ((np.float32(np.inf), normal + 1), (np.float32(0), normal - 1)):
        nearly = np.nextafter(numbers, towards)
        always = np.zeros(len(normal), np.uint16)  # the smallest draw leaves the nearest number
        np.testing.assert_array_equal(pattern(plain(nearly, always)), neighbour)
        np.testing.assert_array_equal(pattern(plain(-nearly, always)), neighbour | 0x8000)


@given(st.floats(width=32, allow_subnormal=False), st.integers(0, 2**16 - 1))
def test_the_result_is_a_neighbour(exact, bits):
    found = float64(plain(np.array([exact], np.float32), np.array([bits], np.uint16)))[0]
    if np.isnan(exact):
        assert np.isnan(found)
        return
    nearest = float64(mx.array([exact], mx.float32).astype(mx.bfloat16))[0]
    truncated = from_pattern(np.array([exact], np.float32).view(np.uint32) >> 16)[0]
    away = from_pattern((np.array([exact], np.float32).view(np.uint32) >> 16) + 1)[0]
    assert found in (nearest, truncated, away)
    assert np.isinf(found) == np.isinf(nearest)


DRAWS = 10**6


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_the_mean_error_is_within_three_standard_errors_and_the_share_is_proportional(seed, sign, share):
    exact = np.float32(sign * (1 + 2**-7 * share))
    (bits,) = random_bits(mx.random.key(seed), (DRAWS,), [True])
    error = float64(rounded(mx.full((DRAWS,), exact), mx.bfloat16, bits)) - np.float64(exact)
    assert abs(error.mean()) < 3 * error.std() / np.sqrt(DRAWS)
    assert (sign * error > 0).mean() == pytest.approx(share, abs=3 * np.sqrt(share * (1 - share) / DRAWS) + 2**-16)


def test_random_bits_are_even_and_differ_between_arrays_and_keys():
    first, second, none, third = random_bits(mx.random.key(1), (7, 3001), [True, True, False, True])
    other = random_bits(mx.random.key(2), (7, 3001), [True])[0]
    assert none is None
    arrays = [np.array(array).astype(np.int64) for array in (first, second, third, other)]
    for array in arrays:
        ones = array.reshape(-1, 1) >> np.arange(16) & 1
        np.testing.assert_allclose(ones.mean(axis=0), 0.5, atol=4 * 0.5 / np.sqrt(array.size))
        np.testing.assert_allclose(np.corrcoef(ones.T), np.eye(16), atol=5 / np.sqrt(array.size))
    agreement = [(a == b).mean() for i, a in enumerate(arrays) for b in arrays[:i]]
    assert max(agreement) < 1e-3
    assert len(np.unique(arrays[0])) > 10000


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0), (2, 5), (8,), (9,)])
def test_random_bits_have_any_shape(shape):
    for bits in random_bits(mx.random.key(1), shape, [True, True]):
        assert bits.shape == shape
        assert bits.dtype == mx.uint16


def steps_of_a_half(leaves: int, steps: int, **settings: Any) -> Any:
    """Equal leaves with equal gradients: only their random bits tell them apart."""
    same = mx.array(np.abs(values(4096))).astype(mx.bfloat16)
    parameters = {f"leaf {number}": same for number in range(leaves)}
    return train(stochastic(**settings), parameters, lambda step: parameters, range(steps))


def test_leaves_and_seeds_have_their_own_bits_and_a_seed_repeats():
    one, again, other = steps_of_a_half(2, 2), steps_of_a_half(2, 2), steps_of_a_half(2, 2, seed=1)
    assert_identical(one, again)
    for left, right in ((one["leaf 0"], one["leaf 1"]), (one["leaf 0"], other["leaf 0"])):
        assert 0.1 < (left != right).astype(mx.float32).mean().item() < 0.9


def test_steps_have_their_own_bits_whatever_the_seed():
    keys = set()
    for seed in (0, 1, 2**32 - 1):
        optimizer = stochastic(seed=seed)
        for step in (0, 1, 2, 2**31):
            optimizer.state["step"] = mx.array(step, mx.uint64)
            keys |= {tuple(key.tolist()) for key in optimizer.share({"a": mx.ones((1,)), "b": mx.ones((1,))})[1]}
    assert len(keys) == 3 * 4 * 2


def test_m_v_and_the_parameter_have_their_own_bits():
    optimizer = stochastic(weight_decay=0.0, betas=[0.5, 0.5])
    parameters = {"a": mx.full((4096,), 1.2, mx.bfloat16)}
    end = train(optimizer, parameters, lambda step: {"a": mx.full((4096,), 1.3, mx.float32)}, range(1))
    up = [array > array.min() for array in (end["a"], optimizer.state["a"]["m"], optimizer.state["a"]["v"])]
    chances = [side.astype(mx.float32).mean().item() for side in up]
    assert all(0.05 < chance < 0.95 for chance in chances[1:])
    both = (up[1] & up[2]).astype(mx.float32).mean().item()
    assert both == pytest.approx(chances[1] * chances[2], abs=4 * 0.5 / np.sqrt(4096))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_raises(seed):
    with pytest.raises(ValueError, match=f"seed should be in .*, {seed} was provided"):
        stochastic(seed=seed)


@pytest.mark.parametrize("state", [mx.bfloat16, mx.float32])
def test_updates_far_below_half_a_unit_move_the_parameters_as_in_float64(state):
    settings = {"learning_rate": 1e-4, "weight_decay": 1e-3, "bias_correction": True}
    parameters = {"a": mx.array(np.abs(values(4096))).astype(mx.bfloat16)}
    ones = {"a": mx.ones((4096,), mx.bfloat16)}
    start = float64(parameters["a"])
    expected = reference_leaf(start, [np.ones(4096)] * 2000, **settings).w
    results = {}
    for name in ("split", "stochastic"):
        optimizer = adamw.create(name, **settings)
        optimizer.init({"a": mx.zeros((4096,), state)})
        results[name] = float64(train(optimizer, parameters, lambda step: ones, range(2000))["a"])
    assert np.median(np.abs(results["split"] - start)) == 0  # to nearest most of them stay put
    error = results["stochastic"] - expected
    assert abs(error.mean()) < 3 * error.std() / np.sqrt(4096)
    assert abs(expected.mean() - start.mean()) > 20 * abs(error.mean())


def test_v_decays_in_bfloat16():
    zeros = {"a": mx.zeros((4096,), mx.bfloat16)}
    left = {}
    for name in ("split", "stochastic"):
        optimizer = adamw.create(name, learning_rate=1e-3)
        optimizer.init(zeros)
        optimizer.state["a"]["v"] = mx.array(np.abs(values(4096))).astype(mx.bfloat16)
        start = float64(optimizer.state["a"]["v"])
        train(optimizer, zeros, lambda step: zeros, range(2000))
        left[name] = float64(optimizer.state["a"]["v"]) / start
    np.testing.assert_array_equal(left["split"], 1)
    error = left["stochastic"] - 0.999**2000
    assert abs(error.mean()) < 3 * error.std() / np.sqrt(4096)
    assert error.std() < 0.5 * 0.999**2000


@pytest.mark.parametrize("settings", [{}, {"bias_correction": True}, {"betas": [0.8, 0.95], "eps": 1e-3}])
@pytest.mark.parametrize("gradient", [mx.bfloat16, mx.float32])
def test_a_few_steps_are_adamws_to_bfloat16s_precision(gradient, settings):
    optimizer = stochastic(**settings)
    start, constant = tree(mx.bfloat16)["a"], tree(mx.bfloat16, 1)["a"]
    expected = reference_leaf(float64(start), [float64(constant)] * 3, **{"learning_rate": 1e-2} | settings)

    def gradients(step: int) -> Any:
        return {"a": constant.astype(gradient)}

    parameters = train(optimizer, {"a": start}, gradients, range(3))
    actual = {"w": parameters["a"], "m": optimizer.state["a"]["m"], "v": optimizer.state["a"]["v"]}
    for name, array in actual.items():
        assert array.dtype == mx.bfloat16
        np.testing.assert_allclose(float64(array), getattr(expected, name), rtol=3 * 2**-7)


def test_the_state_has_upstreams_layout_and_does_not_grow():
    optimizer, upstream = stochastic(), mlx.optimizers.AdamW(1e-2)
    for one in (optimizer, upstream):
        train(one, tree(mx.bfloat16), lambda step: tree(mx.bfloat16, 1), range(2))
    layouts = [[(path, a.shape, a.dtype) for path, a in tree_flatten(one.state)] for one in (optimizer, upstream)]
    assert layouts[0] == layouts[1]


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
def test_other_dtypes_are_rounded_to_nearest(dtype):
    optimizer, twin = stochastic(), stochastic(seed=1)
    after = [train(one, tree(dtype), lambda step: tree(dtype, 1), range(2)) for one in (optimizer, twin)]
    assert_identical(*after)
    exact = train(mlx.optimizers.AdamW(1e-2), tree(mx.float32), lambda step: tree(mx.float32, 1), range(2))
    assert_close(after[0], exact, 1e-6 if dtype == mx.float32 else 2**-8)


@pytest.mark.parametrize("bias_correction", [False, True])
@pytest.mark.parametrize(("precision", "draws"), [("bfloat16", 1), ("mixed", 1), ("float32", 0), ("float16", 0)])
def test_three_fused_kernels_and_one_draw_a_leaf(precision, draws, bias_correction):
    labels = [label for label in kernels("stochastic", precision, 4096, bias_correction) if label != "View"]
    others = [label for label in labels if not label.startswith("Compiled")]
    assert len(labels) - len(others) == 3
    assert others == ["RandomBits"] * 2 * draws  # the other one draws the keys of all leaves


@pytest.mark.parametrize(("state", "bits_bytes"), [(mx.bfloat16, 6), (mx.float32, 2)])
def test_a_step_needs_no_memory_but_the_bits(state, bits_bytes):
    size = 2**20
    optimizer = stochastic()
    optimizer.init({"a": mx.zeros((size,), state)})
    gradients, parameters = {"a": mx.ones((size,), mx.bfloat16) * 0.5}, [{"a": mx.ones((size,), mx.bfloat16) * 2}]
    mx.eval(gradients, parameters, optimizer.state)
    limit = mx.set_cache_limit(0)
    try:
        for _ in range(3):
            mx.synchronize()
            mx.reset_peak_memory()
            before = mx.get_active_memory()
            parameters.append(optimizer.apply_gradients(gradients, parameters.pop()))
            mx.eval(parameters, optimizer.state)
        assert mx.get_peak_memory() - before == pytest.approx(bits_bytes * size, rel=0.01)
    finally:
        mx.set_cache_limit(limit)
