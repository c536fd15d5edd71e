"""asv's result files as tests need them: a repository of empty commits, and what was measured of each."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CASE = "compiled/float32/two_leaves"
SECONDS, TIMES, KERNELS, COPY, LOOP = (
    "step.Step.track_seconds",
    "step.Step.track_times_roofline",
    "work.Work.track_kernels",
    "controls.Controls.track_stream_copy",
    "controls.Controls.track_numpy_loop",
)
UNITS = {SECONDS: "seconds", TIMES: "x roofline", KERNELS: "kernels", COPY: "seconds", LOOP: "seconds"}

COLUMNS = ["result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b"]


class History:
    """A repository in `folder` with `count` commits, and results of machines to be added."""

    def __init__(self, folder: Path, count: int, message: str = ".", branch: str = "main") -> None:
        self.folder, self.results = folder, folder / "results"
        identity = {f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        self.environment = os.environ | identity | {"GIT_CONFIG_GLOBAL": os.devnull}
        self.git("init", "-q", "-b", branch)
        length = len(message.encode())
        stream = "".join(
            f"commit refs/heads/{branch}\ncommitter test <test> {1_700_000_000 + 3600 * number} +0000\n"
            f"data {length}\n{message}\n"
            for number in range(count)
        )
        subprocess.run(
            ["git", "fast-import", "--quiet"], cwd=folder, env=self.environment, input=stream, text=True, check=True
        )
        self.commits = self.git("rev-list", "--reverse", branch).split()
        self.config = folder / "asv.conf.json"
        self.config.write_text(json.dumps({"version": 1, "project": "test", "repo": str(folder), "branches": [branch]}))
        self.results.mkdir()
        described = {name: {"name": name, "unit": unit, "version": "1"} for name, unit in UNITS.items()}
        (self.results / "benchmarks.json").write_text(json.dumps(described | {"version": 2}))

    def git(self, *arguments: str) -> str:
        return subprocess.check_output(["git", *arguments], cwd=self.folder, env=self.environment, text=True).strip()

    def add(
        self,
        number: int,
        values: Mapping[str, Mapping[str, float | None]],
        machine: str = "mac",
        pins: Mapping[str, str] = {"mlx": "0.32.4"},
        measured: float | None = None,
        interval: float | None = None,
        **facts: Any,
    ) -> Path:
        """A result file of commit `number`: for every benchmark the cases and what was measured of them.

        With an `interval` every value has one, so far to either side, as a share.
        """
        about = {
            "machine": machine,
            "os": "macOS 26",
            "arch": "arm64",
            "cpu": "M4",
            "num_cpu": "10",
            "ram": "1",
        } | facts
        folder = self.results / machine
        folder.mkdir(exist_ok=True)
        (folder / "machine.json").write_text(json.dumps(about | {"version": 1}))
        began = (measured or 1_800_000_000 + 86_400 * number) * 1000
        rows = {name: row(cases, began, interval) for name, cases in values.items()}
        name = "-".join(f"{pin}{version}" for pin, version in pins.items())
        path = folder / f"{self.commits[number][:8]}-{name}.json"
        path.write_text(
            json.dumps(
                {
                    "commit_hash": self.commits[number],
                    "env_name": name,
                    "date": 1000 * (1_700_000_000 + 3600 * number),
                    "params": about | dict(pins) | {"python": "3.11"},
                    "python": "3.11",
                    "requirements": dict(pins),
                    "env_vars": {},
                    "result_columns": COLUMNS,
                    "results": rows,
                    "durations": {},
                    "version": 2,
                }
            )
        )
        return path

    def add_all(self, values: Mapping[str, Sequence[float]], machine: str = "mac", **facts: Any) -> None:
        """A result file of every commit: of each benchmark what was measured of CASE, commit by commit."""
        for number in range(len(self.commits)):
            self.add(number, {name: {CASE: float(told[number])} for name, told in values.items()}, machine, **facts)


def row(cases: Mapping[str, float | None], began: float, interval: float | None = None) -> list[Any]:
    told: list[Any] = [list(cases.values()), [[repr(case) for case in cases]], "1", began, 1.0]
    if interval is not None:
        told += [[value and value * (1 + side * interval) for value in cases.values()] for side in (-1, 1)]
    return told
