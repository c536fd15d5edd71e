"""Reports as tests need them: of results that were made up, of two machines and thirty nights."""

import json
from pathlib import Path

import ledgers
import numpy as np
import releases
from ledgers import MACHINE, entry
from synthetic import COPY, KERNELS, LOOP, SECONDS, TIMES, UNITS, History

from benchmarks.harness.measurement import Memory
from scripts import alerts, detect, history, ledger, upstream_history
from scripts.report import site

COUNT, STEP, BUMP = 30, 20, 10
"""Nights, the first slow one, and the first with another MLX."""

TREE = "float32/two_leaves"
CASES = {
    f"compiled/{TREE}": 0.0020,
    f"eager/{TREE}": 0.0035,
    "compiled/float32/thousand_leaves": 0.0009,
    "compiled/bfloat16/two_leaves": 0.0012,
    "compiled/float32/leaf_1024": 0.000015,
}
"""Seconds a step of every case."""

SLOWER = f"eager/{TREE}"
"""The case that becomes 20 % slower."""

FAILED, SKIPPED = "split/float32/two_leaves", "compiled/float32/llama_1b"


def two_machines(folder: Path) -> History:
    """Thirty nights of a Mac and a PC; the Mac has a ledger, a slower case that was confirmed, and another MLX."""
    made = History(folder, COUNT)
    describe(made)
    for number, machine in enumerate(("mac-studio", "pc")):
        random = np.random.default_rng(number)
        for night in range(COUNT):
            noise = np.exp(random.normal(0, 0.005, len(CASES)))
            seconds = {
                case: usual * each * (1.2 if machine == "mac-studio" and case == SLOWER and night >= STEP else 1)
                for (case, usual), each in zip(CASES.items(), noise.tolist(), strict=True)
            }
            values = {
                SECONDS: seconds | {FAILED: None, SKIPPED: float("nan")},
                TIMES: {case: value / (CASES[case] / 2) for case, value in seconds.items()},
                KERNELS: dict.fromkeys(CASES, 2.0),
                COPY: {"": 0.001 * float(np.exp(random.normal(0, 0.003)))},
                LOOP: {"": 0.002 * float(np.exp(random.normal(0, 0.003)))},
            }
            pins = {"mlx": "0.32.4" if machine == "pc" or night >= BUMP else "0.31.0"}
            path = made.add(night, values, machine, pins, interval=0.01)
            if machine == "mac-studio" and night == COUNT - 1:
                write_ledger(path.with_suffix(".jsonl"), seconds, made.commits[night])
    write_calibration(made.results / "mac-studio")
    releases.write(made.results / "mlx" / "mac-studio" / upstream_history.FILE)
    remember(made)
    return made


def describe(made: History) -> None:
    """asv's description of the benchmarks, as `asv publish` wants it."""
    names = [*CASES, FAILED, SKIPPED]
    described = {
        name: {
            "name": name, "unit": unit, "version": "1", "type": "track", "code": "", "timeout": 60,
            "params": [] if name.startswith("controls.") else [list(map(repr, names))],
            "param_names": [] if name.startswith("controls.") else ["case"],
        }
        for name, unit in UNITS.items()
    }  # fmt: skip
    (made.results / "benchmarks.json").write_text(json.dumps(described | {"version": 2}))
    told = json.loads(made.config.read_text())
    told |= {"environment_type": "virtualenv", "results_dir": "results", "html_dir": "html"}
    told |= {"show_commit_url": "https://example.org/commit/", "project_url": "#"}
    made.config.write_text(json.dumps(told))


def write_ledger(path: Path, seconds: dict[str, float], commit: str) -> None:
    entries = [MACHINE | {"commit": commit, "settings": MACHINE["settings"] | {"device": "gpu"}}]
    for case, value in seconds.items():
        one = entry(case, value)
        one["measurement"]["memory"] = Memory(
            peak=2 * one["resident_bytes"], active=one["resident_bytes"], cache=10**6, process=3 * one["resident_bytes"]
        )._asdict()
        one["measurement"]["work"]["modelled_bytes"] = round(1.25 * one["ideal_bytes"])
        entries.append(one)
    entries.append({"what": "failure", "case": FAILED, "message": f"{FAILED}: w is off by 0.1, accepted is 4e-06"})
    ledgers.add(path, ledger.with_ceiling(entries))


def write_calibration(folder: Path) -> None:
    found = [
        {"aimed": slowdown, "slowdown": slowdown, "comparisons": 100, "separate": 10,
         "verdicts": {"slower": slower, "same": 100 - slower, "undecided": 0, "faster": 0},
         "asv": {"1.05": slower // 2, "1.1": 0}, "pyperf": slower // 3}
        for slowdown, slower in ((0.0, 1), (0.02, 40), (0.05, 97))
    ]  # fmt: skip
    told = {"date": "2026-11-01", "commit": "c" * 40, "case": SLOWER, "description": "Apple M1 Max", "hog": False}
    (folder / "calibration.jsonl").write_text(json.dumps(told | {"found": found}) + "\n")


def remember(made: History) -> None:
    """Record what is found, and that the slower case was confirmed."""
    detect.main(["--lane", str(made.config), "--results", str(made.results), "--record"])
    known, _ = alerts.read(made.results, "mac-studio")
    slower = [one for one in known if any(case == SLOWER for _, _, case in one.levels)]
    alerts.add(made.results, "mac-studio", [{"alert": one.name, "event": alerts.CONFIRMED} for one in slower])


def built(made: History) -> Path:
    """The report alone, without what asv publishes."""
    html = made.folder / "html"
    site.build(history.configuration(made.config), made.results, html)
    return html
