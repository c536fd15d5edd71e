"""From pairs to verdicts: right as often as it says, on noise that is not kind."""

import math

import numpy as np
import pytest

from scripts import verdict

MIN_EFFECT = 0.02


def noise(random: np.random.Generator, kind: str, size: int, sigma: float) -> np.ndarray:
    """Log ratios around zero: normal, or with one pair in twenty 30 % off to either side."""
    values = random.normal(0, sigma, size)
    if kind == "heavy":
        values += np.where(random.random(size) < 0.05, random.choice([-0.3, 0.3], size), 0)
    return values


def compared(
    random: np.random.Generator, kind: str, sigma: float, slowdown: float, pairs: int = 60
) -> tuple[str, bool]:
    """A comparison as the command makes it, of at most `pairs` pairs: the verdict, and whether the interval holds."""
    logs = noise(random, kind, pairs, sigma) + math.log1p(slowdown)
    for count in (*(look for look in verdict.LOOKS if look < pairs), pairs):
        found = verdict.estimate(logs[:count])
        if verdict.decided(found, 1, MIN_EFFECT):
            break
    assert found
    (judgement,) = verdict.judge({"": found}, MIN_EFFECT).values()
    return judgement, abs(found.log - math.log1p(slowdown)) <= found.half_width


@pytest.mark.parametrize("kind", ["normal", "heavy"])
@pytest.mark.parametrize("sigma", [0.01, 0.03])
def test_equals_are_not_called_different_and_intervals_hold(kind, sigma):
    random = np.random.default_rng(1)
    found = [compared(random, kind, sigma, 0.0) for _ in range(400)]
    verdicts = [judgement for judgement, _ in found]
    assert not {verdict.SLOWER, verdict.FASTER} & set(verdicts)
    assert verdicts.count(verdict.SAME) > (0.99 if sigma == 0.01 else 0.5) * len(found)
    assert 0.92 <= sum(holds for _, holds in found) / len(found) <= 0.98


@pytest.mark.parametrize("kind", ["normal", "heavy"])
@pytest.mark.parametrize(("slowdown", "least"), [(0.05, 0.98), (0.03, 0.85), (-0.05, 0.98)])
def test_differences_are_found(kind, slowdown, least):
    random = np.random.default_rng(2)
    found = [compared(random, kind, 0.03, slowdown) for _ in range(200)]
    right = verdict.SLOWER if slowdown > 0 else verdict.FASTER
    verdicts = [judgement for judgement, _ in found]
    assert verdicts.count(right) >= least * len(found)
    assert {verdict.SLOWER: verdict.FASTER, verdict.FASTER: verdict.SLOWER}[right] not in verdicts
    assert verdicts.count(verdict.SAME) <= 0.01 * len(found)
    assert 0.91 <= sum(holds for _, holds in found) / len(found) <= 0.99


def test_the_smallest_detectable_slowdown_is_found_nine_times_in_ten():
    random = np.random.default_rng(3)
    told = np.median([verdict.estimate(noise(random, "normal", 40, 0.03)).detectable(MIN_EFFECT) for _ in range(200)])
    found = [
        verdict.judge({"": verdict.estimate(noise(random, "normal", 40, 0.03) + math.log1p(told))}, MIN_EFFECT)[""]
        for _ in range(400)
    ]
    assert 0.84 <= found.count(verdict.SLOWER) / len(found) <= 0.96
    sure = verdict.estimate(noise(random, "normal", 40, 0.03))
    assert sure.detectable(MIN_EFFECT, 100) > sure.detectable(MIN_EFFECT)


def test_a_hundred_cases_do_not_mean_a_false_alarm():
    random = np.random.default_rng(4)
    noisy = {str(number): verdict.estimate(noise(random, "normal", 20, 0.1)) for number in range(1000)}
    alone = [name for name, found in noisy.items() if verdict.judge({name: found}, MIN_EFFECT)[name] == verdict.SLOWER]
    together = list(verdict.judge(noisy, MIN_EFFECT).values())
    assert alone
    assert not {verdict.SLOWER, verdict.FASTER} & set(together)


def test_a_difference_that_does_not_matter_is_the_same_however_sure():
    sure = verdict.estimate([0.005 + 1e-5 * number for number in range(20)])
    assert sure.chance < 1e-6
    assert verdict.judge({"": sure}, MIN_EFFECT) == {"": verdict.SAME}
    assert verdict.judge({"": sure}, 0.001) == {"": verdict.SLOWER}


def test_too_few_pairs_decide_nothing():
    assert verdict.estimate([0.5] * 2) is None
    for few in (None, verdict.estimate([0.5] * 3), verdict.estimate([0.5] * (verdict.FEWEST - 1))):
        assert not verdict.decided(few, 1, MIN_EFFECT)
        assert verdict.judge({"": few}, MIN_EFFECT) == {"": verdict.UNDECIDED}
    assert verdict.judge({}, MIN_EFFECT) == {}


def test_equal_ratios_are_a_verdict_and_no_division_by_zero():
    found = verdict.estimate([0.1] * 20)
    assert math.isfinite(found.half_width)
    assert verdict.decided(found, 1, MIN_EFFECT)
    assert not verdict.decided(verdict.estimate([0.1] * 21), 1, MIN_EFFECT)  # it is looked at seldom
    assert verdict.judge({"": found}, MIN_EFFECT) == {"": verdict.SLOWER}


def test_a_large_difference_is_decided_with_a_wide_interval_and_a_small_one_is_not():
    logs = noise(np.random.default_rng(5), "normal", verdict.LOOKS[0], 0.05)
    assert verdict.decided(verdict.estimate(logs + math.log(2)), 1, MIN_EFFECT)
    assert not verdict.decided(verdict.estimate(logs + 0.06), 1, MIN_EFFECT)
