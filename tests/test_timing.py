"""Pairs of processes in turns: what they say, when they stop, what fails by name, what is left out."""

import itertools
import json
import math
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from rich.console import Console

from benchmarks.harness import cases, sampling, turns
from benchmarks.harness.sampling import Turn
from scripts import command, exact, matching, pairs, rows, scratch, sides, timing, verdict, workers
from scripts.matching import Match
from scripts.pairs import Contestant, Kind, Pair, Session
from scripts.timing import Limits, Outcome

ROOT = Path(__file__).parent.parent
SMALL = "compiled/float32/leaf_1024"
LIMITS = Limits(60.0, 0.02)


@pytest.fixture
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def match(name: str = SMALL) -> Match:
    case = cases.case(*name.split("/", 1))
    return Match(name, case, case)


def rounds(*seconds: tuple[float, float], busy: float = 1.0) -> list[list[Turn]]:
    return [[Turn(one, busy) for one in pair] for pair in seconds]


class TestPair:
    def test_it_is_the_ratio_of_the_faster_halves(self):
        drifting = rounds((1, 1.1), (2, 2.2), (4, 4.4), (8, 8.8), (16, 20))
        found = pairs.pair(Session(drifting, 1.0, 1.0, True))
        assert math.isclose(found.log, math.log(1.1))
        assert (found.taken, found.disturbed) == (5, 0)
        delayed = rounds((1, 1.1), (1, 9), (1, 1.1), (7, 1.1))
        assert math.isclose(pairs.pair(Session(delayed, 1.0, 1.0, True)).log, math.log(1.1))
        assert pairs.pair(Session(delayed, 1.0, 1.0, True)).seconds == pytest.approx((1, 1.1))

    def test_disturbed_rounds_do_not_count(self):
        quiet, busy = rounds(*[(1, 1)] * 6), rounds(*[(1, 3)] * 5)
        for turns_of_round in busy:
            turns_of_round[1] = turns_of_round[1]._replace(busy=0.5)
        found = pairs.pair(Session(quiet + busy, 1.0, 1.0, True))
        assert found.log == 0
        assert (found.taken, found.disturbed) == (11, 5)
        assert found.seconds == (1, 1)

    def test_as_many_whole_cores_are_usual_as_turns_keep_busy(self):
        for usual, least, marked in ((1.9, 1.5, True), (1.27, 1.05, False), (1.27, 0.8, True), (0.9, 0.87, False)):
            some = rounds(*[(1, 1)] * 9, busy=usual) + rounds((1, 1), busy=least)
            assert pairs.disturbed(some, True) == [False] * 9 + [marked]

    def test_on_a_gpu_the_processes_cpu_time_says_nothing(self):
        mixed = rounds(*[(1, 1)] * 6) + rounds(*[(1, 3)] * 9, busy=0.1)
        assert pairs.pair(Session(mixed, 1.0, 1.0, True)).log == 0
        assert pairs.pair(Session(mixed, 1.0, 1.0, False)).log > 0.1
        assert pairs.pair(Session(mixed, 1.0, 1.0, False)).disturbed == 0

    def test_where_too_few_rounds_are_quiet_all_count(self):
        mixed = rounds(*[(1, 1)] * 3) + rounds(*[(1, 2)] * 2, busy=0.1)
        assert pairs.pair(Session(mixed, 1.0, 1.0, True)).log == 0
        assert pairs.pair(Session(mixed, 1.0, 1.0, True)).disturbed == 2

    def test_any_two_kinds_can_be_compared(self):
        three = [[Turn(seconds, 1.0) for seconds in (1.0, 2.0, 6.0)]] * 5
        assert math.isclose(pairs.pair(Session(three, 1.0, 1.0, True), 1, 2).log, math.log(3))


class TestBalance:
    """How long a pair's rounds take."""

    def pairs(self, processes: float, rounds: float, count: int = 40) -> list[Pair]:
        random = np.random.default_rng(0)
        return [
            Pair(random.normal(0, math.hypot(processes, own)), (1, 1), 9, 0, random.normal(0, own), 0.5, 0.5)
            for own in [rounds] * count
        ]

    def test_it_is_unknown_at_first(self):
        assert pairs.balance(self.pairs(0.01, 0.01, pairs.SEEN - 1)) is None

    def test_where_processes_differ_there_are_many(self):
        assert pairs.balance(self.pairs(0.05, 0.01)) == 0.5

    def test_where_only_rounds_do_there_are_few(self):
        assert pairs.balance(self.pairs(0.0, 0.05, 20_000)) == 0.5 * pairs.LONGEST
        assert pairs.balance(self.pairs(0.0, 0.0)) == 0.5 * pairs.LONGEST

    def test_between_it_is_the_best_of_the_formula(self):
        found = self.pairs(0.03, 0.06, 20_000)
        assert pairs.balance(found) == pytest.approx(math.sqrt(0.5 * 0.06**2 * 0.5) / 0.03, rel=0.1)

    def test_halves_have_the_processes_in_common(self):
        both = rounds(*[(1, 1.2), (1, 1.1)] * 10)
        found = pairs.pair(Session(both, 0.5, 2.0, True))
        assert found.halves == pytest.approx(math.log(1.2 / 1.1) / 2)
        assert (found.starting, found.running) == (0.5, 2.0)
        three = [[*turns, turns[0]] for turns in both]
        assert pairs.pair(Session(three, 0.5, 3.0, True)).running == 2.0


class TestEnough:
    def test_turns_take_as_long_as_starting_did(self):
        quiet = rounds(*[(1, 1)] * 10)
        assert not pairs.enough(quiet, 0.9, 1.0, True)
        assert pairs.enough(quiet, 1.0, 1.0, True)

    def test_there_are_a_few_however_long_they_take_and_not_too_many(self):
        assert not pairs.enough(rounds(*[(1, 1)] * (pairs.FEWEST_ROUNDS - 1)), 100.0, 1.0, True)
        assert pairs.enough(rounds(*[(1, 1)] * pairs.MOST_ROUNDS), 0.0, 1.0, True)

    def test_disturbed_rounds_are_taken_again_up_to_a_limit(self):
        mostly = rounds(*[(1, 1)] * 6) + rounds(*[(1, 1)] * 5, busy=0.5)
        assert pairs.enough(mostly, 1.0, 1.0, True)
        few = rounds(*[(1, 1)] * 4) + rounds(*[(1, 1)] * 3, busy=0.5)
        assert not pairs.enough(few, 1.0, 1.0, True)
        assert pairs.enough(few, 2.0, 1.0, True)


class TestProcesses:
    """Real ones, of the working tree."""

    @pytest.fixture
    def side(self, at_root):
        return sides.resolve(".")

    def contestants(self, side, *names: str) -> list[Contestant]:
        return [Contestant.of(side, name, number) for number, name in enumerate(names)]

    def test_both_take_every_turn_and_none_is_left(self, side):
        kinds = [Kind(0), Kind(1), Kind(1, 20_000)]
        session = pairs.run(self.contestants(side, SMALL, SMALL), kinds, check=True)
        assert len(session.rounds) >= pairs.FEWEST_ROUNDS
        assert all(len(turns) == 3 and all(turn.seconds > 0 for turn in turns) for turns in session.rounds)
        assert session.cpu
        assert pairs.pair(session, 1, 2).log > 1  # 20 000 multiplications beside a step of 1024 elements
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
        with turns.begun_on(min(before)):
            assert os.sched_getaffinity(0) == {min(before)}
        assert os.sched_getaffinity(0) == before
        with turns.begun_on(None):
            assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(("seconds", "calls"), [(1e-3, 10), (3e-3, 4), (0.01, 2), (0.2, 2), (0.25, 1), (3.0, 1)])
def test_a_sample_sees_every_buffer_change_places_and_back(seconds, calls):
    assert sampling.calls(seconds) == calls


def outcome(logs: list[float], spent: float = 1.0, **changes) -> Outcome:
    made = Outcome()
    made.pairs = [Pair(log, (0.01, 0.01 * math.exp(log)), 10, changes.get("disturbed", 0)) for log in logs]
    made.spent = spent
    made.reasons = changes.get("reasons", ["", ""])
    return made


SAME, SLOWER, FASTER = [0.001, -0.001] * 10, [0.1, 0.102] * 10, [-0.1, -0.102] * 10
UNSURE = [0.3, -0.3] * 10


class TestCompare:
    def results(self, monkeypatch, logs: dict[str, list[float]], limits: Limits = LIMITS) -> dict[str, Outcome]:
        """A comparison whose pairs give `logs`, case by case, then fail."""
        waiting = {name: iter(values) for name, values in logs.items()}
        clock = itertools.count()
        monkeypatch.setattr(timing.time, "monotonic", lambda: next(clock))

        def run(contestants, **_):
            value = next(waiting[contestants[0].case])
            if isinstance(value, Exception):
                raise value
            return Session(rounds(*[(1, math.exp(value))] * 5), 1.0, 1.0, True)

        monkeypatch.setattr(pairs, "run", run)
        side = sides.Side(".", None, ROOT, "0", sys.executable)
        return timing.compare((side, side), [match(name) for name in logs], limits)

    def test_sampling_stops_when_a_case_is_decided_and_goes_on_in_others(self, at_root, monkeypatch):
        slow, unsure = "compiled/float32/leaf_1024", "eager/float32/leaf_1024"
        found = self.results(monkeypatch, {slow: SLOWER * 9, unsure: UNSURE * 9})
        assert len(found[slow].pairs) == verdict.LOOKS[0]
        assert 25 < len(found[unsure].pairs) <= 60  # a second or so a pair: the budget
        assert found[unsure].spent <= 60

    def test_a_case_that_fails_fails_alone(self, at_root, monkeypatch):
        broken, fine = "compiled/float32/leaf_1024", "eager/float32/leaf_1024"
        failing = pairs.Failed(["", "it broke"])
        found = self.results(monkeypatch, {broken: [0.0, failing, 0.0, failing], fine: SAME * 2})
        assert found[broken].reasons == ["", "it broke"]  # the second time: once may be the system's doing
        assert not found[fine].failed

    def test_what_does_not_fit_the_memory_is_not_begun(self, at_root, monkeypatch):
        monkeypatch.setattr(timing.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10}))
        found = self.results(monkeypatch, {SMALL: []})
        assert found[SMALL].reasons[0] == found[SMALL].reasons[1]
        assert "GB are free" in found[SMALL].reasons[0]

    def test_what_fits_the_memory_no_longer_is_judged_by_what_there_is(self, at_root, monkeypatch):
        free = itertools.chain([10**12] * 8, itertools.repeat(10))
        monkeypatch.setattr(timing.psutil, "virtual_memory", lambda: type("Memory", (), {"available": next(free)}))
        found = self.results(monkeypatch, {SMALL: SAME})
        assert len(found[SMALL].pairs) == 8
        assert not found[SMALL].failed


class TestRows:
    def judged(self, outcomes: dict[str, Outcome], wanted: list[Match] | None = None, changes=None) -> list[rows.Row]:
        return rows.judge(wanted or [match(name) for name in outcomes], outcomes, changes or {}, LIMITS)

    def test_verdicts_and_exit_codes(self):
        def code(**outcomes: list[float] | list[str]) -> int:
            made = {
                f"{variant}/float32/leaf_1024": outcome(one) if isinstance(one[0], float) else outcome([], reasons=one)
                for variant, one in outcomes.items()
            }
            return rows.exit_code(self.judged(made))

        assert code(compiled=SAME) == 0
        assert code(compiled=FASTER, eager=UNSURE) == 0
        assert code(compiled=SLOWER, eager=SAME) == 1
        assert code(compiled=UNSURE, eager=UNSURE) == 3
        assert code(compiled=["", "broke"], eager=SAME) == 1
        assert code(compiled=["broke", "broke"]) == 2
        assert code(compiled=["broke", "broke"], eager=SAME) == 0
        assert rows.exit_code([]) == 0

    def test_a_row_says_how_much_with_an_interval_and_what_could_be_found(self):
        (row,) = self.judged({SMALL: outcome(SLOWER)})
        assert row.verdict == verdict.SLOWER
        assert row.low < row.ratio < row.high
        assert math.isclose(row.ratio, math.exp(0.101), rel_tol=1e-3)
        assert row.detectable > LIMITS.min_effect
        assert row.milliseconds == pytest.approx((10, 10 * math.exp(0.101)))
        assert row.logs == tuple(SLOWER)

    def test_what_only_one_side_has_is_no_failure(self):
        case = cases.case("compiled", "float32/leaf_1024")
        new, gone = Match("new/x", None, case), Match("gone/x", case, None)
        assert [row.verdict for row in self.judged({}, [new, gone])] == [rows.NEW, rows.GONE]
        assert rows.exit_code(self.judged({}, [new, gone])) == 0
        broken = {SMALL: outcome([], reasons=["broke", "broke"])}
        assert rows.exit_code(self.judged(broken, [match(), new])) == 2  # nothing was timed

    def test_the_table_names_the_reason_and_takes_text_as_text(self, capsys):
        change = exact.Change(SMALL, exact.WORSE, "traffic 10N, was 7N [red]", 3, {})
        judged = self.judged({SMALL: outcome(SLOWER), "eager/float32/leaf_1024": outcome([], reasons=["", "[bold]no"])},
                             changes={SMALL: change})  # fmt: skip
        Console(width=100).print(rows.table(judged))
        shown = capsys.readouterr().out
        words = " ".join(shown.split())
        assert "slower +10.6%" in words
        assert "traffic 10N, was 7N [red]; 3 more Python calls" in words
        assert "head: [bold]no" in words
        assert all(len(line) <= 100 for line in shown.splitlines())
        assert shown.index("broken") < shown.index("slower")

    def test_a_busy_or_noisy_machine_is_told_so(self):
        def said(made: Outcome, after: dict | None = None) -> list[str]:
            conditions = {"before": {"load": 1.0, "thermal_pressure": 0}, "after": after or {"load": 1.0}}
            return rows.warnings(self.judged({SMALL: made}), conditions, LIMITS)

        assert said(outcome(SAME)) == []
        (busy,) = said(outcome(SAME, disturbed=9))
        assert "another process held a core in 90% of a case's rounds" in busy
        (noisy,) = said(outcome(UNSURE))
        assert "undecided cases find no slowdown below" in noisy
        battery, heat = said(outcome(SAME), {"load": 1.0, "thermal_pressure": 2, "on_battery": True})
        assert "on battery" in battery
        assert "thermal pressure 2 (was 0)" in heat


class TestSides:
    def test_a_variant_and_another_python(self, at_root):
        assert sides.resolve("variant:windowed").variant == "windowed"
        with pytest.raises(command.UserError, match="unknown variant 'no'; choose one of"):
            sides.resolve("variant:no")
        other = sides.resolve(f"python:{sys.executable}")
        assert (other.python, other.mlx) == (sys.executable, sides.resolve(".").mlx)
        with pytest.raises(command.UserError, match="no Python at '/no/such/python'"):
            sides.resolve("python:/no/such/python")

    def test_a_python_without_mlx_is_one_line(self, at_root, tmp_path):
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
        python.chmod(0o755)
        with pytest.raises(command.UserError, match=r"has no mlx: .*; install it there"):
            sides.resolve(f"python:{python}")

    def test_code_is_what_a_variant_can_run(self, tmp_path):
        def made(name: str, **files: str) -> Path:
            package = tmp_path / name / "adamw"
            (package / "variants").mkdir(parents=True)
            for path, text in {"base": "import mlx", "variants/a": "from adamw import base", "variants/b": "",
                               "variants/c": "from adamw.variants.b import x",
                               "variants/d": "from adamw.variants import c"}.items():  # fmt: skip
                (package / f"{path}.py").write_text(files.get(path.replace("/", "_"), text))
            return tmp_path / name

        old = made("old")
        same = made("same", variants_b="changed = 1")
        assert sides.code(old, "a") == sides.code(same, "a")
        assert sides.code(old, "b") != sides.code(same, "b")
        assert sides.code(old, "c") != sides.code(same, "c")  # it imports b
        assert sides.code(old, "d") != sides.code(same, "d")  # it imports c
        assert sides.code(old, "a") != sides.code(made("base", base="import mlx  # x"), "a")
        (same / "adamw" / "kernel.metal").write_text("void")
        assert sides.code(old, "a") != sides.code(same, "a")
        broken = made("broken", variants_a="def (")
        assert sides.code(broken, "a") != sides.code(old, "a")
        assert sides.code(old, "a") != sides.code(old, "b")


class TestMatches:
    def test_cases_of_two_sides(self, at_root):
        pair = (sides.resolve("."), sides.resolve("."))
        found = matching.matches(pair, [["compiled"], ["compiled", "eager"]], "quick", "resnet50$")
        assert [(match.name, bool(match.base), bool(match.head)) for match in found] == [
            ("compiled/float32/resnet50", True, True),
            ("eager/float32/resnet50", False, True),
        ]
        assert found[0].same_code(*pair)
        assert not found[1].same_code(*pair)

    def test_workloads_of_two_variants(self, at_root):
        pair = (sides.resolve("variant:compiled"), sides.resolve("variant:stochastic"))
        found = matching.matches(pair, [[], []], "quick", None)
        assert [match.name for match in found] == ["compiled:stochastic/bfloat16/two_leaves"]
        assert not found[0].same_code(*pair)
        with pytest.raises(command.UserError, match="no case of profile quick matches 'no such'"):
            matching.matches(pair, [[], []], "quick", "no such")
        with pytest.raises(command.UserError, match="write variant:NAME on both sides"):
            matching.matches((pair[0], sides.resolve(".")), [[], []], "quick", None)


def test_a_worker_that_is_gone_says_why(at_root):
    with workers.Worker(sides.resolve("."), "benchmarks.harness.turns") as worker:
        worker.process.kill()
        worker.tell("{}")
        with pytest.raises(workers.Lost, match=r"its process died \(exit code -9\)"):
            worker.answer(60)
