"""What it costs to search a long history: seconds and peak memory of the whole command, `pytest --benchmark-only`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic import SECONDS, History

ROOT = Path(__file__).parent.parent
MACHINES, SERIES = ("mac-mini", "mac-pro", "mac-studio"), 500
KILOBYTE = 1 if sys.platform == "darwin" else 1024
"""The unit of the peak that the system tells, in bytes."""


def long_history(folder: Path, count: int) -> History:
    """SERIES series of `count` commits on every machine, one in ten 5 % slower from a commit of its own on."""
    made = History(folder, count)
    cases = [f"compiled/float32/tree{number}" for number in range(SERIES)]
    for number, machine in enumerate(MACHINES):
        random = np.random.default_rng(number)
        first = np.where(random.random(SERIES) < 0.1, random.integers(0, count, SERIES), count)
        logs = random.normal(0, 0.01, (count, SERIES)) + 0.05 * (np.arange(count)[:, None] >= first)
        for commit, values in enumerate(np.exp(logs)):
            made.add(commit, {SECONDS: dict(zip(cases, values.tolist(), strict=True))}, machine)
    return made


def detect(made: History, found: Path) -> int:
    """Run the command; the peak of its memory in bytes."""
    asked = ["--lane", made.config, "--results", made.results, "--json", found]
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.detect", *map(str, asked)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 1
    return usage.ru_maxrss * KILOBYTE


@pytest.mark.slow
@pytest.mark.parametrize("count", [50, 250, 500, 1000])
def test_a_long_history_is_searched(benchmark, tmp_path, count):
    if benchmark.disabled and count > 50:
        pytest.skip("only as a benchmark: --benchmark-only")
    made, found = long_history(tmp_path, count), tmp_path / "found.json"
    benchmark.extra_info["points"] = count * SERIES * len(MACHINES)
    benchmark.extra_info["peak_bytes"] = benchmark.pedantic(detect, (made, found), rounds=1)
    told = json.loads(found.read_text())
    assert {alert["machine"] for alert in told["alerts"]} == set(MACHINES)
    assert not told["problems"]
