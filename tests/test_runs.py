"""A run is a file that only grows; what asv reads is made of runs, and what older versions wrote becomes some."""

import itertools
import json
import math
import os
import shutil
from pathlib import Path

import asv_runs
import ledgers
import pytest
from asv import util
from asv.results import Results, iter_results
from asv_runs import CASES, COMMIT, ENVIRONMENT
from ledgers import MACHINE, entry
from synthetic import SECONDS, History

from benchmarks.harness import files
from scripts import archive, convert, derived, history, ledger, legacy, runs, storing, table

COMMITTED = Path(__file__).parent.parent / "results"
FILE = f"{COMMIT[:8]}-{ENVIRONMENT}.json"


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """What asv's hooks set is of one test."""
    for name in (ledger.VARIABLE, ledger.SESSION, "ASV_COMMIT", "ASV_ENV_NAME"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(storing, "GIVEN", None)
    yield
    storing.BEGUN.clear()
    storing.rebuilt.cache_clear()


def in_asvs_file(results: Path) -> dict[str, list]:
    """What asv's file has, by metric."""
    loaded = Results.load(str(results / "mac" / FILE))
    return {metric: loaded._results[metric] for metric in loaded.get_all_result_keys()}


def in_runs(results: Path) -> list[tuple[str, int, float | None]]:
    """Every value of every run."""
    told = [archive.read(path) for path in archive.paths(results / "mac")]
    return sorted(
        ((one.metric, place, value) for run in told for one in run.figures for place, value in one.values()), key=str
    )


def test_a_run_has_all_that_was_measured_and_nothing_of_it_is_ever_rewritten(tmp_path):
    first = asv_runs.run(tmp_path, {"a": [1.0, 2.0]}, entries=[MACHINE, entry(CASES[0], 1.0)])
    before = first.read_bytes()
    second = asv_runs.run(tmp_path, {"a": [1.5, 2.5]}, entries=[MACHINE, entry(CASES[0], 1.5)])
    assert first.read_bytes() == before
    assert first.parent == second.parent == tmp_path / "mac" / "runs"
    kinds = [what for what, _ in runs.lines(second)]
    assert kinds == ["run", "machine", "case", "figure", "complete"]
    assert in_asvs_file(tmp_path) == {"a": [1.5, 2.5]}
    assert in_runs(tmp_path) == [("a", 0, 1.0), ("a", 0, 1.5), ("a", 1, 2.0), ("a", 1, 2.5)]


def test_asv_sees_of_every_metric_and_case_the_newest(tmp_path):
    asv_runs.run(tmp_path, {"a": [1.0, 2.0], "b": [5.0, 6.0]})
    asv_runs.run(tmp_path, {"a": [9.0, 2.5]}, chosen={1})
    asv_runs.run(tmp_path, {"c": [None, math.nan]})
    assert str(in_asvs_file(tmp_path)) == str({"a": [1.0, 2.5], "b": [5.0, 6.0], "c": [None, math.nan]})
    assert len(list(iter_results(str(tmp_path)))) == 1
    asv_runs.run(tmp_path, {"a": [3.0, 4.0]}, version="2", chosen={0})
    assert in_asvs_file(tmp_path)["a"] == [3.0, None]  # figures of two versions are not put together


def test_the_clock_decides_nothing_that_is_kept(tmp_path):
    asv_runs.run(tmp_path, {"a": [1.0, 2.0]}, when=2_000_000_000)
    asv_runs.run(tmp_path, {"a": [1.5, 2.5]}, when=-1_000_000_000)  # before 1970
    assert len(in_runs(tmp_path)) == 4


@pytest.mark.parametrize("damage", ['{"half', "[]", "", '{"derived": {"of": {}, "sha256": ""}, "version": 2}'])
def test_asvs_file_is_made_again_when_it_is_damaged(tmp_path, damage):
    asv_runs.run(tmp_path, {"a": [1.0, 2.0]})
    whole = (tmp_path / "mac" / FILE).read_text()
    for name in (FILE, "machine.json"):
        (tmp_path / "mac" / name).write_text(damage)
    if damage == "":
        (tmp_path / "mac" / FILE).unlink()
    derived.of_machine(tmp_path / "mac")
    assert (tmp_path / "mac" / FILE).read_text() == whole or legacy.left(tmp_path / "mac")
    assert len(in_runs(tmp_path)) == 2
    asv_runs.run(tmp_path, {"b": [1.0, 2.0]})
    assert in_asvs_file(tmp_path) == {"a": [1.0, 2.0], "b": [1.0, 2.0]}


def test_a_value_of_asvs_file_that_was_changed_by_hand_is_made_again(tmp_path):
    asv_runs.run(tmp_path, {"a": [1.0, 2.0]})
    path = tmp_path / "mac" / FILE
    path.write_text(path.read_text().replace("[1.0, 2.0]", "[0.1, 2.0]"))
    assert in_asvs_file(tmp_path) == {"a": [0.1, 2.0]}
    assert [one._results["a"] for one in iter_results(str(tmp_path))] == [[1.0, 2.0]]


def test_nothing_is_written_where_all_is_as_it_should_be(tmp_path, monkeypatch):
    asv_runs.run(tmp_path, {"a": [1.0, 2.0]})
    derived.rebuild(tmp_path)
    monkeypatch.setattr(files.os, "replace", lambda *_: pytest.fail("it was written"))
    assert derived.rebuild(tmp_path) == [tmp_path / "mac" / FILE]


def test_a_kill_costs_what_was_not_measured_yet(tmp_path):
    asv = asv_runs.begin(tmp_path)
    asv.add_result(asv_runs.described("a"), asv_runs.One([1.0, 2.0]))
    (path,) = storing.BEGUN.values()
    assert not runs.is_complete(path)
    assert in_runs(tmp_path) == [("a", 0, 1.0), ("a", 1, 2.0)]
    asv_runs.run(tmp_path, {"b": [3.0, 4.0]})
    assert in_asvs_file(tmp_path) == {"a": [1.0, 2.0], "b": [3.0, 4.0]}


def test_who_is_given_a_run_goes_on_with_it_and_does_not_complete_it(tmp_path, monkeypatch):
    path = runs.new_path(tmp_path / "mac", COMMIT)
    monkeypatch.setattr(storing, "GIVEN", str(path))
    assert asv_runs.run(tmp_path, {"a": [1.0, 2.0]}) == path
    assert asv_runs.run(tmp_path, {"a": [1.0, 2.0], "b": [3.0, 4.0]}) == path
    assert not runs.is_complete(path)
    known = runs.read(path)
    assert [one.metric for one in known.figures] == ["a", "a", "b"]
    values, _ = history.values(known, {})
    assert [(one.metric, one.value) for one in values] == [("a", 1.0), ("a", 2.0), ("b", 3.0), ("b", 4.0)]  # each once


@pytest.mark.parametrize("of", [{"commit": "f" * 40}, {"environment": "another"}])
def test_what_is_measured_of_another_commit_or_elsewhere_does_not_go_into_a_given_run(tmp_path, monkeypatch, of):
    path = asv_runs.run(tmp_path, {"a": [1.0, 2.0]})
    monkeypatch.setattr(storing, "GIVEN", str(path))
    assert asv_runs.run(tmp_path, {"a": [1.0, 2.0]}, **of) != path


def test_every_round_of_a_commit_is_in_one_run(tmp_path):
    asv = asv_runs.begin(tmp_path)
    asv.add_result(asv_runs.described("a"), asv_runs.One([1.0, 2.0]))
    asv.save(str(tmp_path))
    again = Results(asv.params, asv._requirements, COMMIT, asv.date, "3.11", ENVIRONMENT, {})
    again.load_data(str(tmp_path))
    again.add_result(asv_runs.described("a"), asv_runs.One([1.1, 2.1]))
    again.save(str(tmp_path))
    (path,) = runs.paths(tmp_path / "mac")
    assert runs.is_complete(path)
    assert in_asvs_file(tmp_path) == {"a": [1.1, 2.1]}


def test_what_is_told_of_a_case_is_what_the_newest_run_has(tmp_path):
    early, late = ({"time": 1.0}, {"time": 2.0})
    asv_runs.run(tmp_path, {}, entries=[MACHINE | late, entry(CASES[0], 2.0) | late, entry(CASES[1], 2.0) | late])
    path = asv_runs.run(tmp_path, {}, entries=[MACHINE | early, entry(CASES[0], 1.0) | early])
    told = ledger.by_case(archive.together(path))
    seconds = {case: told[case][0]["measurement"]["step"]["seconds"][0] for case in CASES}
    assert set(seconds.values()) <= {1.0, 2.0}
    assert all(len(measured) == 1 for measured in told.values())
    assert table.Report(path).machine_name == "mac"


def test_what_another_suite_measured_in_an_interrupted_run_is_no_part_of_it(tmp_path, monkeypatch):
    path = runs.new_path(tmp_path / "mac", COMMIT)
    monkeypatch.setattr(storing, "GIVEN", str(path))
    asv_runs.run(tmp_path, {}, entries=[MACHINE, entry(CASES[0], 1.0)])
    asv_runs.run(tmp_path, {}, entries=[MACHINE, entry(CASES[1], 2.0)])
    assert list(ledger.by_case(runs.entries(path))) == [CASES[1]]
    assert len([one for one in ledger.read(path) if one["what"] == "case"]) == 2


class TestFull:
    """A disk that is full, or a power cut, at any write."""

    def test_asv_says_so_in_one_line_and_what_is_there_is_whole(self, tmp_path, monkeypatch):
        path = asv_runs.run(tmp_path, {"a": [1.0, 2.0]})
        before = path.read_bytes()

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(files.os, "replace", full)
        monkeypatch.setattr(runs, "append_line", full)
        with pytest.raises(util.UserError, match="No space left on device; what is there is whole"):
            asv_runs.run(tmp_path, {"a": [1.0, 2.0]})
        assert path.read_bytes() == before


class TestOlder:
    """Files of older versions."""

    @pytest.fixture
    def older(self, tmp_path) -> Path:
        folder = tmp_path / "linux-x86-2core"
        shutil.copytree(Path(__file__).parent / "older" / folder.name, folder)
        return folder

    def test_they_become_the_same_run_however_often_and_wherever(self, older, tmp_path, capsys):
        elsewhere = tmp_path / "elsewhere" / older.name
        shutil.copytree(older, elsewhere)
        before = [archive.read(path).figures for path in archive.paths(older)]
        for _ in range(2):
            assert convert.main(["--results", str(tmp_path)]) == 0
        convert.main(["--results", str(tmp_path / "elsewhere")])
        (path,), (other,) = (archive.paths(one) for one in (older, elsewhere))
        assert path.name == other.name
        assert path.read_bytes() == other.read_bytes()
        assert str([archive.read(path).figures]) == str(before)
        assert "1 result is a run now" in capsys.readouterr().out

    def test_nothing_of_them_is_lost(self, older):
        (path,) = archive.paths(older)
        asv, told = Results.load(str(path)), legacy.entries(path)
        run = legacy.convert(path)
        assert derived.of_machine(older) == [path]
        again = Results.load(str(path))
        for name in ("_results", "_stats", "_benchmark_params", "_started_at", "_benchmark_version", "_samples"):
            assert str(sorted(getattr(again, name).items())) == str(sorted(getattr(asv, name).items()))
        assert (again.params, again.date, again.env_name) == (asv.params, asv.date, asv.env_name)
        assert [one for one in ledger.read(run) if one["what"] not in runs.OURS] == told

    def test_a_kill_between_the_run_and_what_it_is_made_of_counts_nothing_twice(self, older, monkeypatch):
        def count() -> int:
            return len({(one.metric, case) for path in archive.paths(older) for one in archive.read(path).figures
                        for case, _ in one.values()})  # fmt: skip

        (path,) = archive.paths(older)
        before, content = count(), path.read_bytes()
        legacy.convert(path)
        path.write_bytes(content)
        derived.of_machine(older)
        assert count() == before

    def test_asv_measures_a_commit_again_of_which_an_older_file_is_there(self, tmp_path):
        made = History(tmp_path, 1)
        path = made.add(0, {SECONDS: dict.fromkeys(CASES, 1.0)}, "mac", {"mlx": "0.32.4"})
        beside = path.with_name(f"{path.stem}-20260101T000000.000{legacy.EARLIER}")
        beside.write_text(path.read_text().replace("[1.0, 1.0]", "[3.0, 3.0]"))
        ledgers.add(path.with_suffix(".jsonl"), [MACHINE, entry(CASES[0], 1.0)])
        of = {"commit": made.commits[0], "environment": "mlx0.32.4"}
        asv_runs.run(made.results, {SECONDS: [2.0, 2.0]}, **of)
        assert len(runs.paths(made.results / "mac")) == 3
        assert legacy.left(made.results / "mac") == []
        known = history.read(history.configuration(made.config), made.results)
        assert sorted(known.points["value"]) == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
        (one, _) = history.series(known.points)
        assert one.values.tolist() == [2.0]  # of several results of a commit the median

    def test_copies_of_one_measurement_are_one(self, tmp_path):
        made = History(tmp_path, 1)
        path = made.add(0, {SECONDS: dict.fromkeys(CASES, 1.0)}, "mac")
        config = history.configuration(made.config)
        legacy.convert(path)
        made.add(0, {SECONDS: dict.fromkeys(CASES, 1.0), "b": {CASES[0]: 5.0}}, "mac")
        known = history.read(config, made.results)
        assert sorted(known.points["value"]) == [1.0, 1.0, 5.0]

    def test_what_cannot_be_read_stays_and_is_named(self, older, tmp_path, capsys):
        (older / "01234567-env.json").write_text('{"half')
        assert convert.main(["--results", str(tmp_path)]) == 1
        assert "01234567-env.json: no JSON" in "".join(capsys.readouterr().out.split("\n"))
        assert (older / "01234567-env.json").read_text() == '{"half'


def test_lines_of_every_version_of_a_run_are_read(tmp_path):
    """Lines as they were first written: they are never changed, whatever is added to what is written now."""
    folder = tmp_path / "mac" / "runs"
    folder.mkdir(parents=True)
    path = folder / f"{COMMIT[:8]}-0011223344556677.jsonl"
    path.write_text(
        f'{{"what": "run", "machine": "mac", "commit": "{COMMIT}", "environment": "e", "date": 1.0}}\n'
        '{"what": "figure", "metric": "a", "parameters": [["x", "y"]], "result": [1.0, "NaN"]}\n'
        '{"what": "figure", "metric": "b", "parameters": [], "result": null, "later": {"more": 1}}\n'
        '{"what": "something new"}\n{"cut'
    )
    known = runs.read(path)
    assert [(one.metric, list(one.values())) for one in known.figures][1] == ("b", [(0, None)])
    assert known.problems == []


@pytest.mark.parametrize(
    "line",
    [
        {"parameters": [["x"] * 10] * 9},
        {"parameters": [["x"]], "result": [1.0, 2.0]},
        {"parameters": [["x", "y"]], "result": [1.0], "indices": [5]},
        {"parameters": [["x", "y"]], "result": [1.0, 1.0], "indices": [0, 0]},
        {"parameters": [["x"]], "result": ["fast"]},
        {"parameters": [["x"]], "result": [True]},
        {"parameters": [["x" * 100_000]], "result": [1.0]},
        {"parameters": [["x"]], "result": [1.0], "stats": {"ci_99_a": [1.0, 2.0]}},
        {"parameters": 5},
    ],
    ids=str,
)
def test_an_odd_figure_costs_itself(tmp_path, line):
    path = asv_runs.run(tmp_path, {"a": [1.0, 2.0]})
    runs.add(path, {"what": "figure", "metric": "odd", "result": [1.0]} | line)
    known = runs.read(path)
    assert [one.metric for one in known.figures] == ["a"]
    assert len(known.problems) == 1
    derived.of_machine(tmp_path / "mac")
    assert in_asvs_file(tmp_path) == {"a": [1.0, 2.0]}


@pytest.mark.parametrize(
    "head",
    [
        {"machine": "another"},
        {"machine": "../mac"},
        {"commit": "HEAD"},
        {"commit": "f" * 40},
        {"environment": "../../x"},
        {"environment": []},
        {"date": 1e300},
        {"requirements": {"mlx": 5}},
    ],
    ids=str,
)
def test_a_run_that_says_odd_things_of_itself_is_left_out(tmp_path, head):
    asv_runs.run(tmp_path, {"a": [1.0, 2.0]})
    path = runs.new_path(tmp_path / "mac", COMMIT)
    of = {"what": "run", "machine": "mac", "commit": COMMIT, "environment": ENVIRONMENT, "date": 1.0}
    path.write_text(json.dumps(of | head) + "\n")
    with pytest.raises(runs.Odd):
        runs.read(path)
    derived.of_machine(tmp_path / "mac")
    assert in_asvs_file(tmp_path) == {"a": [1.0, 2.0]}
    assert not list(tmp_path.glob("x*"))


def test_names_that_are_no_runs_are_none(tmp_path):
    path = asv_runs.run(tmp_path, {"a": [1.0, 2.0]})
    for name in ("nonsense.jsonl", "0123456.jsonl", f"{COMMIT[:8]}-XYZ.jsonl", f"{COMMIT[:8]}-{'0' * 80}.jsonl"):
        shutil.copy(path, path.with_name(name))
    os.symlink(path, path.with_name(f"{COMMIT[:8]}-0000000000000000.jsonl"))
    (path.parent / f"{COMMIT[:8]}-1111111111111111.jsonl").mkdir()
    assert runs.paths(tmp_path / "mac") == [path]


def test_two_writers_lose_nothing(tmp_path):
    """The lock: who replaces a file and who adds to it take turns."""
    path = tmp_path / "mac" / "nights.jsonl"
    path.parent.mkdir()
    code = (
        "import sys\nfrom pathlib import Path\nfrom benchmarks.harness.files import append_line, locked, write_whole\n"
        "path = Path(sys.argv[1])\n"
        "for number in range(200):\n"
        "    with locked(path.parents[1]):\n"
        "        if sys.argv[2] == 'add':\n            append_line(path, str(number))\n"
        "        else:\n            write_whole(path, path.read_text() if path.exists() else '')\n"
    )
    import subprocess
    import sys

    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), what]) for what in ("add", "replace", "add")]
    assert [one.wait() for one in writers] == [0, 0, 0]
    assert sorted(path.read_text().split()) == sorted(str(number) for number in [*range(200), *range(200)])


def test_ids_are_random(tmp_path):
    names = {runs.new_path(tmp_path, COMMIT).name for _ in range(1000)}
    assert len(names) == 1000
    assert all(runs.NAME.fullmatch(name) for name in itertools.islice(names, 10))


def test_what_is_committed_is_read_as_it_was():
    """The results that come with the project: the file of the time when it was measured is in tests/older."""
    (old,) = archive.paths(Path(__file__).parent / "older" / "linux-x86-2core")
    told = {one.metric: dict(one.values()) for one in archive.read(old).figures}
    now = [archive.read(path) for path in archive.paths(COMMITTED / "linux-x86-2core")]
    assert str({one.metric: dict(one.values()) for run in now for one in run.figures}) == str(told)


def test_where_asv_does_not_build_only_it_knows_the_commit(tmp_path):
    path = asv_runs.run(tmp_path, {}, entries=[MACHINE, entry(CASES[0], 1.0)])
    of = {"environment": ENVIRONMENT, "time": 1.0}
    runs.add(path, entry(CASES[1], 2.0) | of | {"commit": None})
    runs.add(path, entry("split/float32/gpt2", 2.0) | of | {"commit": None, "environment": "another"})
    assert list(ledger.by_case(runs.entries(path))) == CASES


def test_the_page_of_files_names_every_line_and_key(tmp_path):
    page = (Path(__file__).parent.parent / "docs" / "files.md").read_text()
    path = asv_runs.run(tmp_path, {"a": [1.0, 2.0]}, chosen={1}, entries=[MACHINE, entry(CASES[0], 1.0)])
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for what, line in runs.lines(path):
        told = set(json.loads(line)) - {"what", "time", "session", "commit", "environment", "profile"}
        assert what in rows
        assert what in ("case", "machine") or not [key for key in told if f"`{key}`" not in rows[what]]
