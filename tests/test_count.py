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
from defects import DEFECTS, FLOAT32, Compiled, Eager, HalfEager

import adamw
from benchmarks.harness import cases, donation, evaluation, primitives
from benchmarks.harness import count as count_module
from benchmarks.harness.count import count
from benchmarks.harness.counters import Counters
from benchmarks.harness.measure import measure_memory
from benchmarks.harness.step import Step
from scripts import exact
from scripts.matching import Match


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
    description = found.result_bytes - case.parameter_count * case.precision.output_bytes
    assert (0 < description < 100 * case.leaf_count) if name == "flat" else description == 0  # of what lies where


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


def difference(monkeypatch, case: cases.Case, defect: type, good: type = Compiled) -> exact.Change | None:
    """What `exact` says of `case` where `defect` takes the place of `good`."""
    monkeypatch.setattr(adamw, "load", lambda name: good)
    base = count(case)
    monkeypatch.setattr(adamw, "load", lambda name: defect)
    return exact.change(Match(str(case), case, case), base, count(case))


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.planted.__name__)
def test_a_planted_defect_is_named(monkeypatch, defect):
    found = difference(monkeypatch, defect.case, defect.planted, adamw.load(defect.of))
    assert found
    assert found.verdict == exact.WORSE
    assert all(words in found.words for words in defect.words)


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
