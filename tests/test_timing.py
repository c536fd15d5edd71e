"""Comparing case by case: when it stops, what fails alone, what is left out."""

import itertools
import math
import sys
from pathlib import Path

from paired import LIMITS, SAME, SLOWER, SMALL, UNSURE, match, rounds

from scripts import pairs, sides, timing, verdict
from scripts.pairs import Session
from scripts.timing import Limits, Outcome

ROOT = Path(__file__).parent.parent


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
