"""Detection from the outside: what is told of a history, what is remembered, what is left out and said to be."""

import json
import math

import numpy as np
import pytest
from synthetic import CASE, COPY, KERNELS, LOOP, SECONDS, History

from scripts import alerts, command, detect, history

COUNT, AT = 60, 40


def nights(sigma: float = 0.01, size: float = 0.0, at: int = AT, seed: int = 0, level: float = 0.05) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, sigma, COUNT) + math.log1p(size) * (np.arange(COUNT) >= at)
    return level * np.exp(values)


@pytest.fixture
def made(tmp_path) -> History:
    return History(tmp_path, COUNT)


def run(made: History, *arguments: str, capsys=None) -> tuple[int, str, dict]:
    path = made.folder / "found.json"
    code = detect.main(["--lane", str(made.config), "--results", str(made.results), "--json", str(path), *arguments])
    return code, capsys.readouterr().out if capsys else "", json.loads(path.read_text())


def test_a_slower_case_is_told_with_commits_and_size(made, capsys):
    made.add_all({SECONDS: nights(size=0.1)})
    code, printed, found = run(made, capsys=capsys)
    assert code == 1
    (alert,) = found["alerts"]
    (member,) = alert["members"]
    assert (alert["state"], alert["machine"], alert["worse"]) == ("new", "mac", True)
    assert made.commits.index(alert["good"]) < AT <= made.commits.index(alert["bad"])
    assert member["low"] < 1.1 < member["high"]
    assert f"{CASE}: slower +1" in printed
    assert alert["good"][:8] in printed


def test_nothing_new_is_exit_0(made, capsys):
    made.add_all({SECONDS: nights()})
    code, printed, _ = run(made, capsys=capsys)
    assert code == 0
    assert "nothing changed" in printed


def test_what_is_recorded_is_told_once(made, capsys):
    made.add_all({SECONDS: nights(size=0.1)})
    assert run(made)[0] == 1
    assert run(made, "--record")[0] == 1
    code, printed, found = run(made, capsys=capsys)
    assert code == 0
    assert "1 suspected" in printed
    assert found["alerts"][0]["state"] == "suspected"


def test_an_exact_figure_needs_one_point(made, capsys):
    kernels = np.repeat([4.0, 6.0], [COUNT - 1, 1])
    made.add_all({KERNELS: kernels})
    code, printed, found = run(made, capsys=capsys)
    assert code == 1
    assert found["alerts"][0]["good"] == made.commits[-2]
    assert "more kernels 6, was 4, exactly" in printed


def test_one_cause_in_many_series_is_one_alert(made, capsys):
    for number in range(COUNT):
        seconds = {f"compiled/float32/tree{case}": nights(size=0.1, seed=case)[number] for case in range(30)}
        made.add(number, {SECONDS: seconds})
    _, printed, found = run(made, capsys=capsys)
    large = [alert for alert in found["alerts"] if alert["members"][0]["ratio"] > 1.07]  # not chance's small ones
    assert len(large) == 1
    assert len(large[0]["members"]) >= 29
    assert "more series" in printed


def test_two_causes_are_two_alerts(made):
    for number in range(COUNT):
        cases = {"one": nights(size=0.1, at=15)[number], "other": nights(size=0.1, at=45, seed=2)[number]}
        made.add(number, {SECONDS: cases})
    large = [alert for alert in run(made)[2]["alerts"] if alert["members"][0]["ratio"] > 1.07]
    assert [[member["case"] for member in alert["members"]] for alert in large] == [["other"], ["one"]]


def test_a_step_that_the_controls_share_is_the_machines(made, capsys):
    for number in range(COUNT):
        late = number >= AT
        made.add(
            number,
            {
                SECONDS: {CASE: nights(size=0.1)[number]},
                COPY: {"": nights(size=0.1, seed=1)[number]},
                LOOP: {"": nights(size=0.1, seed=2)[number]},
            },
            os="macOS 26.1" if late else "macOS 26.0",
        )
    code, printed, found = run(made, capsys=capsys)
    assert code == 0
    assert not found["alerts"]
    assert "mac: the machine changed on 2027-" in printed
    assert "os: macOS 26.1, was macOS 26.0" in printed
    assert len(found["shifts"]) == 1


def test_a_larger_step_than_the_controls_is_still_told(made):
    controls = {COPY: nights(size=0.05, seed=1), LOOP: nights(size=0.05, seed=2)}
    made.add_all({SECONDS: nights(size=0.3), **controls})
    assert len(run(made)[2]["alerts"]) == 1


def test_one_control_alone_explains_nothing_where_there_are_two(made):
    made.add_all({SECONDS: nights(size=0.1), COPY: nights(size=0.1, seed=1), LOOP: nights(seed=2)})
    assert len(run(made)[2]["alerts"]) == 1


def test_refuted_and_acknowledged_alerts_stay_quiet(made, capsys):
    made.add_all({SECONDS: nights(size=0.1)})
    _, _, found = run(made, "--record")
    name = found["alerts"][0]["alert"]
    for state in (alerts.REFUTED, alerts.ACKNOWLEDGED):
        alerts.add(made.results, "mac", [{"alert": name, "event": state, "reason": "a trade"}])
        capsys.readouterr()
        code, printed, found = run(made, capsys=capsys)
        assert code == 0
        assert found["alerts"][0]["state"] == state
        assert CASE not in printed
    assert CASE in run(made, "--all", capsys=capsys)[1]


def test_what_is_worse_is_remembered_first(made):
    made.add_all({SECONDS: nights(size=0.3, at=20), KERNELS: np.where(np.arange(COUNT) < 50, 6.0, 4.0)})
    assert [one["worse"] for one in run(made, "--record")[2]["alerts"]] == [False, True]  # the newest first
    assert [one.worse for one in alerts.read(made.results, "mac")[0]] == [True, False]


def test_an_alert_whose_step_has_gone_away_is_closed(made, capsys):
    made.add_all({SECONDS: nights(size=0.1, at=20)})
    _, _, found = run(made, "--record")
    name = found["alerts"][0]["alert"]
    back = nights(size=0.1, at=20) / (1 + 0.1 * (np.arange(COUNT) >= AT))
    made.add_all({SECONDS: back})
    _, printed, _ = run(made, "--record", capsys=capsys)
    assert f"alert {name} is closed: its step has gone away" in printed
    (known,) = [one for one in alerts.read(made.results, "mac")[0] if one.name == name]
    assert known.state == alerts.CLOSED


class TestBadInput:
    """One file, or series, is named and left out; the rest goes on, and nothing is written."""

    @pytest.fixture
    def whole(self, made) -> History:
        made.add_all({SECONDS: nights(size=0.1)})
        return made

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "Expecting value"),
            ('{"commit_hash": "12', "Unterminated string"),
            ('{"version": 99}', "no result of asv's in version 2"),
            ("[]", ""),
            ('{"version": 2}', "it has no results"),
        ],
    )
    def test_a_broken_file(self, whole, capsys, text, said):
        path = next((whole.results / "mac").glob(f"{whole.commits[3][:8]}*.json"))
        path.write_text(text)
        code, printed, found = run(whole, capsys=capsys)
        assert code == 1
        assert len(found["alerts"]) == 1
        assert path.name in "".join(printed.split("\n"))
        assert said in found["problems"][0]
        assert path.read_text() == text

    @pytest.mark.parametrize(
        "change",
        [
            {"requirements": None},
            {"requirements": []},
            {"params": 3},
            {"commit_hash": []},
            {"date": None, "results": {}},
            {"results": 7},
        ],
        ids=str,
    )
    def test_a_file_that_is_not_what_asv_writes(self, whole, change):
        path = next((whole.results / "mac").glob(f"{whole.commits[3][:8]}*.json"))
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        _, _, found = run(whole)
        assert len(found["alerts"]) == 1
        assert path.name in found["problems"][0]

    @pytest.mark.parametrize(
        ("told", "said"),
        [
            ([["fast"], [[repr(CASE)]], "1", 0, 1], "Invalid enum value 'fast'"),
            ([[True], [[repr(CASE)]], "1", 0, 1], "got `bool`"),
            ([[1.0, 2.0], [[repr(CASE)]], "1", 0, 1], "2 values of 1 case"),
            ([[int("9" * 400)], [[repr(CASE)]], "1", 0, 1], "int too large"),
            ([], "it has no parameters"),
        ],
        ids=str,
    )
    def test_a_series_that_is_not_what_asv_writes(self, whole, told, said):
        path = next((whole.results / "mac").glob(f"{whole.commits[3][:8]}*.json"))
        results = json.loads(path.read_text())
        results["results"][SECONDS] = told
        path.write_text(json.dumps(results))
        _, _, found = run(whole)
        assert len(found["alerts"]) == 1
        (problem,) = found["problems"]
        assert f"{path.name}: {SECONDS}: " in problem
        assert said in problem

    @pytest.mark.parametrize("text", ["[" * 100_000, "null", "3", '{"version": "2"}', ""])
    def test_no_description_of_the_benchmarks(self, whole, text):
        (whole.results / "benchmarks.json").write_text(text)
        _, _, found = run(whole)
        assert len(found["alerts"]) == 1
        assert "units and versions are not known" in found["problems"][0]

    @pytest.mark.parametrize("text", ["{", '{"version": 1, "repo": ".", "branches": 5}', "[]"])
    def test_a_configuration_that_is_none(self, whole, text):
        whole.config.write_text(text)
        with pytest.raises(command.UserError) as error:
            run(whole)
        assert "root of a clone" not in str(error.value)  # it is there, and broken

    def test_a_ledger_that_is_none(self, made):
        slow = np.where(np.arange(COUNT) < AT, 1.0, 1.1)
        made.add_all({COPY: nights(seed=1) * slow, LOOP: nights(seed=2) * slow})
        for path in (made.results / "mac").glob("*-mlx*.json"):
            path.with_suffix(".jsonl").write_text('{"what": "machine"}\n{"what": "case"}\n')
        assert len(run(made)[2]["shifts"]) == 1

    def test_names_are_printed_without_what_steers_a_terminal(self, made, capsys):
        described = {"step.\x1b[31mX": {"unit": "\x1b[2Jparsecs", "version": "1"}, "version": 2}
        (made.results / "benchmarks.json").write_text(json.dumps(described))
        made.add_all({"step.\x1b[31mX": nights(size=0.1)})
        _, printed, _ = run(made, capsys=capsys)
        assert "more parsecs" in printed
        assert "\x1b" not in printed

    def test_failed_skipped_and_infinite_values_are_gaps(self, whole):
        for number, value in ((3, None), (5, math.nan), (7, math.inf)):
            whole.add(number, {SECONDS: {CASE: value}})
        _, _, found = run(whole)
        assert len(found["alerts"]) == 1
        assert not found["problems"]

    def test_a_commit_that_is_gone(self, whole, capsys):
        path = next((whole.results / "mac").glob(f"{whole.commits[3][:8]}*.json"))
        path.write_text(path.read_text().replace(whole.commits[3], "0" * 40))
        _, _, found = run(whole, capsys=capsys)
        assert "commit 00000000 is not on the searched branch" in found["problems"][0]

    def test_a_renamed_machine(self, whole):
        (whole.results / "mac").rename(whole.results / "studio")
        with pytest.raises(command.UserError, match="machine name is not 'studio'"):
            run(whole)

    def test_a_machine_that_is_not_there(self, whole):
        with pytest.raises(command.UserError, match=r"no machine 'pro' below .*; there are: mac"):
            run(whole, "--machine", "pro")

    def test_no_results_at_all(self, made):
        with pytest.raises(
            command.UserError, match=r"no results below .*; run asv, or name another --results or --lane$"
        ):
            run(made)
        made.add(0, {SECONDS: {CASE: 0.05}}).write_text("{")
        with pytest.raises(command.UserError, match=r"no results below .*, 1 are left out: ") as error:
            run(made)
        assert "run asv" not in str(error.value)

    def test_no_repository(self, tmp_path):
        with pytest.raises(command.UserError, match="run it from the root of a clone, or name another --lane"):
            detect.main(["--lane", str(tmp_path / "none.json"), "--results", str(tmp_path)])
        about = {"version": 1, "project": "test", "repo": str(tmp_path), "branches": ["main"]}
        (tmp_path / "there.json").write_text(json.dumps(about))
        with pytest.raises(command.UserError, match="that is no clone of a repository: git clone it"):
            detect.main(["--lane", str(tmp_path / "there.json"), "--results", str(tmp_path)])

    def test_one_point(self, made):
        made.add(3, {SECONDS: {CASE: 0.05}})
        assert run(made)[0] == 0

    def test_a_clock_that_goes_backwards_changes_no_order(self, made):
        for number, value in enumerate(nights(size=0.1)):
            made.add(number, {SECONDS: {CASE: value}}, measured=1_900_000_000 - 86_400 * number)
        (alert,) = run(made)[2]["alerts"]
        assert made.commits.index(alert["good"]) < AT <= made.commits.index(alert["bad"])

    def test_several_results_of_a_commit_are_one_point(self, made):
        for number, value in enumerate(nights(size=0.1)):
            made.add(number, {SECONDS: {CASE: value}}, pins={"mlx": "0.32.4"})
            made.add(
                number,
                {SECONDS: {CASE: value}},
                pins={"mlx": "0.32.4", "numpy": "2"} if number == 7 else {"mlx": "0.32.4"},
            )
        known = history.read(history.configuration(made.config), made.results)
        (one,) = history.series(known.points)
        assert len(one.values) == COUNT

    def test_a_commit_that_was_measured_three_times_has_the_median(self, made):
        for machine_pins, value in (({"mlx": "1"}, 1.0), ({"mlx": "2"}, 2.0), ({"mlx": "3"}, 9.0)):
            made.add(3, {SECONDS: {CASE: value}}, pins=machine_pins)
        (one,) = history.series(history.read(history.configuration(made.config), made.results).points)
        assert one.values.tolist() == [2.0]

    def test_two_environments_are_two_series(self, made):
        for number, value in enumerate(nights()):
            for release in ("0.31.2", "0.32.4"):
                made.add(number, {SECONDS: {CASE: value}}, pins={"mlx": release})
        known = history.read(history.configuration(made.config), made.results)
        assert [one.environment for one in history.series(known.points)] == ["mlx 0.31.2", "mlx 0.32.4"]

    def test_a_pin_that_is_bumped_is_no_new_series(self, made):
        for number, value in enumerate(nights(size=0.1)):
            made.add(number, {SECONDS: {CASE: value}}, pins={"mlx": "0.31.2" if number < AT else "0.32.4"})
        assert len(run(made)[2]["alerts"]) == 1

    def test_an_older_version_of_a_benchmark_is_another_series(self, whole):
        described = json.loads((whole.results / "benchmarks.json").read_text())
        described[SECONDS]["version"] = "2"
        (whole.results / "benchmarks.json").write_text(json.dumps(described))
        with pytest.raises(command.UserError, match="no results below"):
            run(whole)

    def test_lines_that_are_no_events_are_named(self, whole, capsys):
        (whole.results / "mac" / alerts.FILE).write_text(
            '{"when": 1}\nnonsense\n[]\n{"when":"2","alert":"a","event":"suspected"}\n'
        )
        _, _, found = run(whole)
        assert sum("alerts.jsonl" in problem for problem in found["problems"]) == 4
