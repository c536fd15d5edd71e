"""The trees have the published sizes, and the list of cases says what it means."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness import cases, trees

PUBLISHED = {
    "one_leaf": (16 * 2**20, 1),
    "two_leaves": (16 * 2**20, 2),
    "thousand_leaves": (1_000_000, 1000),
    "gpt2": (124_439_808, 148),
    "llama_1b": (1_235_814_400, 146),
    "llama_1b_lora": (851_968, 64),
    "resnet50": (25_557_032, 161),
    "vit_b16": (86_567_656, 152),
    "nested": (789_504, 24),
}


@pytest.mark.parametrize("name", trees.CATALOGUE)
def test_parameters_and_leaves_are_the_published_counts(name):
    tree = trees.build(name)
    assert (trees.parameter_count(tree), sum(1 for _ in trees.leaves(tree))) == PUBLISHED[name]


def test_the_nested_tree_is_deep():
    def depth(tree) -> int:
        if isinstance(tree, trees.Shape):
            return 0
        return 1 + max(depth(child) for child in (tree.values() if isinstance(tree, dict) else tree))

    assert depth(trees.build("nested")) >= 24


def test_the_sweep_goes_from_2_to_the_10_to_2_to_the_26():
    assert (trees.SWEEP[0], trees.SWEEP[-1]) == (2**10, 2**26)
    assert trees.parameter_count(trees.build("leaf_1024")) == 1024


def test_ideal_bytes_a_parameter():
    ideal = {name: precision.ideal_bytes for name, precision in cases.PRECISIONS.items()}
    scales = 4 * 4 / 256  # four bytes a block of 256, two moments, read and written
    assert ideal == {
        "float32": 28, "float16": 14, "bfloat16": 14, "mixed": 22, "master": 28,
        "float32_8bit": 16 + scales, "bfloat16_8bit": 10 + scales,
    }  # fmt: skip
    resident = {name: precision.resident_bytes for name, precision in cases.PRECISIONS.items()}
    scales /= 2
    assert resident == {
        "float32": 16, "float16": 8, "bfloat16": 8, "mixed": 12, "master": 16,
        "float32_8bit": 10 + scales, "bfloat16_8bit": 6 + scales,
    }  # fmt: skip


def test_llama_in_float32_needs_more_than_its_seven_copies():
    case = cases.case("compiled", "float32/llama_1b")
    assert case.needed_bytes >= 7 * 4 * 1_235_814_400


@pytest.mark.parametrize("workload", cases.WORKLOADS)
def test_every_workload_reads_back_as_its_name(workload):
    for variant in cases.variant_names():
        assert str(cases.case(variant, workload)) == f"{variant}/{workload}"


def test_profiles_contain_each_other():
    quick, default, full = (
        {name for name in cases.WORKLOADS if cases.in_profile(name, profile)} for profile in cases.PROFILES
    )
    assert quick < default < full == set(cases.WORKLOADS)


def test_every_tree_and_precision_is_in_the_default_profile_unless_a_reason_is_given():
    chosen = [name.split("/") for name in cases.WORKLOADS if cases.in_profile(name, "default")]
    assert {tree for _, tree, *_ in chosen} == set(trees.CATALOGUE) - {"llama_1b"}
    assert {precision for precision, *_ in chosen} == set(cases.PRECISIONS)


@pytest.mark.parametrize(
    ("variant", "workload", "message"),
    [
        ("fused", "float32/gpt2", r"unknown variant 'fused'; choose one of: compiled"),
        ("eager", "float8/gpt2", r"unknown precision 'float8'; choose one of: float32"),
        ("eager", "float32/gpt5", r"unknown tree 'gpt5'; choose one of: one_leaf"),
        ("eager", "float32/gpt2/amsgrad", r"unknown option 'amsgrad'; choose one of: bias_correction"),
        ("eager", "float32/leaf_0", r"unknown tree 'leaf_0'"),
        ("eager", "", r"unknown precision ''"),
    ],
)
def test_an_unknown_name_is_answered_with_the_known(variant, workload, message):
    with pytest.raises(ValueError, match=message):
        cases.case(variant, workload)


def test_an_unknown_profile_is_answered_with_the_known(monkeypatch):
    monkeypatch.setenv("ADAMW_PROFILE", "fast")
    with pytest.raises(cases.UnknownCase, match="choose one of: quick, default, full"):
        cases.profile()


def test_the_lists_do_not_depend_on_the_environment(monkeypatch):
    import importlib

    before = (list(cases.WORKLOADS), cases.variant_names())
    monkeypatch.setenv("ADAMW_PROFILE", "quick")
    again = importlib.reload(cases)
    assert (list(again.WORKLOADS), again.variant_names()) == before


def test_adding_a_variant_is_one_new_file(tmp_path):
    root = Path(__file__).parent.parent
    for folder in ("adamw", "benchmarks"):
        shutil.copytree(root / folder, tmp_path / folder)
    code = (
        "import adamw, benchmarks.step; from benchmarks.harness import cases;"
        "measured = sorted({name.split('/')[0] for name in benchmarks.step.Step.params[0]});"
        "print(adamw.names() == cases.variant_names() == measured, *measured)"
    )

    def answer() -> str:
        return subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True).strip()

    before = cases.variant_names()
    assert answer().split() == ["True", *before]
    (tmp_path / "adamw" / "variants" / "twin.py").write_text("from adamw.variants.eager import AdamW\n")
    assert answer().split() == ["True", *sorted([*before, "twin"])]


def test_enumerating_reads_every_variant_once(monkeypatch):
    """Every process that asv starts for a figure enumerates the cases: a thousand of them in a quick run."""
    asked, precisions = [], cases.precisions
    monkeypatch.setattr(cases, "precisions", lambda variant: asked.append(variant) or precisions(variant))
    assert cases.names()
    assert sorted(asked) == cases.variant_names()


@pytest.mark.parametrize("text", ["def (", "PRECISIONS = names()", "x = " + "-" * 20_000 + "1"])
def test_a_file_that_cannot_be_read_has_the_standard_precisions(tmp_path, monkeypatch, text):
    """Its cases fail by name where they run; enumerating goes on."""
    (tmp_path / "unfinished.py").write_text(text)
    monkeypatch.setattr(cases, "VARIANTS", tmp_path)
    assert cases.precisions("unfinished") == cases.precisions("no such file") == cases.STANDARD
