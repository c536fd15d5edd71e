"""How far the figures can be trusted: the comparison's calibration, the noise, the controls, the environments."""

import json
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness.ledger import LONGEST_LINE
from scripts import calibrate, command, history, lines
from scripts.calibrate import Calibration
from scripts.history import MALFORMED, History, Series
from scripts.search import CONTROLS

FEW = 8
"""Points of a series below which its noise is not told."""

NORMAL = 1.4826
"""The standard deviation of normal noise, in median absolute deviations."""


def calibrations(results: Path, machines: Iterable[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for every slowdown of every calibration, and what could not be read, in lines."""
    rows: list[dict[str, Any]] = []
    problems = []
    for machine in machines:
        known, wrong = calibrate.read(results / machine / calibrate.FILE)
        rows += [row for place, one in known for row in calibration(machine, one, place)]
        problems += lines.few(wrong)
    return rows, problems


def calibration(machine: str, told: Calibration, place: str) -> list[dict[str, Any]]:
    """A row a slowdown of one calibration."""
    about = {
        "machine": machine,
        "date": told.date,
        "commit": told.commit,
        "case": told.case,
        "on": told.description + ("; a core kept busy on purpose" if told.hog else ""),
        "file": place,
    }
    return [
        about
        | {
            "slowdown": one.slowdown,
            "comparisons": one.comparisons,
            "separate": one.separate,
            "found": one.verdicts.slower / one.comparisons,
            "called_faster": one.verdicts.faster / one.comparisons,
            "asv_found": one.asv.first / one.comparisons,
            "pyperf_found": one.pyperf / one.comparisons,
        }
        for one in told.found
    ]


def noise(series: Iterable[Series], units: dict[str, str]) -> list[dict[str, Any]]:
    """From night to night, of every series of seconds that has enough points: one standard deviation, as a share.

    It is told by the differences of neighbours, so that a step counts once at most.
    """
    return [
        {
            "machine": one.machine,
            "metric": one.metric,
            "case": one.case or one.metric.rpartition(".")[2],
            "environment": one.environment,
            "points": len(one.values),
            "noise": scatter(one),
        }
        for one in series
        if units.get(one.metric) == "seconds" and len(one.values) >= FEW and (one.values > 0).all()
    ]


def scatter(one: Series) -> float:
    differences = np.diff(np.log(one.values))
    return float(NORMAL * np.median(np.abs(differences - np.median(differences))) / math.sqrt(2))


def control_rows(series: Iterable[Series], known: History) -> list[dict[str, Any]]:
    """Every run of every control, over the median of all of its machine's, in the order of time."""
    measured = known.runs["measured"].to_numpy()
    return [
        {
            "machine": one.machine,
            "control": one.metric.removeprefix(CONTROLS).rpartition(".")[2].removeprefix("track_"),
            "measured": datetime.fromtimestamp(measured[run], UTC).isoformat(timespec="seconds"),
            "seconds": value,
            "over_median": value / float(np.median(one.values)),
            "commit": known.commits[position],
            "file": known.runs["path"].iloc[run],
        }
        for one in series
        if one.metric.startswith(CONTROLS)
        for run, value, position in zip(one.runs.tolist(), one.values.tolist(), one.positions.tolist(), strict=True)
    ]


def environments(known: History) -> list[dict[str, Any]]:
    """Of every machine its first run, and every one before which something that is recorded changed.

    Where a machine measures in several environments, each has a log of its own.
    """
    rows = []
    runs = known.runs.assign(environment=history.environments(known.runs)).sort_values("measured")
    for (machine, environment), ours in runs.groupby(["machine", "environment"]):
        before: dict[str, str] = {}
        for _, run in ours.iterrows():
            now = recorded(run)
            changed = list(differences(before, now))
            if changed:
                when = datetime.fromtimestamp(run["measured"], UTC).isoformat(timespec="seconds")
                about = {"machine": machine, "environment": environment, "measured": when}
                about |= {"commit": run["commit"], "file": run["path"]}
                rows += [about | one for one in changed]
            before = now
    return rows


def differences(before: dict[str, str], now: dict[str, str]) -> Iterator[dict[str, str]]:
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            yield {
                "what": command.one_line(name),
                "is": command.one_line(now.get(name, "not recorded")),
                "was": command.one_line(before.get(name, "not recorded")) if before else "",
            }


def recorded(run: pd.Series) -> dict[str, str]:
    """What asv says of a run's machine, and the settings in the ledger beside it."""
    said = {
        str(name): str(run[name])
        for name in run.index
        if name not in (*history.ABOUT, "environment") and pd.notna(run[name])
    }
    try:
        return said | settings(Path(run["path"]).with_suffix(".jsonl"))
    except MALFORMED:
        return said


def settings(path: Path) -> dict[str, str]:
    """Those of the newest machine's entry of a ledger; of the many other lines none is parsed. Raises MALFORMED."""
    newest = b""
    with path.open("rb") as file:
        for line in file:
            if b'"what": "machine"' in line and len(line) < LONGEST_LINE:
                newest = line
    told = json.loads(newest) if newest else {"settings": {}}
    marks = {"measured although": told["marks"]} if told.get("marks") else {}
    return {str(name): str(value) for name, value in (told["settings"] | marks).items()}
