"""One asv run's directory: measured once, read often, each reading of seconds its own."""

import json
import os

import pytest
from asv_runner.benchmarks.mark import SkipNotImplemented

from benchmarks.harness import cases, ledger, machine, measure, run
from benchmarks.harness.counters import Counters, Donation
from benchmarks.harness.measurement import Measurement, Memory, Samples

CASE = cases.Case("compiled", "float32", "gpt2", bias_correction=True)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A run in an empty directory; the list grows by each case that is measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "ledger"))
    calls = []

    def fake(case, work=None, donates=None):
        calls.append(case)
        return Measurement(
            0.5, Samples([0.1 * len(calls)], 1, 1.0), [0.01], Memory(4, 3, 2, 1), Counters(1, 1, 1, 7), 1e-7, 2.0
        )

    monkeypatch.setattr(measure, "measure", fake)
    return calls


def test_readers_share_one_measurement(measured):
    assert run.look(CASE) == run.look(CASE)
    assert measured == [CASE]


def test_seconds_take_what_is_there_once(measured):
    first = run.look(CASE)
    assert run.take(CASE) == first
    assert len(measured) == 1
    assert run.take(CASE) != first  # asv's next round
    assert len(measured) == 2
    assert run.look(CASE).step.seconds == [0.2]
    assert len(measured) == 2


def test_counting_needs_no_measurement_and_is_done_once(measured, monkeypatch):
    calls = []

    def counting(case, donates):
        calls.append(donates)
        return Counters(24, 24, 2, 7)

    monkeypatch.setattr("benchmarks.harness.count.count", counting)
    run.DONATES.write_text("[true, true, false]")
    assert run.counted(CASE) == run.counted(CASE) == Counters(24, 24, 2, 7)
    assert calls == [Donation(plain=True, fused=True, several_outputs=False)]
    assert measured == []


def test_a_measurement_is_not_counted_again(measured):
    run.take(CASE)
    assert run.counted(CASE) == Counters(1, 1, 1, 7)


def test_the_second_round_takes_the_first_ones_counters(measured, monkeypatch):
    known = []
    first = measure.measure
    monkeypatch.setattr(measure, "measure", lambda case, work, donates: known.append(work) or first(case, work))
    run.take(CASE)
    run.take(CASE)
    assert known == [None, Counters(1, 1, 1, 7)]


def test_a_failure_is_measured_once_and_raised_by_all(measured, monkeypatch):
    def fail(case, work=None, donates=None):
        measured.append(case)
        raise ValueError("compiled/float32/gpt2: wrong result")

    monkeypatch.setattr(measure, "measure", fail)
    with pytest.raises(ValueError, match="wrong result"):
        run.look(CASE)
    for call in (run.look, run.take):
        with pytest.raises(RuntimeError, match="wrong result"):
            call(CASE)
    assert len(measured) == 1


def test_a_process_that_dies_is_not_followed_by_others(measured, monkeypatch):
    class Killed(BaseException):
        """What no handler sees: SIGKILL, a crash."""

    def die(case, work=None, donates=None):
        measured.append(case)
        raise Killed

    monkeypatch.setattr(measure, "measure", die)
    with pytest.raises(Killed):
        run.look(CASE)
    with pytest.raises(RuntimeError, match="the process that measured it died"):
        run.look(CASE)
    assert len(measured) == 1


def test_the_ledger_has_a_line_a_measurement(measured, tmp_path):
    run.take(CASE)
    run.take(CASE)
    lines = ledger.read(tmp_path / "ledger")
    assert [(line["what"], line["case"]) for line in lines] == [("started", str(CASE)), ("case", str(CASE))] * 2
    assert lines[1]["measurement"]["memory"]["peak"] == 4
    assert lines[1]["ideal_bytes"] == CASE.ideal_bytes


def test_no_partial_file_stays(measured, tmp_path):
    run.look(CASE)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ""}


def test_a_case_that_does_not_fit_is_skipped_with_both_figures(measured, monkeypatch, capsys):
    monkeypatch.setattr(machine, "free_bytes", lambda: 10**9)
    with pytest.raises(SkipNotImplemented, match=r"needs 4.0 GB of memory, 1.0 GB are free"):
        run.look(CASE)
    assert "needs 4.0 GB" in capsys.readouterr().out
    assert measured == []


def test_a_variant_that_the_commit_lacks_is_skipped(measured, monkeypatch):
    monkeypatch.setattr(run.adamw, "names", lambda: ["eager"])
    with pytest.raises(SkipNotImplemented, match="compiled is not in this commit"):
        run.look(CASE)


def test_profiles_skip(monkeypatch):
    monkeypatch.setenv("ADAMW_PROFILE", "quick")
    assert str(run.choose("eager/float32/resnet50")) == "eager/float32/resnet50"
    with pytest.raises(SkipNotImplemented, match="not in the profile 'quick'"):
        run.choose("eager/float32/vit_b16")


def test_a_variant_that_cannot_run_here_is_skipped_with_its_reason(measured, monkeypatch):
    monkeypatch.setattr(run.adamw, "unavailable", lambda name: "it needs a GPU")
    with pytest.raises(SkipNotImplemented, match="it needs a GPU"):
        run.look(CASE)
    monkeypatch.delattr(run.adamw, "unavailable")  # a commit before there were such variants
    assert run.look(CASE)


def test_the_working_trees_adamw_is_not_mistaken_for_the_commits(monkeypatch):
    run.check_installed()
    monkeypatch.setenv("ASV_ENV_DIR", "/nonexistent")
    with pytest.raises(RuntimeError, match="not from the commit under test"):
        run.check_installed()


def test_begin_measures_what_the_machine_allows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from benchmarks.harness import ceiling, donation

    monkeypatch.setattr(ceiling, "SMALLEST_WORKING_SET", 2**22)
    monkeypatch.setattr(ceiling, "CACHE_MULTIPLE", 0)
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "ledger"))
    begun = json.loads(json.dumps(run.begin()))
    assert run.roofline_of(begun).seconds(CASE) > 0
    assert run.donates() == donation.measure()
    entry = json.loads((tmp_path / "ledger").read_text())
    assert entry["description"] == str(machine.identify())
    assert os.environ.get("ASV_COMMIT") == entry["commit"]
