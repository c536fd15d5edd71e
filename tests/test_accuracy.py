"""The long run shows where half precision is not AdamW, and holds every variant to its precision for 2000 steps."""

import json
from typing import Any

import here
import mlx.optimizers
import numpy as np
import pytest
from asv_runner.benchmarks.mark import SkipNotImplemented

import adamw
from benchmarks.harness import accuracy, cases, ledger, numbers, run
from scripts import accuracy as command
from scripts.command import UserError
from scripts.ledger import failures

ALL = [(variant, precision) for variant in here.VARIANTS for precision in cases.precisions(variant)]


def steps(one: accuracy.Run, number: int) -> accuracy.Run:
    random = np.random.default_rng(2)
    for _ in range(number):
        one.step(random.normal(0.02, 0.1, accuracy.ELEMENTS))
    return one


@pytest.mark.parametrize("variant", [variant for variant, precision in ALL if precision == "float32"])
@pytest.mark.parametrize("schedule", [False, True])
@pytest.mark.parametrize("bias_correction", [False, True])
def test_every_variant_is_adamw_for_2000_steps_in_float32(variant, bias_correction, schedule):
    rate: Any = mlx.optimizers.cosine_decay(1e-3, 2000) if schedule else 1e-3
    settings = {"bias_correction": bias_correction, "learning_rate": rate}
    one = steps(accuracy.Run(variant, cases.PRECISIONS["float32"], **settings), 2000)
    assert one.error() < 2**-13
    assert one.error_of_v() < 2**-13


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "mixed"])
def test_float32_arithmetic_loses_to_storage_alone(precision):
    """For 2000 steps; what upstream's arithmetic in half precision loses on top is not small."""
    ours, upstreams = (
        steps(accuracy.Run(name, cases.PRECISIONS[precision], rounded=True), 2000) for name in ("inplace", "compiled")
    )
    assert ours.error() < 0.01
    assert ours.error_of_v() < 0.001
    assert upstreams.error() > 0.05


def test_half_precision_is_not_adamw_and_it_shows():
    half, single = (accuracy.measure("compiled", precision) for precision in ("bfloat16", "float32"))
    assert half.v_decay > 0.5  # bfloat16(0.999) is 1: v stays, where it should fall to 0.61 of itself
    assert half.zero_gradients == pytest.approx(1, abs=0.01)  # a decay of less than half a unit: nothing moves
    assert half.after_2000 > 0.5
    assert max(single[:-1]) < 1e-3
    assert single.loss < half.loss


def test_float16_is_not_finite_and_it_shows():
    found = accuracy.measure("compiled", "float16")
    assert found.zero_gradients == found.after_2000 == found.loss == np.inf
    assert numbers.in_asv(found.loss) == numbers.NOT_FINITE


class Idle(mlx.optimizers.AdamW):
    """Does nothing."""

    def apply_single(self, gradient, parameter, state):
        return parameter


def test_not_to_move_is_an_error_of_1(monkeypatch):
    monkeypatch.setattr(adamw, "load", lambda name: Idle)
    found = accuracy.measure("compiled", "float32")
    assert found.after_1 == found.after_100 == found.after_2000 == found.zero_gradients == 1
    assert found.v_after_2000 == found.v_decay == 1
    assert found.loss > 2  # the logarithm of ten classes is 2.3


def test_the_run_measures_once_and_skips_what_cannot_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "ledger"))
    fixed = accuracy.Accuracy(*range(8))
    monkeypatch.setattr(accuracy, "measure", lambda variant, precision: fixed)
    assert run.accuracy("compiled", "float32") == fixed
    monkeypatch.setattr(accuracy, "measure", None)
    assert run.accuracy("compiled", "float32") == fixed
    started, entry = ledger.read(tmp_path / "ledger")
    assert started == started | {"what": "started", "case": "compiled/float32"}
    assert (entry["case"], entry["accuracy"]["after_2000"]) == ("compiled/float32", 2)
    monkeypatch.setattr(accuracy, "measure", lambda variant, precision: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.accuracy("split", "float32")
    assert list(failures(ledger.read(tmp_path / "ledger"))) == ["split/float32"]
    monkeypatch.setattr(adamw, "unavailable", lambda name: "it needs a GPU")
    with pytest.raises(SkipNotImplemented, match="it needs a GPU"):
        run.accuracy("eager", "float32")


def test_the_command_prints_and_writes_what_was_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(accuracy, "measure", lambda variant, precision: accuracy.Accuracy(*range(7), np.inf))
    path = tmp_path / "accuracy.json"
    assert command.main(["--case", "^(compiled|split)/(bfloat16|mixed)$", "--json", str(path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["bfloat16", "compiled", "0", "1", "2", "3", "4", "5", "6", "inf"] in rows
    assert ["split", "0", "1", "2", "3", "4", "5", "6", "inf"] in rows
    assert list(json.loads(path.read_text())["accuracy"]) == [
        "compiled/bfloat16", "split/bfloat16", "compiled/mixed", "split/mixed",
    ]  # fmt: skip


def test_the_whole_table_fits(monkeypatch, capsys):
    monkeypatch.setattr(accuracy, "measure", lambda variant, precision: accuracy.Accuracy(*[1.3e-05] * 7, 130.0))
    assert command.main([]) == 0
    out = capsys.readouterr().out
    assert "…" not in out
    assert len(out.splitlines()) > len(ALL)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("bfloat17", r"nothing matches 'bfloat17'; names are like compiled/bfloat16"),
        ("(", r"--case '\(' is no regular expression"),
        ("^other/", "it needs a GPU"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(monkeypatch, pattern, message):
    monkeypatch.setattr(adamw, "names", lambda: ["compiled", "other"])
    monkeypatch.setattr(adamw, "unavailable", lambda name: "it needs a GPU" if name == "other" else None)
    with pytest.raises(UserError, match=message):
        command.select(pattern)
