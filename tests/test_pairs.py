"""A pair of processes: what its turns say, and how long they should take."""

import math
import sys

import numpy as np
import pytest
from paired import rounds

from benchmarks.harness.sampling import Turn
from scripts import pairs
from scripts.pairs import Pair, Session
from scripts.sides import Side


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


def test_two_mlx_and_two_commits_find_no_kernels_of_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    side = Side(".", None, tmp_path, "0.31.2", sys.executable)
    others = [side._replace(mlx="0.32.4"), side._replace(commit="c" * 40), side._replace(python="/other/python")]
    folders = [pairs.Contestant.of(one, "case", 1).kernels for one in (side, *others)]
    assert len(set(folders)) == len(folders)
    assert pairs.Contestant.of(side, "another", 1).kernels == folders[0]
