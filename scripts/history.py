"""asv's results as series: what was measured of every case, commit by commit, on every machine.

What cannot be read is named and left out; nothing is written.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from asv import util
from asv.config import Config
from asv.repo import NoSuchNameError, get_repo
from numpy.typing import NDArray

from benchmarks.harness import numbers
from scripts import archive, asv_git, asv_mlx, command, git, lanes, machines, suite, upstream
from scripts.runs import Head, Odd, Run

MACHINE_KEYS = ("arch", "cpu", "num_cpu", "os", "ram")
"""What asv records of a machine beside its name."""

FEW = 3
"""Commits that must have been measured with several values of a pin, for these to be several series."""

ABOUT = ("machine", "commit", "position", "measured", "path")
"""What a run has beside the machine's facts and the pins."""

INFINITE = (math.inf, -math.inf)

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
    runs      a row a run: machine, commit, position, measured (when), path, what it ran on and with
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
    """asv's configuration in `path`, its suite's folder seen from here. Raises UserError."""
    try:
        config = Config.load(str(path))
        config.benchmark_dir = str(path.parent / config.benchmark_dir)
        return config
    except MALFORMED as error:
        raise command.UserError(command.one_line(f"{path}: {error}").rstrip(".") + lanes.missing(path)) from error


def read(config: Config, results: Path, machine: str | None = None) -> History:
    """The history of the repository that asv's `config` names, below `results`. Raises UserError if there is none."""
    commits, others = branch_commits(config)
    benchmarks, unknown = suite.described(Path(config.benchmark_dir), results)
    left_out = machines.folders(results)[1]
    positions = {commit: position for position, commit in enumerate(commits)}
    absent = f"is not on the searched branch, or not any more{git.shallow(Path(get_repo(config)._path))}"
    units = {name: str(one.get("unit", "")) for name, one in benchmarks.items()}
    runs: list[dict[str, Any]] = []
    rows: list[tuple[int, *Value]] = []
    found = files(results, machine)
    several = Counter((archive.folder(path), path.name[:8]) for path in found)
    counted: set[Any] = set()
    for path in found:
        try:
            run = archive.read(path)
            if run.head.commit not in positions:
                raise Odd(f"commit {run.head.commit[:8]} {absent}")
            told, wrong = values(run, benchmarks)
        except MALFORMED as error:
            left_out.append(command.one_line(f"{path}: {str(error) or type(error).__name__}"))
            continue
        if several[archive.folder(path), path.name[:8]] > 1:
            told = once(told, run.head, counted)
        if run.figures:
            rows += [(len(runs), *one) for one in told]
            runs.append(about(run, positions[run.head.commit]))
        units |= {one.metric: one.unit for one in run.figures if one.unit and one.metric not in units}
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
    units = {command.one_line(name): command.one_line(unit) for name, unit in units.items()}
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


MALFORMED = (
    Odd,
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


def files(results: Path, machine: str | None) -> list[Path]:
    """The runs, machine by machine. Raises UserError for a machine that has none."""
    folders, _ = machines.folders(results)
    known = [folder.name for folder in folders]
    if machine and machine not in known:
        raise command.UserError(
            f"no machine {machine!r} below {results}; there are: {', '.join(known) or 'none'}; use --machine"
        )
    return [path for folder in folders if machine in (None, folder.name) for path in archive.paths(folder)]


class Value(NamedTuple):
    """What a run says of a metric of a case; the interval is NaN where there is none."""

    metric: str
    case: str
    value: float
    low: float
    high: float


def once(told: list[Value], head: Head, counted: set[Any]) -> list[Value]:
    """What was told of a commit by no other run yet: copies of older files may each have the same measurement."""
    of = (head.machine, head.commit, head.environment)
    new = [one for one in told if (of, one[:3]) not in counted]
    counted.update((of, one[:3]) for one in new)
    return new


def values(run: Run, benchmarks: dict[str, dict[str, Any]]) -> tuple[list[Value], list[str]]:
    """The values that a run has, and what is wrong with others, in lines. Of a case measured twice it is the newer one.

    Failed and skipped ones are left out, and those of another version of a benchmark than the suite has now.
    """
    found: dict[tuple[str, str], Value] = {}
    older = set()
    for figure in run.figures:
        version = benchmarks.get(figure.metric, {}).get("version")
        if version is not None and figure.version not in (version, None):
            older.add(figure.metric)
            continue
        name = command.one_line(figure.metric)
        cases = named(tuple(map(tuple, figure.parameters)))
        errors = figure.metric.startswith(ERRORS)
        low, high = (limits(figure.stats.get(f"ci_99_{side}")) for side in "ab")
        for (place, value), below, above in zip(figure.values(), low, high, strict=False):
            if value is None or value != value or (value in INFINITE and not errors):
                continue
            case = cases[place]
            found[name, case] = Value(name, case, numbers.from_asv(value) if errors else value, below, above)
    several = "s" * (len(older) > 1)
    wrong = [f"{len(older)} benchmark{several} in {OTHER_VERSION}, in no series"] if older else []
    return list(found.values()), [*run.problems, *wrong]


@lru_cache(2**10)  # every run of a long history has the same ones
def named(parameters: tuple[tuple[str, ...], ...]) -> list[str]:
    """What the cases of a benchmark are called, in asv's order. Raises Odd."""
    return [", ".join(map(plain, one)) for one in itertools.product(*parameters)]


def limits(told: list[Any] | None) -> Iterable[float]:
    """asv's limits of the values of a metric; NaN where there is none."""
    if told is None:
        return itertools.repeat(math.nan)
    return [one if isinstance(one, float) and one not in INFINITE else math.nan for one in told]


@lru_cache(2**16)  # every file of a long history has the same ones
def plain(parameter: str) -> str:
    """A parameter as it was before asv wrote Python's notation of it."""
    return command.one_line(str(parameter).strip("'"))


def about(run: Run, position: int) -> dict[str, Any]:
    """What a run was measured on and with, and when."""
    head = run.head
    said = {key: str(head.params.get(key, "")) for key in MACHINE_KEYS}
    pins = {name: str(version) for name, version in sorted(head.requirements.items()) if version}
    return pins | {
        "machine": head.machine,
        "commit": head.commit,
        "position": position,
        "measured": max((one.started_at for one in run.figures if one.started_at), default=head.date) / 1000,
        "python": head.python,
        "path": str(run.path),
        **said,
    }
