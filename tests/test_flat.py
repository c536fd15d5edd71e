"""`flat` packs small leaves once, keeps them packed, and says what the gradients' packing costs."""

import copy
import io
import re
import zlib
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
    assert_equal(second.upstream_state(), first.upstream_state())
    assert_equal(stepped(second, parameters, tree(1.5)), stepped(first, parameters, tree(1.5)))
    assert_equal(second.upstream_state(), first.upstream_state())


def filed(state: Any, path: Any) -> Any:
    """What a file gives back of a state."""
    mx.save_safetensors(str(path), dict(tree_flatten(state)))
    return tree_unflatten(list(mx.load(str(path)).items()))


def test_a_packed_checkpoint_is_unpacked_with_nothing_but_the_file(tmp_path):
    optimizer = adamw.create("flat", learning_rate=1e-2, largest_packed=20)
    stepped(optimizer, tree(1.0), steps=2)
    alone = adamw.create("flat", learning_rate=0.5)
    alone.state = filed(optimizer.state, tmp_path / "packed.safetensors")
    assert "packed-moments" in alone.state
    assert_equal(alone.upstream_state(), optimizer.upstream_state())


@pytest.mark.parametrize("largest_packed", [0, 12, 20, 2**20])
def test_a_packed_checkpoint_of_a_tree_that_has_grown_goes_on(tmp_path, largest_packed):
    upstream, first = mlx.optimizers.AdamW(1e-2), adamw.create("flat", learning_rate=1e-2)
    old, more = tree(1.0), {"b": [*tree(1.0)["b"], mx.ones(4)], "new": {"c": mx.ones((2, 2))}, "a": tree(1.0)["a"]}
    for optimizer in (upstream, first):
        stepped(optimizer, old, steps=2)
    second = adamw.create("flat", learning_rate=0.5, largest_packed=largest_packed)
    second.state = filed(first.state, tmp_path / "packed.safetensors")
    for optimizer in (upstream, second):
        optimizer.init(more)
    results = [stepped(optimizer, more, more, steps=2) for optimizer in (upstream, second)]
    for one, other in ((results[0], results[1]), (upstream.state, second.upstream_state())):
        one, other = (sorted(tree_flatten(part)) for part in (one, other))
        assert [path for path, _ in one] == [path for path, _ in other]
        for (path, a), (_, b) in zip(one, other, strict=True):
            np.testing.assert_allclose(np.array(a), np.array(b), rtol=1e-6, err_msg=path)


def test_a_packed_checkpoint_resumes_inside_the_users_own_compiled_step(tmp_path):
    first, second = (adamw.create("flat", learning_rate=1e-2, bias_correction=True) for _ in range(2))
    parameters = stepped(first, tree(1.0))
    second.state = filed(first.state, tmp_path / "packed.safetensors")
    state = [second.state]
    step = mx.compile(lambda g, p: second.apply_gradients(g, p), inputs=state, outputs=state)
    resumed = parameters
    for number in range(3):
        resumed = step(tree(0.5 + number), resumed)
    for (path, a), (_, b) in zip(tree_flatten(resumed), tree_flatten(stepped(first, parameters, steps=3)), strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), rtol=1e-6, err_msg=path)


def test_a_packed_state_that_is_put_in_place_inside_a_trace_is_refused(tmp_path):
    first, second = (adamw.create("flat", learning_rate=1e-2) for _ in range(2))
    stepped(first, tree(1.0))
    loaded = filed(first.state, tmp_path / "packed.safetensors")

    def step(gradients: Any, state: Any) -> Any:
        second.state = state
        return second.apply_gradients(gradients, gradients)

    with pytest.raises(ValueError, match=r"cannot be read while a function is traced; set the state outside of it$"):
        mx.compile(step)(tree(0.5), loaded)


@pytest.mark.parametrize("empty", [{}, {"group": {}}, {"group": [{}, {}]}])
def test_a_group_without_leaves_loses_nothing_in_a_file(tmp_path, empty):
    optimizer = adamw.create("flat", learning_rate=1e-2)
    optimizer.apply_gradients(empty, empty)
    second = adamw.create("flat", learning_rate=1e-2)
    second.state = filed(optimizer.state, tmp_path / "packed.safetensors")
    assert second.upstream_state().keys() == {"step", "learning_rate"}
    assert second.apply_gradients(empty, empty) == empty
    assert second.step.item() == 2


def test_a_checkpoint_without_a_description_or_with_a_wrong_one_is_refused_and_changes_nothing():
    first, second = (adamw.create("flat", learning_rate=1e-2) for _ in range(2))
    parameters = stepped(first, tree(1.0))
    stepped(second, tree(1.0), steps=3)
    buffers = first.state["packed-moments"]["buffers"]
    texts = [b"", b"[", b"7", b"[[[1]]]", b'[[[["a"],[3]]]]', b"\xff"]
    layouts = [mx.array(np.frombuffer(zlib.compress(text), np.uint8)) for text in texts]
    layouts += [mx.array(123456, mx.uint32), mx.zeros((0,)), mx.ones(5) * 200]
    for packed in [{"buffers": buffers}, *({"layout": layout, "buffers": buffers} for layout in layouts)]:
        with pytest.raises(
            ValueError, match=r"do not say which leaf lies where; .* upstream_state\(\), and save that$"
        ):
            second.state = {"step": mx.array(7), "packed-moments": packed}
        assert second.step.item() == 3
    stepped(second, parameters)


def test_moments_that_are_put_into_the_state_in_place_are_read_by_their_own_description():
    first, second = (adamw.create("flat", learning_rate=1e-2) for _ in range(2))
    gradients = {"a": mx.ones(3), "b": 2 * mx.ones(3)}
    parameters = stepped(first, {"a": mx.ones(3), "b": mx.ones(3)}, gradients)
    other = {name: gradients[name] for name in "ba"}
    stepped(second, other, other)
    second.state.update(tree_map(mx.array, first.state))
    updated = stepped(second, parameters, other)
    expected = stepped(first, parameters, gradients)
    assert_equal([updated["a"], updated["b"]], [expected["a"], expected["b"]])


@pytest.mark.parametrize("moment", [mx.ones(6), mx.ones((2, 3))])
def test_moments_of_another_shape_are_not_packed(moment):
    flat, upstream = adamw.create("flat", learning_rate=1e-2), mlx.optimizers.AdamW(1e-2)
    told = []
    for optimizer in (upstream, flat):
        optimizer.init(tree(1.0))
        optimizer.state["a"] = {"m": moment, "v": moment}
        with pytest.raises(ValueError, match="broadcast") as raised:
            stepped(optimizer, tree(1.0))
        told.append(str(raised.value))
    assert told[0] == told[1]


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
    updated, expected = (
        stepped(second, parameters, {name: gradients[name] for name in "ba"}),
        stepped(first, parameters, gradients),
    )
    assert_equal([updated["a"], updated["b"]], [expected["a"], expected["b"]])


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
