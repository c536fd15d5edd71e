"""The counters meet the theory, repeat, and each planted defect shows in the figure that names it."""

import json
import multiprocessing
import os
import subprocess
import sys

import here
import mlx.core as mx
import mlx.optimizers
import pytest
from mlx.utils import tree_flatten, tree_map, tree_unflatten

import adamw
from benchmarks.harness import cases, donation, evaluation, primitives
from benchmarks.harness import count as count_module
from benchmarks.harness.count import count
from benchmarks.harness.counters import Counters
from benchmarks.harness.measure import measure_memory
from benchmarks.harness.step import Step
from scripts import exact
from scripts.matching import Match

Compiled, Split, Eager = adamw.load("compiled"), adamw.load("split"), adamw.load("eager")
BFLOAT16 = cases.case("compiled", "bfloat16/two_leaves")
FLOAT32 = cases.case("compiled", "float32/nested")


@pytest.mark.parametrize(
    ("name", "workload", "kernels", "traffic", "temporaries", "peak"),
    [
        ("eager", "float32/nested", 13, 30, 10, 8),
        ("eager", "float32/two_leaves/bias_correction", 14, 32, 11, 8),
        ("eager", "bfloat16/two_leaves", 13, 30, 10, 8),
        ("compiled", "float32/nested", 1, 7, 0, 7),
        ("compiled", "float32/two_leaves/bias_correction", 1, 7, 0, 7),
        ("compiled", "mixed/two_leaves", 1, 11, 0, 11),  # 22 bytes, 2 of them the parameter's
        ("split", "float32/nested", 3, 10, 0, 4),
        ("split", "float32/two_leaves/bias_correction", 3, 10, 0, 4),
        ("flat", "float32/two_leaves", 1, 7, 0, 7),
        ("windowed", "float32/two_leaves", 3, 10, 0, 4),  # leaves larger than its window
    ],
)
def test_theory_is_met(name, workload, kernels, traffic, temporaries, peak):
    case = cases.case(name, workload)
    found = count(case)
    assert found.kernels == kernels * case.leaf_count
    assert found.modelled_bytes == traffic * case.parameter_bytes
    assert found.temporaries == temporaries * case.leaf_count
    assert found.peak_bytes == peak * case.parameter_bytes
    assert found.unfused_kernels == (found.kernels if name == "eager" else 0)
    assert found.bytes_read + found.bytes_written == found.modelled_bytes
    assert (found.held_arrays, found.kept_arrays, found.graph_growth, found.memory_growth) == (0, 0, 0, 0)
    assert found.parameter_dtypes == case.precision.parameter
    assert found.state_dtypes == case.precision.state
    assert found.result_bytes == case.parameter_count * case.precision.output_bytes


@pytest.mark.parametrize("workload", ["float32/gpt2", "float32/resnet50", "float32/vit_b16", "mixed/llama_1b"])
def test_windows_peak_at_little_more_than_what_is_resident(workload):
    case = cases.case("windowed", workload)
    assert count(case).peak_bytes < 4.3 / 4 * case.resident_bytes


def test_one_leaf_larger_than_the_window_is_split_and_the_rest_is_fused():
    case = cases.case("windowed", "float32/gpt2")
    found = count(case)
    assert found.kernels == case.leaf_count + 2
    assert 4 < found.peak_bytes / case.parameter_bytes < 4.3


def test_upstream_is_what_eager_is(monkeypatch):
    case = cases.case("eager", "float32/nested")
    ours = count(case)
    monkeypatch.setattr(adamw, "load", lambda name: mlx.optimizers.AdamW)
    assert count(case) == ours


@pytest.mark.parametrize("variant", here.FLOAT32)
def test_mlx_peaks_as_high_as_counted_where_it_cannot_wait_and_never_higher(variant):
    """Two leaves are too few for a step to wait in; MLX may free less than it could, so its scalars are allowed for."""
    for workload in ("float32/leaf_65536", "float32/two_leaves"):
        case = cases.case(variant, workload)
        others = mx.get_active_memory()  # what other tests have left
        step = Step(case)
        step()
        step()
        measured = max(measure_memory(step).peak for _ in range(5)) - others  # under load it may wait now and then
        assert measured <= count(case).peak_bytes + 2**12
        assert measured >= 0.9 * count(case).peak_bytes


def test_a_donation_probe_is_one_kernel():
    array = mx.ones((64,))
    mx.eval(array)
    from benchmarks.harness import dot

    assert [node.is_fused for node in dot.read(list(mx.compile(donation.two_results)(array))).nodes] == [True]


def test_what_this_mlx_does_not_tell_is_none_and_the_rest_is_there(monkeypatch):
    whole = count(FLOAT32)
    monkeypatch.setattr(primitives, "available", lambda: False)
    assert count(FLOAT32) == whole._replace(primitives=None)
    eager = count(FLOAT32._replace(variant="eager"))
    assert (eager.kernels, eager.modelled_bytes, eager.peak_bytes) == (13 * 24, None, None)


COUNT = """
import json
from benchmarks.harness import cases
from benchmarks.harness.count import count
for variant in ("windowed", "eager"):
    print(json.dumps(count(cases.case(variant, "float32/gpt2"))))
"""


def spin(stop) -> None:
    while not stop.is_set():
        sum(range(10_000))


def test_counters_repeat_under_load(tmp_path):
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    load = [context.Process(target=spin, args=(stop,)) for _ in range(2 * (os.cpu_count() or 1))]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", COUNT]
    quiet = subprocess.check_output(command, env=environment, text=True)
    for process in load:
        process.start()
    try:
        assert subprocess.check_output(command, env=environment, text=True) == quiet
    finally:
        stop.set()
        for process in load:
            process.join()
    assert len(json.loads(quiet.splitlines()[0])) == len(Counters._fields)


# The planted defects: each a variant with one thing wrong, and the words that name it.


class Unfused(Compiled):
    """Fusion broken by an operation that cannot be fused."""

    def apply_single(self, gradient, parameter, state):
        return super().apply_single(gradient + 0 * mx.sum(gradient), parameter, state)


class OneLeafOutside(Compiled):
    """The first leaf is updated outside the compiled function, after it."""

    def apply_gradients(self, gradients, parameters):
        old, state = parameters["weight"][0], dict(self.state["weight"][0])
        updated = super().apply_gradients(gradients, parameters)
        updated["weight"][0] = Eager.apply_single(self, gradients["weight"][0], old, state)
        self.state["weight"][0] = state
        return updated


class Holding(Split):
    """A reference to the old parameters stays: their buffers cannot be written over."""

    def apply_gradients(self, gradients, parameters):
        self.previous = parameters
        return super().apply_gradients(gradients, parameters)


class WideState(Compiled):
    """The state becomes float32, whatever it was."""

    def apply_single(self, gradient, parameter, state):
        updated = super().apply_single(gradient, parameter, state)
        state["m"], state["v"] = (state[name].astype(mx.float32) for name in "mv")
        return updated


class Upcast(Compiled):
    """Gradients are made float32 before the update, outside the compiled function."""

    def apply_gradients(self, gradients, parameters):
        return super().apply_gradients(tree_map(lambda array: array.astype(mx.float32), gradients), parameters)

    def apply_single(self, gradient, parameter, state):
        dtype = state["m"].dtype
        updated = super().apply_single(gradient, parameter, state)
        state["m"], state["v"] = (state[name].astype(dtype) for name in "mv")
        return updated


class Retracing(Compiled):
    """Changes a literal of the compiled function in every step."""

    def apply_gradients(self, gradients, parameters):
        self.weight_decay += 1e-9
        return super().apply_gradients(gradients, parameters)


class DecayArray(Compiled):
    """The weight decay is an array that is scheduled, and read out as a number for the compiled function."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.decay = mx.array(self.weight_decay)

    def apply_gradients(self, gradients, parameters):
        self.decay = self.decay * 0.999
        self.weight_decay = self.decay.item()
        return super().apply_gradients(gradients, parameters)


class Averaging(Compiled):
    """State that nobody evaluates: an average of the parameters outside the optimizer's state."""

    average = None

    def apply_gradients(self, gradients, parameters):
        updated = super().apply_gradients(gradients, parameters)
        self.average = tree_map(lambda new, old: 0.9 * old + 0.1 * new, updated, self.average or updated)
        return updated


class Clipping(Compiled):
    """The gradients are read once more for their norm."""

    def apply_gradients(self, gradients, parameters):
        clipped, _ = mlx.optimizers.clip_grad_norm(gradients, 1.0)
        return super().apply_gradients(clipped, parameters)


class Waiting(adamw.load("windowed")):
    """Waits for every window before it starts the next."""

    def _update_in_place(self, places):
        start, mx.async_eval = mx.async_eval, mx.eval
        try:
            super()._update_in_place(places)
        finally:
            mx.async_eval = start


class Wrong(Compiled):
    """Does less than AdamW."""

    def apply_single(self, gradient, parameter, state):
        super().apply_single(gradient, parameter, state)
        return parameter


class Momentum(Compiled):
    """Another moment, in a private list of dicts of tuples."""

    momentum = None

    def apply_gradients(self, gradients, parameters):
        names, arrays = zip(*tree_flatten(gradients), strict=True)
        old = self.momentum or [{"pair": (mx.zeros_like(array),)} for array in arrays]
        self.momentum = [{"pair": (0.9 * one["pair"][0] + array,)} for one, array in zip(old, arrays, strict=True)]
        smooth = [0.0 * one["pair"][0] + array for one, array in zip(self.momentum, arrays, strict=True)]
        return super().apply_gradients(tree_unflatten(list(zip(names, smooth, strict=True))), parameters)


class HalfEager(Compiled):
    """Half precision silently takes the eager path."""

    def apply_gradients(self, gradients, parameters):
        if gradients["weight"][0].dtype == mx.bfloat16:
            return mlx.optimizers.AdamW.apply_gradients(self, gradients, parameters)
        return super().apply_gradients(gradients, parameters)


def difference(monkeypatch, case: cases.Case, defect: type, good: type = Compiled) -> exact.Change | None:
    """What `exact` says of `case` where `defect` takes the place of `good`."""
    monkeypatch.setattr(adamw, "load", lambda name: good)
    base = count(case)
    monkeypatch.setattr(adamw, "load", lambda name: defect)
    return exact.change(Match(str(case), case, case), base, count(case))


@pytest.mark.parametrize(
    ("defect", "good", "case", "words"),
    [
        (Unfused, Compiled, BFLOAT16, "2 kernels a leaf, was 1; traffic 8N, was 7N"),
        (OneLeafOutside, Compiled, BFLOAT16, "7 kernels a leaf, was 1"),
        (Holding, Split, FLOAT32, "24 old arrays held by somebody while the step runs, was 0"),
        (Holding, Split, FLOAT32, "peak up to 5N, was 4N"),
        (Holding, Split, FLOAT32, "24 arrays left behind after the step, was 0"),
        (WideState, Compiled, BFLOAT16, "state becomes float32, was bfloat16"),
        (Upcast, Compiled, BFLOAT16, "6 kernels a leaf, was 1; traffic 25N, was 7N"),
        (Retracing, Compiled, FLOAT32, "traced 10 times in 10 steps, was 1"),
        (DecayArray, Compiled, FLOAT32, "traced 10 times in 10 steps, was 1"),
        (Averaging, Compiled, FLOAT32, "the graph grows by 120 operations a step, was 0"),
        (Averaging, Compiled, FLOAT32, "memory grows by "),
        (Clipping, Compiled, FLOAT32, "4 kernels a leaf, was 1; 30 scalar kernels, was 2; traffic 12N, was 7N"),
        (Waiting, adamw.load("windowed"), FLOAT32, "9 waits for the device inside a step, was 5"),
        (Wrong, Compiled, FLOAT32, "wrong result: 1, was 0"),
        (Momentum, Compiled, BFLOAT16, "5 kernels a leaf, was 1"),
        (HalfEager, Compiled, BFLOAT16, "13 kernels a leaf, was 1; 9 scalar kernels, was 3; traffic 30N, was 7N"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_planted_defect_is_named(monkeypatch, defect, good, case, words):
    found = difference(monkeypatch, case, defect, good)
    assert found
    assert found.verdict == exact.WORSE
    assert words in found.words


def test_only_the_case_that_falls_back_shows(monkeypatch):
    found = difference(monkeypatch, cases.case("compiled", "float32/two_leaves"), HalfEager)
    assert (found.words, found.calls) == ("", 1)  # the call of super()


@pytest.mark.parametrize("base", [Compiled, Eager])
def test_leaves_made_of_nothing_and_work_done_twice_are_counted(monkeypatch, base):
    class Wasteful(base):
        def apply_single(self, gradient, parameter, state):
            twice = mx.square(gradient) - mx.square(gradient)
            return super().apply_single(gradient + mx.zeros_like(gradient) + twice, parameter, state)

    monkeypatch.setattr(adamw, "load", lambda name: base)
    plain = count(FLOAT32)
    monkeypatch.setattr(adamw, "load", lambda name: Wasteful)
    found = count(FLOAT32)
    if base is Eager:  # zeros, two squares, their difference, two additions
        assert found.kernels - plain.kernels == 6 * 24
        assert found.bytes_written - plain.bytes_written == 6 * FLOAT32.parameter_bytes
    else:  # zeros of each of the two shapes, once; the rest is fused
        assert found.kernels - plain.kernels == 2
        assert found.bytes_read - plain.bytes_read == FLOAT32.parameter_bytes
    assert found.wrong_results == 0


def test_a_copy_in_disguise_is_a_kernel(monkeypatch):
    class Transposing(Eager):
        def apply_single(self, gradient, parameter, state):
            shape = gradient.shape
            turned = gradient.reshape(2, -1).T.reshape(2, -1).T.reshape(shape)
            return super().apply_single(turned, parameter, state)

    monkeypatch.setattr(adamw, "load", lambda name: Eager)
    plain = count(FLOAT32)
    monkeypatch.setattr(adamw, "load", lambda name: Transposing)
    assert count(FLOAT32).kernels - plain.kernels == 2 * 24


def test_the_harness_is_not_among_the_calls(monkeypatch):
    """`windowed` evaluates inside its step: that this is held back must not count."""
    step = count_module.HollowStep(cases.case("windowed", "float32/nested"))
    step()
    calls = count_module.python_calls(step)
    monkeypatch.setattr(evaluation, "flat", lambda trees: [])
    assert count_module.python_calls(step) == calls


class Rewritten(Compiled):
    """The same work in other words: names, comments and the order of independent lines differ."""

    def apply_single(self, grad, weight, slots):
        # upstream's arithmetic, v before m
        beta_one, beta_two = self.betas
        rate = self.learning_rate.astype(grad.dtype)
        v = slots["v"]
        m = slots["m"]
        weight = weight * (1 - rate * self.weight_decay)
        v = beta_two * v + (1 - beta_two) * mx.square(grad)
        m = beta_one * m + (1 - beta_one) * grad
        slots["v"] = v
        slots["m"] = m
        return weight - rate * m / (mx.sqrt(v) + self.eps)


class Written(Compiled):
    def apply_single(self, gradient, parameter, state):
        rate = self.learning_rate.astype(gradient.dtype)
        parameter = parameter * (1 - rate * self.weight_decay)
        b1, b2 = self.betas
        m, v = state["m"], state["v"]
        m = b1 * m + (1 - b1) * gradient
        v = b2 * v + (1 - b2) * mx.square(gradient)
        state["m"], state["v"] = m, v
        return parameter - rate * m / (mx.sqrt(v) + self.eps)


def test_the_same_work_in_other_words_is_no_change(monkeypatch):
    assert difference(monkeypatch, FLOAT32, Rewritten, Written) is None
