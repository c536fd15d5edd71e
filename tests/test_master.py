"""`master`: half-precision parameters that are a float32 master's rounding."""

import mlx.core as mx
import mlx.optimizers
import numpy as np
import pytest
from low_precision import assert_close, assert_identical, float64, kernels, reference_leaf, train, tree, values
from mlx.utils import tree_flatten, tree_map

import adamw

SETTINGS = [
    {"learning_rate": 1e-2},
    {"learning_rate": 1e-2, "bias_correction": True},
    {"learning_rate": 3e-3, "betas": [0.8, 0.95], "eps": 1e-3, "weight_decay": 0.3, "bias_correction": True},
]


def master(**settings):
    return adamw.create("master", **{"learning_rate": 1e-2} | settings)


@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "bias_correction", "all"])
@pytest.mark.parametrize("gradient", [mx.bfloat16, mx.float16, mx.float32])
@pytest.mark.parametrize("parameter", [mx.bfloat16, mx.float16])
def test_the_parameter_is_float32_adamw_rounded_once(parameter, gradient, settings):
    optimizer, upstream = master(**settings), mlx.optimizers.AdamW(**settings)

    def gradients(step):
        return tree(gradient, step + 1)

    def exactly_as_float32(step):
        return tree_map(lambda array: array.astype(mx.float32), gradients(step))

    start = tree_map(lambda array: array.astype(mx.float32), tree(parameter))
    expected = train(upstream, start, exactly_as_float32, range(20))
    actual = train(optimizer, tree(parameter), gradients, range(20))
    masters = [optimizer.state["a"], optimizer.state["list"][1][0], optimizer.state["m"]["v"]]
    leaves = [(actual["a"], expected["a"]), (actual["list"][1][0], expected["list"][1][0])]
    leaves += [(actual["m"]["v"], expected["m"]["v"])]
    for state, (rounded, exact) in zip(masters, leaves, strict=True):
        assert_close(state["master"], exact, 1e-6)
        assert_identical(rounded, state["master"].astype(parameter))
    assert_close(optimizer.upstream_state(), upstream.state, 1e-5)


def test_the_state_is_float32_and_a_float32_leaf_has_no_master():
    optimizer = master()
    parameters = {"half": mx.ones((3,), mx.float16), "brain": mx.ones((3,), mx.bfloat16), "full": mx.ones((3,))}
    for _ in range(2):
        parameters = optimizer.apply_gradients(
            tree_map(lambda array: array.astype(mx.bfloat16), parameters), parameters
        )
        assert optimizer.state["half"].keys() == optimizer.state["brain"].keys() == {"m", "v", "master"}
        assert optimizer.state["full"].keys() == {"m", "v"}
        assert {a.dtype for path, a in tree_flatten(optimizer.state) if path != "step"} == {mx.float32}
    assert [parameters[key].dtype for key in ("half", "brain", "full")] == [mx.float16, mx.bfloat16, mx.float32]


def test_a_float32_leaf_is_updated_as_upstream_does():
    optimizer, upstream = master(bias_correction=True), mlx.optimizers.AdamW(1e-2, bias_correction=True)
    actual, expected = (
        train(one, tree(mx.float32), lambda step: tree(mx.float32, step + 1), range(5)) for one in (optimizer, upstream)
    )
    assert_close(actual, expected, 1e-6)


def test_updates_below_half_a_unit_in_the_last_place_are_kept():
    w, g = np.abs(values(1000)), np.ones(1000)
    parameters = {"a": mx.array(w).astype(mx.bfloat16)}
    start = float64(parameters["a"])
    settings = {"learning_rate": 1e-5, "weight_decay": 0.0, "bias_correction": True}
    expected = reference_leaf(start, [g] * 1000, **settings).w
    results = {}
    for name in ("split", "master"):
        optimizer = adamw.create(name, **settings)
        end = train(optimizer, parameters, lambda step: {"a": mx.ones((1000,), mx.bfloat16)}, range(1000))
        results[name] = float64(end["a"])
    np.testing.assert_array_equal(results["split"], start)
    np.testing.assert_allclose(float64(optimizer.state["a"]["master"]), expected, atol=1e-4)
    np.testing.assert_allclose(results["master"], expected, atol=2**-8 + 1e-4)


def ones(step=0):
    return {"a": mx.ones((4,), mx.bfloat16)}


def test_the_master_wins_over_a_change_of_the_array_itself_until_it_is_forgotten():
    optimizer, undisturbed = master(), master()
    changed, parameters = (train(one, ones(), ones, range(2)) for one in (optimizer, undisturbed))
    changed["a"][:] = 5
    assert_identical(train(optimizer, changed, ones, [2]), train(undisturbed, parameters, ones, [2]))
    optimizer.state = optimizer.upstream_state()
    loaded = {"a": mx.full((4,), 5, mx.bfloat16)}
    assert float64(train(optimizer, loaded, ones, [3])["a"]) == pytest.approx(5, abs=0.1)
    assert optimizer.step.item() == 4


@pytest.mark.parametrize("in_a_trace", [False, True])
def test_elements_that_were_loaded_or_clipped_go_on_from_their_new_value_and_all_others_from_their_master(in_a_trace):
    optimizer, twin = master(), master()
    parameters = {"a": mx.array(values(8)).astype(mx.bfloat16)}
    gradients = {"a": mx.array(values(8, 1)).astype(mx.bfloat16)}
    parameters = train(optimizer, parameters, lambda step: gradients, range(3))
    chosen = mx.arange(8) % 3 == 0
    changed = mx.where(chosen, mx.array(0.25, mx.bfloat16), parameters["a"])
    twin.state = tree_map(mx.array, optimizer.state)
    twin.state["a"]["master"] = mx.where(chosen, 0.25, optimizer.state["a"]["master"])
    expected = train(twin, {"a": changed}, lambda step: gradients, range(2))
    step = optimizer.apply_gradients
    if in_a_trace:
        step = mx.compile(step, inputs=[optimizer.state], outputs=[optimizer.state])
    actual = step(gradients, step(gradients, {"a": changed}))
    assert_identical(actual, expected)
    assert_identical(optimizer.state["a"], twin.state["a"])


def test_a_resumed_parameter_does_not_lose_what_only_its_master_has():
    optimizer, twin = master(), master()
    parameters = train(optimizer, {"a": mx.array(values(8)).astype(mx.bfloat16)}, ones_like, range(3))
    lost = optimizer.state["a"]["master"] - parameters["a"].astype(mx.float32)
    assert mx.abs(lost).max().item() > 0
    twin.state = tree_map(mx.array, optimizer.state)
    copies = tree_map(mx.array, parameters)
    assert_identical(train(twin, copies, ones_like, range(2)), train(optimizer, parameters, ones_like, range(2)))
    assert_identical(twin.state, optimizer.state)


def ones_like(step):
    return {"a": mx.ones((8,), mx.bfloat16)}


def test_a_parameter_that_was_cast_goes_on_in_its_new_dtype_from_its_own_value():
    optimizer = master(weight_decay=0.0, learning_rate=0.0)
    train(optimizer, {"a": mx.array(values(8)).astype(mx.bfloat16)}, ones_like, range(3))
    for dtype in (mx.float32, mx.float16, mx.float32):
        cast = {"a": mx.array(values(8, 3)).astype(dtype)}
        assert_identical(train(optimizer, cast, ones_like, [0]), cast)
        assert ("master" in optimizer.state["a"]) == (dtype == mx.float16)


def test_init_makes_masters_of_its_parameters():
    optimizer = master()
    optimizer.init({"a": mx.full((4,), 3, mx.bfloat16)})
    np.testing.assert_array_equal(float64(optimizer.state["a"]["master"]), 3)


def test_a_half_precision_state_of_upstreams_becomes_float32():
    upstream, optimizer = mlx.optimizers.AdamW(1e-2), master()
    parameters = train(upstream, tree(mx.bfloat16), lambda step: tree(mx.bfloat16, 1), range(2))
    optimizer.state = upstream.state
    train(optimizer, parameters, lambda step: tree(mx.bfloat16, 1), [0])
    assert {a.dtype for path, a in tree_flatten(optimizer.state) if path != "step"} == {mx.float32}


@pytest.mark.parametrize("bias_correction", [False, True])
@pytest.mark.parametrize("precision", ["bfloat16", "float16", "float32"])
def test_one_fused_kernel_a_leaf_and_no_other(precision, bias_correction):
    (label,) = kernels("master", precision, 4096, bias_correction)
    assert label.startswith("Compiled")
    assert adamw.load("master").kernels_a_leaf == (1, 1)
