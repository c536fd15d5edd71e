"""`inplace` writes where the arrays lie, but never into an array that somebody else can be seen to hold."""

import copy
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn
import mlx.optimizers
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

import adamw
from adamw import interrupts, ownership, reference
from adamw.base import Unavailable
from adamw.variants import inplace
from benchmarks.harness import cases
from benchmarks.harness.count import count

pytest.importorskip("numba")
from adamw import loops

SETTINGS = {"learning_rate": 1e-2, "bias_correction": True}
UNIT = {"float32": 2**-24, "bfloat16": 2**-8, "float16": 2**-11}
"""Half the distance between two neighbours, relative: what one rounding may cost."""


def random_leaf(size: int, dtype: str, seed: int = 0) -> mx.array:
    random = np.random.default_rng(seed)
    values = random.uniform(0.5, 1.5, size) * random.choice([-1.0, 1.0], size)
    return mx.array(values.astype(np.float32)).astype(getattr(mx, dtype))


def float64(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32)).astype(np.float64)


@pytest.mark.parametrize("size", [0, 1, 7, 2**20 + 3])
@pytest.mark.parametrize(
    ("parameter", "gradient", "state"),
    [("float32",) * 3, ("bfloat16",) * 3, ("float16",) * 3, ("bfloat16", "bfloat16", "float32"),
     ("float32", "bfloat16", "float32"), ("bfloat16", "float32", "float32"), ("float16", "float32", "bfloat16")],
)  # fmt: skip
def test_a_step_is_float32_arithmetic_and_one_rounding(parameter, gradient, state, size):
    optimizer = adamw.create("inplace", **SETTINGS)
    w, g, m = random_leaf(size, parameter), random_leaf(size, gradient, 1), random_leaf(size, state, 2)
    v = mx.abs(random_leaf(size, state, 3))
    optimizer.init({"a": mx.zeros((size,))})
    optimizer.state["a"] = {"m": m, "v": v}
    expected = reference.step(
        reference.Leaf(float64(w), float64(m), float64(v)), float64(g), 1, learning_rate=1e-2, bias_correction=True
    )
    updated = optimizer.apply_gradients({"a": g}, {"a": w})["a"]
    for array, ideal in zip((updated, *optimizer.state["a"].values()), expected, strict=True):
        unit = UNIT[str(array.dtype).removeprefix("mlx.core.")]
        # m' may be a small difference of large terms: its float32 arithmetic counts against those
        np.testing.assert_allclose(float64(array), ideal, rtol=unit * 1.01, atol=2**-20)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_read_and_rounded_as_mlx_does(dtype):
    patterns = np.arange(2**16, dtype=np.uint16)
    halves = mx.array(patterns).view(getattr(mx, dtype))
    widened = np.array([loops.LOAD[dtype](pattern) for pattern in patterns], np.float32)
    np.testing.assert_array_equal(widened, np.array(halves.astype(mx.float32)))
    random = np.random.default_rng(0)
    between = widened[np.isfinite(widened)].astype(np.float64)
    ties = ((between[:-1] + between[1:]) / 2).astype(np.float32)
    floats = np.concatenate(
        [ties, random.normal(size=10_000).astype(np.float32), [np.inf, -np.inf, 3e38, -3e38, 1e-40]]
    )
    floats = floats.astype(np.float32)
    stored = np.array([loops.STORE[dtype](value) for value in floats], np.uint16)
    np.testing.assert_array_equal(stored, np.array(mx.array(floats).astype(getattr(mx, dtype)).view(mx.uint16)))
    assert np.isnan(loops.LOAD[dtype](loops.STORE[dtype](np.float32("nan"))))


def tree(seed: int = 0) -> Any:
    return {"a": random_leaf(1000, "float32", seed), "b": [random_leaf(7, "float32", seed + 1)]}


def stepped(optimizer: Any, parameters: Any, steps: int = 1) -> Any:
    held = [parameters]
    del parameters
    for _ in range(steps):
        held.append(optimizer.apply_gradients(tree(5), held.pop()))
    return held.pop()


def test_the_arrays_stay_the_same_and_nothing_is_allocated():
    optimizer = adamw.create("inplace", **SETTINGS)
    held = [stepped(optimizer, tree())]
    before = {id(held[0]["a"]), id(held[0]["b"][0]), id(optimizer.state["a"]["m"]), id(optimizer.state["b"][0]["v"])}
    values = np.array(held[0]["a"])
    gradients = tree(5)
    mx.eval(gradients)
    mx.synchronize()
    active = mx.get_active_memory()
    mx.reset_peak_memory()
    held.append(optimizer.apply_gradients(gradients, held.pop()))
    assert max(mx.get_peak_memory(), mx.get_active_memory()) - active < 1000
    assert before == {
        id(held[0]["a"]), id(held[0]["b"][0]), id(optimizer.state["a"]["m"]), id(optimizer.state["b"][0]["v"])
    }  # fmt: skip
    assert (np.array(held[0]["a"]) != values).all()


@pytest.mark.parametrize("hold", ["parameter", "m", "v"])
def test_what_somebody_holds_is_not_written_over(hold):
    optimizer, twin = (adamw.create("inplace", **SETTINGS) for _ in range(2))
    held, expected = [stepped(optimizer, tree())], stepped(twin, tree(), steps=2)
    kept = {
        "parameter": lambda: held[0]["a"],
        "m": lambda: optimizer.state["a"]["m"],
        "v": lambda: optimizer.state["a"]["v"],
    }[hold]()
    before = np.array(kept)
    held.append(optimizer.apply_gradients(tree(5), held.pop()))
    np.testing.assert_array_equal(np.array(held[0]["a"]), np.array(expected["a"]))
    np.testing.assert_array_equal(np.array(kept), before)


def test_the_callers_first_arrays_are_never_written_over():
    parameters = tree()
    before = np.array(parameters["a"])
    stepped(adamw.create("inplace", **SETTINGS), parameters, steps=3)
    np.testing.assert_array_equal(np.array(parameters["a"]), before)


@pytest.mark.parametrize("first", ["original", "copy"])
def test_a_copied_optimizer_shares_no_memory(first):
    optimizer = adamw.create("inplace", **SETTINGS)
    parameters = stepped(optimizer, tree())
    twin = copy.deepcopy(optimizer)
    m = np.array(twin.state["a"]["m"])
    one, other = (optimizer, twin) if first == "original" else (twin, optimizer)
    stepped(one, tree_map(mx.array, parameters))
    np.testing.assert_array_equal(np.array(other.state["a"]["m"]), m)


def test_a_gradient_that_does_not_lie_in_order():
    gradient = mx.arange(12, dtype=mx.float32).reshape(3, 4)
    results = []
    for turned in (gradient.T, mx.contiguous(gradient.T)):
        optimizer = adamw.create("inplace", learning_rate=1e-2)
        results.append(np.array(optimizer.apply_gradients({"a": turned}, {"a": mx.ones((4, 3))})["a"]))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_gives_the_same(threads, monkeypatch):
    monkeypatch.setattr(inplace, "SMALLEST_CHUNK", 64)
    expected = stepped(adamw.create("inplace", **SETTINGS, threads=1), tree(), steps=3)
    actual = stepped(adamw.create("inplace", **SETTINGS, threads=threads), tree(), steps=3)
    np.testing.assert_array_equal(np.array(actual["a"]), np.array(expected["a"]))


@pytest.mark.parametrize(("sizes", "threads"), [([1], 2), ([5, 0, 3], 1), ([100_000, 1, 70_000], 2), ([2**20 + 3], 3)])
def test_chunks_cover_every_element_once(sizes, threads):
    seen = [np.zeros(size, int) for size in sizes]
    for leaf, begin, length in inplace.chunks(np.array(sizes), threads):
        while length:
            part = seen[leaf][begin : begin + length]
            part += 1
            length -= len(part)
            leaf, begin = leaf + 1, 0
    assert all((one == 1).all() for one in seen)


def test_threads_must_be_positive():
    with pytest.raises(ValueError, match="threads should be >0, 0 was"):
        adamw.create("inplace", learning_rate=1e-2, threads=0)


def asked(settings: dict[str, str], code: str) -> str:
    """What Python prints of `code` in an environment with these variables."""
    environment = os.environ | {"PYTHONPATH": os.getcwd()} | settings
    return subprocess.check_output([sys.executable, "-c", code], text=True, env=environment).strip()


def test_without_numba_it_says_what_to_install_and_nothing_else_needs_it():
    names = [name for name in adamw.names() if adamw.unavailable(name)]
    code = (
        "import sys; sys.modules['numba'] = None; import adamw;"
        "print([name for name in adamw.names() if adamw.unavailable(name)], adamw.unavailable('inplace'))"
    )
    assert asked({}, code) == f"{sorted([*names, 'inplace'])} inplace needs numba; install it: pip install numba"


BROKEN = {
    "another release of NumPy": ("numba", "ImportError('Numba needs NumPy 2.4 or less.\\nGot NumPy 2.5.')"),
    "no library": ("llvmlite", "OSError('Could not find/load shared object file\\nlibllvmlite.so')"),
    "a word that is no number": ("numba", "ValueError('Number of threads specified must be > 0.')"),
    "anything else": ("numba", "AttributeError('module has no attribute \\x1b[31m' + 'x' * 5000)"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_numba_that_cannot_run_is_one_line_with_the_reason(kind, tmp_path):
    package, error = BROKEN[kind]
    (tmp_path / f"{package}.py").write_text(f"raise {error}")
    code = "import adamw; print(adamw.unavailable('inplace'))"
    told = asked({"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"}, code)
    assert told.startswith(f"inplace needs numba, which does not work here: {error.partition('(')[0]}: ")
    assert told.isprintable()
    assert len(told) < 400


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"NUMBA_DISABLE_JIT": "1"}, "inplace needs numba's compiler, which is turned off; unset NUMBA_DISABLE_JIT"),
     ({"NUMBA_NUM_THREADS": "0"}, "ValueError: Number of threads"), ({"NUMBA_NUM_THREADS": "2"}, "None"),
     ({"NUMBA_OPT": "0"}, "None"), ({"NUMBA_BOUNDSCHECK": "1"}, "None")],
    ids=str,
)  # fmt: skip
def test_what_numbas_own_variables_turn_off_is_told(settings, told):
    assert told in asked(settings, "import adamw; print(adamw.unavailable('inplace'))")


def test_a_compiler_that_is_turned_off_later_is_told_before_anything_is_changed():
    optimizer = adamw.create("inplace", **SETTINGS)
    parameters = stepped(optimizer, tree())
    with unchanged(optimizer, parameters), pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops.config, "DISABLE_JIT", 1)
        loops.loop.cache_clear()
        assert "NUMBA_DISABLE_JIT" in adamw.unavailable("inplace")
        with pytest.raises(Unavailable, match="NUMBA_DISABLE_JIT"):
            adamw.create("inplace", **SETTINGS)
        with pytest.raises(Unavailable, match="NUMBA_DISABLE_JIT"):
            optimizer.apply_gradients(tree(5), parameters)


class Recorded:
    """A leaf's memory that notes what is read and what is written, element by element."""

    def __init__(self, size: int) -> None:
        self.values, self.read, self.written = np.ones(size, np.float32), np.zeros(size, int), np.zeros(size, int)
        self.offset = 0

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            part = copy.copy(self)
            part.values, part.read, part.written = self.values[key], self.read[key], self.written[key]
            return part
        self.read[key] += 1
        return self.values[key]

    def __setitem__(self, key: int, value: float) -> None:
        self.written[key] += 1
        self.values[key] = value


def test_the_loop_moves_the_bytes_that_are_counted(monkeypatch):
    """The very source that numba compiles, run on memory that counts: 4 reads and 3 writes an element."""
    size = 10
    memory = [Recorded(size) for _ in range(4)]  # gradient, parameter, m, v
    source = loops.loop.__wrapped__("float32", "float32", "float32").py_func
    monkeypatch.setattr(loops, "pointer", lambda address: address)
    monkeypatch.setattr(loops, "carray", lambda address, shape, dtype: memory[address])
    source(np.array([[0, 1, 2, 3, size]]), np.ones(8, np.float32), 0, 0, size)
    for one, name in zip(memory, loops.COLUMNS, strict=False):
        assert (one.read == 1).all()
        assert (one.written == (0 if name == "gradient" else 1)).all()


@pytest.mark.parametrize("workload", ["float32/nested", "bfloat16/two_leaves", "mixed/resnet50"])
def test_it_moves_the_least_and_peaks_at_what_must_be_resident(workload):
    case = cases.case("inplace", workload)
    found = count(case)
    assert found.modelled_bytes == case.ideal_bytes
    assert found.peak_bytes == case.resident_bytes
    assert (found.kernels, found.fused_kernels, found.temporaries, found.held_arrays, found.kept_arrays) == (
        1,
        0,
        0,
        0,
        0,
    )
    assert (found.wrong_results, found.graph_growth, found.memory_growth) == (0, 0, 0)


def test_counting_writes_into_no_memory():
    """The counted arrays have no memory of their size: the loop would run over whatever lies behind them."""
    case = cases.case("inplace", "float32/leaf_67108864")
    before = mx.get_active_memory()
    count(case)
    assert mx.get_active_memory() - before < 2**20


def test_leaves_are_told_apart():
    parameters = {str(number): mx.full((3,), float(number)) for number in range(50)}
    gradients = {str(number): mx.full((3,), 0.1 * number) for number in range(50)}
    optimizer = adamw.create("inplace", learning_rate=0.0, betas=[0.0, 0.0])
    updated = optimizer.apply_gradients(gradients, parameters)
    for number, key in itertools.product(range(50), range(3)):
        assert updated[str(number)][key].item() == number
        assert optimizer.state[str(number)]["m"][key].item() == pytest.approx(0.1 * number)


def test_moments_of_two_kinds_are_upstreams():
    optimizer = adamw.create("inplace", learning_rate=1e-2)
    optimizer.init({"a": mx.zeros((8,))})
    optimizer.state["a"] = {"m": mx.zeros((8,)), "v": mx.full((8,), 0.25, mx.bfloat16)}
    updated = optimizer.apply_gradients({"a": mx.ones((8,))}, {"a": mx.ones((8,))})
    expected = reference.step(reference.Leaf(1.0, 0.0, 0.25), 1.0, 1, learning_rate=1e-2)
    np.testing.assert_allclose(np.array(updated["a"]), expected.w, rtol=1e-3)


@pytest.mark.parametrize("which", ["parameter", "m", "v"])
def test_an_array_that_was_given_other_memory_is_taken_as_it_is_now(which):
    """`array[:] = ...` leaves the array what it is to Python, with another's memory."""
    size = 2000
    optimizer = adamw.create("inplace", learning_rate=1.0, weight_decay=0)
    held = [optimizer.apply_gradients({"a": mx.ones((size,))}, {"a": mx.zeros((size,))})]
    before = {"parameter": held[0]["a"], **optimizer.state["a"]}
    before = {name: float64(array)[0] for name, array in before.items()} | {which: 7.0}
    (held[0]["a"] if which == "parameter" else optimizer.state["a"][which])[:] = mx.full((size,), 7.0)
    mx.eval(held, optimizer.state)
    others = [mx.full((size,), 3.0 + number) for number in range(8)]
    mx.eval(others)
    held.append(optimizer.apply_gradients({"a": mx.ones((size,))}, held.pop()))
    leaf = reference.Leaf(before["parameter"], before["m"], before["v"])
    expected = reference.step(leaf, 1.0, 2, learning_rate=1.0, weight_decay=0)
    np.testing.assert_allclose(np.array(held[0]["a"]), expected.w, rtol=1e-5)
    for number, other in enumerate(others):
        np.testing.assert_array_equal(np.array(other), 3.0 + number)


def test_arrays_that_do_not_lie_in_order_are_taken_over():
    optimizer, twin = (adamw.create("inplace", learning_rate=1e-2) for _ in range(2))
    turned = mx.arange(12, dtype=mx.float32).reshape(3, 4).T
    results = [one.apply_gradients({"a": mx.ones((4, 3))}, {"a": w}) for one, w in
               ((optimizer, turned), (twin, mx.contiguous(turned)))]  # fmt: skip
    np.testing.assert_array_equal(*(np.array(result["a"]) for result in results))


def test_somebody_who_holds_old_parameters_holds_no_moments():
    optimizer = adamw.create("inplace", learning_rate=1e-2)
    size = 2**16
    held, gradients = [{"a": mx.ones((size,))}], {"a": mx.ones((size,))}
    mx.eval(held, gradients)
    held.append(optimizer.apply_gradients(gradients, held.pop()))
    before = mx.get_active_memory()
    kept = []
    for number in range(1, 4):
        kept.append(held[0]["a"])
        held.append(optimizer.apply_gradients(gradients, held.pop()))
        assert mx.get_active_memory() - before < (number + 0.5) * 4 * size


@pytest.mark.parametrize(
    ("snapshot", "is_kept"),
    [(mx.array, True), (lambda w: w * 1, True), (copy.deepcopy, False), (mx.stop_gradient, False),
     (mx.contiguous, False), (lambda w: w.reshape(-1), False), (lambda w: w[:500], False)],
    ids=["array", "product", "deepcopy", "stop_gradient", "contiguous", "reshape", "slice"],
)  # fmt: skip
def test_what_shares_memory_is_as_the_docstring_says(snapshot, is_kept):
    optimizer = adamw.create("inplace", **SETTINGS)
    held = [stepped(optimizer, tree())]
    taken = snapshot(held[0]["a"])
    mx.eval(taken)
    before = np.array(taken, copy=True)
    held.append(optimizer.apply_gradients(tree(5), held.pop()))
    assert (np.array(taken) == before).all() == is_kept


def test_inside_a_multi_optimizer_whose_parts_are_of_other_lengths():
    model = mlx.nn.Sequential(*[mlx.nn.Linear(4, 4) for _ in range(3)])
    parts = [adamw.create("inplace", learning_rate=1e-2), mlx.optimizers.SGD(1e-2)]
    optimizer = mlx.optimizers.MultiOptimizer(parts, [lambda path, _: "layers.0" in path])
    before = np.array(model.layers[0].weight)
    optimizer.update(model, tree_map(mx.ones_like, model.parameters()))
    assert (np.array(model.layers[0].weight) != before).all()


@contextmanager
def unchanged(optimizer: Any, parameters: Any) -> Iterator[None]:
    """What is done inside changes neither the state nor the parameters, and the next step is a right one.

    No array is held meanwhile: it would be copied, and only the copy be written.
    """
    before = [(path, id(array), np.array(array)) for path, array in tree_flatten([optimizer.state, parameters])]
    twin = adamw.create("inplace", **SETTINGS)
    twin.state = tree_map(lambda array: array * 1, optimizer.state)
    expected = twin.apply_gradients(tree(5), tree_map(lambda array: array * 1, parameters))
    yield
    after = [(path, id(array), np.array(array)) for path, array in tree_flatten([optimizer.state, parameters])]
    assert [place[:2] for place in after] == [place[:2] for place in before]
    for (path, _, values), (_, _, expected_values) in zip(after, before, strict=True):
        np.testing.assert_array_equal(values, expected_values, err_msg=path)
    actual = optimizer.apply_gradients(tree(5), parameters)
    np.testing.assert_array_equal(np.array(actual["a"]), np.array(expected["a"]))
    assert optimizer.step.item() == twin.step.item()


planted: type[BaseException] = ArithmeticError


def fail(*_: Any, **__: Any) -> None:
    raise planted


PLACES = {
    "a hyper-parameter": lambda patch, optimizer: patch.setattr(optimizer, "eps", mx.array(1e-8)),
    "the schedule": lambda patch, optimizer: patch.setitem(optimizer._schedulers, "learning_rate", fail),
    "the gradients": lambda patch, _: patch.setattr(mx, "synchronize", fail),
    "counting": lambda patch, optimizer: patch.setattr(optimizer, "count_step", fail),
    "the scalars": lambda patch, optimizer: patch.setattr(optimizer, "_scalars", fail),
    "copying": lambda patch, _: patch.setattr(ownership, "copier", lambda: fail),
    "a gradient's place": lambda patch, _: patch.setattr(inplace, "address", fail),
    "a loop": lambda patch, _: patch.setattr(loops, "loop", fail),
    "dividing the work": lambda patch, _: patch.setattr(inplace, "chunks", fail),
    "the containers": lambda patch, _: patch.setattr(ownership, "gather", fail),
}


@pytest.mark.parametrize("kind", [ArithmeticError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("whose", ["the optimizer's", "the caller's"])
@pytest.mark.parametrize("place", PLACES)
def test_an_error_from_any_place_before_the_first_write_changes_nothing(place, whose, kind, monkeypatch):
    monkeypatch.setitem(globals(), "planted", kind)
    optimizer = adamw.create("inplace", **SETTINGS)
    parameters = stepped(optimizer, tree(), steps=2)
    if whose == "the caller's" or place == "copying":
        parameters = tree_map(lambda array: array * 1, parameters)
    with unchanged(optimizer, parameters), pytest.MonkeyPatch.context() as patch:
        PLACES[place](patch, optimizer)
        with pytest.raises((kind, TypeError)):
            optimizer.apply_gradients(tree(5), parameters)


def test_a_loop_that_is_missing_for_one_leaf_stops_the_others(monkeypatch):
    """Of two dtypes the first has its loop: it must not be run before the second's is there."""
    optimizer, gradients = adamw.create("inplace", **SETTINGS), tree(5)
    parameters = stepped(optimizer, tree())
    whole = loops.loop
    monkeypatch.setattr(loops, "loop", lambda *names: fail() if "bfloat16" in names else whole(*names))
    gradients["b"] = [gradients["b"][0].astype(mx.bfloat16)]
    with unchanged(optimizer, parameters), pytest.raises(ArithmeticError):
        optimizer.apply_gradients(gradients, parameters)


@pytest.mark.parametrize("place", ["_finish_readers", "count_step", "_owned", "_scalars"])
def test_a_signal_that_comes_in_a_step_is_raised_when_the_step_is_whole(place, monkeypatch):
    interrupted, twin = (adamw.create("inplace", **SETTINGS) for _ in range(2))
    held, expected = [stepped(interrupted, tree())], stepped(twin, tree(), steps=2)
    step = getattr(interrupted, place)

    def with_signal(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return step(*arguments)

    monkeypatch.setattr(interrupted, place, with_signal)
    with pytest.raises(KeyboardInterrupt):
        interrupted.apply_gradients(tree(5), held[0])
    np.testing.assert_array_equal(np.array(held[0]["a"]), np.array(expected["a"]))
    assert interrupted.step.item() == 2
    for name in "mv":
        np.testing.assert_array_equal(np.array(interrupted.state["a"][name]), np.array(twin.state["a"][name]))


def test_a_signal_between_two_dtypes_waits_for_the_second(monkeypatch):
    optimizer, gradients, each = adamw.create("inplace", **SETTINGS), tree(5), inplace.each
    held = [stepped(optimizer, tree())]
    gradients["b"] = [gradients["b"][0].astype(mx.bfloat16)]
    before = np.array(held[0]["b"][0])
    monkeypatch.setattr(inplace, "each", lambda *work: (each(*work), signal.raise_signal(signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt):
        optimizer.apply_gradients(gradients, held[0])
    assert (np.array(held[0]["b"][0]) != before).all()


class TestHeldSignals:
    def test_every_handler_is_called_once_after_the_block_and_is_in_its_place_again(self):
        came: list[int] = []
        handler = lambda number, _: came.append(number)  # noqa: E731
        before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGALRM)}
        try:
            with interrupts.held():
                for number in before:
                    signal.raise_signal(number)
                assert not came
            assert sorted(came) == sorted(before)
            assert all(signal.getsignal(number) is handler for number in before)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def test_an_error_inside_is_not_lost(self):
        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(ArithmeticError), interrupts.held():
            fail()
        assert signal.getsignal(signal.SIGINT) is before

    def test_in_another_thread_there_is_nothing_to_hold(self):
        with ThreadPoolExecutor(1) as pool:
            parameters = pool.submit(stepped, adamw.create("inplace", **SETTINGS), tree()).result()
        expected = stepped(adamw.create("inplace", **SETTINGS), tree())
        np.testing.assert_array_equal(np.array(parameters["a"]), np.array(expected["a"]))


class TestCopies:
    @pytest.fixture(autouse=True)
    def looked_at_anew(self) -> Iterator[None]:
        ownership.copier.cache_clear()
        yield
        ownership.copier.cache_clear()

    def test_what_shares_memory_is_not_taken_for_a_copy(self, monkeypatch):
        monkeypatch.setattr(ownership, "COPIES", (mx.contiguous, *ownership.COPIES[1:]))
        random = np.random.default_rng(0).integers(0, 2**16, 40, np.uint16)  # nan, infinities and the smallest numbers
        tree = {"a": mx.ones((40,)), "s": mx.ones(()), "t": mx.ones((3, 4)).T, "h": mx.array(random).view(mx.bfloat16)}
        before = {name: np.array(array.view(mx.uint8) if array.ndim else array) for name, array in tree.items()}
        adamw.create("inplace", **SETTINGS).apply_gradients(tree, tree)
        for name, array in tree.items():
            np.testing.assert_array_equal(np.array(array.view(mx.uint8) if array.ndim else array), before[name])
        for array in tree.values():
            assert mx.array_equal(
                ownership.copier()(array).reshape(-1).view(mx.uint8), array.reshape(-1).view(mx.uint8)
            )

    def test_where_nothing_copies_the_step_is_refused(self, monkeypatch):
        monkeypatch.setattr(ownership, "COPIES", (mx.contiguous,))
        optimizer, parameters = adamw.create("inplace", **SETTINGS), {"a": mx.ones((40,))}
        with pytest.raises(Unavailable, match="this MLX copies no array"):
            optimizer.apply_gradients(parameters, parameters)
        assert parameters["a"].tolist() == [1.0] * 40
        assert optimizer.step.item() == 0
