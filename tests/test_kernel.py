"""The variant `kernel`: the text of its GPU kernels, compiled as C++ (shim.py), held against float64 and upstream."""

import copy
import math
import pickle
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import mlx.optimizers
import numpy as np
import pytest
import shim
from mlx.utils import tree_flatten, tree_map

import adamw
from adamw import arithmetic, gpu, reference
from adamw.base import CompiledAdamW, Unavailable
from benchmarks.harness import trees
from benchmarks.harness.evaluation import hollow
from benchmarks.harness.rounding import DTYPES, HALF_UNIT, SETTINGS, TINIEST, Run, float64, values


def test_without_a_gpu_it_says_what_is_needed(monkeypatch):
    monkeypatch.setattr(gpu, "backend", lambda: "cpu")
    for name in ("kernel", "kernel_inplace"):
        assert adamw.unavailable(name).startswith(f"{name} needs a GPU")
        with pytest.raises(Unavailable, match=r"needs a GPU.*: run it on") as raised:
            adamw.create(name, learning_rate=1e-3)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("device", "metal", "name"), [("gpu", True, "metal"), ("gpu", False, "cuda"), ("cpu", True, "cpu")]
)
def test_what_mlx_runs_on(device, metal, name, monkeypatch):
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(getattr(mx, device)))
    monkeypatch.setattr(mx, "metal", SimpleNamespace(is_available=lambda: metal))
    assert gpu.backend() == name


@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "all"])
@pytest.mark.parametrize("precision", DTYPES)
def test_a_step_is_float32_arithmetic_rounded_once(launches, precision, settings):
    run = Run(adamw.create("kernel", **settings), DTYPES[precision], [0, 1, 7, 8, 255, 256, 257, 2000])
    for _ in range(3):
        assert run.excess(**settings) <= 1
    assert run.optimizer.step.item() == 9


@pytest.mark.parametrize("precision", DTYPES)
def test_so_it_is_where_products_and_sums_are_fused(backend, precision):
    with shim.gpu(backend, lambda launch: launch.outputs(contracted=True)):
        run = Run(adamw.create("kernel", **SETTINGS[1]), DTYPES[precision], [1, 257, 2000])
        for _ in range(3):
            assert run.excess(**SETTINGS[1]) <= 1


def test_fused_is_not_the_same_to_the_last_bit(backend):
    """Else the test above would show nothing."""
    found = []
    for contracted in (False, True):
        with shim.gpu(backend, lambda launch, contracted=contracted: launch.outputs(contracted)):
            run = Run(adamw.create("kernel", **SETTINGS[0]), DTYPES["float32"], [2000])
            run.excess(**SETTINGS[0])
            found.append(run.leaves[0]["m"])
    assert not mx.array_equal(*found)


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "mixed"])
def test_upstreams_half_arithmetic_is_not(precision):
    """The bound that `kernel` keeps is not one that anything keeps."""
    run = Run(CompiledAdamW(**SETTINGS[0]), DTYPES[precision], [2000])
    assert run.excess(**SETTINGS[0]) > 1.5


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16", "mixed"])
def test_a_leaf_longer_than_the_grid(launches, precision):
    settings = SETTINGS[0]
    run = Run(adamw.create("kernel", **settings), DTYPES[precision], [2**22 + 3, 0, 300, 7])
    assert run.excess(**settings) <= 1
    assert [launch.threads for launch in launches] == [2**20, 256]


@pytest.mark.parametrize("precision", DTYPES)
def test_every_leaf_table_of_metals(precision):
    """Launches of every number of leaves, whose last groups are full, almost empty, or all there is."""
    sizes = [256, 257, 9, 1000, 511, 8, 300]
    settings = SETTINGS[1]
    for number in range(1, len(sizes) + 1):
        with shim.gpu("metal") as launches:
            assert Run(adamw.create("kernel", **settings), DTYPES[precision], sizes[:number]).excess(**settings) <= 1
        assert sum(len(launch.output_shapes) for launch in launches) == 3 * number
        assert len(launches) == -(-number // 4)


def test_early_steps_with_bias_correction_and_betas_near_one(launches):
    settings = {"learning_rate": 0.5, "betas": [0.99, 0.9999], "bias_correction": True}
    run = Run(adamw.create("kernel", **settings), DTYPES["float32"], [100], steps_before=0)
    for state in run.optimizer.state["list"]:
        state["m"], state["v"] = mx.zeros(100), mx.zeros(100)
    assert run.excess(**settings) <= 1
    assert run.excess(**settings) <= 1


@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "all"])
def test_as_upstream_in_float32(launches, settings):
    sizes = [3, 500, 40, 1, 0]
    upstream, variant = mlx.optimizers.AdamW(**settings), adamw.create("kernel", **settings)
    runs = [Run(optimizer, DTYPES["float32"], sizes, steps_before=0) for optimizer in (upstream, variant)]
    for run in runs:
        for _ in range(10):
            run.step()
    for expected, actual in zip(runs[0].leaves, runs[1].leaves, strict=True):
        for name in expected:
            np.testing.assert_allclose(actual[name], expected[name], rtol=1e-6)


def test_leaves_of_one_kind_share_launches(launches, backend):
    most = 4
    run = Run(adamw.create("kernel", **SETTINGS[0]), DTYPES["float32"], [300 + leaf for leaf in range(most + 2)])
    assert run.excess(**SETTINGS[0]) <= 1
    assert [len(launch.output_shapes) for launch in launches] == [3 * most, 3 * 2]
    run.excess(**SETTINGS[0])
    assert len(launches) == 4


def test_every_kind_of_leaf_has_launches_of_its_own(launches):
    optimizer = adamw.create("kernel", learning_rate=1e-2)
    dtypes = [mx.float32, mx.bfloat16, mx.float32, mx.float16, mx.bfloat16, mx.float32]
    tree = [values(size, dtype, size) for size, dtype in zip([10, 20, 3, 40, 50, 60], dtypes, strict=True)]
    updated = optimizer.apply_gradients({"list": tree}, {"list": tree})["list"]
    assert [launch.output_shapes[::3] for launch in launches] == [[(10,), (60,)], [(20,), (50,)], [(3,)], [(40,)]]
    for before, after in zip(tree, updated, strict=True):
        assert after.dtype == before.dtype
        start = reference.start(float64(before))
        expected = reference.step(start, float64(before), 1, learning_rate=1e-2).w
        np.testing.assert_allclose(float64(after), expected, rtol=2 * HALF_UNIT[before.dtype])


def test_kernels_of_another_text_have_another_name(launches):
    for precision in DTYPES.values():
        for sizes in ([8, 9], [7, 3], [8, 9, 300]):
            run = Run(adamw.create("kernel", **SETTINGS[0]), precision, sizes)
            assert run.excess(**SETTINGS[0]) <= 1
    texts = {launch.name: launch.text for launch in launches}
    assert len(texts) == len({launch.text for launch in launches}) == 3 * len(DTYPES)


@pytest.mark.parametrize("name", ["kernel", "kernel_inplace"])
def test_a_launch_fits_its_backends_limit(launches, backend, name, monkeypatch):
    """Also when as many leaves are launched together as there can be."""
    monkeypatch.setattr(gpu, "MOST_LEAVES", 10**6)
    monkeypatch.setattr(gpu, "MOST_LEAVES_IN_PLACE", 10**6)
    run = Run(adamw.create(name, **SETTINGS[0]), DTYPES["mixed"], [50] * 140)
    run.excess(**SETTINGS[0])
    a_leaf = 4 if name == "kernel_inplace" else 7
    if backend == "metal":
        buffers = [launch.text.count("[[buffer(") for launch in launches]
        assert max(buffers) <= 31 < max(buffers) + a_leaf
    else:
        pointer_bytes = [8 * (len(launch.inputs) + len(launch.output_shapes)) for launch in launches]
        assert max(pointer_bytes) <= 4096 < max(pointer_bytes) + 8 * a_leaf


def test_empty_trees_and_leaves_launch_nothing(launches):
    optimizer = adamw.create("kernel", learning_rate=1e-2)
    assert optimizer.apply_gradients({}, {}) == {}
    optimizer = adamw.create("kernel", learning_rate=1e-2)
    tree = {"a": mx.zeros((0, 3)), "b": [mx.zeros((0,), mx.bfloat16)]}
    updated = optimizer.apply_gradients(tree, tree)
    assert [(path, leaf.shape) for path, leaf in tree_flatten(updated)] == [("a", (0, 3)), ("b.0", (0,))]
    assert optimizer.step.item() == 1
    assert not launches


def test_any_shape_and_layout(launches):
    parameters = {"matrix": values(24, mx.float32, 0).reshape(4, 6), "scalar": mx.array(2.0)}
    gradients = {"matrix": values(24, mx.float32, 1).reshape(6, 4).T, "scalar": mx.array(0.5)}
    upstream, variant = mlx.optimizers.AdamW(1e-2), adamw.create("kernel", learning_rate=1e-2)
    expected, actual = (one.apply_gradients(gradients, parameters) for one in (upstream, variant))
    for name in parameters:
        assert actual[name].shape == expected[name].shape
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-6)
    assert len(launches) == 2


CHANGES = {"learning_rate": 0.3, "betas": [0.5, 0.6], "eps": 0.25, "weight_decay": 0.75, "bias_correction": True}


@pytest.mark.parametrize("attribute", CHANGES)
def test_a_changed_hyper_parameter_takes_effect_in_the_next_step(launches, attribute):
    settings = {"learning_rate": 1e-2, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}
    run = Run(adamw.create("kernel", **settings), DTYPES["float32"], [20])
    assert run.excess(**settings) <= 1
    setattr(run.optimizer, attribute, CHANGES[attribute])
    changed = settings | {attribute: CHANGES[attribute]}
    assert run.excess(**changed) <= 1
    assert run.excess(**settings) > 100
    assert len({launch.text for launch in launches}) == (2 if attribute == "bias_correction" else 1)


def test_a_hyper_parameter_that_changes_in_every_step_leaves_nothing_behind(launches):
    optimizer = adamw.create("kernel", learning_rate=1e-2)
    tree = {"a": values(20, mx.float32, 0)}
    for step in range(20):
        optimizer.weight_decay = 0.01 / (step + 1)
        optimizer.apply_gradients(tree, tree)
    assert len(optimizer.fixed) == len(optimizer.tables) == 1
    assert len({launch.text for launch in launches}) == 1


def test_a_beta_of_zero(launches):
    settings = {"learning_rate": 1e-2, "betas": [0.0, 0.0], "bias_correction": True}
    assert Run(adamw.create("kernel", **settings), DTYPES["float32"], [20]).excess(**settings) <= 1


def test_a_schedule(launches):
    settings = {"learning_rate": lambda step: 0.1 / (step + 1)}
    run = Run(adamw.create("kernel", **settings), DTYPES["float32"], [20])
    assert run.excess(learning_rate=0.1 / 7) <= 1
    assert run.excess(learning_rate=0.1 / 8) <= 1


@pytest.mark.parametrize("dtype", HALF_UNIT)
def test_odd_numbers_go_through_as_in_float64(launches, dtype):
    odd = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -3e4, 2.0**-24, float(2.0**-133), 1e-3]
    pairs = mx.array([(w, g) for w in odd for g in odd], mx.float32).astype(dtype)
    parameter, gradient = pairs[:, 0], pairs[:, 1]
    optimizer = adamw.create("kernel", learning_rate=1e-2)
    updated = optimizer.apply_gradients({"a": gradient}, {"a": parameter})["a"]
    with np.errstate(invalid="ignore"):
        expected = reference.step(reference.start(float64(parameter)), float64(gradient), 1, learning_rate=1e-2)
    state = optimizer.state["a"]
    for actual, ideal in zip((updated, state["m"], state["v"]), expected, strict=True):
        rounded = mx.array(ideal.astype(np.float32)).astype(dtype)
        tolerance = {"rtol": 3 * HALF_UNIT[dtype], "atol": TINIEST[dtype] + 1e-37}
        np.testing.assert_allclose(float64(actual), float64(rounded), **tolerance)


def test_a_leaf_that_no_kernel_takes_goes_upstreams_way(launches):
    parameters = {"fits": mx.ones((9,)), "wide": mx.full((3,), 0.5), "complex": mx.ones((9,)) * (1 + 1j)}
    gradients = {"fits": mx.ones((9,)), "wide": mx.full((1,), 0.5), "complex": mx.ones((9,)) * (1 - 1j)}
    upstream, variant = mlx.optimizers.AdamW(1e-2), adamw.create("kernel", learning_rate=1e-2)
    expected, actual = (one.apply_gradients(gradients, parameters) for one in (upstream, variant))
    for name in parameters:
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-6)
    assert [launch.output_shapes for launch in launches] == [[(9,)] * 3]


def test_a_state_of_another_shape_goes_upstreams_way(launches):
    optimizer = adamw.create("kernel", learning_rate=1e-2)
    tree = {"a": mx.ones((9,))}
    optimizer.init(tree)
    optimizer.state["a"]["v"] = mx.array([0.25])
    assert optimizer.apply_gradients(tree, tree)["a"].shape == (9,)
    assert not launches


def test_a_subclass_may_override_apply_single(launches):
    class Still(adamw.load("kernel")):
        def apply_single(self, gradient, parameter, state):
            return parameter

    tree = {"a": mx.ones((9,))}
    assert Still(1e-2).apply_gradients(tree, tree) == tree
    assert not launches


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])
def test_can_be_copied_and_pickled_after_use(launches, copied):
    optimizer = adamw.create("kernel", learning_rate=1e-2)
    tree = {"a": values(20, mx.float32, 0)}
    parameters = optimizer.apply_gradients(tree, tree)
    twin = copied(optimizer)
    updated, twins = (one.apply_gradients(tree, parameters)["a"] for one in (optimizer, twin))
    assert mx.array_equal(updated, twins)
    assert twin.step.item() == 2


def test_mlx_takes_the_call_and_nothing_is_evaluated():
    """On MLX's own `metal_kernel`, which records a launch without Metal while a function is exported."""
    tree = {"a": [mx.ones((300, 2), mx.bfloat16)] * 5, "b": mx.array(1.0), "c": mx.zeros((0,))}
    parts: list[dict[str, Any]] = []
    with patch.object(gpu, "backend", lambda: "metal"):
        optimizer = adamw.create("kernel", learning_rate=lambda step: 1e-2 * step, bias_correction=True)
        optimizer.init(tree_map(lambda leaf: leaf.astype(mx.float32), tree))

        def step(*leaves: mx.array) -> list[mx.array]:
            remaining = iter(leaves)
            traced = tree_map(lambda _: next(remaining), tree)
            updated = optimizer.apply_gradients(traced, traced)
            return [leaf for _, leaf in tree_flatten([updated, optimizer.state])]

        gpu.made_kernel.cache_clear()
        mx.export_function(parts.append, step, *(leaf for _, leaf in tree_flatten(tree)))
    made = [part for part in parts if part.get("name") == "CustomKernel"]
    assert [[shape for _, shape, _ in part["outputs"]] for part in made] == [[(300, 2)] * 12, [(300, 2)] * 3, [()] * 3]
    assert {str(dtype) for _, _, dtype in made[0]["outputs"]} == {"mlx.core.bfloat16", "mlx.core.float32"}


TREES = [*trees.CATALOGUE, *(f"leaf_{size}" for size in trees.SWEEP)]


@pytest.mark.parametrize("precision", ["float32", "all_different"])
@pytest.mark.parametrize("tree", TREES)
def test_every_launch_of_every_tree_is_one_that_the_backend_takes(backend, tree, precision):
    """No text and no memory: only what a launch is called with."""
    called: list[dict[str, Any]] = []

    def recorded(which: str, kind: gpu.Kind, leaves: int, in_place: bool) -> Any:
        def call(**arguments: Any) -> list[mx.array]:
            called.append(arguments)
            shapes = zip(arguments["output_shapes"], arguments["output_dtypes"], strict=True)
            return [hollow(shape, dtype) for shape, dtype in shapes]

        return call

    dtypes = DTYPES[precision]
    shapes = trees.build(tree)
    parameters, gradients = (
        trees.mapped(lambda shape, dtype=dtype: hollow(shape, dtype), shapes)
        for dtype in (dtypes.parameter, dtypes.gradient)
    )
    with patch.object(gpu, "backend", lambda: backend), patch.object(gpu, "made_kernel", recorded):
        optimizer = adamw.create("kernel", learning_rate=1e-3)
        optimizer.init(parameters)
        optimizer.apply_gradients(gradients, parameters)
    done: list[int] = []
    for launch in called:
        (threads, *ones), (group, *others) = launch["grid"], launch["threadgroup"]
        assert ones == others == [1, 1]
        assert 0 < group <= threads < 2**31
        assert threads % group == 0
        assert len(launch["inputs"]) + len(launch["output_shapes"]) <= {"metal": 31, "cuda": 4096 // 8}[backend]
        assert all(array.size for array in launch["inputs"])
        leaves = [math.prod(shape) for shape in launch["output_shapes"][::3]]
        table = launch["inputs"][2].tolist()
        starts, end, sizes = table[: len(leaves)], table[len(leaves)], table[len(leaves) + 1 :]
        assert sizes == leaves
        chunk = dict(launch["template"])["CHUNK"]
        ends = [*starts[1:], end]
        chunks = [stop - start for start, stop in zip(starts, ends, strict=True)]
        assert all(size <= chunk * count < size + chunk for count, size in zip(chunks, sizes, strict=True))
        assert starts[0] == 0
        assert threads <= end * group < 2**63
        done += leaves
    assert sorted(done) == sorted(shape.size for shape in trees.leaves(shapes) if shape.size)


def test_no_launch_of_any_tree_passes_32_bits():
    assert gpu.MOST_THREADS < 2**31
    assert gpu.MOST_THREADS % gpu.GROUP == 0
    assert gpu.CHUNK % gpu.GROUP == 0


def test_a_leaf_of_more_than_2_to_the_31_elements(backend, tmp_path):
    """What the first threads of such a launch do, in sparse files; in long strides, which touch few pages."""
    size, stride, threads = 2**31 + 300, 2**30, 4
    groups = stride // gpu.CHUNK
    found: list[shim.Launch] = []

    def recorded(launch: shim.Launch) -> list[mx.array]:
        found.append(launch)
        return [mx.zeros((), launch.output_dtypes[0])] * 3  # no memory; never looked at

    with shim.gpu(backend, recorded), patch.object(gpu, "MOST_THREADS", groups * gpu.GROUP):
        leaf = mx.broadcast_to(mx.array(1, mx.float16), (4, size // 4))
        optimizer = adamw.create("kernel", learning_rate=0.5, weight_decay=0.0)
        optimizer.init({"a": leaf})
        optimizer.apply_gradients({"a": leaf}, {"a": leaf})
    (launch,) = found
    read = np.memmap(tmp_path / "read", np.float16, "w+", shape=(size,))
    written = [np.memmap(tmp_path / name, np.float16, "w+", shape=(size,)) for name in "wmv"]
    starts = [start + part for start in (0, stride, 2 * stride) for part in range(0, gpu.CHUNK, gpu.GROUP)]
    taken = [slice(start, start + threads) for start in starts if start + threads <= size]
    assert len(taken) == 10
    for part in taken:
        read[part] = 1
    tables = [np.array(array) for array in launch.inputs[:3]]
    accesses = launch.run([*tables, *[read] * 4, *written], [*map(len, tables), *[size] * 7], threads)
    assert accesses[3:] == [len(taken) * threads] * 7
    expected = reference.step(reference.Leaf(*[np.ones(1)] * 3), np.ones(1), 1, learning_rate=0.5, weight_decay=0.0)
    for array, ideal in zip(written, expected, strict=True):
        np.testing.assert_allclose(np.concatenate([array[part] for part in taken]), ideal[0], rtol=2.0**-11)


@pytest.mark.parametrize(
    ("right", "wrong", "error"),
    [
        ("if (i < left) {\n      const", "{\n      const", IndexError),
        ("if (i < left) {\n      const", "if (i + 1 < left) {\n      const", AssertionError),
        ("chunk < table[LEAVES]", "chunk < table[LEAVES] - 1", AssertionError),
        ("chunk += groups", "chunk += 2 * groups", AssertionError),
        ("chunk >= table[middle]", "chunk > table[middle]", AssertionError),
    ],
)
def test_the_shim_sees_wrong_accesses(backend, right, wrong, error):
    assert right in arithmetic.BODY
    with (
        shim.gpu(backend),
        patch.object(arithmetic, "BODY", arithmetic.BODY.replace(right, wrong)),
        patch.object(gpu, "MOST_THREADS", 4 * gpu.GROUP),
    ):
        run = Run(adamw.create("kernel", **SETTINGS[0]), DTYPES["float32"], [1300, 5000])
        with pytest.raises(error):
            run.excess(**SETTINGS[0])
