"""Build the report: gather what was measured, write it as data, pages and exports."""

import json
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
import vl_convert
from asv.config import Config

from benchmarks.harness import numbers
from benchmarks.harness.files import write_whole
from scripts import command, detect, history, text
from scripts.detect import Seen
from scripts.history import Series
from scripts.report import (
    attribution,
    charts,
    exports,
    intensity,
    limits,
    news,
    releases,
    shells,
    timeline,
    trust,
    words,
)
from scripts.report import newest as newest_runs
from scripts.report.newest import Newest
from scripts.search import CONTROLS

HERE = Path(__file__).parent
STATIC, TEMPLATES = HERE / "static", HERE / "templates"

PAGES = {
    "index": "Overview",
    "roofline": "Roofline",
    "time": "Where the time goes",
    "history": "History",
    "memory": "Memory and accuracy",
    "releases": "MLX's releases",
    "trust": "Trust",
    "data": "Data",
}
"""The pages' files and what they are called."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'"
)
"""The content security policy. Vega interprets its expressions, so no script is made of text; the SVG it draws has
style attributes, which are all that is allowed inline."""

TABLES = {
    "cases": "every case of each machine's newest commit; spread is the interquartile range over the median",
    "missing": "the cases that were not measured, and why",
    "alerts": "every change, what became of it, and the series it is in, with levels in asv's unit",
    "series": "which file has the points of a metric on a workload: below data/series, as CSV and as JSON",
    "runs": "every result file: when, on what and with what",
    "calibration": "how often comparisons called a known slowdown slower",
    "noise": "one standard deviation of each series from night to night, as a share",
    "controls": "every run of the work that no commit can change",
    "environments": "what changed of what is recorded of a machine",
    "release_changes": "what each of MLX's releases changed in the work of a step, exactly",
    "release_timings": "releases of MLX timed in turns, two by two",
    "release_figures": "seconds in milliseconds, memory and accuracy, release by release, not side by side",
}

_SOURCE = ("machine", "commit", "file")
HEADINGS = {
    "cases": (*_SOURCE, "case", "variant", "precision", "tree", "milliseconds"),
    "missing": (*_SOURCE, "case", "variant", "precision", "tree", "state", "why"),
    "alerts": ("alert", "state", "machine", "environment", "metric", "case", "unit", "before", "after", "ratio"),
    "series": ("machine", "metric", "workload", "file"),
    "runs": ("machine", "commit", "position", "measured", "path"),
    "calibration": ("machine", "date", "commit", "case", "on", "file", "slowdown", "comparisons", "separate", "found"),
    "noise": ("machine", "metric", "case", "environment", "points", "noise"),
    "controls": ("machine", "control", "measured", "seconds", "over_median", "commit", "file"),
    "environments": ("machine", "environment", "measured", "commit", "file", "what", "is", "was"),
    "release_changes": ("machine", "file", "release", "before", "verdict", "variant", "workloads", "what", "because"),
    "release_timings": ("machine", "file", "release", "before", "case", "verdict", "slower", "low", "high", "pairs"),
    "release_figures": ("machine", "file", "release", "case", "figure", "value", "processes"),
}
"""What a table without a row has; one with rows has these and maybe more."""

SOME_PROBLEMS = 50
"""Lines about unreadable files that are shown; the rest is counted."""


class Gathered(NamedTuple):
    """What the report is about.

    seen    the history and its alerts; None where there is no result, and `problems` says why
    series  all of them
    """

    seen: Seen | None
    series: list[Series]
    newest: list[Newest]
    news: list[dict[str, Any]]
    problems: list[str]

    @property
    def comparable(self) -> bool:
        """Whether any series that a commit can change has two points."""
        return any(len(one.values) > 1 and not one.metric.startswith(CONTROLS) for one in self.series)

    @property
    def nothing_new(self) -> str:
        if self.comparable:
            return "Nothing that is suspected or confirmed is open."
        return "There is no history to compare yet: no series has two commits."


def gather(config: Config, results: Path) -> Gathered:
    try:
        seen = detect.look(config, results, None)
    except command.UserError as error:
        return Gathered(None, [], [], [], [str(error)])
    found = newest_runs.newest(seen.known)
    problems = [*seen.problems, *(line for one in found for line in one.problems)]
    return Gathered(seen, list(history.series(seen.known.points)), found, news.news(seen), problems)


def build(config: Config, results: Path, html: Path) -> None:
    """Write the report into `html`, beside what asv wrote there. Raises OSError if it cannot be written."""
    gathered = gather(config, results)
    gathered.problems.extend(releases.left_out(results))
    data, tables = html / "data", html / "tables"
    for folder in (data, tables):  # nothing of an older report stays
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (data / "series", tables):
        folder.mkdir(parents=True, exist_ok=True)
    rows = trust_rows(gathered, results)
    shared = about(config, gathered)
    provide(data, "charts", charts.every())
    provide(data, "newest", bounded(shared | newest_data(gathered)))
    found = releases.gather(results)
    provide(data, "releases", bounded(shared | releases_data(found)))
    provide(data, "trust", bounded(shared | rows | {"shifts": shifts(gathered)}))
    told = history_data(config, gathered, data)
    provide(data, "history", bounded(shared | told))
    of_releases = {
        f"release_{name}": [row for one in found for row in one[name]] for name in ("changes", "timings", "figures")
    }
    write_tables(tables, gathered, rows | of_releases | {"series": pieces(told["series"])})
    exports.write_feed(html / exports.FEED, gathered.news, command.one_line(config.project))
    exports.write_badge(html, gathered.news, gathered.comparable)
    shutil.copytree(STATIC, html / "report", dirs_exist_ok=True)
    write_whole(html / "report" / "vega.js", vega())
    write_pages(html, shared, gathered, sorted(path.name for path in tables.iterdir()))


@cache
def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def provide(folder: Path, name: str, data: Any) -> None:
    """Data as a script, which knows Infinity: a page that was opened from a file may load that and nothing else."""
    path = folder / f"{name}.js"
    told = json.dumps(command.present(data)).replace('"__proto__":', '["__proto__"]:')  # no prototype, a name
    write_whole(path, f"report.provide({json.dumps(name)}, {told});\n")


def bounded(data: Any) -> Any:
    """`data` with every text on one line and of a bounded length."""
    if isinstance(data, dict):
        return {command.one_line(str(key)): bounded(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [bounded(value) for value in data]
    return command.one_line(data) if isinstance(data, str) else data


def about(config: Config, gathered: Gathered) -> dict[str, Any]:
    """What every page says at its foot, and how it links to a commit."""
    url = str(config.show_commit_url)
    more = len(gathered.problems) - SOME_PROBLEMS
    return {
        "project": config.project,
        "built": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit_url": url if url.startswith(("https://", "http://")) else "",
        "problems": [*gathered.problems[:SOME_PROBLEMS], *([f"and {more} more"] if more > 0 else [])],
    }


def releases_data(found: list[dict[str, Any]]) -> dict[str, Any]:
    known = [one._asdict() for one in releases.looked_for()]
    return {"machines": found, "headings": releases.FIGURES, "commit_url": releases.COMMITS, "known": known}


def columns(frame: pd.DataFrame) -> dict[str, Any]:
    """A frame as JSON, each name once."""
    plain = frame.astype(object).where(frame.notna(), None)
    return {"columns": list(plain.columns), "rows": plain.to_numpy().tolist()}


def newest_data(gathered: Gathered) -> dict[str, Any]:
    return {
        "machines": [
            {
                "machine": one.machine,
                "commit": one.run["commit"],
                "file": one.run["path"],
                "measured": datetime.fromtimestamp(one.run["measured"], UTC).isoformat(timespec="seconds"),
                "described": describe(one),
                "problems": [*one.problems, *(line for line in gathered.problems if line.startswith(one.run["path"]))],
                "cases": columns(one.cases),
                "missing": columns(one.missing),
                "limits": limits.limits(one),
            }
            for one in gathered.newest
        ],
        "news": [{key: value for key, value in one.items() if key != "members"} | link(one) for one in gathered.news],
        "shifts": shifts(gathered),
        "nothing_new": gathered.nothing_new,
        "how": attribution.HOW,
        "operations": intensity.OPERATIONS,
    }


def link(one: dict[str, Any]) -> dict[str, str]:
    return {"link": f"history.html#{exports.history_link(one)}"}


def describe(one: Newest) -> list[str]:
    """On what a run was measured and against what."""
    if not one.host:
        said = [f"{name} {one.run[name]}" for name in ("cpu", "os", "mlx") if isinstance(one.run.get(name), str)]
        return [", ".join(said), "ceiling: none known, no ledger lies beside the results"]
    settings, spec = one.host["settings"], one.host["spec"]
    known = sorted(set(one.cases["ceiling"])) if "ceiling" in one.cases else []
    return [
        one.host["description"],
        f"mlx {settings['mlx']}, Python {settings['python']}",
        "ceiling: " + ("; in another run: ".join(known) or "none measured"),
        f"vendor's ceiling: {spec['gigabytes_per_second']:g} GB/s ({spec['source']})"
        if spec
        else "vendor's ceiling: none known for this device",
    ]


def shifts(gathered: Gathered) -> list[str]:
    return news.shifts(gathered.seen) if gathered.seen else []


def trust_rows(gathered: Gathered, results: Path) -> dict[str, list[dict[str, Any]]]:
    if not gathered.seen:
        return {"calibration": [], "noise": [], "controls": [], "environments": []}
    known = gathered.seen.known
    calibrations, problems = trust.calibrations(results, sorted(known.runs["machine"].unique()))
    gathered.problems.extend(problems)
    return {
        "calibration": calibrations,
        "noise": trust.noise(gathered.series, known.units),
        "controls": trust.control_rows(gathered.series, known),
        "environments": trust.environments(known),
    }


def history_data(config: Config, gathered: Gathered, folder: Path) -> dict[str, Any]:
    """The index of all series; they themselves are written piece by piece."""
    if not gathered.seen:
        return {"series": {}, "units": {}, "commits": [], "runs": [], "changes": []}
    known = gathered.seen.known
    index: timeline.Index = {}
    runs = timeline.runs(known)
    for key, ours in timeline.pieces(history.series(known.points, every=True)):
        machine, metric, workload = key
        name = timeline.name(key)
        text = json.dumps(ours, separators=(",", ":"))
        (folder / "series" / f"{name}.js").write_text(f'report.provide("series/{name}", {text});\n')
        (folder / "series" / f"{name}.json").write_text(
            json.dumps(numbers.spoken(ours)) if "Infinity" in text else text
        )
        (folder / "series" / f"{name}.csv").write_text(timeline.table(ours, runs, known.commits))
        told = {"piece": name, "variants": sorted({one["variant"] for one in ours})}
        index.setdefault(machine, {}).setdefault(metric, {})[workload] = told
    commits = timeline.commits(config, known.commits)
    shells.tell(folder.parent, {one["hash"]: one["subject"] for one in commits})
    return {
        "series": index,
        "units": known.units,
        "commits": commits,
        "runs": runs,
        "changes": [
            {key: one[key] for key in ("alert", "state", "machine", "worse")}
            | {key: member[key] for key in ("metric", "case", "environment", "good", "bad")}
            | {"position": place, "told": told}
            for one in gathered.news
            for member, place, told in zip(one["members"], one["places"], one["sizes"], strict=True)
        ],
    }


def pieces(index: timeline.Index) -> list[dict[str, Any]]:
    """A row for the file of every metric on every workload."""
    return [
        {"machine": machine, "metric": metric, "workload": workload, "file": f"data/series/{told['piece']}.csv"}
        for machine, metrics in index.items()
        for metric, workloads in metrics.items()
        for workload, told in workloads.items()
    ]


def write_tables(folder: Path, gathered: Gathered, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Every table of the report for programs."""
    frames = {
        "cases": joined(one.cases for one in gathered.newest),
        "missing": joined(one.missing for one in gathered.newest),
        "alerts": pd.DataFrame(
            [
                {key: one[key] for key in ("alert", "state", "machine")} | member
                for one in gathered.news
                for member in one["members"]
            ]
        ),
        **{name: pd.DataFrame(told) for name, told in rows.items()},
    }
    if gathered.seen:
        frames["runs"] = gathered.seen.known.runs
    for name, frame in frames.items():
        exports.write_table(folder, name, frame if len(frame.columns) else pd.DataFrame(columns=HEADINGS[name]))


def summed(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of the summary: a workload's variants side by side, without the sweep of sizes."""
    if frame.empty:
        return []
    some = frame[~frame["tree"].str.startswith("leaf_")]
    return some.sort_values(["precision", "tree", "milliseconds"]).to_dict("records")


def joined(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    some = [frame for frame in frames if not frame.empty]
    return pd.concat(some, ignore_index=True) if some else pd.DataFrame()


def write_pages(html: Path, shared: dict[str, Any], gathered: Gathered, tables: list[str]) -> None:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    for name, title in PAGES.items():
        told = bounded(shared) | {
            "page": name,
            "title": title,
            "pages": PAGES,
            "policy": POLICY,
            "tables": tables,
            "described": TABLES,
            "words": {"Variants": words.variants(), "Precisions": words.precisions(), "Trees": words.tree_names()},
            "how": attribution.HOW,
            "operations": intensity.OPERATIONS,
            "classic": shells.CLASSIC,
            "tachyon": shells.TACHYON,
            "feed": exports.FEED,
            "anything": bool(gathered.newest),
        }
        write_whole(html / f"{name}.html", environment.get_template(f"{name}.html").render(told))
    plain = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), trim_blocks=True, lstrip_blocks=True)
    plain.filters["code"] = text.code
    plain.filters["error"] = lambda error: numbers.in_words(error, ".0e")
    summary = plain.get_template("summary.md")
    told = [(one, describe(one), summed(one.cases), one.missing) for one in gathered.newest]
    more = {"news": gathered.news, "shifts": shifts(gathered), "nothing_new": gathered.nothing_new}
    write_whole(html / exports.SUMMARY, summary.render(more, machines=told, problems=shared["problems"]))
