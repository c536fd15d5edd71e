"""The sampling routine, the ceiling and the roofline keep their promises."""

import gc
import subprocess
import sys
import time

import here
import pytest

from benchmarks.harness import cases, ceiling, measure, roofline, sampling

GIB = 2**30


def test_enough_samples_of_a_long_call_and_no_more_than_needed():
    calls = []

    def call() -> None:
        calls.append(gc.isenabled())
        time.sleep(0.3)

    samples = sampling.sample(call)
    assert samples.number == 1
    assert len(samples.seconds) == sampling.MINIMUM_SAMPLES
    assert min(samples.seconds) >= 0.3
    assert calls[-1] is False  # no garbage collection while the clock ran
    assert gc.isenabled()


def test_a_short_call_is_repeated_within_a_sample():
    calls = []
    samples = sampling.sample(lambda: calls.append(None))
    assert samples.number > 1000
    assert sampling.MINIMUM_SAMPLES <= len(samples.seconds) <= sampling.MAXIMUM_SAMPLES
    assert len(calls) >= samples.number * len(samples.seconds)


def test_garbage_collection_is_back_after_an_error():
    def fail() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError), sampling.no_garbage_collection():
        fail()
    assert gc.isenabled()


def test_busy_tells_waiting_from_computing():
    assert sampling.sample(lambda: time.sleep(0.02)).busy < 0.5

    def compute() -> None:
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass

    assert sampling.sample(compute).busy > 0.3  # more than half would ask for a quiet machine


def test_the_working_set_exceeds_the_cache_where_that_fits():
    assert ceiling.working_set(480 * 2**20, 24 * GIB) == (4 * 480 * 2**20, True)
    assert ceiling.working_set(8 * 2**20, 24 * GIB) == (GIB, True)
    assert ceiling.working_set(480 * 2**20, 4 * GIB) == (GIB, False)
    assert ceiling.working_set(None, 24 * GIB) == (GIB, None)


def test_a_ceiling_says_what_it_is():
    text = str(ceiling.Ceiling(44.8e9, "NumPy add in place, 2 threads", 2 * GIB, False))
    assert text == "44.8 GB/s measured here (NumPy add in place, 2 threads, 2.0 GiB, partly cache-resident)"


@pytest.mark.parametrize("kernels", [ceiling.cpu_kernels, ceiling.mlx_kernels])
def test_streaming_kernels_give_rates(kernels):
    rates = kernels(2**22)
    assert len(rates) >= 2
    assert all(rate > 0 for _, rate in rates)


def test_the_rate_counts_bytes_over_the_fastest_run():
    assert ceiling.best_rate(lambda: time.sleep(0.01), 10**6, repeats=3) == pytest.approx(10**8, rel=0.5)


def test_roofline_seconds_add_up():
    made = roofline.Roofline(ceiling.Ceiling(1e9, "", 0, True), roofline.Launch(fixed=1.0, each=0.5))
    case = cases.Case("compiled", "float32", "two_leaves")
    assert made.seconds(case) == pytest.approx(1.0 + 2 * 0.5 + 28 * 2**24 / 1e9)


def test_launch_costs_are_positive_and_shared_by_many():
    launch = roofline.measure_launch()
    assert launch.fixed > 0
    assert launch.each >= 0


@pytest.mark.parametrize("variant", here.FLOAT32)
def test_a_whole_measurement(variant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASV", "true")
    case = cases.Case(variant, "float32", "nested")
    measured = measure.measure(case)
    assert measured.first_step > 0
    assert len(measured.step.seconds) >= sampling.MINIMUM_SAMPLES
    assert measured.memory.peak >= measured.memory.active >= case.resident_bytes
    assert measured.work.modelled_bytes >= case.ideal_bytes
    assert len(measured.host) == measure.HOST_SAMPLES
    assert list(tmp_path.iterdir()) == []  # its kernel cache is gone
    assert type(measured).from_dict(measured.to_dict()).memory == measured.memory


def peak_ratio(case: cases.Case) -> float:
    """Peak over resident ideal of `case` in a process of its own: here, other tests' arrays would count."""
    code = (
        f"from benchmarks.harness import cases, measure; case = cases.{case!r};"
        "print(measure.measure(case).memory.peak / case.resident_bytes)"
    )
    return float(subprocess.check_output([sys.executable, "-c", code], text=True))


def test_memory_is_as_the_theory_says():
    """Split reuses every buffer; compiled needs three new arrays for its one leaf, of four."""
    assert peak_ratio(cases.Case("split", "float32", "leaf_4194304")) == pytest.approx(1.0, abs=0.01)
    assert peak_ratio(cases.Case("compiled", "float32", "leaf_4194304")) == pytest.approx(1.75, abs=0.01)


def test_windows_save_memory_against_one_evaluation():
    windowed, compiled = (peak_ratio(cases.Case(name, "float32", "resnet50")) for name in ("windowed", "compiled"))
    assert windowed < compiled
    assert windowed < 4.3 / 4


def test_a_peak_counter_that_starts_from_zero_is_not_believed(monkeypatch):
    """MLX's reset sets the peak to 0, not to what is active: a step that allocates nothing would report none."""
    monkeypatch.setattr(measure.mx, "get_peak_memory", lambda: 0)
    monkeypatch.setattr(measure.mx, "get_active_memory", lambda: 12345)
    assert measure.measure_memory(lambda: None).peak == 12345
