"""A drift is told once, as a drift with its rate: not as the steps that a search for steps takes it for."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from synthetic import COPY, LOOP, SECONDS, History

from scripts import alerts, changes, confirm, detect, drifts, issue, triage, verdict
from scripts.nightly import steps
from scripts.nightly.settings import Settings
from scripts.pairs import Pair
from scripts.report import news
from scripts.timing import Outcome

COUNT = 60
PER_NIGHT = 0.0015


def slope(rate: float = PER_NIGHT, count: int = COUNT, seed: int = 0, sigma: float = 0.01) -> np.ndarray:
    """The logs of a level that goes up by `rate` a night."""
    return np.arange(count) * math.log1p(rate) + np.random.default_rng(seed).normal(0, sigma, count)


@pytest.fixture
def made(tmp_path) -> History:
    return History(tmp_path, COUNT)


def found(made: History, *arguments: str) -> dict:
    told = made.folder / "found.json"
    where = ["--lane", str(made.config), "--results", str(made.results), "--json", str(told)]
    detect.main([*where, *arguments])
    return json.loads(told.read_text())


def test_a_drift_is_one_change_from_its_beginning_to_its_end():
    sizes = []
    for seed in range(40):
        told = changes.changes(slope(seed=seed))
        if [one.drift for one in told] == [True]:
            (one,) = told
            sizes.append(one.size)
            assert one.around(COUNT) == (one.low - 1, one.high)
            assert one.high - one.low > COUNT / 3
    assert len(sizes) > 32
    assert np.median(sizes) == pytest.approx(59 * math.log1p(PER_NIGHT), rel=0.15)


def test_its_interval_holds_the_truth():
    held = []
    for seed in range(100):
        for one in changes.changes(slope(0.003, seed=seed)):
            truth = (one.high - one.low + 1) * math.log1p(0.003)
            held.append(one.drift and abs(truth - one.size) < 2 * 1.96 * one.error)
    assert np.mean(held) > 0.9


def test_stairs_of_small_steps_are_a_drift_too():
    stairs = [
        np.floor(np.arange(COUNT) / 5) * 0.01 + np.random.default_rng(seed).normal(0, 0.01, COUNT) for seed in range(20)
    ]
    assert sum([one.drift for one in changes.changes(values)] == [True] for values in stairs) > 15


@pytest.mark.parametrize("size", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("outliers", [0, 0.3], ids=["normal", "outliers"])
def test_a_step_is_no_drift(size, outliers):
    told = []
    for seed in range(100):
        random = np.random.default_rng(seed)
        far = outliers * (random.random(COUNT) < 0.05)
        told += changes.changes(random.normal(0, 0.01, COUNT) + far + size * (np.arange(COUNT) >= 40))
    assert len(told) >= 90
    assert sum(one.drift for one in told) <= 3


def test_two_large_steps_are_no_drift():
    for seed in range(40):
        values = np.random.default_rng(seed).normal(0, 0.01, COUNT)
        values[20:] += 0.06
        values[40:] += 0.06
        told = changes.changes(values)
        assert len(told) >= 2
        assert not any(one.drift for one in told)


def test_a_drift_that_has_ended_is_told_up_to_its_end():
    ends = []
    for seed in range(20):
        values = np.random.default_rng(seed).normal(0, 0.01, COUNT) + np.minimum(np.arange(COUNT), 40) * 0.003
        (one,) = changes.changes(values)
        assert one.drift
        ends.append(one.high)
    assert np.median(ends) == pytest.approx(40, abs=3)


def test_a_large_newest_point_is_still_told_in_a_drift():
    values = slope(0.003)
    values[-1] += 0.2
    told = changes.changes(values)
    assert [one.drift for one in told] == [True, False]
    assert told[-1].first == COUNT - 1
    assert len(changes.changes(slope(0.003))) == 1


def test_short_and_constant_parts_have_no_drift():
    assert drifts.better(np.zeros(30), [10], 0.0) is None
    assert drifts.better(np.arange(8.0), [4], 1.0) is None


def test_detect_tells_it_with_its_rate(made, capsys):
    made.add_all({SECONDS: np.exp(slope(0.003))})
    told = found(made)
    printed = capsys.readouterr().out
    assert "a drift over" in printed
    (alert,) = told["alerts"]
    (member,) = alert["members"]
    assert member["per_100_commits"] == pytest.approx(1.003**100 - 1, rel=0.1)
    far = made.commits.index(alert["bad"]) - made.commits.index(alert["good"])
    assert member["after"] / member["before"] == pytest.approx(1.003**far, rel=0.1)
    assert f"a drift over {far} commits: {member['per_100_commits']:+.1%} per 100 commits" in " ".join(printed.split())


def test_night_after_night_it_is_told_once_more_at_most(made):
    """While few points are known it may be a step; as soon as it is a drift it stays that one, however far it goes."""
    values = np.exp(slope(0.003))
    for night in range(COUNT):
        made.add(night, {SECONDS: {"compiled/float32/two_leaves": float(values[night])}})
        if night < 12:
            continue
        for alert in found(made, "--record")["alerts"]:
            if alert["state"] == "new":
                event = {"alert": alert["alert"], "event": alerts.CONFIRMED, "reason": "measured again"}
                alerts.add(made.results, "mac", [event])
    known, problems = alerts.read(made.results, "mac")
    assert not problems
    drifting = [one for one in known if one.rate is not None]
    assert len(drifting) == 1
    assert len(known) <= 3
    assert [one.name for one in known if one.state == alerts.CONFIRMED] == [drifting[0].name]


def test_what_was_recorded_as_a_step_becomes_the_drift(made):
    values = np.exp(slope(0.003))
    made.add_all({SECONDS: values})
    (alert,) = found(made)["alerts"]
    good, bad = made.commits[20], made.commits[25]
    series = [["", SECONDS, "compiled/float32/two_leaves", 1.05, 1.08]]
    event = {"alert": "1f6a09c2", "event": alerts.SUSPECTED, "worse": True, "good": good, "bad": bad, "series": series}
    alerts.add(made.results, "mac", [event])
    (listed,) = found(made, "--record")["alerts"]
    assert listed["alert"] == "1f6a09c2"
    (known,), _ = alerts.read(made.results, "mac")
    assert known.rate == pytest.approx(1.003**100 - 1, rel=0.1)
    assert (known.good, known.bad) == (alert["good"], alert["bad"])


def test_a_confirmed_step_that_is_part_of_a_drift_is_closed_and_says_so(made):
    made.add_all({SECONDS: np.exp(slope(0.003))})
    series = [["", SECONDS, "compiled/float32/two_leaves", 1.05, 1.08]]
    begun = {"worse": True, "good": made.commits[20], "bad": made.commits[25], "series": series}
    alerts.add(made.results, "mac", [{"alert": "1f6a09c2", "event": alerts.SUSPECTED} | begun])
    alerts.add(made.results, "mac", [{"alert": "1f6a09c2", "event": alerts.CONFIRMED}])
    told = found(made, "--record")
    (drift,) = told["alerts"]
    assert told["closed"] == [{"alert": "1f6a09c2", "reason": f"it is part of the drift {drift['alert']}"}]


def test_a_drift_that_becomes_twice_as_fast_is_told_anew(made):
    made.add_all({SECONDS: np.exp(slope(0.003))})
    (first,) = found(made, "--record")["alerts"]
    alerts.add(made.results, "mac", [{"alert": first["alert"], "event": alerts.REFUTED}])
    assert [one["state"] for one in found(made)["alerts"]] == [alerts.REFUTED]
    made.add_all({SECONDS: np.exp(slope(0.009))})
    assert [one["state"] for one in found(made)["alerts"]] == ["new"]


def test_several_series_that_drift_together_are_one_alert(made):
    case = "eager/float32/two_leaves"
    for night in range(COUNT):
        both = {"compiled/float32/two_leaves": slope(0.003)[night], case: slope(0.003, seed=7)[night]}
        made.add(night, {SECONDS: {name: float(np.exp(value)) for name, value in both.items()}})
    (alert,) = found(made)["alerts"]
    assert len(alert["members"]) == 2


def test_a_machine_that_drifts_explains_drifts_and_no_steps(made, capsys):
    alike = {COPY: np.exp(slope(0.003, seed=1)), LOOP: np.exp(slope(0.003, seed=2))}
    made.add_all({SECONDS: np.exp(slope(0.003))} | alike)
    told = found(made)
    assert told["alerts"] == []
    assert "the machine drifted from" in capsys.readouterr().out
    step = np.exp(np.random.default_rng(0).normal(0, 0.01, COUNT)) * np.where(np.arange(COUNT) < 30, 1, 1.1)
    made.add_all({SECONDS: step} | alike)
    assert len(found(made)["alerts"]) == 1


def test_what_is_measured_again_is_its_end_against_its_beginning(made):
    made.add_all({SECONDS: np.exp(slope(0.003))})
    seen = detect.look(detect.history.configuration(made.config), made.results, None)
    (one,) = seen.recalled.listed[0].alert.members
    assert one.around == (one.good, one.bad)
    random = np.random.default_rng(0)
    truth = (one.bad - one.good) * math.log1p(0.003)
    pairs = [Pair(truth + random.normal(0, 0.01), (1.0, 1.2), 1, 0) for _ in range(verdict.LOOKS[2])]
    outcome = Outcome()
    outcome.pairs.extend(pairs)
    assert confirm.judged(one, outcome)["event"] == alerts.CONFIRMED


def test_triage_the_issue_the_report_and_a_night_tell_its_rate(made, capsys, monkeypatch):
    made.add_all({SECONDS: np.exp(slope(0.003))})
    seen = detect.look(detect.history.configuration(made.config), made.results, None)
    detect.record(made.results, seen)
    name = seen.recalled.listed[0].name
    (known,), _ = alerts.read(made.results, "mac")
    rate = f"{known.rate:+.1%}"
    triage.main(["--results", str(made.results)])
    assert f"a drift, {rate}" in " ".join(capsys.readouterr().out.split())
    assert f"a drift: {100 * known.rate:+.1f} % per 100 commits" in issue.row(known, {SECONDS: "seconds"}, "")
    assert f"{rate} per 100 commits" in news.news(seen)[0]["told"][0]
    assert steps.search("asv.conf.json", made.results, "mac", known, made.commits, Settings()) == steps.DRIFT
    (known,), _ = alerts.read(made.results, "mac")
    assert (known.name, known.culprit) == (name, steps.DRIFT)


@pytest.mark.parametrize("rate", ['"fast"', "NaN", "Infinity", "-1", "[]", "1e999"])
def test_a_rate_that_is_none_is_no_event(made, rate):
    event = (
        f'{{"when": "2026-01-01T00:00:00Z", "alert": "1f6a09c2", "event": "suspected", "worse": true, '
        f'"good": "{"a" * 40}", "bad": "{"b" * 40}", "series": [["", "m", "c", 1, 2]], "rate": {rate}}}\n'
    )
    (made.results / "mac").mkdir()
    Path(made.results / "mac" / alerts.FILE).write_text(event)
    known, problems = alerts.read(made.results, "mac")
    assert known == []
    assert len(problems) == 1
