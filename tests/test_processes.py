"""The processes of a pair: what they answer, how they end, what fails by name."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from paired import SMALL

from benchmarks.harness import sampling, turns
from benchmarks.harness.host.linux import Linux
from scripts import command, pairs, scratch, sides, workers
from scripts.pairs import Contestant, Kind

ROOT = Path(__file__).parent.parent


class TestProcesses:
    """Real ones, of the working tree."""

    @pytest.fixture
    def side(self, at_root):
        return sides.resolve(".")

    def contestants(self, side, *names: str) -> list[Contestant]:
        return [Contestant.of(side, name, number) for number, name in enumerate(names)]

    def test_both_take_every_turn_and_none_is_left(self, side):
        kinds = [Kind(0), Kind(1), Kind(1, 500)]
        session = pairs.run(self.contestants(side, SMALL, SMALL), kinds, check=True)
        assert len(session.rounds) >= pairs.FEWEST_ROUNDS
        assert all(len(turns) == 3 and all(turn.seconds > 0 for turn in turns) for turns in session.rounds)
        assert session.cpu
        assert pairs.pair(session, 1, 2).log > 1  # 500 multiplications beside a step of 1024 elements
        assert not [child for child in psutil.Process().children() if pairs.MODULE in child.cmdline()]

    def test_sides_do_not_share_compiled_kernels_and_processes_of_a_side_do(self, side):
        one, other = self.contestants(side, SMALL, SMALL)
        assert one.kernels != other.kernels
        pairs.run([one, other])
        assert list(Path(one.kernels).iterdir())
        assert list(Path(other.kernels).iterdir())

    def test_who_fails_is_named(self, side):
        with pytest.raises(pairs.Failed) as failed:
            pairs.run(self.contestants(side, SMALL, "nothing/float32/leaf_1024"))
        base, head = failed.value.reasons
        assert base == ""
        assert "unknown variant 'nothing'" in head

    def test_a_hang_ends_at_the_time_limit(self, side, monkeypatch):
        monkeypatch.setattr(pairs, "MODULE", "benchmarks.harness.no_such_module")
        with pytest.raises(pairs.Failed, match=r"its process died \(exit code 1\).*no_such_module"):
            pairs.run(self.contestants(side, SMALL))
        hanging = Path(scratch.folder(), "hanging.py")
        hanging.write_text("import time; time.sleep(600)")
        monkeypatch.setattr(pairs, "MODULE", "hanging")  # found in the folder where workers run
        with pytest.raises(pairs.Failed, match=r"took longer than 0\.5 s"):
            pairs.run(self.contestants(side, SMALL), timeout=0.5)
        assert not [child for child in psutil.Process().children() if "hanging" in child.cmdline()]

    @pytest.fixture
    def edited(self, side, tmp_path):
        """The side with another `eager.apply_single`."""

        def edit(body: str) -> sides.Side:
            shutil.copytree(ROOT / "adamw", tmp_path / "adamw")
            path = tmp_path / "adamw" / "variants" / "eager.py"
            path.write_text(path.read_text() + f"\n    def apply_single(self, g, p, s):\n        {body}\n")
            return side._replace(folder=tmp_path)

        return edit

    def test_a_wrong_result_is_not_timed(self, edited):
        wrong = edited("return super().apply_single(g, p, s) * 1.5")
        with pytest.raises(pairs.Failed, match="wrong result"):
            pairs.run(self.contestants(wrong, "eager/float32/leaf_1024"), [Kind(0)], check=True)

    def test_a_process_that_dies_in_a_turn_is_named(self, side, edited):
        """It dies when it has waited for the other's turn, which lasts longer than any of its own steps."""
        dying = edited("import os, time; last, self.last = getattr(self, 'last', None), time.monotonic(); "
                       "self.steps = getattr(self, 'steps', 0) + 1; "
                       "self.steps > 100 and self.last - last > 0.008 and os.abort(); "
                       "return super().apply_single(g, p, s)")  # fmt: skip
        name = "eager/float32/leaf_1024"
        with pytest.raises(pairs.Failed) as failed:
            pairs.run([Contestant.of(side, name, 0), Contestant.of(dying, name, 1)])
        assert failed.value.reasons[0] == ""
        assert "its process died (exit code -6)" in failed.value.reasons[1]


class TestEnded:
    """Nothing that a process started outlives it, wherever it has put itself."""

    ESCAPED = (
        "import os, subprocess, sys, time\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "started = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True)]\n"
        "print(*(one.pid for one in started), flush=True)\n"
    )

    def escaped(self, line: str) -> list[psutil.Process]:
        return [psutil.Process(int(pid)) for pid in line.split()]

    def gone(self, processes: list[psutil.Process]) -> bool:
        _, alive = psutil.wait_procs(processes, timeout=20)
        return all(one.status() == psutil.STATUS_ZOMBIE for one in alive)  # for whoever took it over to bury

    def test_what_has_a_session_of_its_own_ends_with_the_process_that_started_it(self):
        words = [sys.executable, "-c", f"{self.ESCAPED}time.sleep(600)"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert process.stdout
        with process.stdout:
            started = self.escaped(process.stdout.readline())
        command.kill(process)
        assert process.returncode == -signal.SIGKILL
        assert self.gone(started)
        command.kill(process)  # of one that is gone as well

    def test_a_worker_that_is_late_leaves_nothing(self, at_root):
        side = sides.resolve(".")
        program = Path(scratch.folder(), "escaping.py")
        program.write_text(f"{self.ESCAPED}sys.stdin.readline()\nprint(1)\ntime.sleep(600)")
        with workers.Worker(side, "escaping") as worker:  # found in the folder where workers run
            started = self.escaped(worker._answers.get(timeout=60))
            worker.tell("{}")
            assert worker.answer(60) == 1
            with pytest.raises(workers.Lost, match="took longer"):
                worker.answer(0.1)
            assert self.gone(started)


class TestTurns:
    def answers(self, *requests: dict) -> list[dict]:
        return list(turns.serve(iter(json.dumps(request) for request in requests)))

    def test_a_case_that_traces_again_is_not_timed(self, monkeypatch):
        traced = itertools.count()
        monkeypatch.setattr(turns, "ready", lambda *_: (lambda: None, 0.01, lambda: next(traced)))
        found = self.answers({"case": "a/b", "check": False}, {"steps": 1}, {"steps": 1}, {"steps": 1})
        assert "traced again while the clock ran" in found[-1]["failed"]
        assert len(found) == 3

    def test_extra_arithmetic_is_done_after_every_step(self):
        steps, slow = [], []
        turns.slowed(lambda: steps.append(1), 3)()
        assert steps == [1]
        call = turns.slowed(lambda: slow.append(1), 0)
        call()
        assert slow == [1]

    def test_where_threads_begin_is_undone(self):
        before = os.sched_getaffinity(0)
        with Linux().on_core(min(before)):
            assert os.sched_getaffinity(0) == {min(before)}
        assert os.sched_getaffinity(0) == before
        with Linux().on_core(None):
            assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(("seconds", "calls"), [(1e-3, 10), (3e-3, 4), (0.01, 2), (0.2, 2), (0.25, 1), (3.0, 1)])
def test_a_sample_sees_every_buffer_change_places_and_back(seconds, calls):
    assert sampling.calls(seconds) == calls


def test_a_worker_that_is_gone_says_why(at_root):
    with workers.Worker(sides.resolve("."), "benchmarks.harness.turns") as worker:
        worker.process.kill()
        worker.tell("{}")
        with pytest.raises(workers.Lost, match=r"its process died \(exit code -9\)"):
            worker.answer(60)
