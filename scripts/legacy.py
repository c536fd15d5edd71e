"""Results of older versions, read for ever: asv's own files, what later ones replaced of them, the ledgers beside both.

They lie in a machine's folder itself: COMMIT-ENV.json, COMMIT-ENV-TIME.earlier, and a .jsonl of the same name with what
the harness told. Each becomes a run: the same one wherever and however often that is done, as its id is made of what
it has.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.harness import ledger, numbers
from benchmarks.harness.files import locked, write_whole
from benchmarks.harness.ledger import RUNS, Entry
from scripts import command, runs
from scripts.runs import Figure, Head, Odd, Run

EARLIER = ".earlier"
NAME = re.compile(r"[0-9a-f]{8}-.+\.(json|earlier|jsonl)")
DERIVED = b'{"derived": '
"""How a file begins that was made of runs, and is none of these."""

VERSION = 2
"""Of asv's files."""

STATS = "stats_"

WRONG = (msgspec.ValidationError, UnicodeEncodeError, RecursionError)
"""What making sense of somebody's values may raise."""


def paths(folder: Path, commit: str = "") -> list[Path]:
    """The older results on a machine, those of `commit` or all, that are no runs yet."""
    return [path for path in left(folder, commit) if not run_path(path).exists()]


def left(folder: Path, commit: str = "") -> list[Path]:
    """The older results that lie there: a ledger alone is one as well."""
    found = {path for path in folder.glob(f"{commit[:8]}*") if NAME.fullmatch(path.name) and is_plain(path)}
    return sorted(path for path in found if is_result(path, found))


def is_plain(path: Path) -> bool:
    return os.access(path, os.R_OK) and path.is_file() and not path.is_symlink() and not is_derived(path)


def is_derived(path: Path) -> bool:
    """Whether one of asv's files was made of runs."""
    if path.suffix != ".json":
        return False
    with path.open("rb") as file:
        return file.read(len(DERIVED)) == DERIVED


def is_result(path: Path, all_of_them: set[Path]) -> bool:
    beside = (path.with_suffix(suffix) for suffix in (".json", EARLIER))
    return path.suffix != ".jsonl" or not any(other in all_of_them for other in beside)


def content(path: Path) -> tuple[bytes, bytes]:
    """What a result and the ledger beside it have."""
    beside = path.with_suffix(".jsonl")
    of_asv = b"" if path.suffix == ".jsonl" else path.read_bytes()
    return of_asv, beside.read_bytes() if beside.is_file() and not beside.is_symlink() else b""


def run_path(path: Path) -> Path:
    """The run that an older result becomes."""
    for one in (path, path.with_suffix(".jsonl")):
        if one.exists() and one.stat().st_size > runs.LARGEST_FILE:
            return path.parent / RUNS / path.name  # which is the name of none
    told = hashlib.sha256(b"\0".join(content(path))).hexdigest()
    return path.parent / RUNS / f"{path.name[:8]}-{told[:16]}.jsonl"


def read(path: Path) -> Run:
    """An older result as a run. Raises Odd, OSError."""
    if path.suffix == ".jsonl":
        return Run(path, head_of_ledger(path), [], [])
    if path.stat().st_size > runs.LARGEST_FILE:
        raise Odd(f"over {runs.LARGEST_FILE >> 20} MiB")
    try:
        told = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Odd(f"no JSON: {error}") from error
    if not isinstance(told, dict) or told.get("version") != VERSION:
        raise Odd(f"no result of asv's in version {VERSION}: run `asv update`")
    figures: list[Figure] = []
    problems: list[str] = []
    results = told.get("results")
    if not isinstance(results, dict):
        raise Odd("it has no results")
    for metric, row in results.items():
        try:
            figures.append(figure(metric, told.get("result_columns"), row))
        except (Odd, *WRONG) as error:
            problems.append(f"{metric}: {error}")
    return Run(path, head(path, told), figures, problems)


def head(path: Path, told: dict[str, Any]) -> Head:
    """What asv's file says that it is of. Raises Odd."""
    params = told.get("params")
    machine = params.get("machine") if isinstance(params, dict) else None
    if machine != path.parent.name:
        raise Odd(f"machine name is not '{path.parent.name}'")
    about = {"machine": machine, "commit": told.get("commit_hash"), "environment": told.get("env_name")}
    rest = {name: told[name] for name in ("date", "python", "requirements", "env_vars", "params") if name in told}
    try:
        return msgspec.convert(about | rest, Head)
    except WRONG as error:
        raise Odd(str(error)) from error


def figure(metric: str, columns: Any, row: Any) -> Figure:
    """A metric of asv's file. Raises Odd, msgspec.ValidationError."""
    if not isinstance(columns, list) or not isinstance(row, list) or not all(isinstance(one, str) for one in columns):
        raise Odd("it has no columns")
    told = dict(zip(columns, row, strict=False))
    if told.get("params") is None:
        raise Odd("it has no parameters")
    stats = {name.removeprefix(STATS): values for name, values in told.items() if name.startswith(STATS)}
    about = {
        "metric": metric,
        "parameters": told["params"],
        "result": told.get("result"),
        "stats": {name: values for name, values in stats.items() if values is not None},
    }
    rest = {name: told.get(name) for name in ("version", "started_at", "duration", "samples", "profile")}
    about |= {name: one for name, one in rest.items() if one is not None}
    return msgspec.convert(numbers.spoken(about), Figure).checked()


def entries(path: Path) -> list[Entry]:
    """What the harness told, in the ledger beside an older result; nothing without one."""
    return ledger.read(path.with_suffix(".jsonl"))


def head_of_ledger(path: Path) -> Head:
    """What a ledger alone is of, as far as it says. Raises Odd."""
    told = next((one for one in ledger.read(path) if one.get("commit")), None)
    if told is None:
        raise Odd("it does not say what it is of")
    about = {"machine": path.parent.name, "commit": told["commit"], "environment": told.get("environment") or ""}
    try:
        return msgspec.convert(about | {"date": 0.0}, Head)
    except WRONG as error:
        raise Odd(str(error)) from error


def convert(path: Path) -> Path:
    """Turn an older result into a run and put its files away; the run. Raises Odd, OSError: then nothing is changed."""
    told, run = read(path), run_path(path)
    with locked(path.parents[1]):
        if not run.exists():
            write_whole(run, as_lines(told, path), durable=True)
        for one in (path.with_suffix(".jsonl"), path):
            one.unlink(missing_ok=True)
    return run


def as_lines(told: Run, path: Path) -> str:
    """A run's file, of an older result: what asv had, then the lines of the ledger as they are."""
    began = min((one.started_at for one in told.figures), default=told.head.date)
    about = {"what": "run", **msgspec.to_builtins(msgspec.structs.replace(told.head, began=began))}
    beside = path.with_suffix(".jsonl")
    kept = beside.read_text(errors="replace").splitlines() if beside.is_file() else []
    figures = [{"what": "figure", **msgspec.to_builtins(one)} for one in told.figures]
    last = {"what": "complete", "was": path.name}
    lines = [numbers.line(about), *kept, *map(numbers.line, figures), numbers.line(last)]
    return "".join(f"{line}\n" for line in lines)


def convert_all(folder: Path, commit: str = "") -> list[str]:
    """Turn the older results on a machine, of `commit` or all, into runs; and in lines what could not be."""
    wrong = []
    for path in left(folder, commit):
        try:
            convert(path)
        except (Odd, OSError) as error:
            wrong.append(command.one_line(f"{path}: {error}"))
    return wrong
