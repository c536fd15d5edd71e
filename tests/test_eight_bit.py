"""`eight_bit`: moments in 8 bits a block, held against float64 and against float32 AdamW's training."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from low_precision import assert_identical, float64, kernels, reference_leaf, train, values
from mlx.utils import tree_flatten, tree_map

import adamw
from adamw.variants import eight_bit

CODES = mx.arange(256).astype(mx.uint8).reshape(1, 256)
ONE = mx.ones((1, 1))


def optimizer_of(**settings: Any) -> Any:
    return adamw.create("eight_bit", **{"learning_rate": 1e-2} | settings)


@pytest.mark.parametrize("scale", [2.0**-126, 1e-30, 0.3, 1.0, 1e18, 3.4e38])
def test_every_code_is_read_and_written_back(scale):
    scales = mx.full((1, 1), scale)
    m, v = eight_bit.unpacked_m(CODES, scales), eight_bit.unpacked_v(CODES, scales)
    normal = np.abs(float64(m)) >= 2.0**-126  # what is smaller may lose digits, or be zero
    written = np.array(eight_bit.packed_m(m, scales))
    np.testing.assert_array_equal(written[normal], np.array(CODES)[normal])
    normal = float64(v) >= 2.0**-126
    written = np.array(eight_bit.packed_v(v, scales, 0.5))
    np.testing.assert_array_equal(written[normal], np.array(CODES)[normal])


def test_codes_are_the_formulas_they_are_said_to_be():
    q = np.arange(256)
    m, v = float64(eight_bit.unpacked_m(CODES, 3 * ONE)), float64(eight_bit.unpacked_v(CODES, 3 * ONE))
    np.testing.assert_allclose(m[0], 3 * (1 - 2 * (q & 1)) * ((q >> 1) / 127) ** 4, rtol=1e-6)
    np.testing.assert_allclose(v[0], 3 * (q / 255) ** 8, rtol=1e-6)
    np.testing.assert_allclose(float64(eight_bit.unpacked_root_of_v(CODES, 3 * ONE)), np.sqrt(v), rtol=1e-6)


@given(st.floats(2**-60, 1), st.sampled_from([-1.0, 1.0]), st.floats(0, 1, exclude_max=True, width=32))
@example(1.0, 1.0, 1 - 2**-24)  # their sum rounds to 256
def test_m_is_rounded_to_nearest_and_v_down_or_up_by_the_dither(x, sign, dither):
    m, v = mx.array([[sign * x]]), mx.array([[x]])
    code = int(eight_bit.packed_m(m, ONE).item())
    assert abs((code >> 1) - 127 * x**0.25) <= 0.5 + 1e-4
    assert code & 1 == (sign < 0)
    code = int(eight_bit.packed_v(v, ONE, mx.array(dither, mx.float32)).item())
    assert abs(code - min(max(255 * x**0.125 + dither - 0.5, 1), 255)) <= 0.5 + 1e-3


def test_whole_moments_are_packed_into_their_nearest_codes():
    m, v = mx.array(values(770)), mx.array(np.abs(values(770, 1)))
    state = eight_bit.packed(m, v)
    blocks = [np.repeat(float64(state[name]), 154) for name in ("m_scale", "v_scale")]
    exact = 127 * np.abs(float64(m) / blocks[0]) ** 0.25, 255 * (float64(v) / blocks[1]) ** 0.125
    assert np.abs((np.array(state["m"]) >> 1) - exact[0]).max() <= 0.5 + 1e-4
    assert np.abs(np.array(state["v"]) - exact[1]).max() <= 0.5 + 1e-4
    assert (np.sign(float64(eight_bit.unpacked(state)["m"])) == np.sign(float64(m))).all()


@given(st.floats(2.0**-126, 2.0**127), st.floats(2.0**-126, 2.0**127), st.floats(0, 0.99))
def test_a_v_above_zero_is_never_packed_as_zero(v, scale, dither):
    scales = mx.array([[max(v, scale)]])
    assert eight_bit.packed_v(mx.array([[v]]), scales, dither).item() > 0
    assert eight_bit.packed_v(mx.array([[0.0]]), scales, dither).item() == 0


@pytest.mark.parametrize(
    ("elements", "size"),
    [(0, 1), (1, 1), (255, 255), (256, 256), (257, 256), (512, 256), (1000, 250), (9408, 224), (65537, 256)],
)
def test_blocks_divide_the_leaf_where_they_can(elements, size):
    assert eight_bit.block_size(elements) == size


@settings(deadline=None)
@given(st.integers(4096, 10**6))
@example(4096)
@example(4097)
@example(64 * 65537)
@example(65537)
def test_the_state_is_at_most_a_quarter_of_float32s_and_a_little(elements):
    state = optimizer_of().init_single(mx.broadcast_to(mx.array(0.0), (elements,)), {})
    assert sum(array.nbytes for array in state.values()) <= 0.27 * 8 * elements


@pytest.mark.parametrize(
    ("shape", "blocks"), [((0,), 0), ((), 1), ((1,), 1), ((255,), 1), ((257,), 2), ((3, 256), 3), ((2, 5, 77), 5)]
)
def test_the_state_has_codes_in_the_leafs_shape_and_one_scale_a_block(shape, blocks):
    optimizer, parameters = optimizer_of(), {"a": mx.ones(shape)}
    optimizer.init(parameters)
    shapes = {"m": shape, "m_scale": (blocks, 1), "v": shape, "v_scale": (blocks, 1)}
    dtypes = {"m": mx.uint8, "m_scale": mx.float32, "v": mx.uint8, "v_scale": mx.float32}
    for _ in range(3):
        state = optimizer.state["a"]
        assert {name: array.shape for name, array in state.items()} == shapes
        assert {name: array.dtype for name, array in state.items()} == dtypes
        assert {name: array.shape for name, array in optimizer.upstream_state()["a"].items()} == {
            "m": shape,
            "v": shape,
        }
        parameters = train(optimizer, parameters, lambda step: {"a": mx.ones(shape)}, [0])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("bias_correction", [False, True])
def test_kernels(precision, bias_correction):
    def labels(elements: int) -> list[str]:
        found = kernels("eight_bit", precision, elements, bias_correction)
        return sorted("Compiled" if label.startswith("Compiled") else label for label in found)

    assert labels(4096) == ["Compiled"] * 5 + ["Max", "Min"]
    assert labels(200) == ["Compiled"] * 3 + ["Max", "Min"]  # the scales are scalars
    assert labels(257) == ["Compiled"] * 5 + ["Max", "Min"] + ["Pad"] * 4


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_step_needs_no_memory_but_what_is_resident(dtype):
    size = 2**20
    optimizer = optimizer_of()
    gradients, parameters = {"a": mx.ones((1024, 1024), dtype) * 0.5}, [{"a": mx.ones((1024, 1024), dtype) * 2}]
    optimizer.init(parameters[0])
    mx.eval(gradients, parameters, optimizer.state)
    limit = mx.set_cache_limit(0)
    try:
        for _ in range(3):
            mx.synchronize()
            mx.reset_peak_memory()
            before = mx.get_active_memory()
            parameters.append(optimizer.apply_gradients(gradients, parameters.pop()))
            mx.eval(parameters, optimizer.state)
        assert mx.get_peak_memory() - before < 0.1 * size
    finally:
        mx.set_cache_limit(limit)


GRADIENTS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "zero": lambda random, size, step: np.zeros(size),
    "tiny": lambda random, size, step: 1e-30 * random.normal(size=size),
    "small": lambda random, size, step: 1e-12 * random.normal(size=size),
    "huge": lambda random, size, step: 1e18 * random.normal(size=size),
    "outlier": lambda random, size, step: np.where(np.arange(size) % 256 == 3, 1e6, 1) * random.normal(size=size),
    "alternating": lambda random, size, step: np.full(size, (-1.0) ** step),
    "zero blocks": lambda random, size, step: np.where(np.arange(size) // 256 % 2, 0, random.normal(size=size)),
    "one step in three": lambda random, size, step: random.normal(size=size) * (step % 3 == 0),
    "bursts": lambda random, size, step: random.normal(size=size) * 10.0 ** random.uniform(-20, 15),
}


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(list(GRADIENTS)),
    st.sampled_from([0, 1, 255, 256, 257, 512, 1000]),
    st.integers(1, 12),
    st.booleans(),
    st.sampled_from([mx.float32, mx.bfloat16]),
)
@example("outlier", 512, 1, False, mx.float32)
def test_any_finite_gradients_keep_everything_finite_and_in_bounds(kind, size, steps, bias_correction, dtype):
    random = np.random.default_rng(size)
    optimizer = optimizer_of(bias_correction=bias_correction, weight_decay=0.0)
    start = {"a": mx.array(values(size)).astype(dtype)}
    end = train(
        optimizer, start, lambda step: {"a": mx.array(GRADIENTS[kind](random, size, step)).astype(dtype)}, range(steps)
    )
    for path, array in tree_flatten([end, optimizer.state, optimizer.upstream_state()]):
        assert np.isfinite(float64(array)).all(), path
    scales = [array for path, array in tree_flatten(optimizer.state) if path.endswith("_scale")]
    assert all((float64(array) >= 2.0**-126).all() for array in scales)  # moments are divided by them
    # |m| / sqrt(v) is at most 7.3 (Cauchy-Schwarz with b1 = 0.9, b2 = 0.999). Beside an outlier the codes are coarse:
    # m may be rounded from half a code up to one, which is 16 times it, or v down from nearly two codes to one, which
    # is 256 times less. Hardly both, as v's codes lie twice as close.
    moved = np.abs(float64(end["a"]) - float64(start["a"]))
    assert (moved <= steps * 1e-2 * 7.3 * 17 + 2**-7).all()


@pytest.mark.parametrize("kind", ["tiny", "small", "huge", "alternating", "zero blocks", "one step in three"])
@pytest.mark.parametrize("size", [1, 255, 257, 768])
def test_a_few_steps_are_adamws(kind, size):
    random = np.random.default_rng(1)
    gradients = [GRADIENTS[kind](random, size, step).astype(np.float32) for step in range(20)]
    start = np.abs(values(size))
    expected = reference_leaf(start, gradients, learning_rate=1e-2, bias_correction=True).w - start
    end = train(
        optimizer_of(bias_correction=True), {"a": mx.array(start)}, lambda t: {"a": mx.array(gradients[t])}, range(20)
    )
    error = float64(end["a"]) - start - expected
    assert np.sqrt((error**2).mean()) < 0.1 * np.sqrt((expected**2).mean())


def test_a_gradient_of_nan_stays_in_its_block():
    optimizer = optimizer_of()
    gradient = np.ones(512, np.float32)
    gradient[3] = np.nan
    end = train(optimizer, {"a": mx.ones((512,))}, lambda step: {"a": mx.array(gradient)}, range(2))
    assert np.isnan(float64(end["a"])[3])
    assert np.isfinite(float64(end["a"])[256:]).all()


@pytest.mark.parametrize("elements", [7, 768, 1000])
def test_without_gradients_only_the_scales_decay(elements):
    optimizer = optimizer_of()
    parameters = {"a": mx.ones((elements,))}
    train(optimizer, parameters, lambda step: {"a": mx.array(values(elements, step))}, range(3))
    before = tree_map(lambda array: array, optimizer.state["a"])
    train(optimizer, parameters, lambda step: {"a": mx.zeros((elements,))}, range(100))
    after = optimizer.state["a"]
    assert_identical(after["m"], before["m"])
    assert np.abs(float64(after["v"]) - float64(before["v"])).max() <= 1
    assert (float64(after["v"]) == float64(before["v"])).mean() > 0.99
    np.testing.assert_allclose(float64(after["m_scale"]), 0.9**100 * float64(before["m_scale"]), rtol=1e-4)
    np.testing.assert_allclose(float64(after["v_scale"]), 0.999**100 * float64(before["v_scale"]), rtol=1e-4)


def moments(gradient: Callable[[int], np.ndarray], steps: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """m and v after `steps`: in 8 bits, and in float64."""
    optimizer = optimizer_of()
    parameters = {"a": mx.zeros(gradient(0).shape)}
    m = v = np.zeros(gradient(0).shape)
    for step in range(steps):
        g = gradient(step)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        parameters = train(optimizer, parameters, lambda _: {"a": mx.array(g)}, [step])  # noqa: B023
    state = optimizer.upstream_state()["a"]
    return {name: float64(array) for name, array in state.items()}, {"m": m, "v": v}


def test_2000_steps_of_noise_of_many_magnitudes_stay_near_float64():
    random = np.random.default_rng(0)
    sigma = np.exp(random.normal(0, 1.2, (16, 256)))
    actual, exact = moments(lambda step: (sigma * random.normal(size=sigma.shape)).astype(np.float32), 2000)
    root = np.log(actual["v"] / exact["v"]) / 2
    assert np.sqrt((root**2).mean()) < 0.13
    assert abs(root.mean()) < 0.02
    error = (actual["m"] - exact["m"]) / np.sqrt(exact["v"])
    assert np.sqrt((error**2).mean()) < 0.12 * np.sqrt((exact["m"] ** 2 / exact["v"]).mean())


def fading(step: int) -> np.ndarray:
    """Half of a block's gradients fall to a tenth after 300 steps, the others stay as they are."""
    gradient = np.ones((1, 256), np.float32)
    gradient[:, 128:] = 1 if step < 300 else 0.1
    return gradient


def test_v_follows_where_rounding_to_nearest_would_stand_still(monkeypatch):
    actual, exact = moments(fading, 2000)
    np.testing.assert_allclose(actual["v"], exact["v"], rtol=0.1)
    monkeypatch.setattr(eight_bit.AdamW, "share", lambda self, gradients: (self.scalars(), mx.array(0.5)))
    nearest, _ = moments(fading, 2000)
    assert (nearest["v"][:, 128:] > 1.3 * exact["v"][:, 128:]).all()


def test_2000_steps_on_a_quadratic_end_where_float32s_do():
    curvature = mx.array(np.exp(np.random.default_rng(0).normal(0, 2, 1000)).astype(np.float32))
    target = mx.array(values(1000))

    def loss(w: mx.array) -> mx.array:
        return 0.5 * (curvature * mx.square(w - target)).mean()

    losses = {}
    for name in ("split", "eight_bit"):
        optimizer = adamw.create(name, learning_rate=mlx.optimizers.cosine_decay(1e-2, 2000), weight_decay=0.0)
        w = mx.zeros((1000,))
        for _ in range(2000):
            w = optimizer.apply_gradients({"w": mx.grad(loss)(w)}, {"w": w})["w"]
            mx.eval(w, optimizer.state)
        losses[name] = loss(w).item() / loss(mx.zeros((1000,))).item()
    assert losses["split"] < 1e-6
    assert losses["eight_bit"] < 1e-6


@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_trains_to_the_loss_that_float32_reaches(seed):
    random = np.random.default_rng(seed)
    inputs = mx.array(random.normal(size=(2048, 16)).astype(np.float32))
    first, second = (mx.array(random.normal(size=shape).astype(np.float32)) for shape in ((16, 8), (8, 1)))
    chance = mx.sigmoid(2 * mx.tanh(inputs @ first) @ second)
    labels = (mx.array(random.uniform(size=(2048, 1)).astype(np.float32)) < chance).astype(mx.float32)

    def loss(model: nn.Module, x: mx.array, y: mx.array) -> mx.array:
        return nn.losses.binary_cross_entropy(model(x), y, reduction="mean")

    def final_loss(name: str) -> float:
        mx.random.seed(seed)
        model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1))
        optimizer = adamw.create(name, learning_rate=mlx.optimizers.cosine_decay(3e-3, 400), bias_correction=True)
        loss_and_gradients = nn.value_and_grad(model, loss)
        for step in range(400):
            batch = slice(step % 8 * 256, step % 8 * 256 + 256)
            optimizer.update(model, loss_and_gradients(model, inputs[batch], labels[batch])[1])
            mx.eval(model.parameters(), optimizer.state)
        return loss(model, inputs, labels).item()

    expected = final_loss("split")
    assert expected < 0.45  # chance is 0.69
    assert final_loss("eight_bit") == pytest.approx(expected, rel=0.02)
