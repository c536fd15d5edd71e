"""asv finds every suite, and every benchmark says what asv needs to know."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import asv_runner.discovery
import pytest
from asv.results import Results

import benchmarks
from benchmarks.harness import cases
from benchmarks.harness.suite import sampled


def found() -> list:
    root = str(Path(benchmarks.__file__).parent)
    return list(asv_runner.discovery.disc_benchmarks(root))


BENCHMARKS = {benchmark.name: benchmark for benchmark in found()}


def test_every_suite_is_found_and_nothing_else():
    assert {name.split(".")[0] for name in BENCHMARKS} == {
        "step", "memory", "work", "accuracy", "cold_start", "scaling", "controls",
    }  # fmt: skip
    assert len(BENCHMARKS) == len(found())


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_tracked_with_a_version_set_by_hand_and_a_unit(name):
    benchmark = BENCHMARKS[name]
    assert len(benchmark.version) < 10, "a version that asv made from the source changes with every comment"
    assert benchmark.unit != "unit"
    assert benchmark.type == ("time" if benchmark.unit == "seconds" else "track")
    assert benchmark.timeout >= 300


def test_every_variant_is_in_every_suite_of_cases():
    for name, benchmark in BENCHMARKS.items():
        if benchmark.params:
            measured = {ast.literal_eval(case).split("/")[0] for case in benchmark.params[0]}
            sweep = {one for one in cases.variant_names() if "float32" in cases.precisions(one)}
            assert measured == (sweep if name.startswith("scaling.") else set(cases.variant_names())), name


def test_all_suites_of_cases_share_one_directory():
    keys = {benchmark.setup_cache_key for name, benchmark in BENCHMARKS.items() if benchmark.params}
    assert len(keys) == 1


def test_asvs_own_check_finds_no_wrong_signature():
    root = str(Path(benchmarks.__file__).parent)
    assert all(benchmark.check(root) for benchmark in BENCHMARKS.values())


def test_seconds_are_measured_anew_in_every_round():
    assert BENCHMARKS["step.Step.track_seconds"].rounds == 2


def test_asv_gives_statistics_to_a_benchmark_that_returns_samples():
    """An undocumented key pair of asv_runner's results: if asv drops it, this says so before a night is lost."""
    from asv import runner

    source = inspect.getsource(runner._run_benchmark_single_param)
    assert "'samples' in data and 'number' in data" in source
    samples = [0.1, 0.2, 0.3, 0.25, 0.15, 0.2, 0.22]
    assert sampled(samples, 3) == {"samples": samples, "number": 3}
    results = Results.unnamed()
    benchmark = {"name": "step", "version": "1", "params": [], "type": "time"}
    outcome = runner.BenchmarkResult([True], [samples], [3], 0, "", None)
    results.add_result(benchmark, outcome, record_samples=True)
    assert results.get_result_value("step", []) == [0.2]
    assert results.get_result_stats("step", [])[0]["repeat"] == len(samples)


def test_the_harness_names_nothing_that_asv_would_take_for_a_benchmark():
    harness = Path(benchmarks.__file__).parent / "harness"
    prefixes = ("time_", "track_", "mem_", "peakmem_", "timeraw_")
    for path in harness.glob("*.py"):
        for line in path.read_text().splitlines():
            assert not line.strip().removeprefix("def ").startswith(prefixes), f"{path.name}: {line}"


def test_every_module_can_be_imported_where_asv_imports_it():
    """asv imports all that is below `benchmarks`, in an environment that has what asv.conf.json names and no more."""
    absent = ["jax", "optax", "pympler", "rich", "safetensors", "scipy", "torch", "pandas", "asv"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}));"
        "import importlib, pkgutil, benchmarks;"
        "found = pkgutil.walk_packages(benchmarks.__path__, 'benchmarks.');"
        "print(len([importlib.import_module(module.name) for module in found]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(benchmarks.__file__).parents[1], capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30
