"""An interrupted run goes on: what its ledger has is taken from there, what was under way is measured again."""

import json
import os
import time
from pathlib import Path

import pytest

from benchmarks.harness import cases, ceiling, ledger, machine, measure, resume, run
from benchmarks.harness.counters import Counters
from benchmarks.harness.measurement import Measurement, Memory, Samples

CASE = cases.Case("compiled", "float32", "gpt2", bias_correction=True)
OTHER = cases.Case("eager", "float32", "gpt2", bias_correction=True)
SETTINGS = {"mlx": "0.0", "variables": {}}


@pytest.fixture
def a_run(tmp_path, monkeypatch):
    """Begins a run in a folder of its own, all with one ledger; the list grows by each case that is measured."""
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "ledger"))
    monkeypatch.setenv("ASV_COMMIT", "c" * 40)
    monkeypatch.setenv("ASV_ENV_NAME", "env")
    monkeypatch.setattr(ceiling, "SMALLEST_WORKING_SET", 2**22)
    monkeypatch.setattr(ceiling, "CACHE_MULTIPLE", 0)
    monkeypatch.setattr(machine, "settings", lambda: dict(SETTINGS))
    calls: list[cases.Case] = []

    def fake(case, work=None, donates=None):
        calls.append(case)
        seconds = Samples([0.1 * len(calls)], 1, 1.0)
        return Measurement(0.5, seconds, [0.01], Memory(4, 3, 2, 1), Counters(1, 1, 1, 7), 1e-7, 2.0)

    monkeypatch.setattr(measure, "measure", fake)
    folders, sessions = iter(range(10)), iter(range(10))

    def begin(session: str | None = None):
        monkeypatch.setenv(ledger.SESSION, session or f"session {next(sessions)}")
        folder = tmp_path / f"run{next(folders)}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        return json.loads(json.dumps(run.begin()))

    return begin, calls


def test_what_was_measured_is_taken_once_and_the_rest_measured(a_run):
    begin, calls = a_run
    begun = begin()
    first = run.take(CASE)
    assert begin() == begun  # one ceiling for all of a commit's figures
    assert run.look(CASE) == first
    assert run.take(CASE) == first
    assert calls == [CASE]
    second = run.take(CASE)
    assert second != first
    assert run.take(OTHER)
    assert calls == [CASE, CASE, OTHER]
    begin()
    assert [run.take(CASE), run.take(CASE)] == [first, second]
    assert run.look(CASE) == second
    run.take(OTHER)
    assert len(calls) == 3


def test_nothing_is_entered_twice(a_run, tmp_path):
    begin, _ = a_run
    begin()
    run.take(CASE)
    begin()
    run.take(CASE)
    run.take(CASE)
    told = [one["what"] for one in ledger.read(tmp_path / "ledger")]
    assert told == ["machine", "started", "case", "resumed", "started", "case"]


def test_a_case_under_way_is_measured_again_but_not_for_ever(a_run):
    begin, calls = a_run
    begin()
    ledger.append({"what": "started", "case": str(CASE)})
    begin()
    ledger.append({"what": "started", "case": str(CASE)})
    begin()
    with pytest.raises(RuntimeError, match="the run ended 2 times while it was measured"):
        run.take(CASE)
    assert calls == []
    run.take(OTHER)


def test_one_end_is_no_reason_to_give_up(a_run):
    begin, calls = a_run
    begin()
    ledger.append({"what": "started", "case": str(CASE)})
    begin()
    assert run.take(CASE)
    assert calls == [CASE]


def test_a_case_whose_process_died_is_not_tried_again(a_run):
    begin, calls = a_run
    begin()
    ledger.append({"what": "started", "case": str(CASE)})
    run.take(OTHER)
    begin()
    with pytest.raises(RuntimeError, match="the process that measured it died"):
        run.take(CASE)
    assert calls == [OTHER]


def test_failures_and_long_runs_are_remembered(a_run):
    begin, calls = a_run
    begin()
    ledger.append({"what": "started", "case": str(CASE)})
    ledger.append({"what": "failure", "case": str(CASE), "message": "w is off"})
    ledger.append({"what": "started", "case": "eager/float32"})
    accuracy = dict.fromkeys(run_accuracy_fields(), 0.5)
    ledger.append({"what": "accuracy", "case": "eager/float32", "accuracy": accuracy})
    begin()
    with pytest.raises(RuntimeError, match="w is off"):
        run.look(CASE)
    assert run.accuracy("eager", "float32")._asdict() == accuracy
    assert calls == []


def test_a_long_run_that_ends_the_run_is_given_up_as_well(a_run):
    begin, _ = a_run
    for _ in range(2):
        begin()
        ledger.append({"what": "started", "case": "eager/float32"})
    begin()
    with pytest.raises(RuntimeError, match="the run ended 2 times while it was measured"):
        run.accuracy("eager", "float32")


def test_only_what_an_earlier_asv_measured_is_taken(a_run, monkeypatch):
    begin, calls = a_run
    begin("one")
    run.take(CASE)
    begin("one")  # another round of this very run
    run.take(CASE)
    assert calls == [CASE, CASE]


def run_accuracy_fields():
    from benchmarks.harness.accuracy import Accuracy

    return Accuracy._fields


@pytest.mark.parametrize("changed", ["commit", "environment", "settings", "suite", "age"])
def test_what_was_measured_otherwise_is_measured_anew(a_run, monkeypatch, changed):
    begin, calls = a_run
    begin()
    run.take(CASE)
    if changed == "commit":
        monkeypatch.setenv("ASV_COMMIT", "d" * 40)
    elif changed == "environment":
        monkeypatch.setenv("ASV_ENV_NAME", "another")
    elif changed == "settings":
        monkeypatch.setattr(machine, "settings", lambda: SETTINGS | {"mlx": "0.1"})
    elif changed == "suite":
        monkeypatch.setattr(resume, "suite", lambda: "another")
    else:
        now = time.time()
        monkeypatch.setattr(resume.time, "time", lambda: now + resume.OLDEST + 1)
    begin()
    run.take(CASE)
    assert calls == [CASE, CASE]
    if changed in ("settings", "suite", "age"):
        told = [one["what"] for one in ledger.last_part(ledger.read(Path(os.environ[ledger.VARIABLE])))]
        assert told == ["machine", "started", "case"]  # no figure of another suite among the new ones
    if changed != "age":  # what is begun anew can be gone on with in its turn
        begin()
        run.take(CASE)
        assert calls == [CASE, CASE]


def test_a_line_cut_short_by_a_kill_costs_that_case_only(a_run, tmp_path):
    begin, calls = a_run
    begin()
    run.take(CASE)
    run.take(OTHER)
    path = tmp_path / "ledger"
    os.truncate(path, path.stat().st_size - 40)
    begin()
    assert ledger.read(path)[-1]["what"] == "resumed"
    run.take(CASE)
    run.take(OTHER)
    assert calls == [CASE, OTHER, OTHER]


def test_the_suite_is_known_by_its_sources():
    assert resume.suite() == resume.suite()
    assert len(resume.suite()) == 12


class TestHeat:
    """A case during which the machine got hotter is measured again, once, and says so."""

    @pytest.fixture
    def levels(self, a_run, monkeypatch):
        begin, calls = a_run
        begin()
        monkeypatch.setattr(run, "POLL", 0.0)

        def measured(*told):
            readings = iter(told)
            monkeypatch.setattr(machine, "conditions", lambda: {"load": 0.1, "thermal_pressure": next(readings)})
            run.take(CASE)
            entries = ledger.read(Path(os.environ[ledger.VARIABLE]))
            return [one for one in entries if one["what"] == "case"][-1], len(calls)

        return measured

    def test_cool(self, levels):
        entry, times = levels(0, 0)
        assert times == 1
        assert entry["again"] is None

    def test_hotter(self, levels):
        entry, times = levels(0, 2, 1, 0, 1)
        assert times == 2
        assert entry["again"] == "thermal pressure rose from 0 to 2"
        assert entry["before"]["thermal_pressure"] == 0
        assert entry["after"]["thermal_pressure"] == 1  # no third time

    def test_already_hot(self, levels):
        assert levels(2, 2)[1] == 1

    def test_unknown(self, levels):
        assert levels(None, None)[1] == 1

    def test_a_machine_that_stays_hot_is_not_waited_for_without_end(self, levels, monkeypatch):
        monkeypatch.setattr(run, "COOL_DOWN", -1.0)
        entry, times = levels(0, 2, 2, 2)
        assert times == 2
        assert entry["before"]["thermal_pressure"] == 2
