"""What MLX's releases changed about AdamW, as rows: what is exact, what was timed in turns, what only went along."""

import statistics
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from scripts import exact, lines, machines
from scripts import upstream_history as known_of
from scripts.ledger import Entry
from scripts.upstream_history import Known as History

EXPLAINED = Path(__file__).with_name("releases.toml")
"""What in MLX's own history made a change, by hand: see the file."""

COMMITS = "https://github.com/ml-explore/mlx/commit/"

FIGURES = {
    "milliseconds": "Milliseconds a step: one release after the other, not side by side, so a step here is no finding",
    "peak_ratio": "MLX's peak memory over what must be resident",
    "error": "Largest relative error after three steps",
    "long_run_error": "Error of the way after 2000 steps",
}
"""What is drawn of every case, and its heading."""


class Explanation(NamedTuple):
    """What made a change: the release it came with, the words it explains, MLX's commit, and what that did."""

    release: str
    words: str
    commit: str
    because: str


class Known(NamedTuple):
    """What MLX's history has of AdamW besides: the release it came with, MLX's commit, what it did, what was seen."""

    release: str
    commit: str
    what: str
    seen: str


def looked_for(path: Path = EXPLAINED) -> list[Known]:
    return [Known(**one) for one in tomllib.loads(path.read_text())["known"]]


def explanations(path: Path = EXPLAINED) -> list[Explanation]:
    return [Explanation(**one) for one in tomllib.loads(path.read_text())["change"]]


def folder(results: Path) -> Path:
    """Where the results of MLX's lane are, for a report of either lane."""
    return results if results.name == "mlx" else results / "mlx"


def gather(results: Path) -> list[dict[str, Any]]:
    """Everything of every machine that measured releases."""
    return [of_machine(path.parent.name, path) for path in files(results) if not machines.why_not(path.parent.name)]


def left_out(results: Path) -> list[str]:
    """Whose releases are not shown, or not all, and why, in lines."""
    told = []
    for path in files(results):
        name = path.parent.name
        refused = [f"{folder(results)}: {machines.refusal(name)}"] if machines.why_not(name) else []
        told += refused or lines.few(known_of.read(path).problems)
    return told


def files(results: Path) -> list[Path]:
    return sorted(folder(results).glob(f"*/{known_of.FILE}"))


def of_machine(machine: str, path: Path) -> dict[str, Any]:
    known = known_of.read(path)
    source = {"machine": machine, "file": str(path)}
    return {
        "machine": machine,
        "described": described(known),
        "releases": known.releases,
        "absent": [{"release": release, "why": why} for release, why in known.absent.items()],
        "changes": [source | row for row in changes(known, explanations())],
        "figures": [source | row for row in figures(known)],
        "timings": [source | row for row in timings(known)],
    }


def described(known: History) -> list[str]:
    """What the releases were measured on; one line as a rule."""
    return list(dict.fromkeys(str(entry.get("description", "")) for entry in known.machine.values()))


def changes(known: History, explained: list[Explanation]) -> list[dict[str, Any]]:
    """A row for each exact change, the oldest release first."""
    return [
        {
            "release": step.release,
            "before": step.before,
            "verdict": group.verdict,
            "variant": group.variant,
            "workloads": ", ".join(group.workloads),
            "what": group.words,
            **because(step.release, group.words, explained),
        }
        for step in known_of.steps(known)
        for group in exact.grouped(step.changes)
    ]


def because(release: str, words: str, explained: list[Explanation]) -> dict[str, str]:
    """What in MLX's history made it; empty where that is not known."""
    found = [one for one in explained if one.release == release and one.words in words]
    return {"because": "; ".join(one.because for one in found), "commit": found[0].commit if found else ""}


def figures(known: History) -> list[dict[str, Any]]:
    """A row a release, case and figure of FIGURES."""
    return [
        {"release": release, "case": case, "figure": name, "value": value, "processes": len(entries)}
        for release in known.releases
        for case, entries in known.measured.get(release, {}).items()
        for name, value in told(entries, known.long_run.get(release, {})).items()
        if value is not None
    ]


def told(entries: list[Entry], long_run: dict[str, float]) -> dict[str, float | None]:
    """Of a case, over its processes: medians."""
    measured = [entry["measurement"] for entry in entries]
    ratios = [one["memory"]["peak"] / entry["resident_bytes"] for one, entry in zip(measured, entries, strict=True)]
    return {
        "milliseconds": 1e3 * statistics.median(statistics.median(one["step"]["seconds"]) for one in measured),
        "peak_ratio": statistics.median(ratios),
        "error": statistics.median(one["error"] for one in measured),
        "long_run_error": long_run.get("/".join(str(entries[0]["case"]).split("/")[:2])),
    }


def timings(known: History) -> list[dict[str, Any]]:
    """A row for every comparison in turns."""
    return [
        {
            "release": release,
            "before": before,
            "case": case,
            "verdict": entry["verdict"],
            "slower": entry["ratio"] - 1 if entry["ratio"] else None,
            "low": entry["low"] - 1 if entry["low"] else None,
            "high": entry["high"] - 1 if entry["high"] else None,
            "pairs": entry["pairs"],
            "why": entry["why"],
        }
        for (before, release, case), entry in known.compared.items()
    ]
