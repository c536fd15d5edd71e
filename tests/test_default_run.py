"""What a default run contains is read by all that shows it: infinite errors, zeros, cases skipped, failed and missing.

A small run, made up of what a default one really has: measured by the harness where that is quick, written by the
harness's ledger and asv's own result files.
"""

import csv
import json
import math
import os
from pathlib import Path

import ledgers
import pytest
from asv import runner
from asv.results import Results
from browsers import CHROMIUM, Watched, served
from ledgers import MACHINE, entry
from synthetic import History

import adamw
from benchmarks.harness import accuracy, ledger, numbers
from scripts import asv_plugin, detect, history, runs, storing, table
from scripts.report import newest, site

TREE = "two_leaves"
OVERFLOWS, FINE, RIGHT = f"eager/float16/{TREE}", f"eager/float32/{TREE}", f"compiled/float32/{TREE}"
SWEEP, WITHOUT_BYTES = "eager/float32/leaf_1024", f"split/float32/{TREE}"
FAILED, SKIPPED, NO_SWEEP = f"flat/float32/{TREE}", "eager/float32/llama_1b", "eager/float32/leaf_67108864"
LONG_RUNS = {"eager/float16": None, "eager/float32": 3e-5, "compiled/float32": 0.0}
"""The errors of the long run: float16's is measured by the test."""

SECONDS, SCALING, ERROR, LONG_RUN = (*newest.SECONDS, "accuracy.Accuracy.track_error", newest.LONG_RUN)
SCALARS = "work.Work.track_scalar_kernels"


@pytest.fixture(scope="module")
def overflow() -> accuracy.Accuracy:
    """What the long run of float16 measures: its error is infinite."""
    measured = accuracy.measure("eager", "float16")
    assert math.isinf(measured.after_2000)
    return measured


@pytest.fixture(scope="module")
def made(tmp_path_factory, overflow) -> History:
    """Three commits; float16's long run is finite on the first."""
    known = History(tmp_path_factory.mktemp("run"), 3)
    units = {SECONDS: "seconds", SCALING: "seconds", ERROR: "relative error", LONG_RUN: "error of the way"}
    described = {name: {"name": name, "unit": unit, "version": "1"} for name, unit in units.items()}
    described[SCALARS] = {"name": SCALARS, "unit": "kernels", "version": "1"}
    (known.results / "benchmarks.json").write_text(json.dumps(described | {"version": 2}))
    with pytest.MonkeyPatch.context() as patch:
        for number in range(3):
            run(known, number, overflow if number else overflow._replace(after_2000=0.04), patch)
    return known


def run(known: History, number: int, overflow: accuracy.Accuracy, patch: pytest.MonkeyPatch) -> None:
    """A run of a commit: the ledger as the harness writes it, the results as asv does."""
    patch.setenv(ledger.VARIABLE, "")
    patch.setenv("ASV_COMMIT", known.commits[number])
    patch.setenv("ASV_ENV_NAME", "env")
    host = {"machine": "mac", "os": "macOS 26", "arch": "arm64", "cpu": "M4", "num_cpu": "10", "ram": "1"}
    saved = Results(
        host | {"python": "3.11", "mlx": "0.32.4"},
        {"mlx": "0.32.4"},
        known.commits[number],
        1000 * (1_700_000_000 + number),
        "3.11",
        "env",
        {},
    )
    storing.BEGUN.clear()
    saved.load_data(str(known.results))
    plain = {name: value for name, value in MACHINE.items() if name not in ("commit", "environment")}
    ledger.append(plain)
    for case in (OVERFLOWS, FINE, RIGHT, SWEEP, WITHOUT_BYTES):
        one = entry(case, 0.002)
        one["measurement"]["error"] = 0.0 if case == RIGHT else 2e-7
        if case == WITHOUT_BYTES:
            one["measurement"]["work"]["modelled_bytes"] = None  # an MLX that does not tell
        ledger.append(one)
    ledger.append({"what": "failure", "case": FAILED, "message": f"{FAILED}: w is off by 0.1, accepted is 4e-06"})
    ledger.append({"what": "failure", "case": "stochastic/bfloat16", "message": "stochastic/bfloat16: no bits"})
    for name, error in LONG_RUNS.items():
        told = overflow if error is None else overflow._replace(after_2000=error)
        ledger.append({"what": "accuracy", "case": name, "accuracy": told._asdict()})
    nothing = math.nan
    figures = {
        SECONDS: dict.fromkeys((OVERFLOWS, FINE, RIGHT, WITHOUT_BYTES), 0.002) | {FAILED: None, SKIPPED: nothing},
        SCALING: {SWEEP: 0.00002, NO_SWEEP: nothing},
        ERROR: {OVERFLOWS: numbers.in_asv(math.inf), FINE: numbers.in_asv(2e-7), RIGHT: 0.0, FAILED: None},
        LONG_RUN: {
            "eager/float16": numbers.in_asv(overflow.after_2000), "eager/float32": numbers.in_asv(3e-5),
            "compiled/float32": 0.0, "stochastic/bfloat16": None, "kernel/float32": nothing,
        },
        SCALARS: {FINE: 0.0, RIGHT: 0.0},
    }  # fmt: skip
    for name, told in figures.items():
        benchmark = {"name": name, "version": "1", "params": [list(map(repr, told))]}
        values = list(told.values())
        result = runner.BenchmarkResult(values, [None] * len(values), [None] * len(values), 0, "", None)
        saved.add_result(benchmark, result)
    (known.results / "mac" / "machine.json").write_text(json.dumps(host | {"version": 1}))
    saved.save(str(known.results))


@pytest.fixture(scope="module")
def html(made) -> Path:
    folder = made.folder / "html"
    site.build(history.configuration(made.config), made.results, folder)
    return folder


@pytest.fixture(scope="module")
def seen(made) -> detect.Seen:
    return detect.look(history.configuration(made.config), made.results, None)


def rows(html: Path, name: str) -> dict[str, dict]:
    return {row["case"]: row for row in json.loads((html / "tables" / f"{name}.json").read_text())}


def strictly(text: str) -> object:
    """JSON as everybody but Python reads it."""

    def refuse(name: str) -> None:
        raise AssertionError(f"JSON has no {name}")

    return json.loads(text, parse_constant=refuse)


def test_the_ledger_is_json_for_everybody_and_has_the_infinity(made):
    (path,) = runs.paths(made.results / "mac", made.commits[-1])
    assert '"after_2000": "Infinity"' in path.read_text()
    for line in path.read_text().splitlines():
        strictly(line)


def test_the_table_shows_every_case_and_says_what_inf_is(made, capsys):
    assert table.main(["--results", str(made.results), "--commit", made.commits[-1]]) == 1  # two failed
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("float16/two_leaves")]
    assert line.split()[-1] == "inf"
    assert table.NOT_FINITE in printed
    assert "0e+00" in printed
    assert f"FAILED {FAILED}" in printed


def test_the_tables_json_says_infinity_and_null(made, tmp_path, capsys):
    table.main(["--results", str(made.results), "--commit", made.commits[-1], "--json", str(tmp_path / "t.json")])
    told = strictly((tmp_path / "t.json").read_text())
    errors = {f"{row['variant']}/{row['workload']}": row["long_run_error"] for row in told["cases"]}
    assert errors == {OVERFLOWS: "Infinity", FINE: 3e-5, RIGHT: 0.0, SWEEP: 3e-5, WITHOUT_BYTES: None}


def test_nothing_of_it_is_called_unreadable(seen, html):
    assert seen.problems == []
    for page in site.PAGES:
        assert "nreadable" not in (html / f"{page}.html").read_text()
    assert "left out" not in (html / "summary.md").read_text()


def test_an_error_that_became_infinite_is_told_as_that(seen, made):
    members = [one for listed in seen.recalled.listed for one in listed.alert.members]
    assert [one.size for one in members if one.series.metric == LONG_RUN] in ([], ["not finite, was 0.04"])
    (points,) = [
        one for one in history.series(seen.known.points) if (one.metric, one.case) == (LONG_RUN, "eager/float16")
    ]
    assert points.values.tolist() == [0.04, math.inf, math.inf]


def test_every_case_is_in_the_report_with_its_errors(html):
    cases = rows(html, "cases")
    assert sorted(cases) == sorted([OVERFLOWS, FINE, RIGHT, SWEEP, WITHOUT_BYTES])
    assert cases[OVERFLOWS]["long_run_error"] == "Infinity"
    assert cases[RIGHT]["error"] == 0
    assert cases[RIGHT]["long_run_error"] == 0
    assert cases[WITHOUT_BYTES]["long_run_error"] is None
    with (html / "tables" / "cases.csv").open() as file:
        told = {row["case"]: row["long_run_error"] for row in csv.DictReader(file)}
    assert (told[OVERFLOWS], told[WITHOUT_BYTES], float(told[RIGHT])) == ("inf", "", 0)


def test_what_failed_and_what_was_skipped_is_named_the_sweep_and_the_long_run_as_well(html):
    missing = {case: row["state"] for case, row in rows(html, "missing").items()}
    assert missing == {
        FAILED: "failed", SKIPPED: "skipped", NO_SWEEP: "skipped", "stochastic/bfloat16": "failed",
        "kernel/float32": "skipped",
    }  # fmt: skip


def test_every_json_file_of_the_report_is_json_for_everybody(html):
    paths = [*html.glob("tables/*.json"), *html.glob("data/series/*.json")]
    assert any('"Infinity"' in path.read_text() for path in html.glob("data/series/*.json"))
    for path in paths:
        strictly(path.read_text())


@pytest.mark.parametrize("written", ["Infinity", "NaN", "-Infinity", '"Infinity"', '"NaN"'])
def test_a_line_of_any_age_is_read(tmp_path, written):
    path = tmp_path / "old.jsonl"
    measured = json.dumps(entry(FINE, 0.002)).replace('"error": 2e-07', f'"error": {written}')
    assert written in measured
    path.write_text(f'{measured}\n{{"what": "accuracy", "case": "a/b", "accuracy": {{"after_2000": {written}}}}}\n')
    first, second = ledger.read(path)
    assert first["measurement"]["error"] == second["accuracy"]["after_2000"] == math.inf
    ledgers.add(path, [])
    for line in path.read_text().splitlines():
        strictly(line)
    assert ledger.read(path) == [first, second]


@pytest.mark.parametrize(
    ("error", "figure"),
    [(math.inf, 1e9), (math.nan, 1e9), (5e12, 9.99e8), (0.0, 0.0), (0.012345, 0.0123)],
)
def test_asvs_files_have_a_number_for_every_error(error, figure):
    assert numbers.in_asv(error) == figure
    assert math.isinf(numbers.from_asv(figure)) == (not math.isfinite(error))


def test_every_variant_has_a_long_run_that_asv_can_keep():
    assert set(name.split("/")[0] for name in LONG_RUNS) <= set(adamw.names())
    assert asv_plugin.Setup.perform_setup is asv_plugin.perform_setup
    assert storing.Results.save is storing.save


@pytest.fixture(scope="module")
def address(html):
    with served(html) as at:
        yield at


@pytest.mark.skipif(not os.access(CHROMIUM, os.X_OK), reason="no chromium here; install it")
class TestInABrowser:
    @pytest.mark.parametrize("page", site.PAGES)
    def test_no_page_begins_with_a_complaint(self, browser, address, page):
        one = Watched(browser)
        tab = one.open(address, f"{page}.html")
        assert tab.locator("[role=alert]").count() == 0
        assert "is no number" not in tab.locator("main").inner_text()
        one.fine(address)
        one.tab.close()

    def test_an_infinite_error_stands_in_the_table(self, browser, address):
        tab = Watched(browser).open(address, "index.html")
        cells = tab.locator("#cases tr", has_text=OVERFLOWS).first.locator("td").all_text_contents()
        assert "not finite" in cells
        tab.close()

    def test_what_an_axis_has_no_place_for_is_said_beneath_the_chart(self, browser, address):
        tab = Watched(browser).open(address, "memory.html")
        assert f"Exactly zero, and so not drawn: {RIGHT}." in tab.locator("#accuracy").inner_text()
        tab.close()
        tab = Watched(browser).open(address, f"history.html#metric={LONG_RUN}&workload=float16")
        assert "Not finite, and so not drawn: eager." in tab.locator("#history").inner_text()
        cells = tab.locator("#points td").all_text_contents()
        assert cells.count("not finite") == 2
        tab.close()
