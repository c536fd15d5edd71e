"""Every series, commit by commit, as data that a page loads piece by piece: one for the variants of a workload."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asv.config import Config
from asv.repo import get_repo
from numpy.typing import NDArray

from scripts import command, git, history, text
from scripts.history import ABOUT, MACHINE_KEYS, History, Series

ROOFLINE = "track_times_roofline"
"""The benchmark whose figure, of the same run, turns seconds into roofline seconds."""

COLUMNS = ("variant", "environment", "commit", "value", "low", "high", "roofline", "file")
"""Of a piece as CSV."""

DIGITS = 6
"""Significant digits of a figure; no clock is better, and whole numbers keep all of theirs."""

Index = dict[str, dict[str, dict[str, dict[str, Any]]]]
"""By machine, metric and workload: the piece's name, and the variants in it."""


def pieces(series: Iterable[Series]) -> Iterator[tuple[tuple[str, str, str], list[dict[str, Any]]]]:
    """(machine, metric, workload) and the series of its variants."""
    every = list(series)
    held_against = {
        (one.machine, one.environment, one.metric, one.case): one for one in every if one.metric.endswith(ROOFLINE)
    }
    every.sort(key=lambda one: (one.machine, one.metric, parted(one.case)[1]))
    for key, ours in itertools.groupby(every, key=lambda one: (one.machine, one.metric, parted(one.case)[1])):
        yield key, [plain(one, held_against) for one in ours]


def parted(case: str) -> tuple[str, str]:
    """The variant and the workload; what has no variant is a workload of its own."""
    variant, slash, workload = case.partition("/")
    return (variant, workload) if slash else ("", case)


def plain(one: Series, held_against: Mapping[tuple[str, str, str, str], Series]) -> dict[str, Any]:
    """A series as JSON: its points, and for seconds the roofline of the same run."""
    told: dict[str, Any] = {
        "variant": parted(one.case)[0],
        "environment": one.environment,
        "positions": one.positions.tolist(),
        "values": rounded(one.values),
        "runs": one.runs.tolist(),
    }
    low, high = rounded(one.low), rounded(one.high)
    if any(value is not None for value in low):
        told |= {"low": low, "high": high}
    times = held_against.get((one.machine, one.environment, one.metric.rpartition(".")[0] + "." + ROOFLINE, one.case))
    if times is not None and one.metric.endswith(".track_seconds"):
        known = dict(zip(times.runs.tolist(), times.values.tolist(), strict=True))
        told["roofline"] = [
            significant(value / known[run]) if known.get(run) else None
            for run, value in zip(told["runs"], one.values.tolist(), strict=True)
        ]
    return told


def table(told: list[dict[str, Any]], known: Sequence[dict[str, Any]], commits: Sequence[str]) -> str:
    """The same as CSV, a row a point; `known` are the runs. A figure that there is none of is empty."""
    files, hashes = [text.cell(run["file"]) for run in known], [text.cell(commit) for commit in commits]
    lines = [",".join(map(text.cell, COLUMNS))]
    for one in told:
        name = f"{text.cell(one['variant'])},{text.cell(one['environment'])}"
        none = [None] * len(one["values"])
        figures = [one["values"], *(one.get(column) or none for column in ("low", "high", "roofline"))]
        written = [["" if value is None else repr(value) for value in figure] for figure in figures]
        for position, run, *row in zip(one["positions"], one["runs"], *written, strict=True):
            lines.append(f"{name},{hashes[position]},{','.join(row)},{files[run]}")
    return "\n".join(lines) + "\n"


def rounded(values: NDArray[Any]) -> list[float | None]:
    return [significant(value) for value in values.tolist()]


def significant(value: float) -> float | None:
    if math.isnan(value):
        return None
    return int(value) if value.is_integer() else float(f"{value:.{DIGITS}g}")


def name(key: tuple[str, str, str]) -> str:
    """The file name of a piece: the same for the same key, and safe whatever a machine or a case is called."""
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


def runs(known: History) -> list[dict[str, Any]]:
    """Every run as the pages tell of it; a series' `runs` are places in this list."""
    pins = [pin for pin in known.runs.columns if pin not in (*ABOUT, *MACHINE_KEYS)]
    named = history.environments(known.runs)
    return [
        {
            "machine": one["machine"],
            "environment": environment,
            "position": one["position"],
            "measured": datetime.fromtimestamp(one["measured"], UTC).isoformat(timespec="seconds"),
            "file": one["path"],
            "pins": {pin: one[pin] for pin in pins if isinstance(one[pin], str)},
        }
        for one, environment in zip(known.runs.to_dict("records"), named, strict=True)
    ]


def commits(config: Config, hashes: Iterable[str]) -> list[dict[str, str]]:
    """Hash, date and subject of every commit, in the order of `hashes`."""
    told: dict[str, tuple[str, str]] = {}
    try:
        listed = git.output("rev-list", "--all", "--format=%H%x00%cI%x00%s", where=Path(get_repo(config)._path))
    except command.UserError:
        listed = ""
    for line in listed.split("\n"):
        commit, _, rest = line.partition("\0")  # before each is a line `commit HASH`
        date, _, subject = rest.partition("\0")
        told[commit] = date, command.one_line(subject)
    return [{"hash": one, "date": told.get(one, ("", ""))[0], "subject": told.get(one, ("", ""))[1]} for one in hashes]
