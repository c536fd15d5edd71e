"""asv's results as series: what was measured of every case, commit by commit, on every machine.

What cannot be read is named and left out; nothing is written.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from asv import util
from asv.config import Config
from asv.repo import NoSuchNameError, get_repo
from asv.results import Results
from numpy.typing import NDArray

from scripts import command

BENCHMARKS, MACHINE = "benchmarks.json", "machine.json"
LARGEST_FILE = 64 * 2**20

MACHINE_KEYS = ("arch", "cpu", "num_cpu", "os", "ram")
"""What asv records of a machine beside its name."""

ABOUT = ("machine", "commit", "position", "measured", "path")
"""What a run has beside the machine's facts and the pins."""

KEY = ["machine", "environment", "metric", "case"]
"""What is the same for all points of a series."""


class History(NamedTuple):
    """All that was measured.

    points    a row a value: machine, environment, metric, case, position (of the commit in history), value, run
    runs      a row a result file: machine, commit, position, measured (when it began), path, what it ran on and with
    commits   every commit of the branches, the oldest first
    units     of the metrics
    problems  what could not be read and why, in lines
    """

    points: pd.DataFrame
    runs: pd.DataFrame
    commits: list[str]
    units: dict[str, str]
    problems: list[str]


def read(config: Path, results: Path, machine: str | None = None) -> History:
    """The history of the repository that asv's `config` names, below `results`. Raises UserError if there is none."""
    commits = branch_commits(config)
    benchmarks, problems = known_benchmarks(results / BENCHMARKS)
    positions = {commit: position for position, commit in enumerate(commits)}
    runs: list[dict[str, Any]] = []
    rows: list[tuple[int, str, str, float]] = []
    for path in files(results, machine):
        try:
            result = load(path)
            if result.commit_hash not in positions:
                raise Unreadable(f"commit {result.commit_hash[:8]} is on none of the branches any more")
            rows += [(len(runs), *one) for one in values(result, benchmarks)]
            runs.append(about(result, positions[result.commit_hash]) | {"path": str(path)})
        except Unreadable as error:
            problems.append(command.one_line(f"{path}: {error}"))
    if not rows:
        reason = f": {problems[0]}" if problems else ""
        raise command.UserError(f"no results below {results}{reason}; run asv, or name another --results or --machine")
    table = pd.DataFrame(runs)
    points = pd.DataFrame(rows, columns=["run", "metric", "case", "value"])
    for name in ("metric", "case"):
        points[name] = points[name].astype("category")
    for name, column in (("machine", table["machine"]), ("environment", environments(table))):
        points[name] = pd.Categorical(column)[points["run"]]
    points["position"] = table["position"].to_numpy()[points["run"]]
    units = {name: str(one.get("unit", "")) for name, one in benchmarks.items()}
    return History(points, table, commits, units, problems)


class Series(NamedTuple):
    """What was measured of a metric of a case on a machine, a point a commit; the arrays go with one another."""

    machine: str
    environment: str
    metric: str
    case: str
    positions: NDArray[np.int64]
    values: NDArray[np.float64]
    runs: NDArray[np.int64]

    @property
    def key(self) -> tuple[str, str, str]:
        """What says which series it is, on its machine."""
        return self.environment, self.metric, self.case

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (self.machine, self.environment, self.metric, self.case)))


def series(points: pd.DataFrame) -> Iterator[Series]:
    """Every series, in the order of the commits. Of several results of a commit it has the median."""
    keys = points.groupby(KEY, observed=True, sort=True)
    one_each = (
        points.assign(number=keys.ngroup()).groupby(["number", "position"]).agg({"value": "median", "run": "last"})
    )
    position = one_each.index.get_level_values("position").to_numpy()
    value, run = one_each["value"].to_numpy(), one_each["run"].to_numpy()
    ends = np.flatnonzero(np.diff(one_each.index.get_level_values("number"), append=-1)) + 1
    for key, start, end in zip(keys.groups, [0, *ends], ends, strict=False):
        machine, environment, metric, case = map(str, key)
        yield Series(machine, environment, metric, case, position[start:end], value[start:end], run[start:end])


def environments(runs: pd.DataFrame) -> pd.Series:
    """For every run what sets it apart: the pins that have several values on most of the machine's commits.

    A pin that changed from one commit to another is no other series: it is what may have changed this one.
    """
    pins = [name for name in runs.columns if name not in (*ABOUT, *MACHINE_KEYS)]
    named = pd.Series("", index=runs.index)
    for _, ours in runs.groupby("machine"):
        several = ours.groupby("commit")[pins].nunique(dropna=False) > 1
        for pin in several.columns[several.mean() > 0.5]:
            named[ours.index] += (", " if named[ours.index].any() else "") + f"{pin} " + ours[pin].fillna("none")
    return named


class Unreadable(Exception):
    """A file that is left out; the message says why."""


def branch_commits(config: Path) -> list[str]:
    """The commits of the configured branches, first parents only as asv measures them, the oldest first."""
    try:
        conf = Config.load(str(config))
        repo = get_repo(conf)
        names = [repo.get_branch_name(branch) for branch in conf.branches]
        found = [commit for name in names for commit in repo.get_hashes_from_range(name)]
    except (util.UserError, util.ProcessError, NoSuchNameError, OSError) as error:
        raise command.UserError(command.one_line(f"{config}: {error}") + "; run it from the root of a clone") from error
    return list(dict.fromkeys(reversed(found)))


def known_benchmarks(path: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """asv's description of every benchmark, and what is wrong with it."""
    try:
        described = util.load_json(str(path), api_version=2)
    except (util.UserError, OSError) as error:
        return {}, [command.one_line(f"{path}: {error}; units and versions are not known")]
    return {name: one for name, one in described.items() if isinstance(one, dict)}, []


def files(results: Path, machine: str | None) -> list[Path]:
    """The result files, machine by machine. Raises UserError for a machine that has none."""
    folders = sorted(path.parent for path in results.glob(f"*/{MACHINE}"))
    known = [folder.name for folder in folders]
    if machine and machine not in known:
        raise command.UserError(
            f"no machine {machine!r} below {results}; there are: {', '.join(known) or 'none'}; use --machine"
        )
    chosen = [folder for folder in folders if machine in (None, folder.name)]
    return [path for folder in chosen for path in sorted(folder.glob("*.json")) if path.name != MACHINE]


def load(path: Path) -> Results:
    """asv's results in `path`. Raises Unreadable."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise Unreadable(f"over {LARGEST_FILE >> 20} MiB")
        found = Results.load(str(path), machine_name=path.parent.name)
        float(found.date)
        return found
    except (util.UserError, OSError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise Unreadable(str(error) or type(error).__name__) from error


def values(result: Results, benchmarks: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str, float]]:
    """The values that a result file has: metric, case, value. Failed and skipped ones are left out.

    So are those of another version of a benchmark than the suite has now. Raises Unreadable.
    """
    for metric in result.get_all_result_keys():
        version = benchmarks.get(metric, {}).get("version")
        if version is not None and result.benchmark_version.get(metric) != version:
            continue
        try:
            parameters = result.get_result_params(metric)
            names = (", ".join(map(plain, one)) for one in itertools.product(*parameters))
            for name, value in zip(names, result.get_result_value(metric, parameters), strict=True):
                if isinstance(value, int | float) and math.isfinite(value):
                    yield metric, name, float(value)
        except (TypeError, ValueError) as error:
            raise Unreadable(f"{metric}: {error}") from error


def plain(parameter: str) -> str:
    """A parameter as it was before asv wrote Python's notation of it."""
    return command.one_line(str(parameter).strip("'"))


def about(result: Results, position: int) -> dict[str, Any]:
    """What a result file was measured on and with, and when."""
    started = [moment for moment in result.started_at.values() if isinstance(moment, int | float)]
    said = {key: str(result.params.get(key, "")) for key in MACHINE_KEYS}
    pins = {name: str(version) for name, version in sorted(result._requirements.items()) if version}
    return {
        "machine": str(result.params["machine"]),
        "commit": result.commit_hash,
        "position": position,
        "measured": min(started, default=result.date) / 1000,
        "python": str(result._python),
        **said,
        **pins,
    }
