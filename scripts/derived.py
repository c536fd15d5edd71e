"""asv's own files, made of runs for asv's own commands: of every metric and case the newest figure.

What is lost or damaged of these files is made again. Each begins with what it was made of, so that one that is as it
should be is not.
"""

import hashlib
import itertools
import json
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from asv.results import get_filename

from benchmarks.harness.files import locked, write_whole
from scripts import archive, legacy, machines, runs
from scripts.runs import Figure, Head, Odd, Run

COLUMNS = (
    "result", "params", "version", "started_at", "duration",
    *(legacy.STATS + name for name in ("ci_99_a", "ci_99_b", "q_25", "q_75", "number", "repeat")),
    "samples", "profile",
)  # fmt: skip
"""Of asv's files."""

CORRUPT = ".corrupt"
"""Of a file that was put aside."""

OF_MACHINE = ("arch", "cpu", "machine", "num_cpu", "os", "ram")
"""What asv's file of a machine has."""


def rebuild(results: Path) -> list[Path]:
    """Make of every machine's runs what asv wants to read; all of asv's files that can be read now."""
    return [path for folder in machines.folders(results)[0] for path in of_machine(folder)]


def of_machine(folder: Path) -> list[Path]:
    """Make of a machine's runs what asv wants to read; all of its files that asv can."""
    if folder.is_symlink() or (folder / runs.RUNS).is_symlink():
        return []  # nothing is written through a link
    groups: dict[tuple[str, str], list[Path]] = {}
    newest: tuple[float, Head] | None = None
    for path, head in archive.heads(runs.paths(folder)):
        groups.setdefault((head.commit, head.environment), []).append(path)
        newest = max(newest or (head.began, head), (head.began, head), key=lambda one: one[0])
    if newest:
        describe(folder, newest[1])
    made = []
    for (commit, environment), found in groups.items():
        with suppress(OSError):  # asv sees the others
            made.append(write(folder, commit, environment, found))
    older = [path for path in legacy.paths(folder) if path.suffix == ".json" and is_whole(path)]
    return sorted(filter(None, [*made, *older]))


def describe(folder: Path, head: Head) -> None:
    """Have asv's file of a machine there, if there is none that can be read."""
    path = folder / machines.FILE
    if not is_machines(path):
        about = {name: head.params.get(name) or "" for name in OF_MACHINE} | {"machine": folder.name}
        write_whole(path, json.dumps(about | {"version": machines.VERSION}, indent=4) + "\n")


def is_machines(path: Path) -> bool:
    """Whether asv's file of a machine is one, and of the machine in whose folder it is."""
    try:
        machines.described(path.parent.name, path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return True


def is_whole(path: Path) -> bool:
    """Whether all of an older file can be read: asv trusts it."""
    try:
        return not legacy.read(path).problems
    except (Odd, OSError):
        return False


def write(folder: Path, commit: str, environment: str, found: Sequence[Path] = ()) -> Path | None:
    """Make asv's file of a commit in an environment of all its runs; None if they have no figures.

    An older file in its place becomes a run before; what cannot be read is put aside. Raises OSError.
    """
    path = folder.parent / get_filename(folder.name, commit, environment)
    if legacy.is_plain(path):
        found = ()
        legacy.convert_all(folder, commit)
        if legacy.is_plain(path):
            path.rename(path.with_name(f"{path.name}.{secrets.token_hex(4)}{CORRUPT}"))
    if not found:
        told = archive.heads(runs.paths(folder, commit))
        found = [one for one, head in told if (head.commit, head.environment) == (commit, environment)]
    of = {one.name: one.stat().st_size for one in found}
    if is_current(path, of):
        return path
    text = content(readable(found))
    if not text:
        return None
    mark = json.dumps({"of": of, "sha256": digest(text)})
    with locked(folder.parent):
        write_whole(path, f'{{"derived": {mark}, {text}')
    return path


def readable(found: Iterable[Path]) -> list[Run]:
    """The runs that can be read."""
    told = []
    for path in found:
        try:
            told.append(runs.read(path))
        except (Odd, OSError):
            continue
    return told


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def is_current(path: Path, of: dict[str, int]) -> bool:
    """Whether a file is as it was made, of runs that are as they were: these only grow."""
    try:
        text = path.read_text()
        told, end = json.JSONDecoder().raw_decode(text, len(legacy.DERIVED))
    except (OSError, ValueError, RecursionError):
        return False
    return bool(told == {"of": of, "sha256": digest(text[end + len(", ") :])})


def content(told: list[Run]) -> str:
    """What asv's file has of runs, without its opening brace; empty if that is nothing."""
    figures = sorted((one for run in told for one in run.figures), key=lambda one: one.started_at)
    rows: dict[str, list[Figure]] = {}
    for one in figures:
        rows.setdefault(one.metric, []).append(one)
    if not rows:
        return ""
    head = max((run.head for run in told), key=lambda one: one.began)
    about = {
        "commit_hash": head.commit,
        "env_name": head.environment,
        "date": int(head.date),
        "params": head.params | {"machine": head.machine},  # asv trusts it
        "python": head.python,
        "requirements": head.requirements,
        "env_vars": head.env_vars,
        "result_columns": COLUMNS,
        "results": {metric: row(several) for metric, several in rows.items()},
        "durations": {},
        "version": 2,
    }
    return json.dumps(about)[1:]


def row(figures: list[Figure]) -> list[Any]:
    """A metric's row in asv's file: what the newest figure has, and of its version what older ones have besides."""
    newest = figures[-1]
    names = list(itertools.product(*newest.parameters))
    places = {name: place for place, name in enumerate(names)}
    columns: dict[str, list[Any]] = {}
    for one in figures:
        if one.version == newest.version:
            fill(columns, one, places)
    plain: dict[str, Any] = {
        "params": newest.parameters,
        "version": newest.version,
        "started_at": int(newest.started_at),
    }
    plain |= {"duration": newest.duration, "profile": newest.profile}
    told = [plain[name] if name in plain else compressed(columns.get(name)) for name in COLUMNS]
    while told[-1] is None:
        told.pop()
    return told


def fill(columns: dict[str, list[Any]], figure: Figure, places: dict[tuple[str, ...], int]) -> None:
    """Put a figure's values where the newest one has their cases."""
    given = {"result": figure.result, "samples": figure.samples}
    given |= {legacy.STATS + name: values for name, values in figure.stats.items()}
    its = list(itertools.product(*figure.parameters))
    indices = range(len(its)) if figure.indices is None else figure.indices
    at = [places.get(its[index]) for index in indices]
    for name in {*given, *columns}:
        column = columns.setdefault(name, [None] * len(places))
        values = given.get(name) or [None] * len(at)
        for place, value in zip(at, values, strict=True):
            if place is not None:
                column[place] = float(value) if isinstance(value, str) else value


def compressed(column: list[Any] | None) -> list[Any] | None:
    return column if column and any(one is not None for one in column) else None
