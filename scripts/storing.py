"""asv's hooks that keep what it measures: as a run of its own, from which asv's own files are made.

They wrap seven of asv's functions. `load_data`, with which a commit in an environment begins, begins its run as well;
`add_result` adds the figure to it; `save` completes it, and makes asv's file of all runs of the commit. `write_json`
leaves no half files. `Benchmarks.load` is told what this checkout's suite is. `iter_results_paths` and
`iter_machine_files` name only what asv can read, and none of another lane's, which is in a folder beside the machines.
"""

import os
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import asv.commands.compare
import asv.commands.publish
import asv.commands.show
import asv.machine
import asv.results
import msgspec
from asv import util
from asv.benchmarks import Benchmarks
from asv.results import Results

from benchmarks.harness import ledger
from scripts import derived, machines, runs, suite
from scripts.runs import Figure, Head, Odd

GIVEN = os.environ.get(ledger.VARIABLE)
"""The run that whoever started asv wants it to add to; he completes it."""

BEGUN: dict[tuple[str, str], Path] = {}
"""The runs of this asv, by commit and environment: it comes back to each in every round."""

USERS = (asv.machine, asv.commands.compare, asv.commands.publish, asv.commands.show)
"""The modules that look for machines, each by a name of its own."""

original_load_data = Results.load_data
original_add_result = Results.add_result
original_save = Results.save
original_write_json = util.write_json
original_load = Benchmarks.load
original_results = asv.results.iter_results_paths
original_machines = asv.machine.iter_machine_files


def load_data(self: Results, result_dir: str) -> None:
    """asv's own `load_data`, of a file that is as the runs have it; and a run begins, or goes on."""
    folder = Path(result_dir, self.params["machine"])
    try:
        derived.write(folder, self.commit_hash, self.env_name)
        begin(folder, self)
    except OSError as error:
        raise util.UserError(f"cannot write below {folder}: {error.strerror}; what is there is whole") from error
    original_load_data(self, result_dir)


def begin(folder: Path, results: Results) -> None:
    """Have all that is measured for `results` added to a run: one that goes on, or a new one."""
    of = results.commit_hash, results.env_name
    if of not in BEGUN:
        BEGUN[of] = given(folder, *of) or runs.new_path(folder, results.commit_hash)
    path = BEGUN[of]
    if not path.exists() or not path.stat().st_size:
        runs.add(path, {"what": "run", **msgspec.to_builtins(head(results)), "asv": asv.__version__})
    os.environ[ledger.VARIABLE] = str(path.absolute())


def given(folder: Path, commit: str, environment: str) -> Path | None:
    """The run that was asked for, if it is that commit's in that environment, or nobody's yet."""
    path = Path(GIVEN or "")
    if path.parent.resolve() != (folder / runs.RUNS).resolve() or path in BEGUN.values():
        return None
    try:
        told = runs.head(path)
    except FileNotFoundError:
        return path if path.name.startswith(commit[:8]) else None
    except Odd:
        return None
    return path if (told.commit, told.environment) == (commit, environment) else None


def head(results: Results) -> Head:
    """What asv knows of what it is about to measure."""
    params = {name: None if value is None else str(value) for name, value in results.params.items()}
    requirements: dict[str, str | None] = {name: str(value or "") for name, value in results._requirements.items()}
    about = results.params["machine"], results.commit_hash, results.env_name, results.date, str(results._python)
    return Head(*about, requirements, dict(results.env_vars), params, time.time() * 1e3)


def add_result(self: Results, benchmark: dict[str, Any], *told: Any, selected_idx: Any = None, **named: Any) -> None:
    """asv's own `add_result`; and the figure is in the run at once, so that a kill later does not cost it."""
    original_add_result(self, benchmark, *told, selected_idx=selected_idx, **named)
    if path := BEGUN.get((self.commit_hash, self.env_name)):
        one = figure(self, benchmark, None if selected_idx is None else sorted(selected_idx))
        runs.add(path, {"what": "figure", **msgspec.to_builtins(one), "time": time.time()})


def figure(results: Results, benchmark: dict[str, Any], indices: list[int] | None) -> Figure:
    """What asv was given of a benchmark: of the cases `indices`, or of all."""
    metric = benchmark["name"]

    def chosen(values: list[Any] | None) -> list[Any] | None:
        return values if values is None or indices is None else [values[index] for index in indices]

    stats = chosen(results._stats.get(metric)) or []
    return Figure(
        metric=metric,
        parameters=results._benchmark_params[metric],
        result=chosen(results._results[metric]),
        started_at=float(results.started_at[metric]),
        version=results.benchmark_version.get(metric),
        unit=str(benchmark.get("unit") or ""),
        duration=results.duration.get(metric),
        indices=indices,
        stats={name: [one and one.get(name) for one in stats] for name in {key for one in stats if one for key in one}},
        samples=chosen(results._samples.get(metric)),
        profile=results._profiles.get(metric),
    )


def save(self: Results, result_dir: str) -> None:
    """The run is complete, and asv's file made of all runs of the commit; what is no run's, asv saves itself."""
    path = BEGUN.get((self.commit_hash, self.env_name))
    if path is None:
        original_save(self, result_dir)
        return
    try:
        if path != Path(GIVEN or ""):
            runs.complete(path)
        derived.write(Path(result_dir, self.params["machine"]), self.commit_hash, self.env_name)
    except OSError as error:
        raise util.UserError(f"cannot write {path}: {error.strerror}; what is there is whole") from error


def write_json(path: str, data: Any, api_version: int | None = None, compact: bool = False) -> None:
    """asv's own `write_json`, but the file is complete or untouched."""
    partial = f"{path}.{os.getpid()}.partial"
    try:
        original_write_json(partial, data, api_version, compact)
        with open(partial, "rb") as file:
            os.fsync(file)
        os.replace(partial, path)
    except OSError as error:
        raise util.UserError(f"cannot write {path}: {error.strerror}; the old file is whole") from error
    finally:
        Path(partial).unlink(missing_ok=True)


def load_benchmarks(cls: type[Benchmarks], conf: Any, regex: Any = None) -> Benchmarks:
    """asv's own `load`, of the descriptions of this checkout's own suite."""
    suite.write(Path(conf.benchmark_dir), Path(conf.results_dir))
    return original_load(conf, regex=regex)


def iter_results_paths(results: str) -> Iterator[tuple[str, str, str]]:
    """asv's own, of `results`/MACHINE, or of a machine's folder itself, as far as all of a file can be read."""
    root = Path(results)
    readable = derived.of_machine(root) if (root / machines.FILE).exists() else rebuilt(root)
    for folder, name, machine in original_results(results):
        if Path(folder, name) in readable and Path(folder).name == machine:
            yield folder, name, machine


@lru_cache(1)  # `asv publish` asks three times
def rebuilt(root: Path) -> frozenset[Path]:
    return frozenset(derived.rebuild(root))


def iter_machine_files(results: str) -> Iterator[str]:
    """asv's own, of `results`/MACHINE, of which the file is one."""
    for path in original_machines(results):
        if Path(path).parents[1] == Path(results) and derived.is_machines(Path(path)):
            yield path


Results.load_data = load_data
Results.add_result = add_result
Results.save = save
Benchmarks.load = classmethod(load_benchmarks)
util.write_json = write_json
asv.results.iter_results_paths = iter_results_paths
for module in USERS:
    module.iter_machine_files = iter_machine_files
