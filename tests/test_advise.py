"""A model's tree, the trial of a variant on it, what is recommended of figures, and the command."""

import contextlib
import json
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adamw
from benchmarks.harness import behaviour, cases, check, model, roles, trees, trial
from benchmarks.harness.behaviour import Behaviour
from benchmarks.harness.header import Tensor
from benchmarks.harness.measurement import Memory, Samples
from benchmarks.harness.modelstep import ModelStep
from benchmarks.harness.trial import Trial
from scripts import advice, advise, command, scratch
from scripts.advice import Row, Terms

ROOT = Path(__file__).parent.parent
WIDTHS = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I64": 8, "BOOL": 1, "F8_E4M3": 1}


def write(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> str:
    """A safetensors file of zeros; its path."""
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = WIDTHS[dtype] * trees.Shape(shape).size
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    return str(path)


# A model's tree


def test_leaves_keep_their_dtypes_and_what_is_not_trained_is_told(tmp_path):
    tensors = {
        "w": ("BF16", (4, 3)),
        "norm": ("F32", (4,)),
        "scale": ("F32", ()),
        "wide": ("F64", (2,)),
        "ids": ("I64", (5,)),
        "mask": ("BOOL", (2,)),
        "nothing": ("F32", (0, 3)),
    }
    loaded = model.load([write(tmp_path / "m.safetensors", tensors)])
    assert {(tuple(leaf), leaf.dtype) for leaf in loaded.leaves} == {
        ((4, 3), "bfloat16"),
        ((4,), "float32"),
        ((), "float32"),
        ((2,), "float32"),
    }
    assert loaded.parameter_count == 12 + 4 + 1 + 2
    assert list(loaded.dtypes.items()) == [("bfloat16", 1), ("float32", 3)]
    assert loaded.tolerance == cases.PRECISIONS["bfloat16"].tolerance
    assert {"bfloat16", "mixed"} <= set(loaded.precisions)
    assert {"float32", "float16"}.isdisjoint(loaded.precisions)
    assert loaded.notes == [
        "left out, as not trained: integers or bools: ids",
        "left out, as not trained: masks: mask",
        "left out, as not trained: without elements: nothing",
        "taken as float32, as MLX reads no float64 from safetensors: wide",
    ]


def test_another_dtype_than_the_files_can_be_asked_for(tmp_path):
    path = write(tmp_path / "m.safetensors", {"w": ("F8_E4M3", (4,)), "n": ("F64", (2,))})
    loaded = model.load([path], "bfloat16")
    assert dict(loaded.dtypes) == {"bfloat16": 2}
    assert loaded.notes == []
    assert dict(model.load(["gpt2"]).dtypes) == {"float32": 148}
    assert dict(model.load(["gpt2"], "float16").dtypes) == {"float16": 148}
    assert model.load(["gpt2"]).parameter_count == 124_439_808


def test_the_files_of_one_model_are_read_together(tmp_path):
    paths = [write(tmp_path / f"{name}.safetensors", {name: ("F32", (3,))}) for name in "abc"]
    loaded = model.load(paths)
    assert len(loaded.leaves) == 3
    assert loaded.name == "a.safetensors and 2 more"
    with pytest.raises(model.BadModel, match="the tensor a is in two files"):
        model.load([paths[0], paths[0]])


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "of its 0 tensors none is trained"),
        ({"a": ("I64", (3,))}, "of its 1 tensors none is trained"),
        ({"a\n\x1b": ("F8_E4M3", (3,))}, r"a\\n\\x1b is F8_E4M3, which MLX does not train.*--dtype bfloat16"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path, tensors, message):
    with pytest.raises(model.BadModel, match=message) as refused:
        model.load([write(tmp_path / "m.safetensors", tensors)])
    assert str(refused.value).isprintable()


def test_what_mlx_cannot_have_is_refused(tmp_path):
    with pytest.raises(model.BadModel, match="a dimension of 2147483648 is more"):
        model.load([f"leaf_{2**31}"])
    with pytest.raises(model.BadModel, match="no such file, and unknown tree 'gpt5'; choose one of: one_leaf"):
        model.load(["gpt5"])


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            Tensor,
            st.text(max_size=3)
            | st.sampled_from(["w.weight", "w.scales", "w.lora_a", "bn.running_mean", "w.m", "w.v"]),
            st.sampled_from([*model.DTYPES, *sorted(roles.INTEGERS), "C64", "F4"]),
            st.lists(st.integers(0, 2**40), max_size=4).map(tuple),
        ),
        max_size=5,
    ),
    st.sampled_from([None, "float16"]),
)
def test_any_tensors_make_a_model_or_are_refused_in_one_line(tensors, dtype):
    try:
        loaded = model.from_tensors(["m.safetensors"], [tensors], dtype)
    except model.BadModel as error:
        refusal = str(error)
        loaded = None
    if loaded is None:
        assert refusal.isprintable()
    else:
        assert all(0 < dimension <= model.LARGEST_DIMENSION for leaf in loaded.leaves for dimension in leaf)
        assert {leaf.dtype for leaf in loaded.leaves} <= {"float32", "float16", "bfloat16"}
        assert loaded.precisions


def test_bytes_are_summed_leaf_by_leaf(tmp_path):
    path = write(tmp_path / "m.safetensors", {"w": ("BF16", (100,)), "n": ("F32", (10,)), "s": ("F32", ())})
    loaded = model.load([path])
    own, mixed = (model.case(loaded, "compiled", precision) for precision in ("bfloat16", "mixed"))
    assert own.resident_bytes == 100 * 8 + 11 * 16
    assert mixed.resident_bytes == 100 * 12 + 11 * 16
    assert own.needed_bytes > own.resident_bytes + 100 * 6 + 11 * 12
    assert own.leaf_count == 2  # a scalar is none to the kernels that are counted


# A step and a trial of it


@pytest.fixture
def two_dtypes(tmp_path) -> model.Model:
    tensors = {"w": ("BF16", (64, 48)), "u": ("BF16", (64, 48)), "n": ("F32", (64,)), "s": ("F32", ())}
    return model.load([write(tmp_path / "m.safetensors", tensors)])


@pytest.mark.parametrize("precision", ["bfloat16", "mixed"])
def test_every_array_of_a_step_has_the_dtype_of_its_leaf(two_dtypes, precision):
    step = ModelStep(model.case(two_dtypes, "compiled", precision))
    wanted = [getattr(mx, leaf.dtype) for leaf in two_dtypes.leaves]
    state = wanted if precision == "bfloat16" else [mx.float32] * 4
    for _ in range(2):  # before the first step, and after
        assert [array.dtype for array in step.gradients["leaves"]] == wanted
        assert [array.dtype for array in step.parameters["leaves"]] == wanted
        for name in ("m", "v"):
            assert [leaf[name].dtype for leaf in check.leaf_states(step)] == state
        step()


def test_a_trial_has_the_figures_of_a_measurement(two_dtypes):
    case = model.case(two_dtypes, "compiled", "mixed")
    found = trial.run(case, time.time())
    assert len(found.step.seconds) >= trial.FEWEST_SAMPLES
    assert found.memory.peak >= case.resident_bytes
    assert 0 < found.error <= two_dtypes.tolerance
    assert (found.behaviour.overwrites, found.behaviour.traceable) == (False, True)
    assert Trial.from_dict(json.loads(json.dumps(found.to_dict()))).memory == found.memory


def test_a_variant_that_is_wrong_or_changes_a_dtype_fails(two_dtypes, monkeypatch):
    with pytest.raises(check.WrongCase, match="a parameter's dtype changed"):
        trial.run(model.case(two_dtypes, "eager", "mixed"), time.time())
    kind = adamw.load("eager")

    class Wrong(kind):
        def apply_single(self, gradient, parameter, state):
            return super().apply_single(gradient, parameter, state) * 1.05

    monkeypatch.setattr(adamw, "load", lambda name: Wrong)
    with pytest.raises(check.WrongCase, match="wrong result"):
        trial.run(model.case(two_dtypes, "eager", "bfloat16"), time.time())


# Behaviour that three ordinary steps do not show


@pytest.mark.parametrize(
    ("dtype", "faults"),
    [
        ("float32", []),
        (
            "bfloat16",
            [
                "after 500 steps without gradients v is 65% off: it does not decay as b2 says",
                "after 2000 steps of 0.001 its parameters, near 1, are 93% of AdamW's way off",
            ],
        ),
        (
            "float16",
            [
                "gradients of 0 make parameters infinite or NaN",
                "gradients of 1e-06 make parameters infinite or NaN",
            ],
        ),
    ],
)
def test_upstreams_half_precision_is_not_adamw(dtype, faults):
    case = model.case(model.load(["leaf_1024"], dtype), "eager", dtype)
    assert behaviour.observe(case).faults == faults


@pytest.mark.parametrize("variant", ["master", "stochastic"])
def test_what_keeps_small_steps_in_bfloat16_has_no_fault(variant):
    precision = cases.precisions(variant)[0]
    case = model.case(model.load(["leaf_1024"], "bfloat16"), variant, precision)
    assert behaviour.observe(case).faults == []


def test_bias_correction_is_adamw_too():
    case = model.case(model.load(["leaf_1024"]), "eager", "float32", bias_correction=True)
    assert behaviour.observe(case).faults == []


@pytest.mark.parametrize("name", adamw.names())
def test_a_fault_is_found_in_no_variant_in_float32(name):
    if adamw.unavailable(name) or "float32" not in cases.precisions(name):
        pytest.skip(f"{name} does not run in float32 here")
    observed = behaviour.observe(model.case(model.load(["leaf_1024"]), name, "float32"))
    assert observed.faults == []


def test_what_evaluates_inside_the_step_cannot_be_traced():
    case = model.case(model.load(["leaf_1024"]), "windowed", "float32")
    assert not behaviour.observe(case).traceable


def observed_of(kind, monkeypatch) -> Behaviour:
    monkeypatch.setattr(adamw, "load", lambda name: kind)
    return behaviour.observe(model.case(model.load(["leaf_1024"]), "eager", "float32"))


def test_a_variant_that_writes_over_what_others_see_is_found_out(monkeypatch):
    class Overwriting(mlx.optimizers.AdamW):
        def apply_single(self, gradient, parameter, state):
            updated = super().apply_single(gradient, parameter, state)
            np.array(parameter, copy=False)[...] = np.array(updated)
            return updated

    observed = observed_of(Overwriting, monkeypatch)
    assert observed.overwrites
    assert not observed.traceable


def test_a_variant_that_goes_another_way_is_found_out(monkeypatch):
    class Underflowing(mlx.optimizers.AdamW):
        def apply_single(self, gradient, parameter, state):
            state["v"] = mx.where(state["v"] < 1e-8, 0, state["v"])  # nothing with gradients near 1
            return super().apply_single(gradient, parameter, state)

    faults = observed_of(Underflowing, monkeypatch).faults
    assert faults == ["with gradients of 1e-06 parameters go another way than AdamW's"]


def test_a_v_that_decays_too_fast_is_found_out(monkeypatch):
    class Forgetful(mlx.optimizers.AdamW):
        def apply_single(self, gradient, parameter, state):
            state["v"] = mx.where(gradient == 0, 0.999 * state["v"], state["v"])
            return super().apply_single(gradient, parameter, state)

    faults = observed_of(Forgetful, monkeypatch).faults
    assert [fault.split(" off")[0] for fault in faults] == ["after 500 steps without gradients v is 39%"]


def test_the_small_tree_takes_the_kernels_of_the_model(two_dtypes):
    small = list(trees.leaves(behaviour.small_tree(two_dtypes.tree)))
    assert [(len(leaf), leaf.dtype) for leaf in small] == [(2, "bfloat16")] * 2 + [(1, "float32")] * 2


# What is recommended


def row(variant: str, milliseconds: float, peak: float, spread: float = 0.01, **changes) -> Row:
    seconds = [milliseconds * (1 + spread * step) / 1e3 for step in (-2, -1, 0, 1, 2)]
    faults, error = changes.pop("faults", []), changes.pop("error", 1e-7)
    figures = Trial(
        Samples(seconds, 1, 1.0), Memory(int(peak * 1e9), 0, 0, 0), error, Behaviour(0.0, faults, False, True)
    )
    return Row(variant, "float32", 10**9, trial=figures)


TERMS = Terms(tolerance=2**-18)


def chosen(*rows: Row, terms: Terms = TERMS) -> str:
    found = advice.choose(advice.candidates(list(rows), terms))
    return found.row.variant if found else ""


def test_the_fastest_is_recommended():
    assert chosen(row("a", 20, 4), row("b", 10, 7), row("c", 30, 1)) == "b"


def test_of_those_as_fast_the_one_with_less_memory():
    assert chosen(row("a", 10, 7), row("b", 10.2, 4)) == "b"
    assert chosen(row("a", 10, 7), row("b", 10.6, 4)) == "a"  # 6 %, and the samples do not overlap
    assert chosen(row("a", 10, 7, spread=0.06), row("b", 10.6, 4)) == "b"
    assert chosen(row("a", 10, 4.04), row("b", 10.2, 4)) == "a"  # as much memory, within the noise


def test_what_is_not_adamw_or_too_large_is_not_recommended():
    assert chosen(row("a", 10, 4, faults=["v does not decay"]), row("b", 20, 4)) == "b"
    assert chosen(row("a", 10, 4, error=2**-16), row("b", 20, 4)) == "b"
    assert chosen(row("a", 10, 7), row("b", 20, 4), terms=Terms(2**-18, 6e9)) == "b"
    assert chosen(row("a", 10, 7), row("b", 20, 4), terms=Terms(2**-18, 3e9)) == ""
    assert chosen(Row("a", "float32", reason="no GPU")) == ""


def reason(*rows: Row) -> str:
    found = advice.candidates(list(rows), TERMS)
    return advice.why(advice.choose(found), found)


def test_the_reason_names_the_runner_up_and_what_it_costs():
    assert reason(row("a", 10, 7), row("b", 11, 5.7), row("c", 30, 1)) == (
        "It is the fastest. b (float32) is 10% slower and peaks 1.3 GB lower."
    )
    assert reason(row("a", 10, 7), row("b", 10.2, 4)) == (
        "It is as fast as a (float32), within the noise, and needs less memory. "
        "a (float32) is as fast, within the noise, and peaks 3.0 GB higher."
    )
    assert reason(row("a", 10, 4), row("b", 31, 4)) == (
        "It is the fastest. b (float32) takes 3.1 times as long and peaks at as much memory."
    )
    assert reason(row("a", 10, 4), row("b", 9, 4, faults=["no"])) == (
        "Of what could be measured it is the only one to recommend."
    )


def test_nothing_to_recommend_is_told_with_the_next_step():
    unmeasured = Row("a", "float32", reason="not finished in 5 s; try --seconds 240")
    assert advice.why_none([unmeasured], TERMS) == "nothing could be measured: not finished in 5 s; try --seconds 240"
    limited = advice.why_none([row("a", 10, 7), row("b", 10, 4), row("c", 1, 1, faults=["no"])], Terms(2**-18, 3e9))
    assert limited == "nothing that is accurate keeps the memory limit; the least it takes is 4.0 GB"
    assert "--dtype float32" in advice.why_none([row("a", 10, 7, faults=["no"])], TERMS)


def test_long_notes_are_wrapped_between_words(monkeypatch, tmp_path, capsys):
    names = [f"model.layers.{number}.self_attn.rotary_emb.inv_freq" for number in range(3)]
    path = write(tmp_path / "m.safetensors", dict.fromkeys(names, ("F32", (2,))) | {"w": ("F32", (8,))})
    monkeypatch.setattr(adamw, "names", lambda: [])
    monkeypatch.setattr(advice, "why_none", lambda rows, terms: "none")
    monkeypatch.setattr(sys, "argv", ["advise"])
    assert advise.main([path]) == 1
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= command.WIDTH
    assert all(name in output for name in names[:2])


def test_the_words_of_the_table_are_explained():
    eight = row("b", 10, 4, error=1e-2)._replace(precision="float32_8bit")
    lines = advise.remarks([row("a", 10, 4, faults=["[why]"]), row("c", 10, 4, faults=["[why]"]), eight], TERMS)
    assert lines == [
        "float32_8bit: float32 parameters and gradients, 8-bit codes m and v",
        "inexact: the error is more than 8e-06, twice the tolerance of these dtypes",
        "not AdamW: a, c (float32): [why]",
    ]
    assert advise.remarks([row("a", 10, 4)], TERMS) == []


# The code that is printed


def run_code(lines: list[str], network: nn.Module) -> mlx.optimizers.AdamW:
    names = {"model": network}
    exec("\n".join(lines), names)
    return names["optimizer"]


def test_the_code_makes_the_optimizer_that_was_measured():
    network = nn.Linear(4, 3)
    network.set_dtype(mx.bfloat16)
    gradients = {"weight": mx.ones((3, 4), mx.bfloat16), "bias": mx.ones((3,), mx.bfloat16)}
    for precision, dtype in (("bfloat16", mx.bfloat16), ("mixed", mx.float32)):
        lines = advise.code(Row("compiled", precision), bias_correction=True)
        optimizer = run_code(lines, network)
        optimizer.update(network, gradients)
        assert type(optimizer) is adamw.load("compiled")
        assert optimizer.bias_correction
        assert optimizer.state["weight"]["v"].dtype == dtype
        assert network.weight.dtype == mx.bfloat16
    assert advise.code(Row("another", "master"), bias_correction=False) == [
        "from adamw.variants.another import AdamW",
        "optimizer = AdamW(learning_rate=1e-3)",
        "optimizer.init(model.trainable_parameters())",
    ]


def test_the_recommendation_warns(monkeypatch):
    fast = row("compiled", 10, 4)
    assert "mx.compile" not in "".join(advise.recommendation(advice.tried(fast), "Because.", False)[2:])
    odd = fast._replace(trial=fast.trial._replace(behaviour=Behaviour(0.0, [], overwrites=True, traceable=False)))
    monkeypatch.setattr(advise, "extras", lambda variant: ["numba>=0.60"])
    lines = advise.recommendation(advice.tried(odd), "Because.", False)
    assert lines[0] == "Use compiled (float32). Because."
    assert lines[1].startswith("compiled: `mlx.optimizers.AdamW` whose update of the whole tree")
    assert lines[2].startswith("It writes over arrays")
    assert "cannot be part of a function" in lines[3]
    assert lines[4] == "It needs: pip install 'numba>=0.60'"


def test_the_extra_of_a_variant_is_that_of_its_name():
    assert advise.extras("compiled") == []
    assert any(requirement.startswith("rich") for requirement in advise.extras("bench"))


# The command


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the project with one variant that runs, and others that show what can go wrong."""
    path = tmp_path / "checkout"
    path.mkdir()
    for folder in ("adamw", "benchmarks", "scripts"):
        shutil.copytree(ROOT / folder, path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", path)
    for variant in (path / "adamw" / "variants").glob("[a-z]*.py"):
        if variant.stem != "eager":
            variant.unlink()
    return path


def add_variant(checkout: Path, name: str, body: str) -> None:
    text = f"import os, signal, time\nimport mlx.optimizers\n\n\nclass AdamW(mlx.optimizers.AdamW):\n{body}"
    (checkout / "adamw" / "variants" / f"{name}.py").write_text(text)


DIES = "    def apply_single(self, *_):\n        os.kill(os.getpid(), signal.SIGSEGV)\n"
SLEEPS = "    kernels_a_leaf = (0, 0)\n    def apply_single(self, *_):\n        time.sleep(1000)\n"
CANNOT = "    @staticmethod\n    def unavailable():\n        return 'needs another machine'\n"
RAISES = "    def apply_single(self, *_):\n        raise ValueError('one\\nline \\x1b[31m')\n"


def start(checkout: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "scripts.advise", *arguments]
    return subprocess.Popen(command, cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_variant_that_fails_is_a_row_and_the_others_are_measured(checkout, tmp_path):
    bodies = {"dies": DIES, "sleeps": SLEEPS, "cannot": CANNOT, "raises": RAISES}
    for name, body in bodies.items():
        add_variant(checkout, name, body)
    (checkout / "adamw" / "variants" / "halves.py").write_text('PRECISIONS = ("bfloat16",)\n')
    tensors = {"w": ("F32", (64, 64)), "u": ("F32", (64, 64)), "ids": ("I64", (2,)), "head": ("BF16", (64, 64))}
    path = write(tmp_path / "m.safetensors", tensors)
    process = start(checkout, path, "--without", "^head$", "--seconds", "20", "--json", str(tmp_path / "found.json"))
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    found = json.loads((tmp_path / "found.json").read_text())
    rows = {row["variant"]: row for row in found["rows"]}
    assert "exit code -11" in rows["dies"]["reason"]
    assert rows["raises"]["reason"] == "ValueError: one line"
    assert rows["cannot"]["reason"] == "needs another machine"
    assert rows["halves"]["reason"] == "not made for float32"
    assert "not finished" in rows["sleeps"]["reason"]
    assert rows["eager"]["trial"]["objection"] == ""
    assert found["recommended"] == {"variant": "eager", "precision": "float32"}
    assert found["model"]["parameters"] == 2 * 64 * 64
    assert found["settings"]["mlx"]
    for text in (
        "m.safetensors: 2 leaves, 8,192 parameters, float32 (2)",
        "left out, as --without asks: head",
        "left out, as not trained: integers or bools: ids",
        "backend",
        "from adamw.variants.eager import",
    ):
        assert text in output
    assert max(map(len, output.splitlines())) <= 100
    assert list((checkout / ".asv" / "tmp").iterdir()) == []


def test_what_does_not_fit_is_told_and_exits_with_1(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(adamw, "names", lambda: ["eager"])
    monkeypatch.setattr(advise.machine, "free_bytes", lambda: 10**9)
    monkeypatch.setattr(sys, "argv", ["advise"])
    assert advise.main(["gpt2"]) == 1
    output = capsys.readouterr().out
    assert "No recommendation: nothing could be measured: needs 4.0 GB of memory, 1.0 GB are free" in output


def test_no_process_is_started_without_time(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(adamw, "names", lambda: ["eager", "compiled"])
    monkeypatch.setattr(advise, "process", None)
    monkeypatch.setattr(sys, "argv", ["advise"])
    assert advise.main(["leaf_1024", "--seconds", "0.5"]) == 1
    assert "nothing could be measured: no time was left; try --seconds 2" in capsys.readouterr().out


def test_a_memory_limit_rules_out(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(adamw, "names", lambda: ["eager"])
    monkeypatch.setattr(sys, "argv", ["advise"])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(scratch, "ROOT", tmp_path / "scratch")
    assert advise.main(["leaf_65536", "--memory-limit", "0.0001", "--seconds", "30"]) == 1
    output = capsys.readouterr().out
    assert "over the limit" in output
    assert "nothing that is accurate keeps the memory limit; the least it takes is" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.safetensors"], "error: no.safetensors: no such file; name a safetensors file or a tree"),
        (["scripts"], "error: scripts: no safetensors file in this folder"),
        (["pyproject.toml", "--without", "w("], "error: pyproject.toml: no safetensors file: it is text"),
        (["gpt2", "--without", "wte"], "error: gpt2: a tree has no names of tensors; --without is for files"),
        (["pyproject.toml"], "error: pyproject.toml: no safetensors file"),
        (["gpt2", "--seconds", "0"], "not a number above 0"),
        (["gpt2", "--memory-limit", "nan"], "not a number above 0"),
        (["gpt2", "--dtype", "float8"], "invalid choice"),
        (["gpt2", "--json", "nowhere/f.json"], "cannot be written"),
        ([], "the following arguments are required"),
    ],
)
def test_a_users_mistake_exits_with_2_and_names_it(arguments, message):
    process = start(ROOT, *arguments)
    output, errors = process.communicate()
    assert process.returncode == 2
    assert message in errors
    assert "Traceback" not in errors
    assert output == ""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_command_ends_at_once_and_leaves_nothing(checkout, number):
    add_variant(checkout, "asleep", SLEEPS)
    process = start(checkout, "leaf_1024")
    workers: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    while not workers and time.monotonic() < deadline:
        time.sleep(0.1)
        with contextlib.suppress(psutil.NoSuchProcess):  # a child that is done between two looks
            workers = [one for one in psutil.Process(process.pid).children() if advise.WORKER in one.cmdline()]
    time.sleep(2)  # well into its sleep
    process.send_signal(number)
    expected = {signal.SIGINT: 130, signal.SIGKILL: -9}.get(number, 128 + number)
    process.communicate(timeout=30)
    assert process.returncode == expected
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert workers
    assert not alive
    if number != signal.SIGKILL:  # which the next command cleans up after
        assert not (checkout / ".asv" / "tmp" / str(process.pid)).exists()


def test_help_has_examples_and_fits():
    process = start(ROOT, "--help")
    output, _ = process.communicate()
    assert process.returncode == 0
    assert output.count("python -m scripts.advise") >= 2
    for rule in ("Every tensor of", "a part of a model", "quantized", "running statistics", "--without REGEX", "index"):
        assert rule in output
    assert max(map(len, output.splitlines())) <= command.WIDTH
