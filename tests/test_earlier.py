"""A commit that is measured again: asv's file has the newest, and what was there before is kept and read."""

import itertools
import json
import math
import os
from datetime import UTC, datetime

import pytest
from asv.results import Results, iter_results
from ledgers import MACHINE, entry
from synthetic import SECONDS, History

from scripts import asv_plugin, earlier, history, ledger

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CASES = ["compiled/float32/gpt2", "eager/float32/gpt2"]


class One:
    """What a benchmark's process gave."""

    def __init__(self, values):
        self.result, self.samples, self.number = values, [None] * len(values), [None] * len(values)
        self.stderr, self.errcode, self.profile = "", 0, None


@pytest.fixture
def run(tmp_path, monkeypatch):
    """One run of asv, as it saves: metric -> values of CASES, begun at a second of its own."""
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine" / "machine.json").write_text('{"machine": "machine", "version": 1}')
    clock = itertools.count(10**9, 1000)

    def save(figures, chosen=None, version="1", entries=()):
        result = Results({"machine": "machine"}, {}, COMMIT, 0, "3.11", "env", {})
        result.load_data(str(tmp_path))
        began = next(clock)
        monkeypatch.setattr(asv_plugin, "BEGAN", began)
        for metric, values in figures.items():
            benchmark = {"name": metric, "version": version, "params": [[repr(case) for case in CASES]]}
            result.add_result(benchmark, One(values), datetime.fromtimestamp(began + 1, UTC), selected_idx=chosen)
        monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "run"))
        where = {"commit": COMMIT, "environment": "env", "time": began}
        lines = [json.dumps(MACHINE | where), *(json.dumps(one | where) for one in entries)]
        (tmp_path / "run").write_text("\n".join(lines) + "\n")
        result.save(str(tmp_path))
        return tmp_path / "machine"

    return save


def values(folder, metric):
    """By file what it has of a metric."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", earlier.SUFFIX) and path.name != "machine.json":
            result = Results.load(str(path))
            if metric in result.get_all_result_keys():
                found[path.suffix] = [*found.get(path.suffix, []), result._results[metric]]
    return found


def test_the_second_result_is_added(run):
    run({"a": [1.0, 2.0], "b": [5.0, 6.0]})
    run({"a": [1.5, 2.5]})
    folder = run({"a": [1.25, 2.25]})
    assert values(folder, "a") == {".earlier": [[1.0, 2.0], [1.5, 2.5]], ".json": [[1.25, 2.25]]}
    assert values(folder, "b") == {".json": [[5.0, 6.0]]}


def test_asvs_own_commands_see_a_commit_once(run, tmp_path):
    run({"a": [1.0, 2.0]})
    run({"a": [1.5, 2.5]})
    assert [result._results["a"] for result in iter_results(str(tmp_path))] == [[1.5, 2.5]]


def test_of_a_case_measured_again_only_that_is_kept(run):
    run({"a": [1.0, 2.0]})
    folder = run({"a": [9.0, 2.5]}, chosen={1})
    assert values(folder, "a") == {".earlier": [[None, 2.0]], ".json": [[1.0, 2.5]]}


def test_what_is_the_same_or_was_nothing_is_not_kept(run):
    run({"a": [1.0, None], "b": [None, math.nan]})
    folder = run({"a": [1.0, 3.0], "b": [1.0, 2.0]})
    assert values(folder, "a") == {".json": [[1.0, 3.0]]}
    assert values(folder, "b") == {".json": [[1.0, 2.0]]}


def test_a_failure_does_not_replace_a_measurement(run):
    run({"a": [1.0, 2.0]})
    folder = run({"a": [None, 2.5]})
    assert values(folder, "a") == {".earlier": [[1.0, 2.0]], ".json": [[None, 2.5]]}


def test_another_version_is_kept_whole(run):
    run({"a": [1.0, 2.0]})
    folder = run({"a": [1.0, 2.0]}, version="2")
    assert values(folder, "a") == {".earlier": [[1.0, 2.0]], ".json": [[1.0, 2.0]]}


def test_saved_twice_by_one_run_is_one_result(run, monkeypatch, tmp_path):
    folder = run({"a": [1.0, 2.0]})
    result = Results.load(str(folder / "01234567-env.json"))
    monkeypatch.setattr(asv_plugin, "BEGAN", 0.0)
    result._results["a"] = [1.5, 2.5]
    result._started_at["a"] += 1
    result.save(str(tmp_path))
    assert values(folder, "a") == {".json": [[1.5, 2.5]]}


def test_a_save_that_was_killed_half_way_keeps_a_result_once(run, monkeypatch):
    run({"a": [1.0, 2.0]})
    original, count = asv_plugin.original_save, itertools.count()

    def killed(self, folder):
        if next(count) == 1:
            raise KeyboardInterrupt  # after what is kept, before asv's own file
        original(self, folder)

    monkeypatch.setattr(asv_plugin, "original_save", killed)
    with pytest.raises(KeyboardInterrupt):
        run({"a": [1.5, 2.5]})
    monkeypatch.setattr(asv_plugin, "original_save", original)
    folder = run({"a": [1.5, 2.5]})
    assert values(folder, "a") == {".earlier": [[1.0, 2.0]], ".json": [[1.5, 2.5]]}


def test_the_ledger_goes_with_its_results(run):
    run({"a": [1.0, 2.0]}, entries=[entry(CASES[0], 1.0), entry(CASES[1], 2.0)])
    folder = run({"a": [1.5, 2.5]}, entries=[entry(CASES[0], 1.5), entry(CASES[1], 2.5)])
    (kept,) = folder.glob(f"*{earlier.SUFFIX}")
    for path, seconds in ((kept, [1.0, 2.0]), (folder / "01234567-env.json", [1.5, 2.5])):
        entries = ledger.read(path.with_suffix(".jsonl"))
        cases = ledger.by_case(entries)
        assert [cases[case][0]["measurement"]["step"]["seconds"][0] for case in CASES] == seconds
        assert all(len(measured) == 1 for measured in cases.values())
        assert ledger.machine(entries)


def test_a_damaged_file_is_put_aside_and_the_run_goes_on(run, capsys):
    folder = run({"a": [1.0, 2.0]})
    path = folder / "01234567-env.json"
    for damage in ('{"half', "[]", '{"version": 2}'):
        path.write_text(damage)
        run({"a": [1.5, 2.5]})
        assert values(folder, "a") == {".json": [[1.5, 2.5]]}
        assert (folder / f"{path.name}{earlier.CORRUPT}").read_text() == damage


def test_both_are_in_the_history(tmp_path):
    made = History(tmp_path, 2)
    path = made.add(0, {SECONDS: {"eager/float32/gpt2": 1.0}}, "mac")
    made.add(1, {SECONDS: {"eager/float32/gpt2": 1.0}}, "mac")
    told = json.loads(path.read_text())
    column = told["result_columns"].index("result")
    told["results"][SECONDS][column] = [3.0]
    path.with_name(f"{path.stem}-20260101T000000.000{earlier.SUFFIX}").write_text(json.dumps(told))
    known = history.read(history.configuration(made.config), made.results)
    (series,) = history.series(known.points)
    assert series.values.tolist() == [2.0, 1.0]
    (each,) = history.series(known.points, every=True)
    assert sorted(each.values.tolist()) == [1.0, 1.0, 3.0]
    assert os.path.exists(path)
