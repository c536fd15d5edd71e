"""asv's results as series: what was measured of every case, commit by commit, on every machine.

What cannot be read is named and left out; nothing is written.
"""

import itertools
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from asv import util
from asv.config import Config
from asv.repo import NoSuchNameError, get_repo
from asv.results import Results
from numpy.typing import NDArray

from benchmarks.harness import numbers
from scripts import asv_git, asv_mlx, command, earlier, git, lanes, machines, upstream

BENCHMARKS, MACHINE = "benchmarks.json", "machine.json"
LARGEST_FILE = 64 * 2**20

LATEST = datetime(2200, 1, 1, tzinfo=UTC).timestamp()
"""Seconds since 1970 that no result is from."""

MACHINE_KEYS = ("arch", "cpu", "num_cpu", "os", "ram")
"""What asv records of a machine beside its name."""

FEW = 3
"""Commits that must have been measured with several values of a pin, for these to be several series."""

ABOUT = ("machine", "commit", "position", "measured", "path")
"""What a run has beside the machine's facts and the pins."""

ERRORS = "accuracy."
"""How the metrics begin whose figures may be infinite."""

NO_CLONE = "; that is no clone of a repository: git clone it, and run this in its root"

OTHER_VERSION = "another version than the suite has now"

KEY = ["machine", "environment", "metric", "case"]
"""What is the same for all points of a series."""


class History(NamedTuple):
    """All that was measured.

    points    a row a value: machine, environment, metric, case, position (of the commit in history), value, low, high
              (asv's 99 % interval of the median within the run, where it has one), run
    runs      a row a result file: machine, commit, position, measured (when), path, what it ran on and with
    commits   every commit of the branches, the oldest first
    units     of the metrics
    problems  what could not be read and why, in lines
    """

    points: pd.DataFrame
    runs: pd.DataFrame
    commits: list[str]
    units: dict[str, str]
    problems: list[str]


def configuration(path: Path) -> Config:
    """asv's configuration in `path`. Raises UserError."""
    try:
        return Config.load(str(path))
    except MALFORMED as error:
        raise command.UserError(command.one_line(f"{path}: {error}").rstrip(".") + lanes.missing(path)) from error


def read(config: Config, results: Path, machine: str | None = None) -> History:
    """The history of the repository that asv's `config` names, below `results`. Raises UserError if there is none."""
    commits, others = branch_commits(config)
    benchmarks, unknown = known_benchmarks(results / BENCHMARKS)
    left_out = machines.folders(results)[1]
    positions = {commit: position for position, commit in enumerate(commits)}
    absent = f"is not on the searched branch, or not any more{git.shallow(Path(get_repo(config)._path))}"
    runs: list[dict[str, Any]] = []
    rows: list[tuple[int, *Value]] = []
    for path in files(results, machine):
        try:
            result = load(path)
            if result.commit_hash not in positions:
                raise Unreadable(f"commit {str(result.commit_hash)[:8]} {absent}")
            told, wrong = values(result, benchmarks)
            runs.append(about(result, positions[result.commit_hash]) | {"path": str(path)})
        except MALFORMED as error:
            left_out.append(command.one_line(f"{path}: {str(error) or type(error).__name__}"))
            continue
        rows += [(len(runs) - 1, *one) for one in told]
        left_out += [command.one_line(f"{path}: {one}") for one in wrong]
    if not rows:
        hint = "; run asv, or name another --results or --lane"
        reason = f", {len(left_out)} are left out: {left_out[0]}" if left_out else hint
        raise command.UserError(f"no results below {results}{reason}")
    table = pd.DataFrame(runs)
    points = pd.DataFrame(rows, columns=["run", *Value._fields])
    for name in ("metric", "case"):
        points[name] = points[name].astype("category")
    for name, column in (("machine", table["machine"]), ("environment", environments(table))):
        points[name] = pd.Categorical(column)[points["run"]]
    points["position"] = table["position"].to_numpy()[points["run"]]
    units = {command.one_line(name): command.one_line(str(one.get("unit", ""))) for name, one in benchmarks.items()}
    return History(points, table, commits, units, [*others, *unknown, *left_out])


class Series(NamedTuple):
    """What was measured of a metric of a case on a machine, a point a commit; the arrays go with one another.

    low, high  asv's 99 % interval of a value; NaN where there is none
    """

    machine: str
    environment: str
    metric: str
    case: str
    positions: NDArray[np.int64]
    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    runs: NDArray[np.int64]

    @property
    def key(self) -> tuple[str, str, str]:
        """What says which series it is, on its machine."""
        return self.environment, self.metric, self.case

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (self.machine, self.environment, self.metric, self.case)))


def series(points: pd.DataFrame, every: bool = False) -> Iterator[Series]:
    """Every series, in the order of the commits. Of several results of a commit it has the median, or `every` one."""
    keys = points.groupby(KEY, observed=True, sort=True)
    together = {"value": "median", "low": "min", "high": "max", "run": "last"}
    numbered = points.assign(number=keys.ngroup())
    place = ["number", "position"]
    one_each = (
        numbered.sort_values([*place, "run"]).set_index(place) if every else numbered.groupby(place).agg(together)
    )
    position = one_each.index.get_level_values("position").to_numpy()
    columns = [one_each[name].to_numpy() for name in together]
    ends = np.flatnonzero(np.diff(one_each.index.get_level_values("number"), append=-1)) + 1
    for key, start, end in zip(keys.groups, [0, *ends], ends, strict=False):
        machine, environment, metric, case = map(str, key)
        value, low, high, run = (column[start:end] for column in columns)
        yield Series(machine, environment, metric, case, position[start:end], value, low, high, run)


def environments(runs: pd.DataFrame) -> pd.Series:
    """For every run what sets it apart: the pins that have several values on the same commits of a machine.

    A pin that changed from one commit to another is no other series: it is what may have changed this one. FEW commits
    that were measured with both make them two.
    """
    pins = [name for name in runs.columns if name not in (*ABOUT, *MACHINE_KEYS)]
    named = pd.Series("", index=runs.index)
    for _, ours in runs.groupby("machine"):
        several = ours.groupby("commit")[pins].nunique(dropna=False) > 1
        for pin in several.columns[several.sum() >= FEW]:
            named[ours.index] += (", " if named[ours.index].any() else "") + f"{pin} " + ours[pin].fillna("none")
    return named


class Unreadable(Exception):
    """A file that is left out; the message says why."""


MALFORMED = (
    Unreadable,
    util.UserError,
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading somebody's file may raise."""


def branch_commits(config: Config) -> tuple[list[str], list[str]]:
    """The commits of the first configured branch, first parents only as asv measures them, the oldest first.

    In MLX's lane the releases beside the branch are among them: they are measured as well. And in lines what is left
    out: the commits of two branches have no common order. Raises UserError.
    """
    try:
        repo = get_repo(config)
        branch, *others = config.branches
        found = repo.get_hashes_from_range(repo.get_branch_name(branch))
    except util.UserError as error:  # it says what helps
        is_clone = asv_git.Git.is_local_repo(config.repo) or not Path(config.repo).is_dir()
        raise command.UserError(command.one_line(f"{config.repo}: {error}") + ("" if is_clone else NO_CLONE)) from error
    except util.ProcessError as error:
        raise command.UserError(command.one_line(f"{config.repo}: {asv_git.reason(error)}")) from error
    except (*MALFORMED, NoSuchNameError) as error:
        raise command.UserError(command.one_line(f"{config.repo}: {error}")) from error
    left_out = [command.one_line(f"branch {other}: only {branch} is searched") for other in others]
    commits = list(reversed(found))
    is_mlx = config.environment_type == asv_mlx.MlxHistory.tool_name
    return upstream.with_releases(config, commits) if is_mlx else commits, left_out


def known_benchmarks(path: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """asv's description of every benchmark, and what is wrong with it."""
    try:
        described = util.load_json(str(path), api_version=2)
        return {name: one for name, one in described.items() if isinstance(one, dict)}, []
    except MALFORMED as error:
        return {}, [command.one_line(f"{path}: {error}; units and versions are not known")]


def files(results: Path, machine: str | None) -> list[Path]:
    """The result files, machine by machine. Raises UserError for a machine that has none."""
    folders, _ = machines.folders(results)
    known = [folder.name for folder in folders]
    if machine and machine not in known:
        raise command.UserError(
            f"no machine {machine!r} below {results}; there are: {', '.join(known) or 'none'}; use --machine"
        )
    chosen = [folder for folder in folders if machine in (None, folder.name)]
    names = [[*folder.glob("*.json"), *folder.glob(f"*{earlier.SUFFIX}")] for folder in chosen]
    return [path for found in names for path in sorted(found) if path.name != MACHINE]


def load(path: Path) -> Results:
    """asv's results in `path`. Raises one of MALFORMED."""
    if path.stat().st_size > LARGEST_FILE:
        raise Unreadable(f"over {LARGEST_FILE >> 20} MiB")
    return Results.load(str(path), machine_name=path.parent.name)


class Value(NamedTuple):
    """What a result file says of a metric of a case; the interval is NaN where there is none."""

    metric: str
    case: str
    value: float
    low: float
    high: float


def values(result: Results, benchmarks: dict[str, dict[str, Any]]) -> tuple[list[Value], list[str]]:
    """The values that a result file has, and what is wrong with others, in lines.

    Failed and skipped ones are left out, and those of another version of a benchmark than the suite has now.
    """
    found: list[Value] = []
    wrong = []
    older = 0
    for metric in result.get_all_result_keys():
        name, version = command.one_line(metric), benchmarks.get(metric, {}).get("version")
        try:
            if version is not None and result.benchmark_version[metric] not in (version, None):
                older += 1
                continue
            told, parameters = result._results[metric], result.get_result_params(metric)
            if parameters is None:
                raise Unreadable("it has no parameters")
            cases = [", ".join(map(plain, one)) for one in itertools.product(*parameters)]
            measured = [number(value) for value in ([None] * len(cases) if told is None else told)]
            if len(measured) != len(cases):
                raise Unreadable(f"{len(measured)} values of {len(cases)} case{'s' * (len(cases) != 1)}")
            within = intervals(result, metric, len(cases))
            for case, one, (low, high) in zip(cases, measured, within, strict=True):
                if one is not None and metric.startswith(ERRORS):
                    found.append(Value(name, case, numbers.from_asv(one), low, high))
                elif one is not None and math.isfinite(one):
                    found.append(Value(name, case, one, low, high))
        except MALFORMED as error:
            wrong.append(f"{name}: {error}")
    if older:
        wrong.append(f"{older} benchmark{'s' * (older > 1)} in {OTHER_VERSION}, in no series")
    return found, wrong


def intervals(result: Results, metric: str, count: int) -> list[tuple[float, float]]:
    """asv's 99 % interval of each of the `count` values of a metric."""
    stats = result._stats.get(metric) or []
    if len(stats) != count:
        return [(math.nan, math.nan)] * count
    return [(limit(one, "ci_99_a"), limit(one, "ci_99_b")) for one in stats]


def limit(stats: Any, name: str) -> float:
    told = stats.get(name) if isinstance(stats, dict) else None
    return float(told) if isinstance(told, int | float) and math.isfinite(told) else math.nan


def number(value: Any) -> float | None:
    """A value that was measured, which may be infinite; None of one that failed (null) or was skipped (NaN).

    Raises ValueError if it is neither.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{str(value)[:40]!r} is no number")
    return None if math.isnan(value) else float(value)


@lru_cache(2**16)  # every file of a long history has the same ones
def plain(parameter: str) -> str:
    """A parameter as it was before asv wrote Python's notation of it."""
    return command.one_line(str(parameter).strip("'"))


def about(result: Results, position: int) -> dict[str, Any]:
    """What a result file was measured on and with, and when."""
    started = [moment for moment in result.started_at.values() if isinstance(moment, int | float)]
    measured = float(max(started, default=result.date)) / 1000
    if not 0 <= measured < LATEST:
        raise Unreadable("its date is none")
    said = {key: str(result.params.get(key, "")) for key in MACHINE_KEYS}
    pins = {name: str(version) for name, version in sorted(result._requirements.items()) if version}
    return pins | {
        "machine": str(result.params["machine"]),
        "commit": result.commit_hash,
        "position": position,
        "measured": measured,
        "python": str(result._python),
        **said,
    }
