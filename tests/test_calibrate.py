"""The comparison measured: false alarms and slowdowns found, on streams whose truth is known."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from rich.console import Console

from benchmarks.harness.sampling import Turn
from scripts import calibrate, command, pairs, table, verdict
from scripts.calibrate import EFFECTS, Stream
from scripts.pairs import Session
from scripts.timing import Limits

ROOT = Path(__file__).parent.parent
LIMITS = Limits(60.0, 0.02)


def stream(sessions: int, process: float, turn: float, drift: float = 0.0, seed: int = 0) -> Stream:
    """Sessions of six rounds; processes differ by `process`, turns by `turn`, the machine slows by `drift` in all."""
    random = np.random.default_rng(seed)

    def session(number: int) -> Session:
        own = np.repeat(random.normal(0, process, 2), len(EFFECTS))
        slow = np.tile(np.log1p(EFFECTS), 2) + own + drift * number / sessions
        logs = slow + random.normal(0, turn, (6, 2 * len(EFFECTS)))
        return Session([[Turn(0.01 * math.exp(log), 1.0) for log in turns] for turns in logs], 0.5, 3.0, True)

    return Stream([session(number) for number in range(sessions)], [0] * len(EFFECTS))


@pytest.fixture(scope="module")
def found() -> dict[float, calibrate.Found]:
    return {one.aimed: one for one in calibrate.evaluate(stream(300, process=0.02, turn=0.03), LIMITS)}


def test_equals_are_called_equal_and_a_slowdown_slower(found):
    assert found[0.0].slowdown == 0
    wrong = found[0.0].verdicts[verdict.SLOWER] + found[0.0].verdicts[verdict.FASTER]
    assert wrong <= 0.01 * found[0.0].comparisons  # which overlap: one odd stretch is seen by several
    assert found[0.0].verdicts[verdict.SAME] > 0.5 * found[0.0].comparisons
    assert found[0.05].verdicts[verdict.SLOWER] == found[0.05].comparisons
    assert found[0.01].verdicts[verdict.SLOWER] < 0.05 * found[0.01].comparisons  # it is slower, but less than matters
    assert found[0.03].verdicts[verdict.SLOWER] > 0.8 * found[0.03].comparisons


def test_the_truth_is_measured_and_intervals_hold_it(found):
    for effect, one in found.items():
        assert abs(one.slowdown - effect) < 0.002
        assert sum(one.verdicts.values()) == one.comparisons
    assert 0.88 < np.mean([one.holds for one in found.values()]) <= 1


def test_equals_are_compared_in_every_slowed_kind_and_slowdowns_from_both_sides(found):
    assert len(calibrate.contests(0)) == len(EFFECTS)
    assert calibrate.contests(2) == [(0, len(EFFECTS) + 2), (len(EFFECTS), 2)]
    assert all(0 < one.separate <= 300 / verdict.LOOKS[0] for one in found.values())  # each has processes of its own
    assert found[0.0].seconds < LIMITS.budget


def test_a_comparison_takes_the_seconds_of_two_kinds_only():
    (session,) = stream(1, 0, 0).sessions
    assert calibrate.spent(session) == 0.5 + 3.0 / len(EFFECTS)


def test_one_side_after_the_other_is_fooled_by_a_machine_that_slows_down():
    drifting = {one.aimed: one for one in calibrate.evaluate(stream(100, 0.005, 0.01, drift=1.25), LIMITS)}
    equals = drifting[0.0]
    assert equals.verdicts[verdict.SLOWER] == 0
    assert equals.pyperf > 0.9 * equals.comparisons
    assert equals.asv["1.05"] > 0.3 * equals.comparisons


def test_asvs_and_pyperfs_rules():
    random = np.random.default_rng(0)
    base, head = random.normal(1, 0.01, 60).tolist(), random.normal(1.08, 0.01, 60).tolist()
    assert calibrate.asv_reports(base, head, 1.05)
    assert not calibrate.asv_reports(base, head, 1.1)
    assert not calibrate.asv_reports(head, base, 1.05)
    assert calibrate.pyperf_reports(base, head)
    assert not calibrate.pyperf_reports(head, base)


def test_too_short_a_stream_is_one_line():
    with pytest.raises(command.UserError, match="too few pairs for one comparison; give it more --minutes"):
        calibrate.evaluate(stream(20, 0.1, 0.1), LIMITS)


def test_the_hog_ends_with_its_block_and_with_its_parent():
    with calibrate.hog():
        (hog,) = [child for child in psutil.Process().children() if "os.getppid()" in " ".join(child.cmdline())]
        assert hog.cpu_percent(0.5) > 20
    assert not hog.is_running()
    program = "from scripts import calibrate\nimport os\nwith calibrate.hog(): print(1, flush=True); os.abort()"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "1\n"
    deadline = time.monotonic() + 20
    while any("os.getppid()" in " ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_the_command_saves_what_it_prints_beside_the_machines_results(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(calibrate, "collect", lambda *_: stream(120, 0.01, 0.02))
    arguments = ["--results", str(tmp_path), "--machine", "box", "--minutes", "1"]
    assert calibrate.main(arguments) == calibrate.main([*arguments, "--hog"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "eager/float32/llama_1b_lora, 10" in shown
    assert "one core kept busy" in shown
    path = tmp_path / "box" / calibrate.FILE
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [entry["hog"] for entry in entries] == [False, True]
    assert [one["aimed"] for one in entries[0]["found"]] == list(EFFECTS)
    assert entries[0]["settings"]["mlx"]
    assert all(len(line) <= command.WIDTH for line in calibrate.description(entries[1]))
    assert len(entries[0]["commit"]) == 40
    with pytest.raises(command.UserError, match="no results in"):
        table.newest(tmp_path)  # a calibration is no measurement of a commit


def test_a_case_that_cannot_run_is_one_line(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(command.UserError, match=r"no/float32/leaf_1024: .*unknown variant 'no'"):
        calibrate.main(["--case", "no/float32/leaf_1024", "--minutes", "0.01"])


def test_the_table_fits_a_hundred_columns(found, capsys):
    Console(width=100).print(calibrate.table(list(found.values())))
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line.rstrip()) <= 100 for line in lines)
    assert "none" in lines[2]
    assert os.linesep not in lines[0]


@pytest.mark.slow
def test_real_pairs_give_a_calibration(monkeypatch, tmp_path):
    """Fewer pairs decide here than ever should: that all parts work together, not what they find."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(calibrate, "PROBES", 1)
    monkeypatch.setattr(calibrate, "EFFECTS", (0.0, 0.5))
    monkeypatch.setattr(verdict, "FEWEST", 3)
    arguments = ["--minutes", "0.7", "--budget", "12", "--case", "compiled/float32/leaf_16384"]
    assert calibrate.main([*arguments, "--results", str(tmp_path), "--machine", "box"]) == 0
    (entry,) = map(json.loads, (tmp_path / "box" / calibrate.FILE).read_text().splitlines())
    assert entry["found"][1]["slowdown"] > entry["found"][0]["slowdown"] == 0
    assert entry["pairs"] >= 3
    assert not [child for child in psutil.Process().children() if pairs.MODULE in child.cmdline()]
