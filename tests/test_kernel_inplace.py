"""The variant `kernel_inplace`: its text compiled as C++ writes into the memory of MLX's own arrays (shim.py)."""

import copy
import pickle
from typing import Any

import mlx.core as mx
import mlx.optimizers
import numpy as np
import pytest
import shim
from mlx.utils import tree_map

import adamw
from adamw.ownership import address
from benchmarks.harness.rounding import DTYPES, SETTINGS, Run, float64, values

SAME_STATE = [name for name, precision in DTYPES.items() if precision.m == precision.v]
SIZES = [0, 1, 7, 8, 255, 1024, 1025, 5000]


def stepped(optimizer: Any, parameters: Any, steps: int) -> Any:
    """The parameters after some steps, in which nobody else holds them."""
    held = [parameters]
    del parameters
    gradients = tree_map(lambda array: values(array.size, array.dtype, 9).reshape(array.shape), held[0])
    for _ in range(steps):
        held.append(optimizer.apply_gradients(gradients, held.pop()))
    return held.pop()


def places(optimizer: Any, parameters: Any) -> list[int]:
    return [
        address(array)
        for state, parameter in zip(optimizer.state["list"], parameters["list"], strict=True)
        for array in (parameter, state["m"], state["v"])
    ]


@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "all"])
@pytest.mark.parametrize("precision", SAME_STATE)
def test_a_step_is_float32_arithmetic_rounded_once(launches, precision, settings):
    run = Run(adamw.create("kernel_inplace", **settings), DTYPES[precision], SIZES)
    for _ in range(3):
        assert run.excess(**settings) <= 1


@pytest.mark.parametrize("precision", SAME_STATE)
def test_so_it_is_where_products_and_sums_are_fused(backend, precision):
    with shim.gpu(backend, lambda launch: launch.outputs(contracted=True)):
        run = Run(adamw.create("kernel_inplace", **SETTINGS[1]), DTYPES[precision], [8, 257, 2000])
        for _ in range(3):
            assert run.excess(**SETTINGS[1]) <= 1


def test_it_gives_what_kernel_gives_to_the_last_bit(launches):
    tree = {"list": [values(size, mx.float32, size) for size in SIZES]}
    found = [stepped(adamw.create(name, **SETTINGS[1]), tree, 20) for name in ("kernel", "kernel_inplace")]
    for expected, actual in zip(*(one["list"] for one in found), strict=True):
        assert mx.array_equal(expected, actual)


def test_from_the_second_step_on_nothing_moves(launches):
    optimizer = adamw.create("kernel_inplace", **SETTINGS[0])
    parameters = {"list": [values(size, mx.float32, size) for size in (8, 300, 4000)]}
    held = [stepped(optimizer, parameters, 1)]
    before = places(optimizer, held[0])
    assert places(optimizer, parameters)[::3] != before[::3]  # the caller's arrays are not written
    for _ in range(3):
        launches.clear()  # which holds what the launches were called with
        held.append(stepped(optimizer, held.pop(), 1))
        assert places(optimizer, held[0]) == before


def test_every_element_is_read_and_written_once(backend):
    seen = []

    def run(launch: shim.Launch) -> list[mx.array]:
        inputs = [shim.memory(array) for array in launch.inputs]
        done = np.zeros(4, np.uint8)
        sizes = [array.size for array in launch.inputs]
        seen.append((sizes, launch.run([*inputs, done], [*sizes, 1], launch.threads)))
        assert done.tolist() == [1, 0, 0, 0]
        return [mx.array([1], mx.uint32)]

    with shim.gpu(backend, run):
        stepped(
            adamw.create("kernel_inplace", **SETTINGS[0]), {"list": [values(n, mx.float32, n) for n in (9, 3000)]}, 1
        )
    ((sizes, accesses),) = seen
    assert accesses[3:-1] == [size * (1 if place % 4 == 1 else 2) for place, size in enumerate(sizes[3:])]


def test_who_holds_an_array_keeps_its_values(launches):
    optimizer = adamw.create("kernel_inplace", **SETTINGS[0])
    held = [stepped(optimizer, {"list": [values(3000, mx.float32, 1)]}, 1)]
    mine, moment = held[0]["list"][0], optimizer.state["list"][0]["m"]
    kept = np.array(mine), np.array(moment)
    held.append(stepped(optimizer, held.pop(), 2))
    np.testing.assert_array_equal(mine, kept[0])
    np.testing.assert_array_equal(moment, kept[1])


def test_an_array_that_was_given_other_memory_is_copied_first(launches):
    optimizer = adamw.create("kernel_inplace", **SETTINGS[0])
    held = [stepped(optimizer, {"list": [values(3000, mx.float32, 1)]}, 1)]
    other = values(3000, mx.float32, 2)
    held[0]["list"][0][:] = other
    expected = np.array(other)
    held.append(stepped(optimizer, held.pop(), 1))
    np.testing.assert_array_equal(other, expected)


def test_as_many_launches_as_must_be(launches, backend):
    most = {"metal": 6, "cuda": 32}[backend]
    parameters = {"list": [values(8 + leaf, mx.float32, leaf) for leaf in range(most + 2)]}
    stepped(adamw.create("kernel_inplace", **SETTINGS[0]), parameters, 1)
    assert [(len(launch.inputs) - 3) // 4 for launch in launches] == [most, 2]


def test_a_launch_that_cannot_be_made_stops_those_before_it(launches, monkeypatch):
    """Of two dtypes the first has its kernel: it must not be run before the second's is there."""
    optimizer = adamw.create("kernel_inplace", **SETTINGS[0])
    tree = {"list": [values(300, mx.float32, 1), values(300, mx.bfloat16, 2), values(3, mx.float32, 3)]}
    parameters = stepped(optimizer, tree, 1)
    before = [np.array(float64(array)) for array in (*parameters["list"], optimizer.state["list"][0]["m"])]
    small, made = optimizer.state["list"][2]["m"], optimizer.launcher

    def launcher(kind, *arguments, **more):
        if kind.w == mx.bfloat16:
            raise MemoryError
        return made(kind, *arguments, **more)

    monkeypatch.setattr(optimizer, "launcher", launcher)
    launches.clear()  # which holds what the launches were called with
    with pytest.raises(MemoryError):
        optimizer.apply_gradients(tree, parameters)
    after = [np.array(float64(array)) for array in (*parameters["list"], optimizer.state["list"][0]["m"])]
    for expected, actual in zip(before, after, strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert optimizer.state["list"][2]["m"] is small
    assert optimizer.step.item() == 1


@pytest.mark.parametrize("sizes", [[], [0], [3], [0, 3, 7]])
def test_trees_with_nothing_that_can_be_written(launches, sizes):
    optimizer, upstream = adamw.create("kernel_inplace", learning_rate=1e-2), mlx.optimizers.AdamW(1e-2)
    tree = {"list": [values(size, mx.float32, size) for size in sizes]}
    found = [stepped(one, tree, 3)["list"] for one in (upstream, optimizer)]
    for expected, actual in zip(*found, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_a_leaf_that_no_kernel_takes_goes_upstreams_way(launches):
    optimizer, upstream = adamw.create("kernel_inplace", learning_rate=1e-2), mlx.optimizers.AdamW(1e-2)
    tree = {"list": [mx.ones((9,)), mx.ones((9,)) * (1 + 1j)]}
    found = [one.apply_gradients(tree, tree)["list"] for one in (upstream, optimizer)]
    for expected, actual in zip(*found, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-6)
    assert not launches


def test_a_gradient_that_does_not_lie_in_order(launches):
    parameters = {"list": [values(3000, mx.float32, 1).reshape(50, 60)]}
    gradients = {"list": [values(3000, mx.float32, 2).reshape(60, 50).T]}
    found = [
        adamw.create(name, learning_rate=1e-2).apply_gradients(gradients, parameters)["list"][0]
        for name in ("eager", "kernel_inplace")
    ]
    np.testing.assert_allclose(float64(found[1]), float64(found[0]), rtol=1e-6)


def test_what_is_dropped_is_free_again(launches):
    optimizer = adamw.create("kernel_inplace", **SETTINGS[0])
    held = [stepped(optimizer, {"list": [values(2**18, mx.float32, 1)]}, 2)]
    launches.clear()
    limit = mx.set_cache_limit(0)
    before = mx.get_active_memory()
    held.clear()
    optimizer.state = {}
    mx.set_cache_limit(limit)
    assert before - mx.get_active_memory() >= 3 * 2**20  # w, m and v


def test_small_leaves_share_a_launch(launches):
    optimizer = adamw.create("kernel_inplace", **SETTINGS[0])
    stepped(optimizer, {"list": [values(size, mx.float32, size) for size in (3, 4, 5)]}, 1)
    assert len(launches) == 1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])
def test_a_copy_writes_over_nothing_of_the_others(launches, copied):
    optimizer = adamw.create("kernel_inplace", **SETTINGS[0])
    parameters = stepped(optimizer, {"list": [values(3000, mx.float32, 1)]}, 2)
    twin = copied(optimizer)
    expected = np.array(twin.state["list"][0]["m"])
    stepped(optimizer, parameters, 1)
    np.testing.assert_array_equal(twin.state["list"][0]["m"], expected)
    stepped(twin, {"list": [values(3000, mx.float32, 1)]}, 1)
    assert twin.step.item() == 3
