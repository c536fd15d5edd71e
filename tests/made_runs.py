"""Runs as tests need them: what was measured of a commit on a machine, a line a figure."""

import json
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef" * 2 + "01234567"
ENVIRONMENT = "mlx-py3.11-mlx0.32.4"
BEGAN = 1.8e12

OF_MACHINE = {"arch": "arm64", "cpu": "M4", "num_cpu": "10", "os": "macOS 26", "ram": "1"}


def head(machine: str = "mac", commit: str = COMMIT, environment: str = ENVIRONMENT, **more: Any) -> dict[str, Any]:
    about = {"machine": machine, "commit": commit, "environment": environment, "date": 1.7e12, "began": BEGAN}
    return {"what": "run", **about, "params": {"machine": machine, **OF_MACHINE}, **more}


def figure(metric: str, value: float, began: float = BEGAN) -> dict[str, Any]:
    return {"what": "figure", "metric": metric, "parameters": [["'x'"]], "result": [value], "started_at": began}


def text(machine: str = "mac", commit: str = COMMIT, environment: str = ENVIRONMENT, **figures: float) -> str:
    """A run's file: by metric the value of its only case."""
    told = [head(machine, commit, environment), *(figure(metric, value) for metric, value in figures.items())]
    return "".join(json.dumps(line) + "\n" for line in [*told, {"what": "complete"}])


def path(number: int, commit: str = COMMIT) -> str:
    """Where a run of that number is, in its machine's folder."""
    return f"runs/{commit[:8]}-{number:016x}.jsonl"


def described(machine: str) -> str:
    """asv's file of a machine."""
    return json.dumps({"machine": machine, **OF_MACHINE, "version": 1}, indent=4) + "\n"


def older(machine: str = "mac", commit: str = COMMIT, environment: str = ENVIRONMENT, **figures: float) -> str:
    """asv's own file, as older versions shared it."""
    columns = ["result", "params", "version", "started_at"]
    rows = {metric: [[value], [["'x'"]], "1", BEGAN] for metric, value in figures.items()}
    about = {"commit_hash": commit, "env_name": environment, "date": 1.7e12, "python": "3.11", "requirements": {}}
    about |= {"params": {"machine": machine, **OF_MACHINE}, "env_vars": {}, "durations": {}, "version": 2}
    return json.dumps({**about, "result_columns": columns, "results": rows})


def figures(results: Path) -> set[tuple[str, str, float]]:
    """Every figure that the runs below `results` have: machine, metric and value."""
    found = set()
    for file in results.glob("*/runs/*.jsonl"):
        for line in map(json.loads, file.read_text().splitlines()):
            if line["what"] == "figure":
                found |= {(file.parents[1].name, line["metric"], value) for value in line["result"]}
    return found
