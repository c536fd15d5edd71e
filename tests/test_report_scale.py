"""What the report costs for a long history: seconds, memory, and its first view; `pytest --benchmark-only`."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from browsers import CHROMIUM, Watched, chromium, served
from ledgers import MACHINE, entry
from synthetic import History

from benchmarks.harness import cases
from scripts import ledger

ROOT = Path(__file__).parent.parent
MACHINES = ("mac-mini", "mac-pro", "mac-studio")
METRICS = {
    "step.Step.track_seconds": "seconds",
    "step.Step.track_times_roofline": "x roofline",
    "memory.Memory.track_peak_bytes": "bytes",
    "accuracy.Accuracy.track_error": "relative error",
    "work.Work.track_kernels": "kernels",
}
CASES = [f"variant_{number}/{workload}" for number in range(10) for workload in list(cases.WORKLOADS)[:10]]
SERIES = len(METRICS) * len(CASES)
FIRST_VIEW = 3 * 10**6
"""Bytes that the first view may load."""


def long_history(folder: Path, count: int) -> History:
    """500 series of `count` commits on every machine, and the ledgers beside them; one case in ten becomes slower."""
    made = History(folder, count)
    names = [list(map(repr, CASES))]
    described = {
        name: {"name": name, "unit": unit, "version": "1", "type": "track", "code": "", "timeout": 60,
               "params": names, "param_names": ["case"]}
        for name, unit in METRICS.items()
    }  # fmt: skip
    (made.results / "benchmarks.json").write_text(json.dumps(described | {"version": 2}))
    told = json.loads(made.config.read_text())
    told |= {"environment_type": "virtualenv", "results_dir": "results", "html_dir": "html", "show_commit_url": "#"}
    told |= {"benchmark_dir": "made up"}  # else it is this suite that says what there is
    told |= {"project_url": "#", "plugins": [".scripts.asv_plugin", ".scripts.report.publisher"]}
    made.config.write_text(json.dumps(told))
    for name in ("scripts", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    for number, machine in enumerate(MACHINES):
        random = np.random.default_rng(number)
        first = np.where(random.random(len(CASES)) < 0.1, random.integers(0, count, len(CASES)), count)
        for commit in range(count):
            seconds = 0.01 * np.exp(random.normal(0, 0.01, len(CASES)) + 0.05 * (commit >= first))
            values = [
                seconds,
                seconds / 0.005,
                np.full(len(CASES), 2e9),
                np.full(len(CASES), 3e-7),
                np.full(len(CASES), 150),
            ]
            measured = {
                metric: dict(zip(CASES, row.tolist(), strict=True)) for metric, row in zip(METRICS, values, strict=True)
            }
            path = made.add(commit, measured, machine, interval=0.005).with_suffix(".jsonl")
            entries = [MACHINE | {"commit": made.commits[commit]}]
            if commit == count - 1:
                entries += [
                    entry(f"compiled/{case.partition('/')[2]}", value) | {"case": case}
                    for case, value in zip(CASES, seconds.tolist(), strict=True)
                ]
            path.write_text("".join(json.dumps(one) + "\n" for one in ledger.with_ceiling(entries)))
    return made


def publish(made: History) -> int:
    """Run the command; the peak of the memory of all its processes in bytes."""
    asked = [sys.executable, "-m", "asv", "publish", "--no-pull", "--config", str(made.config)]
    process = subprocess.Popen(asked, stdout=subprocess.DEVNULL)
    peak = 0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.1)

    watching = threading.Thread(target=watch)
    watching.start()
    assert process.wait() == 0
    watching.join()
    return peak


def resident(pid: int) -> int:
    try:
        mine = psutil.Process(pid)
        return sum(one.memory_info().rss for one in (mine, *mine.children(recursive=True)))
    except psutil.Error:
        return 0


@pytest.mark.slow
@pytest.mark.parametrize("count", [50, 250, 500, 1000])
def test_a_long_history_is_published(benchmark, tmp_path, count):
    if benchmark.disabled and count > 50:
        pytest.skip("only as a benchmark: --benchmark-only")
    made = long_history(tmp_path, count)
    benchmark.extra_info["points"] = count * SERIES * len(MACHINES)
    benchmark.extra_info["peak_bytes"] = benchmark.pedantic(publish, (made,), rounds=1)
    html = tmp_path / "html"
    assert len(list((html / "data" / "series").glob("*.js"))) == SERIES * len(MACHINES) / 10
    if os.access(CHROMIUM, os.X_OK):
        loaded, seconds = first_view(html)
        benchmark.extra_info |= {"first_view_bytes": loaded, "first_view_seconds": seconds}
        assert loaded <= FIRST_VIEW


def first_view(html: Path) -> tuple[int, float]:
    """Bytes that the front page loads, and seconds until it is drawn."""
    with chromium() as running, served(html) as address:
        one = Watched(running)
        start = time.perf_counter()
        one.tab.goto(f"{address}/index.html")
        one.tab.wait_for_selector("#main[data-done]")
        seconds = time.perf_counter() - start
        one.fine(address)
        assert one.tab.locator("#heat svg .mark-rect.role-mark path").count() >= 90
        return sum(
            (html / url.removeprefix(address).lstrip("/")).stat().st_size
            for url in one.asked
            if url.startswith(address)
        ), seconds
