"""The report in a real browser: what is drawn, without a request to anybody, whatever the results say."""

import itertools
import json
import os
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
import sites
from axe_playwright_python.sync_playwright import Axe
from browsers import CHROMIUM, Watched, served
from ledgers import MACHINE, entry
from playwright import sync_api as playwright
from synthetic import COPY, KERNELS, SECONDS, History
from test_text import outside

from scripts import alerts, detect, ledger
from scripts.report import publisher, releases, site

pytestmark = pytest.mark.skipif(not os.access(CHROMIUM, os.X_OK), reason="no chromium here; install it")

ROOT = Path(__file__).parent.parent
DARK = "rgb(23, 23, 27)"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> History:
    return sites.two_machines(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def html(made) -> Path:
    return sites.built(made)


@pytest.fixture(scope="module")
def address(html) -> Iterator[str]:
    with served(html) as at:
        yield at


@pytest.fixture
def watched(browser) -> Iterator[Watched]:
    one = Watched(browser)
    yield one
    one.tab.close()


def marks(tab, figure: str, kind: str, name: str = "") -> int:
    """How many marks of a kind a figure has drawn."""
    return tab.locator(f"#{figure} svg .mark-{kind}{name} > *").count()


def spoken(tab, place: str) -> list[str]:
    """What a screen reader is told of the marks."""
    return tab.locator(f"{place} [aria-label]").evaluate_all(
        "(all) => all.map((one) => one.getAttribute('aria-label'))"
    )


def rows(tab, place: str) -> list[list[str]]:
    """A table's cells, also if it is folded away."""
    lines = tab.locator(f"#{place} tbody tr").all()
    return [[cell.text_content() for cell in line.locator("th, td").all()] for line in lines]


@pytest.mark.parametrize("way", ["http", "file"])
@pytest.mark.parametrize("page", site.PAGES)
def test_every_page_loads_without_an_error_or_a_request_to_others(watched, html, address, page, way):
    base = address if way == "http" else html.as_uri()
    tab = watched.open(base, f"{page}.html")
    assert tab.locator("h1").inner_text() == site.PAGES[page]
    assert tab.locator("[role=alert]").count() == 0
    assert tab.locator("figure svg").count() == {
        "index": 2, "roofline": 2, "time": 1, "history": 1, "memory": 2, "releases": 4, "trust": 3, "data": 0
    }[page]  # fmt: skip
    assert tab.locator("nav a[aria-current=page]").inner_text() == site.PAGES[page]
    watched.fine(base)


def test_the_heat_map_has_every_case_with_its_milliseconds(watched, made, address):
    tab = watched.open(address, "index.html#machine=mac-studio")
    (path,) = made.results.glob("mac-studio/*mlx*.jsonl")
    seconds = {
        case: one[0]["measurement"]["step"]["seconds"][0] for case, one in ledger.by_case(ledger.read(path)).items()
    }
    expected = {f"{1e3 * value:.3g}" for case, value in seconds.items() if "leaf_" not in case}
    written = {text for text in tab.locator("#heat svg .mark-text.role-mark text").all_text_contents() if text}
    assert {text.removesuffix(" c") for text in written} == expected | {"failed", "skipped"}
    colours = {one.get_attribute("fill") for one in tab.locator("#heat svg .mark-rect path").all()}
    assert len(colours) >= 3


def test_hovering_tells_the_result_file_and_the_commit(watched, made, address):
    tab = watched.open(address, "index.html#machine=mac-studio")
    (path,) = made.results.glob("mac-studio/*mlx*.jsonl")
    tab.locator("#heat svg .mark-rect path").first.hover(force=True)
    tab.wait_for_selector("#vg-tooltip-element.visible")
    told = tab.locator("#vg-tooltip-element").inner_text()
    assert made.commits[-1] in told
    assert path.with_suffix(".json").name in told
    assert "of the ceiling" in told


def test_a_case_in_the_table_leads_to_its_history(watched, address):
    tab = watched.open(address, "index.html#machine=mac-studio")
    tab.locator("#cases a").first.evaluate("(link) => link.click()")
    tab.wait_for_url(re.compile("history.html"))
    watched.ready()
    assert tab.locator("h1").inner_text() == "History"
    assert tab.locator("#history svg").count() == 1
    assert tab.locator("[data-checks=machine] input:checked").input_value() == "mac-studio"


def test_the_roofline_has_its_limits_and_its_filters_work(watched, address):
    tab = watched.open(address, "roofline.html#machine=mac-studio")
    assert marks(tab, "sizes", "symbol") >= len(sites.CASES)
    told = " ".join(spoken(tab, "#sizes svg"))
    for text in (
        "340.0 GB/s measured here",
        "400 GB/s, somewhere",
        "fits the last-level cache, 48 MiB",
        "one float32 leaf",
    ):
        assert text in told, text
    all_points = tab.locator("#cases tbody tr").count()
    tab.select_option("select[data-key=precision]", "bfloat16")
    watched.ready()
    assert "precision=bfloat16" in tab.url
    assert 0 < tab.locator("#cases tbody tr").count() < all_points
    assert all("bfloat16" in row[0] for row in rows(tab, "cases"))
    tab.goto(tab.url)
    watched.ready()
    assert tab.locator("select[data-key=precision]").input_value() == "bfloat16"


def test_the_waterfall_ends_where_the_measurement_does(watched, address):
    tab = watched.open(address, f"time.html#machine=mac-studio&workload={sites.TREE}&variant=compiled")
    boxes = [bar.bounding_box() for bar in tab.locator("#waterfall svg .mark-rect path").all()]
    assert len(boxes) == 6
    ends = [box["x"] + box["width"] for box in boxes]
    for earlier, later in itertools.pairwise(boxes[:-1]):
        edges = (earlier["x"], earlier["x"] + earlier["width"])
        assert min(abs(edge - side) for edge in edges for side in (later["x"], later["x"] + later["width"])) < 1.5
    last = boxes[-2]
    assert min(abs(ends[-1] - edge) for edge in (last["x"], last["x"] + last["width"])) < 1.5
    row = next(row for row in rows(tab, "parts") if row[0] == f"compiled/{sites.TREE}")
    measured, *parts = map(float, (cell.replace(",", "") for cell in row[1:7]))
    assert sum(parts) == pytest.approx(measured, rel=1e-3)


class TestHistory:
    def open(self, watched, address, **asked):
        chosen = {"machine": "mac-studio", "metric": SECONDS, "workload": sites.TREE} | asked
        pairs = [(key, one) for key, value in chosen.items() for one in ([value] if isinstance(value, str) else value)]
        return watched.open(address, "history.html#" + "&".join(f"{key}={value}" for key, value in pairs))

    def lines(self, tab) -> set[str]:
        return {row[0] for row in rows(tab, "points")}

    def test_one_variant_with_its_band_and_its_roofline(self, watched, address):
        tab = self.open(watched, address, variant="eager")
        assert self.lines(tab) == {"eager"}
        assert len(rows(tab, "points")) == sites.COUNT
        assert marks(tab, "history", "area") >= 1
        assert marks(tab, "history", "line") == 2
        assert tab.locator("#history svg .mark-line [stroke-dasharray='6,4']").count() == 1

    def test_the_change_is_drawn_with_its_verdict(self, watched, made, address):
        tab = self.open(watched, address, variant="eager")
        (row,) = [row for row in rows(tab, "changes") if row[1] == "confirmed"]
        assert row[0].startswith(f"{sites.SLOWER}: slower +")
        good, bad = ([one[:8] for one in made.commits].index(name) for name in row[3].split(".."))
        assert good < sites.STEP <= bad
        assert int(row[4]) == sites.STEP
        told = tab.locator("#history svg .mark-rule [aria-label]").evaluate_all(
            "(all) => all.map((one) => one.ariaLabel)"
        )
        assert any("confirmed" in one and "slower" in one for one in told)

    def test_another_mlx_is_marked(self, watched, address):
        tab = self.open(watched, address)
        assert "mlx 0.32.4" in tab.locator("#history svg .mark-text.role-mark text").all_text_contents()
        tab = self.open(watched, address, machine="pc")
        assert "mlx 0.32.4" not in tab.locator("#history svg .mark-text.role-mark text").all_text_contents()

    def test_variants_and_machines_are_overlaid(self, watched, address):
        tab = self.open(watched, address, variant="compiled")
        assert self.lines(tab) == {"compiled"}
        tab.locator("[data-checks=variant] input[value=eager]").check()
        watched.ready()
        assert self.lines(tab) == {"compiled", "eager"}
        tab.locator("[data-checks=machine] input[value=pc]").check()
        watched.ready()
        assert self.lines(tab) == {
            f"{machine}, {name}" for machine in ("mac-studio", "pc") for name in ("compiled", "eager")
        }
        assert "machine=pc" in tab.url
        assert "variant=eager" in tab.url

    def test_a_range_of_commits_can_be_sent(self, watched, made, address):
        sent = {"from": made.commits[5][:8], "to": made.commits[9]}
        tab = self.open(watched, address, variant="eager", **sent)
        shown = [row[5] for row in rows(tab, "points")]
        assert shown == [commit[:8] for commit in made.commits[5:10]]
        assert tab.locator("input[data-key=from]").input_value() == made.commits[5][:8]

    def test_by_date(self, watched, address):
        tab = self.open(watched, address, variant="eager")
        assert tab.locator("#history").get_attribute("data-drawn") == "history"
        tab.select_option("select[data-key=axis]", "date")
        watched.ready()
        assert tab.locator("#history").get_attribute("data-drawn") == "history_by_date"
        assert "commit date" in tab.locator("#history svg").text_content()

    def test_a_commit_is_linked(self, watched, made, address):
        tab = self.open(watched, address, variant="eager")
        expected = f"https://example.org/commit/{made.commits[0]}"
        assert tab.locator("#points a").first.get_attribute("href") == expected
        watched.fine(address)
        tab.route("https://example.org/**", lambda route: route.fulfill(body="the commit"))
        tab.locator("#history svg .mark-symbol path").first.click(force=True)
        tab.wait_for_url(expected)

    def test_what_was_never_measured_says_so(self, watched, address):
        tab = self.open(watched, address, **{"from": "0" * 40, "to": "nothing"})
        assert len(rows(tab, "points")) == 2 * sites.COUNT
        tab = self.open(watched, address, workload="float32/nothing", machine="nobody")
        assert tab.locator("#history svg").count() == 1
        watched.fine(address)


def test_memory_and_accuracy(watched, address):
    tab = watched.open(address, f"memory.html#machine=mac-studio&workload={sites.TREE}")
    assert marks(tab, "memory", "rect") >= 8
    ideal, resident, peak = rows(tab, "bytes")[0][1:4]
    assert (ideal, int(peak.replace(",", ""))) == (resident, 2 * int(resident.replace(",", "")))
    assert {row[0] for row in rows(tab, "errors")} == {case for case in sites.CASES if case.endswith("/two_leaves")}


def test_trust_shows_the_calibration_the_noise_and_the_environment(watched, address):
    tab = watched.open(address, "trust.html#machine=mac-studio")
    assert [row[1:3] for row in rows(tab, "calibrations")] == [
        ["0.0 %", "1.0 %"],
        ["2.0 %", "40.0 %"],
        ["5.0 %", "97.0 %"],
    ]
    assert len(rows(tab, "noises")) == len(sites.CASES) + 2
    assert any(row[:3] == ["mlx", "0.32.4", "0.31.0"] for row in rows(tab, "environments"))
    tab = watched.open(address, "trust.html#machine=pc")
    assert "not calibrated" in tab.locator("#calibration").inner_text()


def test_what_each_release_of_mlx_changed(watched, address):
    tab = watched.open(address, "releases.html")
    assert [row[:5] for row in rows(tab, "changes")] == [
        ["0.30.1", "0.29.4", "better", "compiled", "peak up to 4N, was 7N"],
        ["0.32.4", "0.30.1", "worse", "eager", "5 more Python calls a step"],
    ]
    assert "#2897" in rows(tab, "changes")[0][6]
    link = tab.locator("#changes td a").first
    assert link.get_attribute("href").startswith("https://github.com/ml-explore/mlx/commit/3c8ce9b0")
    assert [row[3:7] for row in rows(tab, "timings")] == [
        ["faster", "-25.0 %", "-26.0 %", "-24.0 %"],
        ["faster", "-24.5 %", "-25.5 %", "-23.5 %"],
    ]
    assert rows(tab, "absent") == [["0.30.2", "it was withdrawn <b>"]]
    assert "Apple M1 Max" in tab.locator("#described").inner_text()
    assert tab.locator("#figures svg").count() == 4
    assert len(rows(tab, "known")) == len(releases.looked_for())


def test_dark_and_light(browser, address):
    for scheme in ("dark", "light"):
        one = Watched(browser, color_scheme=scheme)
        tab = one.open(address, "index.html")
        paper = "getComputedStyle(document.body).backgroundColor"
        ink = "getComputedStyle(document.querySelector('#heat svg .role-axis-label text')).fill"
        assert (tab.evaluate(paper) == DARK) == (scheme == "dark")
        assert contrast(tab.evaluate(paper), tab.evaluate(ink)) > 7
        tab.locator("#theme").click()
        one.ready()
        assert (tab.evaluate(paper) == DARK) == (scheme == "light")
        assert contrast(tab.evaluate(paper), tab.evaluate(ink)) > 7
        tab.reload()
        one.ready()
        assert (tab.evaluate(paper) == DARK) == (scheme == "light")
        one.fine(address)
        tab.close()


def contrast(one: str, other: str) -> float:
    """Of two colours, as the Web Content Accessibility Guidelines define it."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("page", site.PAGES)
def test_a_phone_needs_no_scrolling_sideways_and_print_fits_the_paper(browser, address, page):
    one = Watched(browser, viewport={"width": 360, "height": 740})
    tab = one.open(address, f"{page}.html")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    tab.set_viewport_size({"width": 718, "height": 1000})  # A4 less its margins
    tab.emulate_media(media="print")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 718
    assert not tab.locator("nav").is_visible()
    tab.close()


@pytest.mark.parametrize("page", site.PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_that_axe_finds_is_wrong(browser, address, page, scheme):
    one = Watched(browser, color_scheme=scheme)
    tab = one.open(address, f"{page}.html")
    found = Axe().run(tab).response["violations"]
    assert [(wrong["id"], [node["html"][:200] for node in wrong["nodes"][:3]]) for wrong in found] == []
    tab.close()


def test_the_keyboard_is_enough(watched, address):
    tab = watched.open(address, "history.html")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "main"
    reached = set()
    for _ in range(40):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("document.activeElement.dataset.key || document.activeElement.type || ''"))
    assert {"metric", "workload", "axis", "from", "to", "checkbox"} <= reached
    before = tab.url
    tab.locator("select[data-key=metric]").focus()
    tab.keyboard.press("ArrowDown")
    watched.ready()
    assert tab.url != before


EVIL = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\"'`${alert(1)} @octocat #1 _x_"
)
LONG = EVIL + "\u202e\u0000\u200b漢字🦀" * 1500
"""Ten thousand characters of what somebody could put anywhere."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    made = History(tmp_path_factory.mktemp("site"), 12, message=LONG, branch="main<img/src=x>&")
    sites.describe(made)
    told = json.loads(made.config.read_text()) | {"project": LONG, "show_commit_url": f"javascript:{EVIL}"}
    made.config.write_text(json.dumps(told))
    machine = "mac&lt;img src=x onerror='window.hacked = 3'&gt;`${alert(1)}"  # no name may have < or "
    names = [f"compiled/float32/{EVIL}", f"compiled/float32/{LONG}", EVIL]
    for night in range(12):
        values = {
            SECONDS: dict.fromkeys(names, 0.01 if night < 6 else 0.02),
            KERNELS: dict.fromkeys(names, 2.0 + night),
        }
        pins = {"mlx": EVIL.replace("/", "")[:40] if night % 2 else "1"}
        path = made.add(night, values, machine, pins, cpu=LONG, os=EVIL)
        if night == 11:
            path.with_suffix(".jsonl").write_text(hostile_ledger(names, made.commits[night]))
    detect.main(["--lane", str(made.config), "--results", str(made.results), "--record"])
    known, _ = alerts.read(made.results, machine)
    alerts.add(made.results, machine, [{"alert": one.name, "event": alerts.CONFIRMED, "reason": LONG} for one in known])
    (made.results / machine / "calibration.jsonl").write_text(LONG)
    (made.results / machine / f"{made.commits[3][:8]}-x.json").write_text(f'{{"{LONG}')
    return sites.built(made)


def hostile_ledger(names: list[str], commit: str) -> str:
    lines = [MACHINE | {"commit": commit, "description": LONG, "settings": {"mlx": EVIL, "python": LONG, EVIL: EVIL}}]
    for name in names:
        lines.append(entry(f"compiled/{sites.TREE}", 0.01) | {"case": name, "ceiling": MACHINE["ceiling"]})
    lines.append({"what": "failure", "case": LONG, "message": LONG})
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.mark.parametrize("page", site.PAGES)
def test_hostile_text_is_text(watched, hostile, page):
    with served(hostile) as address:
        tab = watched.open(address, f"{page}.html")
        tab.locator("details").evaluate_all("(all) => all.forEach((one) => { one.open = true; })")
        assert tab.evaluate("window.hacked") is None
        assert tab.locator("img").count() == 0
        assert tab.locator("script").evaluate_all("(all) => all.every((one) => one.src.startsWith(location.origin))")
        assert "</script><script>" in tab.locator("header").inner_text()
        assert tab.evaluate("document.documentElement.scrollWidth") <= 1200
        lengths = tab.locator("td, th, li, option, label").evaluate_all(
            "(all) => all.map((one) => one.innerText.length)"
        )
        assert max(lengths, default=0) < 2000
        links = tab.locator("a").evaluate_all("(all) => all.map((one) => one.href)")
        assert not [link for link in links if link.startswith("javascript")]
        if page in ("index", "history"):
            assert tab.locator("main").inner_text().count("</script>") > 2
        watched.fine(address)


def test_hostile_text_in_the_files_for_programs(hostile):
    summary = (hostile / "summary.md").read_text()
    assert "octocat" in summary
    assert not set(outside(summary)) & set("@#<>_`\\")
    assert not [word for word in ("octocat", "www", "hacked", "mac", "alert") if word in outside(summary)]
    told = [one.text for one in ET.parse(hostile / "alerts.xml").iter("{http://www.w3.org/2005/Atom}content")]
    assert told
    assert not [text for text in told if "<script" in text or "<img" in text]
    ET.parse(hostile / "badge.svg")
    assert "<script" not in (hostile / "alerts.xml").read_text()


class TestLittle:
    """Each page says something true of results that hardly are any."""

    def build(self, folder: Path, count: int, values=None, **facts) -> History:
        made = History(folder, count)
        sites.describe(made)
        for night in range(count):
            if values:
                made.add(night, values, **facts)
        return made

    def every_page(self, watched, made: History) -> dict[str, str]:
        told = {}
        with served(sites.built(made)) as address:
            for page in site.PAGES:
                told[page] = watched.open(address, f"{page}.html").locator("main").inner_text()
                watched.fine(address)
        return told

    def test_no_result(self, watched, tmp_path):
        told = self.every_page(watched, self.build(tmp_path, 2))
        assert all("There is no result to show" in text for text in told.values())
        assert "There is no result to show." in (tmp_path / "html" / "summary.md").read_text()

    def test_one_commit_of_one_machine_without_a_ceiling(self, watched, tmp_path):
        told = self.every_page(watched, self.build(tmp_path, 1, {SECONDS: {f"eager/{sites.TREE}": 0.002}}))
        assert "ceiling: none known" in told["index"]
        assert "Nothing to draw" in told["roofline"]
        assert "no series of this machine has eight points" in told["trust"]
        assert "There is no history to compare yet" in told["index"]

    def test_only_skipped_and_failed_cases(self, watched, tmp_path):
        values = {SECONDS: {sites.FAILED: None, sites.SKIPPED: float("nan")}, COPY: {"": 0.001}}
        told = self.every_page(watched, self.build(tmp_path, 2, values))
        assert "failed" in told["index"]
        assert "only the profile full has it" in told["index"]
        assert "Nothing to draw" in told["memory"]

    def test_a_ledger_that_is_broken(self, watched, tmp_path):
        made = self.build(tmp_path, 1, {SECONDS: {f"eager/{sites.TREE}": 0.002}})
        (path,) = made.results.glob("mac/*mlx*.json")
        path.with_suffix(".jsonl").write_text(json.dumps(MACHINE | {"launch": "?"}) + "\n" + json.dumps(
            entry(f"eager/{sites.TREE}", 0.002) | {"ceiling": MACHINE["ceiling"]}) + "\n{")  # fmt: skip
        told = self.every_page(watched, made)
        assert "Left out" in told["index"] or path.stem in told["index"]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    made = sites.two_machines(tmp_path_factory.mktemp("site"))
    told = json.loads(made.config.read_text()) | {"plugins": [".scripts.report.publisher"]}
    made.config.write_text(json.dumps(told))
    (made.folder / "scripts").symlink_to(ROOT / "scripts")
    (made.folder / "benchmarks").symlink_to(ROOT / "benchmarks")
    publisher.publish(made.config)
    return made.folder / "html"


@pytest.mark.slow
class TestPublished:
    """What `asv publish` writes with its plugin: its own pages and asv-tachyon's are there as well, and offline."""

    @pytest.mark.parametrize(
        "page", ["classic.html#/", "classic.html#/summarylist", "classic.html#/regressions", "tachyon.html"]
    )
    def test_asvs_pages(self, watched, published, page):
        with served(published) as address:
            watched.tab.goto(f"{address}/{page}")
            text = "atlas" if page.startswith("tachyon") else "airspeed velocity"
            playwright.expect(watched.tab.locator("body")).to_contain_text(text)
            watched.tab.wait_for_load_state("networkidle")
            assert "track_seconds" in watched.tab.locator("body").inner_text()
            watched.fine(address)

    def test_a_graph_of_asvs(self, watched, published):
        with served(published) as address:
            watched.tab.goto(f"{address}/classic.html#{SECONDS}")
            watched.tab.wait_for_selector("#graph-display canvas.flot-base")
            watched.fine(address)

    def test_tachyon_knows_that_less_is_better(self, published):
        told = json.loads((published / "index.json").read_text())["benchmarks"]
        assert told
        assert all(one["less_is_better"] is True for one in told.values())

    def test_the_report_is_the_front_page(self, watched, published):
        with served(published) as address:
            tab = watched.open(address, "index.html")
            assert tab.locator("h1").inner_text() == "Overview"
            assert tab.locator("#heat svg").count() == 2
            links = tab.locator("nav a").evaluate_all("(all) => all.map((one) => one.href)")
            assert all(tab.request.get(link).ok for link in links)
            tab.goto(f"{address}/data.html")
            for link in tab.locator("main a").evaluate_all("(all) => all.map((one) => one.href)"):
                assert tab.request.get(link).ok, link
        assert "classic.html#" in (published / "regressions.xml").read_text()


def test_unticking_everything_shows_nothing_and_stays(watched, address):
    tab = watched.open(address, f"history.html#machine=pc&workload={sites.TREE}&variant=eager")
    tab.locator("[data-checks=variant] input[value=eager]").uncheck()
    watched.ready()
    assert tab.locator("[data-checks=variant] input:checked").count() == 0
    assert "Nothing to draw" in tab.locator("#history").inner_text()


def test_the_skip_link_keeps_what_is_shown(watched, address):
    tab = watched.open(address, "history.html#variant=eager")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    assert tab.url.endswith("#variant=eager")


def test_the_next_page_shows_the_same_machine(watched, address):
    tab = watched.open(address, f"time.html#machine=pc&workload={sites.TREE}")
    tab.get_by_role("link", name="Memory and accuracy").click()
    tab.wait_for_url("**/memory.html#*")
    watched.ready()
    assert tab.locator("select[data-key=machine]").input_value() == "pc"


def test_what_an_address_asks_for_and_is_not_there_is_said(watched, address):
    tab = watched.open(address, "history.html#metric=no.Such.track&from=zzzz&machine=pc")
    told = tab.locator(".asked").all_inner_texts()
    assert [line[:35] for line in told] == [
        "There is no metric no.Such.track he",
        "There is no commit zzzz: the range ",
    ]
    assert len(rows(tab, "points")) > 0


def test_history_opens_on_the_newest_confirmed_change(watched, address):
    tab = watched.open(address, "history.html")
    assert tab.locator("select[data-key=workload]").input_value() == sites.TREE
    assert "confirmed" in tab.locator("#changes").inner_text()


def test_columns_are_sorted_when_their_heading_is_pressed(watched, address):
    tab = watched.open(address, "time.html#machine=mac-studio")
    heading = tab.locator("#parts thead button", has_text="measured")
    heading.click()
    upwards = [float(row[1]) for row in rows(tab, "parts")]
    assert upwards == sorted(upwards)
    heading.click()
    assert [float(row[1]) for row in rows(tab, "parts")] == upwards[::-1]
    assert tab.locator("#parts th[aria-sort=descending]").inner_text() == "measured"


def test_the_fastest_of_each_workload(watched, address):
    tab = watched.open(address, "index.html#machine=mac-studio")
    assert f"compiled/{sites.TREE}" in [row[0] for row in rows(tab, "fastest")]
    bold = tab.locator("#heat svg text[font-weight=bold].none, #heat svg .role-mark text[font-weight=bold]")
    assert bold.count() == 3


def test_names_that_every_object_has_are_names(watched, tmp_path):
    """A machine, a metric and a unit of which JavaScript knows another meaning."""
    made = History(tmp_path, 2)
    sites.describe(made)
    for night in range(2):
        for machine in ("__proto__", "mac"):
            values = {SECONDS: {f"eager/{sites.TREE}": 0.002}}
            if machine == "mac":
                values["constructor"] = {"name": 3.0}
            made.add(night, values, machine, {"mlx": "1", "__proto__": "2"})
    html = sites.built(made)
    path = html / "data" / "history.js"
    path.write_text(re.sub('"units": {', '"units": {"constructor": "constructor", ', path.read_text()))
    with served(html) as address:
        tab = watched.open(address, "history.html#machine=__proto__&machine=mac")
        assert tab.locator("[data-checks=machine] input").evaluate_all("(all) => all.map((one) => one.value)") == [
            "__proto__", "mac"
        ]  # fmt: skip
        assert [row[0] for row in rows(tab, "points")] == ["__proto__, eager"] * 2 + ["mac, eager"] * 2
        assert all("__proto__ 2" in " ".join(row) for row in rows(tab, "points"))
        tab = watched.open(address, "history.html#machine=__proto__&machine=mac&metric=constructor&workload=name")
        assert tab.locator("#history h3").inner_text() == "constructor, name, constructor"
        assert [float(row[1]) for row in rows(tab, "points")] == [3, 3]
        watched.fine(address)


def test_a_page_that_could_not_be_shown_recovers(watched, html, tmp_path):
    shutil.copytree(html, tmp_path / "site")
    missing = tmp_path / "site" / "data" / "newest.js"
    kept = missing.read_text()
    missing.unlink()
    with served(tmp_path / "site") as address:
        tab = watched.open(address, "index.html")
        assert tab.locator("[role=alert]").count() == 1
        missing.write_text(kept)
        tab.locator("#theme").click()
        watched.ready()
        assert tab.locator("[role=alert]").count() == 0
        assert tab.locator("#heat svg").count() == 2
