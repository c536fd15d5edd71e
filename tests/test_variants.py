"""Every variant is a drop-in for `mlx.optimizers.AdamW`: held against upstream itself, feature by feature."""

import copy
import pickle
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import here
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
import numpy as np
import pytest
import shim
from mlx.utils import tree_flatten, tree_map

import adamw
from benchmarks.harness import cases

STAND_IN = [name for name in ("kernel", "kernel_inplace") if adamw.unavailable(name)]
"""Variants that run here on a stand-in for the GPU they need."""

VARIANTS = sorted([*STAND_IN, *here.VARIANTS])
COMPILED = [name for name in VARIANTS if adamw.load(name).kernels_a_leaf[1] > 0]


@pytest.fixture(autouse=True)
def gpu(request) -> Iterator[None]:
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    with shim.gpu("metal") if parameters.get("name") in STAND_IN else nullcontext():
        yield


class Pair(NamedTuple):
    left: Any
    right: Any


def close(name: str) -> float:
    """How close `name` comes to upstream in float32: its moments may be rounded more coarsely."""
    return 2**-3 if "float32_8bit" in cases.precisions(name) else 1e-6


def random_tree(seed: int = 0, dtype: mx.Dtype = mx.float32) -> Any:
    mx.random.seed(seed)

    def leaf(*shape: int) -> mx.array:
        return mx.random.uniform(0.5, 1.5, shape).astype(dtype)

    last = Pair if keeps_named_tuples() else lambda *leaves: leaves
    return {"dict": {"a": leaf(7), "b": leaf(3, 5)}, "list": [leaf(4), (leaf(2, 2), last(leaf(1), leaf(6)))]}


def keeps_named_tuples() -> bool:
    """Whether this MLX updates a tree with named tuples: upstream raises a TypeError in old releases."""
    try:
        return isinstance(tree_map(lambda leaf: leaf, Pair(1, 2)), Pair)
    except TypeError:
        return False


def assert_same(actual: Any, expected: Any, tolerance: float = 1e-6) -> None:
    left, right = tree_flatten(actual), tree_flatten(expected)
    assert [path for path, _ in left] == [path for path, _ in right]
    for (path, a), (_, b) in zip(left, right, strict=True):
        assert a.dtype == b.dtype, path
        left_values, right_values = (np.array(array.astype(mx.float32)) for array in (a, b))
        np.testing.assert_allclose(left_values, right_values, rtol=tolerance, atol=tolerance / 10, err_msg=path)


def upstream_state(optimizer: Any) -> Any:
    """The state as upstream lays it out, whatever the variant's own layout is."""
    return optimizer.upstream_state() if hasattr(optimizer, "upstream_state") else optimizer.state


def run(optimizer: Any, steps: int = 4, parameters: Any = None, gradients: Any = None) -> Any:
    parameters = random_tree(0) if parameters is None else parameters
    for step in range(steps):
        parameters = optimizer.apply_gradients(gradients or random_tree(step + 1), parameters)
        mx.eval(parameters, optimizer.state)
    return parameters


SETTINGS = [
    {"learning_rate": 1e-2},
    {"learning_rate": 1e-2, "bias_correction": True},
    {"learning_rate": 3e-3, "betas": [0.8, 0.95], "eps": 1e-3, "weight_decay": 0.3, "bias_correction": True},
    {"learning_rate": mlx.optimizers.cosine_decay(1e-2, 3)},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "bias_correction", "all", "schedule"])
@pytest.mark.parametrize("name", VARIANTS)
def test_same_result_state_and_containers_as_upstream(name, settings):
    upstream, variant = mlx.optimizers.AdamW(**settings), adamw.create(name, **settings)
    expected, actual = run(upstream), run(variant)
    assert_same(actual, expected, close(name))
    assert_same(upstream_state(variant), upstream.state, close(name))
    assert isinstance(actual["list"][1], tuple)
    assert isinstance(actual["list"][1][1], Pair if keeps_named_tuples() else tuple)
    assert variant.step.item() == upstream.step.item() == 4
    np.testing.assert_allclose(variant.learning_rate.item(), upstream.learning_rate.item())


@pytest.mark.parametrize("name", VARIANTS)
def test_default_weight_decay_is_the_codes_not_the_old_pages(name):
    assert adamw.create(name, learning_rate=1e-2).weight_decay == 0.01


@pytest.mark.parametrize("name", VARIANTS)
def test_the_callers_tree_is_not_changed(name):
    parameters, gradients = random_tree(0), random_tree(1)
    before = tree_map(lambda array: np.array(array), parameters)
    run(adamw.create(name, learning_rate=1e-2), steps=2, parameters=parameters, gradients=gradients)
    assert_same(parameters, tree_map(mx.array, before), tolerance=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_partial_gradients_update_and_return_their_part(name):
    upstream, variant = mlx.optimizers.AdamW(1e-2), adamw.create(name, learning_rate=1e-2)
    results = []
    for optimizer in (upstream, variant):
        optimizer.init(random_tree(0))
        part = optimizer.apply_gradients({"dict": {"a": random_tree(1)["dict"]["a"]}}, random_tree(0))
        mx.eval(part)
        results.append(part)
    assert list(results[1]) == ["dict"]
    assert_same(results[1], results[0], close(name))
    assert_same(upstream_state(variant), upstream.state, close(name))


@pytest.mark.parametrize("name", VARIANTS)
def test_inside_multi_optimizer(name):
    def pair(make: Any) -> Any:
        return mlx.optimizers.MultiOptimizer(
            [make(learning_rate=1e-2), mlx.optimizers.SGD(1e-1)], [lambda path, _: "weight" in path]
        )

    model_a, model_b = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model_b.update(model_a.parameters())
    gradients = tree_map(lambda array: array * 0.5 + 0.1, model_a.parameters())
    for model, optimizer in ((model_a, pair(mlx.optimizers.AdamW)), (model_b, pair(adamw.load(name)))):
        for _ in range(3):
            optimizer.update(model, gradients)
            mx.eval(model.parameters(), optimizer.state)
    assert_same(model_b.parameters(), model_a.parameters(), close(name))


@pytest.mark.parametrize("name", VARIANTS)
def test_update_writes_into_a_module(name):
    models = [nn.Sequential(nn.Linear(8, 4), nn.LayerNorm(4)) for _ in range(2)]
    models[1].update(models[0].parameters())
    gradients = tree_map(lambda array: array * 0.5 + 0.1, models[0].trainable_parameters())
    for model, optimizer in zip(
        models, (mlx.optimizers.AdamW(1e-2), adamw.create(name, learning_rate=1e-2)), strict=True
    ):
        for _ in range(3):
            optimizer.update(model, gradients)
            mx.eval(model.parameters(), optimizer.state)
    assert_same(models[1].parameters(), models[0].parameters(), close(name))


@pytest.mark.parametrize("name", VARIANTS)
def test_resumes_from_a_checkpoint(name):
    def tree(seed: int) -> Any:  # upstream cannot resume with a named tuple in the tree
        return {"dict": random_tree(seed)["dict"], "list": [random_tree(seed)["list"][0], (mx.full((3,), 0.5 + seed),)]}

    def steps(optimizer: Any, numbers: range, parameters: Any) -> Any:
        for number in numbers:
            parameters = optimizer.apply_gradients(tree(number + 1), parameters)
            mx.eval(parameters, optimizer.state)
        return parameters

    settings = {"learning_rate": 1e-2, "bias_correction": True}
    expected = steps(mlx.optimizers.AdamW(**settings), range(4), tree(0))
    first, second = adamw.create(name, **settings), adamw.create(name, **settings | {"learning_rate": 0.5})
    halfway = steps(first, range(2), tree(0))
    steps(second, range(1), tree(0))  # has compiled with a state of its own before it is given another
    second.state = tree_map(lambda array: mx.array(np.array(array)), first.state)
    assert_same(steps(second, range(2, 4), halfway), expected, close(name))
    assert second.step.item() == 4


CHANGES = {"learning_rate": 0.3, "betas": [0.5, 0.6], "eps": 0.25, "weight_decay": 0.75, "bias_correction": True}


@pytest.mark.parametrize("attribute", CHANGES)
@pytest.mark.parametrize("name", VARIANTS)
def test_a_changed_hyper_parameter_takes_effect(name, attribute):
    results = []
    for optimizer in (mlx.optimizers.AdamW(1e-2), adamw.create(name, learning_rate=1e-2)):
        parameters = run(optimizer, steps=2)
        setattr(optimizer, attribute, CHANGES[attribute])
        results.append(run(optimizer, steps=2, parameters=parameters))
    unchanged = run(mlx.optimizers.AdamW(1e-2), steps=4)
    assert_same(results[1], results[0], close(name))
    assert abs(results[1]["dict"]["a"][0].item() - unchanged["dict"]["a"][0].item()) > 1e-6


@pytest.mark.parametrize("attribute", ["eps", "weight_decay"])
@pytest.mark.parametrize("name", COMPILED)
def test_a_hyper_parameter_that_would_be_baked_in_raises(name, attribute):
    optimizer = adamw.create(name, learning_rate=1e-2)
    setattr(optimizer, attribute, mx.array(0.5))
    with pytest.raises(TypeError, match=attribute):
        run(optimizer, steps=1)


@pytest.mark.parametrize("settings", [{"betas": [0.9, 1.0]}, {"betas": [-0.1, 0.9]}, {"eps": -1e-8}])
@pytest.mark.parametrize("name", VARIANTS)
def test_bad_values_raise_as_upstreams_do(name, settings):
    with pytest.raises(ValueError) as upstream:
        mlx.optimizers.AdamW(1e-2, **settings)
    with pytest.raises(ValueError) as variant:
        adamw.create(name, learning_rate=1e-2, **settings)
    assert str(variant.value) == str(upstream.value)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_schedule_may_look_at_the_step(name):
    def schedule(step: mx.array) -> mx.array:
        return mx.array(1e-2 if step.item() < 2 else 1e-1)

    assert_same(run(adamw.create(name, learning_rate=schedule)), run(mlx.optimizers.AdamW(schedule)), close(name))


@pytest.mark.parametrize("name", VARIANTS)
def test_positional_arguments_are_upstreams(name):
    arguments = (1e-2, [0.8, 0.95], 1e-6, 0.2, True)
    assert_same(run(adamw.load(name)(*arguments)), run(mlx.optimizers.AdamW(*arguments)), close(name))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])
@pytest.mark.parametrize("name", VARIANTS)
def test_can_be_copied_and_pickled_after_use(name, copied):
    optimizer = adamw.create(name, learning_rate=1e-2)
    parameters = run(optimizer, steps=2)
    twin = copied(optimizer)
    assert_same(run(twin, steps=2, parameters=parameters), run(optimizer, steps=2, parameters=parameters))


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in here.EVALUATING + STAND_IN])
def test_inside_the_users_own_compiled_step(name):
    optimizer = adamw.create(name, learning_rate=1e-2)
    optimizer.init(random_tree(0))
    state = [optimizer.state]
    outer = mx.compile(lambda g, p: optimizer.apply_gradients(g, p), inputs=state, outputs=state)
    parameters = random_tree(0)
    for step in range(4):
        parameters = outer(random_tree(step + 1), parameters)
    assert_same(parameters, run(mlx.optimizers.AdamW(1e-2)), close(name))


@pytest.mark.parametrize("name", here.EVALUATING)
def test_a_variant_that_evaluates_raises_inside_a_compiled_step(name):
    optimizer = adamw.create(name, learning_rate=1e-2)
    outer = mx.compile(lambda g, p: optimizer.apply_gradients(g, p))
    with pytest.raises((ValueError, RuntimeError), match="eval"):
        outer(random_tree(1), random_tree(0))


@pytest.mark.parametrize("name", COMPILED)
def test_parameters_keep_their_dtype_where_upstreams_widen(name):
    parameters, gradients = random_tree(0, mx.bfloat16), random_tree(1, mx.bfloat16)
    results = []
    for optimizer in (mlx.optimizers.AdamW(1e-2), adamw.create(name, learning_rate=1e-2)):
        optimizer.init(tree_map(lambda array: array.astype(mx.float32), parameters))
        results.append(optimizer.apply_gradients(gradients, parameters))
    upstream, variant = ({str(array.dtype) for _, array in tree_flatten(tree)} for tree in results)
    assert upstream == {"mlx.core.float32"}
    assert variant == {"mlx.core.bfloat16"}
    expected = tree_map(lambda array: array.astype(mx.bfloat16), results[0])
    assert_same(results[1], expected, tolerance=2**-8 * adamw.load(name).rounding)


@pytest.mark.parametrize("name", VARIANTS)
def test_empty_and_one_element_leaves(name):
    tree = {"empty": mx.zeros((0,)), "one": mx.ones((1,)), "scalar": mx.array(1.0)}
    gradients = {"empty": mx.zeros((0,)), "one": mx.ones((1,)), "scalar": mx.array(0.5)}
    assert_same(
        run(adamw.create(name, learning_rate=1e-2), parameters=tree, gradients=gradients),
        run(mlx.optimizers.AdamW(1e-2), parameters=tree, gradients=gradients),
    )


@pytest.mark.parametrize("window_bytes", [1, 16, 40, 10**9])
def test_windows_of_any_size_give_the_same(window_bytes):
    variant = adamw.create("windowed", learning_rate=1e-2, window_bytes=window_bytes)
    assert_same(run(variant), run(mlx.optimizers.AdamW(1e-2)))


def test_a_window_must_have_a_size():
    with pytest.raises(ValueError, match="window_bytes"):
        adamw.create("windowed", learning_rate=1e-2, window_bytes=0)


def test_an_unknown_variant_is_answered_with_the_known():
    with pytest.raises(adamw.UnknownVariant, match=r"unknown variant 'fused'; choose one of: .*compiled"):
        adamw.create("fused", learning_rate=1e-2)


def test_an_optimizer_that_is_dropped_frees_its_memory_at_once():
    optimizer = adamw.create("compiled", learning_rate=1e-2)
    tree = {"a": mx.ones((2**18,))}
    parameters = run(optimizer, parameters=tree, gradients=tree)
    mx.synchronize()
    before = mx.get_active_memory()
    del optimizer, parameters
    assert before - mx.get_active_memory() >= 3 * 2**20  # w, m and v of 1 MiB, without a garbage collection


def outcome(optimizer: Any, gradient: mx.array, parameter: mx.array) -> Any:
    """The new parameter, or the error's type and text."""
    try:
        return run(optimizer, steps=1, parameters={"a": parameter}, gradients={"a": gradient})
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("shapes", [((4,), (3,)), ((3,), (1000000,)), ((1,), (3,)), ((3,), (1,)), ((2, 3), (3,))])
@pytest.mark.parametrize("name", VARIANTS)
def test_odd_shapes_are_treated_as_upstream_treats_them_and_do_no_harm(name, shapes):
    gradient, parameter = (mx.full(shape, 0.5) for shape in shapes)
    upstream, variant = mlx.optimizers.AdamW(1e-2), adamw.create(name, learning_rate=1e-2)
    for optimizer in (upstream, variant):
        optimizer.init({"a": parameter})
    expected, actual = outcome(upstream, gradient, parameter), outcome(variant, gradient, parameter)
    if isinstance(expected, str):
        assert actual == expected
    else:
        assert_same(actual, expected)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_step_that_raised_can_be_followed_by_a_right_one(name):
    optimizer = adamw.create(name, learning_rate=1e-2)
    tree = {"a": mx.ones((3,)), "b": mx.ones((5,))}
    parameters = run(optimizer, steps=2, parameters=tree, gradients=tree)
    with pytest.raises(ValueError, match="broadcast"):
        optimizer.apply_gradients({"a": mx.ones((3,)), "b": mx.ones((4,))}, parameters)
    for leaf in tree_flatten(run(optimizer, steps=1, parameters=parameters, gradients=tree)):
        assert np.isfinite(np.array(leaf[1])).all()


class Module(nn.Module):
    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.first.weight = mx.full((3, 3), 0.5)
        self.first.bias = mx.full((3,), 0.25)
        self.second = self.first if tied else nn.Linear(3, 3)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_tied_module_is_updated_as_upstream_does(name):
    results = []
    for make in (mlx.optimizers.AdamW, adamw.load(name)):
        model, optimizer = Module(tied=True), make(learning_rate=1e-1)
        for _ in range(2):
            optimizer.update(model, tree_map(mx.ones_like, model.parameters()))
        mx.eval(model.parameters())
        results.append(model.parameters())
    assert_same(results[1], results[0])


@pytest.mark.parametrize("name", VARIANTS)
def test_a_subclass_may_override_apply_single(name):
    def without_gradient(base: type) -> type:
        def apply_single(self, gradient, parameter, state):
            return base.apply_single(self, gradient * 0, parameter, state)

        return type("WithoutGradient", (base,), {"apply_single": apply_single})

    upstream, variant = without_gradient(mlx.optimizers.AdamW)(1e-1), without_gradient(adamw.load(name))(1e-1)
    assert_same(run(variant), run(upstream))
