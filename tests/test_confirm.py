"""A suspicion measured again: what is measured, what comes of it, what is remembered."""

import contextlib
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from synthetic import CASE, KERNELS, SECONDS, History
from test_detect import AT, COUNT, nights

from scripts import alerts, command, confirm, detect, figures, pairs, sides
from scripts.pairs import Failed, Pair
from scripts.timing import Limits

ROOT = Path(__file__).parent.parent
MEMORY = "memory.Memory.track_peak_bytes"


@pytest.fixture
def made(tmp_path) -> History:
    return History(tmp_path, COUNT)


@pytest.fixture
def measuring(monkeypatch):
    """Both sides are only named, and every pair says what the test wants it to say."""

    def say(log: float, spread: float = 0.005) -> list[tuple]:
        asked: list[tuple] = []
        random = np.random.default_rng(0)

        def pair(pair_of_sides, metric, case, known=()):
            asked.append((*pair_of_sides, metric, case))
            if not math.isfinite(log):
                raise Failed(["", "does not import"])
            told = log + random.normal(0, spread)
            return Pair(told, (1.0, math.exp(told)), 5, 0)

        monkeypatch.setattr(sides, "resolve", lambda name: name)
        monkeypatch.setattr(figures, "pair", pair)
        return asked

    return say


def run(made: History, *arguments: str) -> int:
    return confirm.main(["--lane", str(made.config), "--results", str(made.results), "--machine", "mac", *arguments])


def states(made: History) -> list[str]:
    return [one.state for one in alerts.read(made.results, "mac")[0]]


@pytest.mark.parametrize(
    ("log", "state", "code"),
    [
        (math.log(1.1), alerts.CONFIRMED, 1),
        (0.0, alerts.REFUTED, 0),
        (-math.log(1.1), alerts.REFUTED, 0),
        (math.nan, alerts.UNDECIDED, 3),
    ],
)
def test_what_came_of_it_is_remembered(made, measuring, capsys, log, state, code):
    made.add_all({SECONDS: nights(size=0.1)})
    asked = measuring(log)
    assert run(made) == code
    assert states(made) == [state]
    good, bad, metric, case = asked[0]
    assert made.commits.index(good) < AT - 2
    assert made.commits.index(bad) > AT + 2
    assert (metric, case) == (SECONDS, CASE)
    assert f": {state}: " in capsys.readouterr().out


def test_too_noisy_a_machine_leaves_it_undecided_and_it_is_asked_again(made, measuring):
    made.add_all({SECONDS: nights(size=0.1)})
    asked = measuring(math.log(1.05), spread=1.0)
    assert run(made) == 3
    assert len(asked) == figures.MOST_PAIRS
    assert run(made) == 3
    assert states(made) == [alerts.UNDECIDED]


def test_what_is_refuted_is_not_measured_again_unless_it_is_named(made, measuring, capsys):
    made.add_all({SECONDS: nights(size=0.1)})
    measuring(0.0)
    run(made)
    asked = measuring(math.log(1.1))
    assert run(made) == 0
    assert not asked
    assert "nothing is suspected" in capsys.readouterr().out
    (known,) = alerts.read(made.results, "mac")[0]
    assert run(made, "--alert", known.name) == 1
    assert states(made) == [alerts.CONFIRMED]
    with pytest.raises(command.UserError, match="no alert 'none' is seen on mac"):
        run(made, "--alert", "none")


def test_an_exact_figure_is_measured_once(made, measuring, monkeypatch):
    made.add_all({KERNELS: np.repeat([4.0, 6.0], [COUNT - 1, 1])})
    asked = measuring(math.log(1.5), spread=0)
    assert run(made) == 1
    assert len(asked) == 1


@pytest.mark.parametrize("kernels", [(4.0, 6.0), (6.0, 4.0)])
def test_an_exact_figure_that_is_the_same_is_refuted(made, measuring, kernels):
    made.add_all({KERNELS: np.repeat(kernels, [COUNT - 1, 1])})
    measuring(0.0, spread=0)
    assert run(made) == 0
    assert states(made) == [alerts.REFUTED]


def test_members_that_cannot_be_measured_share_the_budget(made, monkeypatch):
    for number in range(COUNT):
        cases = {f"compiled/float32/tree{case}": nights(size=0.1, seed=case)[number] for case in range(2)}
        made.add(number, {SECONDS: cases})
    budgets = []

    def measured(pair, metric, case, limits):
        budgets.append(limits.budget)
        raise Failed(["", "is gone"])

    monkeypatch.setattr(sides, "resolve", lambda name: name)
    monkeypatch.setattr(figures, "measured", measured)
    assert run(made) == 3
    assert len(budgets) == 2
    assert 300 > budgets[0] > budgets[1]


@pytest.mark.parametrize(("fails", "raises"), [([0], True), ([3], False), ([3, 5], True)])
def test_one_pair_may_fail_after_others(monkeypatch, fails, raises):
    taken = itertools.count()
    random = np.random.default_rng(0)

    def pair(*_):
        if next(taken) in fails:
            raise Failed(["", "it died"])
        return Pair(0.1 + random.normal(0, 0.001), (1.0, 1.1), 5, 0)

    monkeypatch.setattr(figures, "pair", pair)
    with pytest.raises(Failed) if raises else contextlib.nullcontext():
        assert figures.measured(("base", "head"), SECONDS, CASE, Limits(300, 0.05)).estimate


def test_the_next_member_is_tried_where_one_cannot_be_measured(made, monkeypatch):
    for number in range(COUNT):
        cases = {f"compiled/float32/tree{case}": nights(size=0.1, seed=case)[number] for case in range(2)}
        made.add(number, {SECONDS: cases})
    asked = []

    def pair(_, metric, case, known=()):
        asked.append(case)
        if case == asked[0]:
            raise Failed(["", "is gone"])
        return Pair(math.log(1.1) + len(asked) / 1e5, (1.0, 1.1), 5, 0)

    monkeypatch.setattr(sides, "resolve", lambda name: name)
    monkeypatch.setattr(figures, "pair", pair)
    assert run(made) == 1
    assert len(set(asked)) == 2


def test_a_figure_of_memory_is_measured_by_a_process_of_each_side(monkeypatch):
    monkeypatch.setattr(figures, "figure", lambda side, metric, case: {"base": 100.0, "head": 110.0}[side])
    assert figures.pair(("base", "head"), MEMORY, CASE).log == pytest.approx(math.log(1.1))
    assert figures.ratio(0.0, 5.0) == figures.LIMITLESS
    assert figures.ratio(5.0, 0.0) == -figures.LIMITLESS
    assert figures.ratio(0.0, 0.0) == 0


def test_seconds_are_measured_in_turns(monkeypatch):
    said = []
    monkeypatch.setattr(pairs.Contestant, "of", classmethod(lambda cls, *arguments: arguments))
    monkeypatch.setattr(pairs, "run", lambda contestants, check, seconds: said.append((contestants, check)))
    monkeypatch.setattr(pairs, "pair", lambda session: "told")
    assert figures.pair(("base", "head"), SECONDS, CASE) == "told"
    assert said == [([("base", CASE, 0), ("head", CASE, 1)], True)]


def test_a_process_measures_a_figure_as_asv_would(monkeypatch):
    monkeypatch.chdir(ROOT)
    side = sides.resolve(".")
    assert figures.figure(side, "work.Work.track_kernels", "compiled/float32/leaf_1024") > 0
    assert figures.figure(side, MEMORY, "compiled/float32/leaf_1024") > 4 * 4 * 1024
    with pytest.raises(figures.workers.Lost, match="no attribute 'track_nothing'"):
        figures.figure(side, "work.Work.track_nothing", "compiled/float32/leaf_1024")


def test_confirmed_alerts_are_listed_as_such(made, measuring, capsys):
    made.add_all({SECONDS: nights(size=0.1)})
    measuring(math.log(1.1))
    run(made)
    capsys.readouterr()
    assert detect.main(["--lane", str(made.config), "--results", str(made.results)]) == 0
    printed = capsys.readouterr().out
    assert "1 confirmed" in printed
    assert "pairs" in printed
