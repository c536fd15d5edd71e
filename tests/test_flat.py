"""`flat` packs small leaves once, keeps them packed, and says what the gradients' packing costs."""

import copy
import io
import re
from typing import Any

import mlx.core as mx
import mlx.optimizers
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map, tree_unflatten

import adamw
from benchmarks.harness import cases
from benchmarks.harness.count import count


def tree(value: float, dtype: mx.Dtype = mx.float32) -> Any:
    return {"a": mx.full((3, 2), value, dtype), "b": [mx.full((5,), value, dtype), mx.full((), value, dtype)]}


def stepped(optimizer: Any, parameters: Any, gradients: Any = None, steps: int = 1) -> Any:
    for number in range(steps):
        parameters = optimizer.apply_gradients(gradients or tree(0.5 + number), parameters)
        mx.eval(parameters, optimizer.state)
    return parameters


def kernels(arrays: Any) -> list[str]:
    """The kernels in the graph of `arrays`, views left out."""
    file = io.StringIO()
    mx.export_to_dot(file, *(array for _, array in tree_flatten(arrays)))
    labels = re.findall(r'label ="(\w+)', file.getvalue())
    return [label for label in labels if label not in ("Reshape", "Slice", "Split", "Flatten", "Unflatten")]


def assert_equal(one: Any, other: Any) -> None:
    for (path, a), (_, b) in zip(tree_flatten(one), tree_flatten(other), strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b), err_msg=path)


def test_a_thousand_leaves_are_one_update_and_one_packing_of_gradients():
    case = cases.case("flat", "float32/thousand_leaves")
    found = count(case)
    assert (found.kernels, found.fused_kernels) == (2, 1)
    assert found.modelled_bytes == (7 + 2) * case.parameter_bytes
    assert (found.wrong_results, found.graph_growth, found.memory_growth) == (0, 0, 0)


def test_large_leaves_are_not_packed():
    case = cases.case("flat", "float32/two_leaves")
    assert count(case).modelled_bytes == 7 * case.parameter_bytes
    resnet = cases.case("flat", "float32/resnet50")
    found = count(resnet)
    assert found.kernels < resnet.leaf_count / 3
    assert 7 * resnet.parameter_bytes < found.modelled_bytes < 7.1 * resnet.parameter_bytes


def test_parameters_stay_packed_from_step_to_step():
    optimizer = adamw.create("flat", learning_rate=1e-2)
    parameters = stepped(optimizer, tree(1.0))
    assert kernels(optimizer.apply_gradients(tree(0.5), parameters)).count("Concatenate") == 1


def test_other_parameters_are_packed_anew_and_give_the_same():
    optimizer, twin = (adamw.create("flat", learning_rate=1e-2) for _ in range(2))
    parameters, expected = stepped(optimizer, tree(1.0)), stepped(twin, tree(1.0), steps=2)
    copies = tree_map(mx.array, parameters)
    mx.eval(copies)
    updated = optimizer.apply_gradients(tree(1.5), copies)
    assert kernels(updated).count("Concatenate") == 2
    assert_equal(updated, expected)


def test_every_pair_of_dtypes_has_its_buffer():
    optimizer = adamw.create("flat", learning_rate=1e-2)
    parameters = {"half": tree(1.0, mx.bfloat16), "single": tree(1.0)}
    updated = stepped(optimizer, parameters, {"half": tree(0.5, mx.bfloat16), "single": tree(0.5)})
    assert len(optimizer.state["packed-moments"]["buffers"]) == 2
    assert {str(array.dtype) for _, array in tree_flatten(updated["half"])} == {"mlx.core.bfloat16"}
    assert {str(array.dtype) for _, array in tree_flatten(updated["single"])} == {"mlx.core.float32"}


def test_upstreams_state_may_be_set_at_any_time_and_read_at_any_time():
    upstream, flat = mlx.optimizers.AdamW(1e-2), adamw.create("flat", learning_rate=1e-2)
    expected = stepped(upstream, tree(1.0), steps=2)
    first = stepped(flat, tree(1.0))
    other = adamw.create("flat", learning_rate=1e-2)
    stepped(other, tree(7.0))
    other.state = flat.upstream_state()
    other.state["learning_rate"] = mx.array(1e-2)
    updated = stepped(other, first, tree(1.5))
    for one, two in zip(tree_flatten(updated), tree_flatten(expected), strict=True):
        np.testing.assert_allclose(np.array(one[1]), np.array(two[1]), rtol=1e-6)
    assert list(other.upstream_state()) == list(upstream.state)


def test_a_packed_checkpoint_resumes_in_a_new_optimizer():
    first = adamw.create("flat", learning_rate=1e-2)
    parameters = stepped(first, tree(1.0))
    saved = [(path, mx.array(array)) for path, array in tree_flatten(first.state)]
    second = adamw.create("flat", learning_rate=1e-2)
    second.state = tree_unflatten(saved)
    with pytest.raises(ValueError, match="known after the next step"):
        second.upstream_state()
    assert_equal(stepped(second, parameters, tree(1.5)), stepped(first, parameters, tree(1.5)))
    assert_equal(second.upstream_state(), first.upstream_state())


def test_a_packed_checkpoint_of_another_tree_is_refused():
    first, second = (adamw.create("flat", learning_rate=1e-2) for _ in range(2))
    stepped(first, tree(1.0))
    second.state = first.state
    with pytest.raises(ValueError, match="packed for another tree"):
        second.apply_gradients({"a": mx.ones(3)}, {"a": mx.ones(3)})


def test_a_step_of_a_part_and_then_of_the_whole():
    upstream, flat = mlx.optimizers.AdamW(1e-2), adamw.create("flat", learning_rate=1e-2)
    results = []
    for optimizer in (upstream, flat):
        parameters = stepped(optimizer, tree(1.0))
        part = optimizer.apply_gradients({"a": tree(0.5)["a"]}, parameters)
        results.append(stepped(optimizer, parameters | part, tree(1.5)))
    for one, two in zip(*map(tree_flatten, results), strict=True):
        np.testing.assert_allclose(np.array(one[1]), np.array(two[1]), rtol=1e-6)
    assert "packed-moments" in flat.state


@pytest.mark.parametrize(("largest_packed", "fused"), [(0, 3), (12, 3), (20, 2), (24, 1)])
def test_leaves_up_to_the_chosen_size_are_packed(largest_packed, fused):
    """The leaves have 24, 20 and 4 bytes; a buffer of one leaf is not packed."""
    optimizer = adamw.create("flat", learning_rate=1e-2, largest_packed=largest_packed)
    parameters = stepped(optimizer, tree(1.0))
    labels = kernels(optimizer.apply_gradients(tree(0.5), parameters))
    assert sum(label.startswith("Compiled") and "Sqrt" in label for label in labels) == fused
    assert ("Concatenate" in labels) == (fused < 3)


def test_a_negative_size_is_refused():
    with pytest.raises(ValueError, match="largest_packed should be >=0, -1 was"):
        adamw.create("flat", learning_rate=1e-2, largest_packed=-1)


def test_leaves_in_another_order_are_not_mixed_up():
    first, second = (adamw.create("flat", learning_rate=1e-2) for _ in range(2))
    gradients = {"a": mx.ones(3), "b": 2 * mx.ones(3)}
    parameters = stepped(first, {"a": mx.ones(3), "b": mx.ones(3)}, gradients)
    second.state = tree_map(mx.array, first.state)
    with pytest.raises(ValueError, match="packed for another tree"):
        second.apply_gradients({name: gradients[name] for name in "ba"}, parameters)


def test_a_packed_state_that_is_set_gets_no_second_set_of_moments():
    optimizer = adamw.create("flat", learning_rate=1e-2)
    parameters = stepped(optimizer, tree(1.0))
    names = [path for path, _ in tree_flatten(optimizer.state)]
    optimizer.state = optimizer.state
    stepped(optimizer, parameters, tree(1.5))
    assert [path for path, _ in tree_flatten(optimizer.state)] == names


def test_a_packed_state_can_be_copied_before_its_first_step():
    first, second = (adamw.create("flat", learning_rate=1e-2) for _ in range(2))
    parameters = stepped(first, tree(1.0))
    second.state = first.state
    assert_equal(stepped(copy.deepcopy(second), parameters, tree(1.5)), stepped(first, parameters, tree(1.5)))


def test_the_buffer_wins_over_a_change_of_the_array_itself():
    optimizer, twin = (adamw.create("flat", learning_rate=1e-2) for _ in range(2))
    parameters, others = stepped(optimizer, tree(1.0)), stepped(twin, tree(1.0))
    parameters["a"] *= 0.5  # the same array to Python
    assert_equal(stepped(optimizer, parameters, tree(1.5)), stepped(twin, others, tree(1.5)))
    others = stepped(twin, tree(1.0))
    others["a"] = others["a"] * 0.5  # another array
    assert abs(stepped(twin, others, tree(1.5))["a"][0, 0].item()) < 0.6


@pytest.mark.parametrize("name", ["buffers", "packed", "layout"])
def test_a_parameter_may_have_any_name(name):
    optimizer = adamw.create("flat", learning_rate=1e-2)
    trees = [{name: mx.ones(3), "b": mx.ones(2)} for _ in range(2)]
    assert list(stepped(optimizer, trees[0], trees[1], steps=2)) == [name, "b"]


def test_a_schedule_is_called_once_a_step_whatever_the_step():
    calls = []
    optimizer = adamw.create("flat", learning_rate=lambda step: calls.append(step) or mx.array(1e-2))
    parameters = stepped(optimizer, tree(1.0))
    before = len(calls)
    optimizer.apply_gradients({"a": tree(0.5)["a"]}, parameters)
    assert len(calls) == before + 1
