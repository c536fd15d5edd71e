"""What the variants with low-precision arrays have in common, each compared with itself or with upstream."""

import copy
import pickle
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
import numpy as np
import pytest
from low_precision import assert_close, assert_identical, float64, train, tree
from mlx.utils import tree_flatten, tree_map, tree_unflatten

import adamw

ALL = [("master", mx.bfloat16), ("stochastic", mx.bfloat16), ("eight_bit", mx.float32), ("eight_bit", mx.bfloat16)]


def variants(chosen: list[tuple[str, mx.Dtype]]) -> Any:
    ids = [f"{name}-{str(dtype).removeprefix('mlx.core.')}" for name, dtype in chosen]
    return pytest.mark.parametrize(("name", "dtype"), chosen, ids=ids)


every_variant = variants(ALL)
variants_with_a_state_of_their_own = variants([one for one in ALL if one[0] != "stochastic"])


def created(name: str, **settings: Any) -> Any:
    return adamw.create(name, **{"learning_rate": 1e-2} | settings)


@every_variant
def test_a_resumed_run_repeats_an_uninterrupted_one(name, dtype):
    def gradients(step: int) -> Any:
        return tree(dtype, step + 1)

    expected = train(created(name, bias_correction=True), tree(dtype), gradients, range(6))
    first, second = created(name, bias_correction=True), created(name, bias_correction=True, learning_rate=0.5)
    halfway = train(first, tree(dtype), gradients, range(3))
    saved = dict(tree_flatten(first.state))
    second.state = tree_unflatten(list(saved.items()))
    assert_identical(train(second, halfway, gradients, range(3, 6)), expected)
    assert second.step.item() == 6


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])
@every_variant
def test_can_be_copied_and_pickled_after_use(name, dtype, copied):
    optimizer = created(name)
    parameters = train(optimizer, tree(dtype), lambda step: tree(dtype, step + 1), range(2))
    twin = copied(optimizer)
    after = [train(one, parameters, lambda step: tree(dtype, step + 1), range(2, 4)) for one in (optimizer, twin)]
    assert_identical(*after)
    assert_identical(optimizer.state, twin.state)


@every_variant
def test_inside_the_users_own_compiled_step(name, dtype):
    optimizer = created(name)
    optimizer.init(tree(dtype))
    state = [optimizer.state]
    compiled = mx.compile(lambda g, p: optimizer.apply_gradients(g, p), inputs=state, outputs=state)
    parameters = tree(dtype)
    for step in range(3):
        parameters = compiled(tree(dtype, step + 1), parameters)
        mx.eval(parameters, state)
    assert optimizer.step.item() == 3
    assert_close(parameters, train(created(name), tree(dtype), lambda step: tree(dtype, step + 1), range(3)), 2**-6)


@every_variant
def test_the_first_step_initialises_from_the_parameters(name, dtype):
    lazy, eager = created(name), created(name)
    eager.init(tree(dtype))

    def gradients(step: int) -> Any:
        return tree(mx.float32, step + 1)

    assert_identical(train(lazy, tree(dtype), gradients, range(2)), train(eager, tree(dtype), gradients, range(2)))
    assert_identical(lazy.state, eager.state)


@variants_with_a_state_of_their_own
def test_a_state_in_upstreams_layout_is_taken_over(name, dtype):
    gradients = tree(mx.float32, 1)
    upstream, variant = mlx.optimizers.AdamW(1e-2), created(name, learning_rate=0.5)
    parameters = train(upstream, tree(mx.float32), lambda step: gradients, range(3))
    low = tree_map(lambda array: array.astype(dtype), parameters)
    parameters = tree_map(lambda array: array.astype(mx.float32), low)
    variant.state = tree_unflatten(tree_flatten(upstream.state))
    part = {"a": gradients["a"]}  # the other leaves are taken over one step later
    actual = low | variant.apply_gradients(part, low)
    expected = parameters | upstream.apply_gradients(part, parameters)
    actual = train(variant, actual, lambda step: gradients, [0])
    expected = train(upstream, expected, lambda step: gradients, [0])
    assert_close(actual, expected, 2**-6)
    assert_close(variant.upstream_state(), upstream.state, 2**-4)


@variants_with_a_state_of_their_own
def test_upstream_continues_with_the_state_in_its_layout(name, dtype):
    variant, upstream = created(name), mlx.optimizers.AdamW(0.5)
    parameters = train(variant, tree(dtype), lambda step: tree(dtype, step + 1), range(3))
    upstream.state = variant.upstream_state()
    assert variant.upstream_state()["list"][1][0].keys() == {"m", "v"}
    assert {array.dtype for path, array in tree_flatten(upstream.state) if path != "step"} == {mx.float32}
    expected = train(upstream, parameters, lambda step: tree(dtype, 4), [0])
    assert_close(train(variant, parameters, lambda step: tree(dtype, 4), [0]), expected, 2**-6)


@every_variant
def test_partial_gradients_update_and_return_their_part(name, dtype):
    optimizer = created(name)
    optimizer.init(tree(dtype))
    untouched = tree_map(lambda array: float64(array), optimizer.state["list"])
    part = optimizer.apply_gradients({"a": tree(dtype, 1)["a"]}, tree(dtype))
    whole = created(name).apply_gradients(tree(dtype, 1), tree(dtype))
    assert_close(part, {"a": whole["a"]}, 2**-6)  # where stochastic bits depend on the tree of gradients
    for (_, now), (_, before) in zip(tree_flatten(optimizer.state["list"]), tree_flatten(untouched), strict=True):
        np.testing.assert_array_equal(float64(now), before)


@every_variant
def test_inside_multi_optimizer_and_a_module(name, dtype):
    def model() -> nn.Module:
        mx.random.seed(3)
        made = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 2))
        made.set_dtype(dtype)
        return made

    alone, together = model(), model()
    gradients = tree_map(lambda array: array * 0.5 + 0.1, alone.parameters())
    optimizer = mlx.optimizers.MultiOptimizer([created(name), mlx.optimizers.SGD(0.0)], [lambda path, _: "0" in path])
    single = created(name)
    for _ in range(3):
        single.update(alone, gradients)
        optimizer.update(together, gradients)
        mx.eval(alone.parameters(), together.parameters(), single.state, optimizer.state)
    assert together.layers[0].weight.dtype == dtype
    start = model()
    assert_identical(together.layers[1].parameters(), start.layers[1].parameters())
    assert (float64(together.layers[0].weight) != float64(start.layers[0].weight)).mean() > 0.9
    if name != "stochastic":  # whose bits depend on the tree of gradients
        assert_identical(together.layers[0].parameters(), alone.layers[0].parameters())


@every_variant
def test_a_schedule_takes_effect_and_may_look_at_the_step(name, dtype):
    optimizer = created(name, learning_rate=lambda step: mx.array(0.0 if step.item() < 2 else 1e-1))
    parameters = train(optimizer, tree(dtype), lambda step: tree(dtype, 1), range(2))
    assert_identical(parameters, tree(dtype))
    moved = train(optimizer, parameters, lambda step: tree(dtype, 1), [2])
    assert all(difference.all().item() for _, difference in tree_flatten(tree_map(mx.not_equal, moved, parameters)))


CHANGES = {"learning_rate": 0.3, "betas": [0.5, 0.6], "eps": 0.25, "weight_decay": 2.0, "bias_correction": True}


@pytest.mark.parametrize("attribute", CHANGES)
@every_variant
def test_a_changed_hyper_parameter_takes_effect(name, dtype, attribute):
    def moved(optimizer: Any, changed: bool, dtype: mx.Dtype) -> np.ndarray:
        parameters = train(optimizer, tree(dtype), lambda step: tree(dtype, 1), range(2))
        if changed:
            setattr(optimizer, attribute, CHANGES[attribute])
        after = train(optimizer, parameters, lambda step: tree(dtype, 1), range(2, 4))
        return float64(after["a"]) - float64(parameters["a"])

    expected = moved(mlx.optimizers.AdamW(1e-1), True, mx.float32)
    actual = moved(created(name, learning_rate=1e-1), True, dtype)
    unchanged = moved(created(name, learning_rate=1e-1), False, dtype)
    error = np.abs(actual - expected).mean()
    assert error < 0.05 * np.abs(expected).mean()
    assert np.abs(unchanged - expected).mean() > 2 * error


@pytest.mark.parametrize("attribute", ["eps", "weight_decay"])
@every_variant
def test_a_hyper_parameter_that_is_an_array_raises(name, dtype, attribute):
    optimizer = created(name)
    setattr(optimizer, attribute, mx.array(0.5))
    with pytest.raises(TypeError, match=attribute):
        train(optimizer, tree(dtype), lambda step: tree(dtype, 1), [0])


@pytest.mark.parametrize("shapes", [((4,), (3,)), ((3,), (300,)), ((1,), (3,)), ((3,), (1,)), ((2, 3), (3,))])
@every_variant
def test_odd_shapes_are_treated_as_upstream_treats_them_and_do_no_harm(name, dtype, shapes):
    gradient, parameter = (mx.full(shape, 0.5, dtype) for shape in shapes)
    outcomes = []
    for optimizer in (mlx.optimizers.AdamW(1e-2), created(name)):
        optimizer.init({"a": parameter, "b": mx.ones((3,), dtype)})
        try:
            outcomes.append(train(optimizer, {"a": parameter}, lambda step: {"a": gradient}, range(2)))
        except ValueError as error:
            outcomes.append(str(error))
    if isinstance(outcomes[0], str):
        assert outcomes[1] == outcomes[0]
    else:
        assert_close(outcomes[1], outcomes[0], 2**-5)
    right = train(optimizer, {"b": mx.ones((3,), dtype)}, lambda step: {"b": mx.ones((3,), dtype)}, range(2))
    assert (float64(right["b"]) < 1).all()


@every_variant
def test_empty_trees_and_leaves(name, dtype):
    optimizer = created(name)
    assert train(optimizer, {}, lambda step: {}, range(2)) == {}
    sizes = {"empty": (0,), "none": (3, 0), "one": (1,), "scalar": ()}
    parameters = {key: mx.ones(shape, dtype) for key, shape in sizes.items()}
    optimizer = created(name)
    updated = train(optimizer, parameters, lambda step: parameters, range(3))
    assert {key: array.shape for key, array in updated.items()} == sizes
    expected = train(mlx.optimizers.AdamW(1e-2), {"a": mx.ones((1,))}, lambda step: {"a": mx.ones((1,))}, range(3))
    assert updated["one"].item() == pytest.approx(expected["a"].item(), rel=2**-6)
    assert updated["scalar"].item() == pytest.approx(expected["a"].item(), rel=2**-6)


@every_variant
def test_a_subclass_that_overrides_apply_single_is_honoured(name, dtype):
    base = adamw.load(name)

    class WithoutGradient(base):
        def apply_single(self, gradient, parameter, state):
            return super().apply_single(gradient * 0, parameter, state)

    zeros = tree_map(mx.zeros_like, tree(dtype))
    overridden, plain = WithoutGradient(1e-1), base(1e-1)
    expected = train(plain, tree(dtype), lambda step: zeros, range(3))
    assert_identical(train(overridden, tree(dtype), lambda step: tree(dtype, 1), range(3)), expected)
    assert_identical(overridden.state, plain.state)


@every_variant
def test_apply_single_may_be_called_directly(name, dtype):
    optimizer, whole = created(name), created(name)
    tree_of_one = {"a": mx.ones((300,), dtype)}
    for one in (optimizer, whole):
        one.init(tree_of_one)
    optimizer.state["step"] = mx.array(1, mx.uint64)
    alone = optimizer.apply_single(tree_of_one["a"], tree_of_one["a"], optimizer.state["a"])
    assert_identical({"a": alone}, whole.apply_gradients(tree_of_one, tree_of_one))


@every_variant
def test_a_step_keeps_nothing_but_the_state(name, dtype):
    optimizer = created(name)
    train(optimizer, tree(dtype), lambda step: tree(dtype, 1), [0])
    assert not tree_flatten({key: value for key, value in vars(optimizer).items() if isinstance(value, mx.array)})
    assert optimizer._shared is None
