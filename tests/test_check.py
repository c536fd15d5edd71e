"""A wrong case is found before it is timed, and named."""

import os
import subprocess
import sys

import mlx.core as mx
import pytest

import adamw
from benchmarks.harness import agreement, cases, check, measure
from benchmarks.harness.count import count
from benchmarks.harness.step import Step

CASE = cases.Case("compiled", "float32", "nested")


def checked(case: cases.Case, optimizer: type) -> float:
    """The error of `case` run by `optimizer` instead of its own variant."""
    step = Step(case)
    replacement = optimizer(cases.LEARNING_RATE, bias_correction=case.bias_correction)
    replacement.state = step.optimizer.state
    step.optimizer = replacement
    expected = check.Check(case, step)
    for _ in range(agreement.STEPS):
        step()
    check.check_dtypes(case, step)
    return expected.error(step)


class Right(adamw.load("compiled")):
    pass


class NoDecay(adamw.load("eager")):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, weight_decay=0.0, **kwargs)


class Stale(adamw.load("eager")):
    """Forgets every second update of v."""

    def apply_single(self, gradient, parameter, state):
        v = state["v"]
        result = super().apply_single(gradient, parameter, state)
        if self.step.item() % 2 == 0:
            state["v"] = v
        return result


class LastElementForgotten(adamw.load("eager")):
    """The tail of a leaf is not updated: what a kernel with a wrong grid does."""

    def apply_single(self, gradient, parameter, state):
        result = super().apply_single(gradient, parameter, state)
        flat, old = result.reshape(-1), parameter.reshape(-1)
        return mx.concatenate([flat[:-1], old[-1:]]).reshape(result.shape)


class SwappedLeaves(adamw.load("eager")):
    """Leaves of one shape take each other's update: what a kernel over many leaves with a wrong table does."""

    def apply_gradients(self, gradients, parameters):
        updated = super().apply_gradients(gradients, parameters)
        updated["layers"] = updated["layers"][::-1]
        return updated


class NotANumber(adamw.load("eager")):
    def apply_single(self, gradient, parameter, state):
        return super().apply_single(gradient, parameter, state) * float("nan")


class Widening(adamw.load("eager")):
    def apply_single(self, gradient, parameter, state):
        return super().apply_single(gradient, parameter, state).astype(mx.float32)


def test_a_right_case_passes_with_a_small_error():
    assert 0 < checked(CASE, Right) < cases.PRECISIONS["float32"].tolerance


@pytest.mark.parametrize("precision", cases.STANDARD)
@pytest.mark.parametrize("wrong", [Stale, LastElementForgotten, NotANumber])
def test_a_wrong_result_is_found(wrong, precision):
    kept = type("Kept", (wrong,), {"apply_single": keeping_dtype(wrong)})  # upstream widens in mixed precision
    with pytest.raises(check.WrongCase, match=r"wrong result: error .* of leaf"):
        checked(CASE._replace(precision_name=precision), kept)


def keeping_dtype(base: type):
    return lambda self, g, p, state: base.apply_single(self, g, p, state).astype(p.dtype)


def test_mixed_up_leaves_of_one_shape_are_found():
    with pytest.raises(check.WrongCase, match="wrong result"):
        checked(CASE._replace(tree_name="thousand_leaves"), SwappedLeaves)


def test_a_missing_decay_is_found():
    with pytest.raises(check.WrongCase, match="wrong result"):
        checked(CASE, NoDecay)


def test_only_the_last_of_many_elements_wrong_is_found():
    with pytest.raises(check.WrongCase, match="wrong result"):
        checked(CASE._replace(tree_name="leaf_1048583"), LastElementForgotten)


def test_a_changed_dtype_is_found():
    with pytest.raises(check.WrongCase, match="parameter became float32, was bfloat16"):
        checked(CASE._replace(precision_name="bfloat16"), Widening)


def test_the_wrong_kernels_are_found(monkeypatch):
    step = Step(CASE)
    work = count(CASE)
    kernels = check.check_kernels(CASE, step)
    check.check_counters(CASE, work, kernels)
    with pytest.raises(check.WrongCase, match="24 kernels in a step, 24 compiled; without its memory 24 and 23 were"):
        check.check_counters(CASE, work._replace(fused_kernels=23), kernels)
    with pytest.raises(check.WrongCase, match=r"its graph moves \d+ bytes, less than"):
        check.check_counters(CASE, work._replace(modelled_bytes=work.modelled_bytes // 2), kernels)
    monkeypatch.setattr(type(step.optimizer), "kernels_a_leaf", (0, 0))
    with pytest.raises(check.WrongCase, match="24 compiled kernels in a step, expected 0 to 0"):
        check.check_kernels(CASE, step)


MEASURE = """
from benchmarks.harness import cases, measure
try:
    measure.measure(cases.Case("compiled", "float32", "nested"))
except Exception as error:
    print(type(error).__name__, error)
"""


def measured_in(environment: dict[str, str], folder) -> str:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        env=os.environ | {"TMPDIR": str(folder), "PYTHONPATH": os.getcwd()} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_an_uncompiled_step_is_not_taken_for_a_compiled_one(tmp_path):
    answer = measured_in({"MLX_DISABLE_COMPILE": "1"}, tmp_path)
    assert answer.startswith("WrongCase compiled/float32/nested: 0 compiled kernels in a step, expected 24 to 24")


@pytest.mark.skipif(mx.default_device() != mx.Device(mx.cpu), reason="only MLX's CPU backend compiles with g++")
def test_a_machine_without_a_compiler_is_told_so(tmp_path):
    assert "is there a C++ compiler" in measured_in({"PATH": "/nonexistent"}, tmp_path)


class Retracing(adamw.load("compiled")):
    """Changes a literal of the compiled function in every step."""

    def apply_gradients(self, gradients, parameters):
        self.betas = [self.betas[0], self.betas[1] - 1e-9]
        return super().apply_gradients(gradients, parameters)


def test_a_trace_while_the_clock_runs_is_found(monkeypatch):
    monkeypatch.setattr(adamw, "load", lambda name: Retracing)
    with pytest.raises(check.WrongCase, match=r"traced \d+ times while the clock ran"):
        measure.measure(CASE)


def test_blocks_of_a_large_leaf_include_both_ends():
    array = mx.arange(10 * agreement.BLOCKS * agreement.BLOCK, dtype=mx.float32)
    values = check.compared(array)
    assert values.size == agreement.BLOCKS * agreement.BLOCK
    assert (values[0], values[-1]) == (0, array.size - 1)
