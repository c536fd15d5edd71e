"""Change points in series whose truth is known: false alarms, what is found and where, the newest point, bad shapes."""

import math

import numpy as np
import pytest
from scipy import stats

from scripts import changes
from scripts.changes import BETTER, SHORTEST, WORSE

POINTS, AT = 60, 40


def noise(count: int, sigma: float = 0.01, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sigma, count)


def step(size: float, first: int = AT, count: int = POINTS) -> np.ndarray:
    return math.log1p(size) * (np.arange(count) >= first)


@pytest.mark.parametrize("count", [12, 60, 300])
def test_the_chance_is_what_permutations_show(count):
    random = np.random.default_rng(count)
    highest = np.array([changes.scan(random.permutation(count)).max() for _ in range(4000)])
    for level in (0.1, 0.05):
        statistic = np.quantile(highest, 1 - level)
        told = changes.chance_of(float(statistic), count)
        assert level / 1.25 < told < level * 1.6, (level, told)


def test_flat_series_are_suspected_as_often_as_is_said():
    found = [changes.changes(noise(POINTS, seed=seed)) for seed in range(600)]
    worse = np.mean([any(one.size > 0 for one in steps) for steps in found])
    better = np.mean([any(one.size < 0 for one in steps) for steps in found])
    error = math.sqrt(WORSE / 600)
    assert 0.3 * WORSE < worse < WORSE + 2 * error
    assert better < BETTER + 2 * math.sqrt(BETTER / 600)


def test_a_step_is_found_where_it_is_and_as_large_as_it_is():
    (one,) = changes.changes(noise(POINTS) + step(0.05))
    assert abs(one.first - AT) <= 1
    assert one.low <= AT <= one.high
    low, high = one.interval
    assert low < math.log(1.05) < high
    assert one.chance < 1e-6


def test_ranges_and_intervals_hold_the_truth():
    inside, covered, count = 0, 0, 0
    for seed in range(300):
        for one in changes.changes(noise(POINTS, 0.02, seed) + step(0.05))[:1]:
            low, high = one.interval
            count += 1
            inside += one.low <= AT <= one.high
            covered += low <= math.log(1.05) <= high
    assert count > 280
    assert inside / count > 0.85
    assert covered / count > 0.85


def test_a_step_downwards_is_found_too_but_must_be_clearer():
    (one,) = changes.changes(noise(POINTS) - step(0.05))
    assert one.size < 0
    sizes = [
        changes.changes(sign * (noise(POINTS, 0.02, seed) + step(0.02))) for sign in (1, -1) for seed in range(200)
    ]
    assert sum(map(bool, sizes[:200])) > sum(map(bool, sizes[200:]))


def test_several_steps_are_told_apart():
    values = noise(90) + step(0.10, 30, 90) - step(0.10, 60, 90)
    assert [one.first for one in changes.changes(values)] == pytest.approx([30, 60], abs=1)
    assert [one.size > 0 for one in changes.changes(values)] == [True, False]


def test_a_spike_is_no_step_but_three_in_a_row_are():
    values = noise(POINTS)
    values[20] += 0.3
    assert not changes.changes(values)
    values[-3:] += 0.3
    assert [one.first for one in changes.changes(values)] == [POINTS - 3]


def test_a_step_in_the_newest_point_is_suspected_at_once():
    found = [changes.changes(noise(POINTS, seed=seed) + step(0.10, POINTS - 1)) for seed in range(100)]
    assert all(steps and steps[-1].first == steps[-1].low == POINTS - 1 for steps in found)
    assert not any(one.first == POINTS - 1 for seed in range(100) for one in changes.changes(noise(POINTS, seed=seed)))


def test_where_points_have_been_off_for_a_night_one_more_is_no_news():
    values = noise(POINTS)
    values[[10, 25]] += 0.3
    assert not changes.changes(values + step(0.2, POINTS - 1))
    assert changes.changes(values + step(0.4, POINTS - 1))


def test_noise_with_a_memory_is_not_taken_for_steps_as_often():
    def lasting(seed: int) -> np.ndarray:
        values = noise(POINTS, seed=seed)
        for number in range(1, POINTS):
            values[number] += 0.5 * values[number - 1]
        return values

    corrected = sum(bool(changes.changes(lasting(seed))) for seed in range(300))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changes, "MEMORY", 0.0)
        plain = sum(bool(changes.changes(lasting(seed))) for seed in range(300))
    assert corrected < 0.8 * plain


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [1.0] * 100, [0.0, 1.0] * 2])
def test_short_and_constant_series_have_no_step(values):
    assert changes.changes(np.array(values)) == []


def test_a_constant_that_changes_is_a_step_without_error():
    (one,) = changes.changes(np.repeat([1.0, 2.0], 30))
    assert (one.first, one.size, one.error) == (30, 1.0, 0.0)


def test_equal_points_are_ranked_alike_and_wilcoxon_agrees():
    values = np.array([1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.0, 4.0])
    first = 4
    statistic = changes.scan(values)[first - SHORTEST]
    expected = stats.mannwhitneyu(values[first:], values[:first], method="asymptotic", use_continuity=False)
    assert stats.norm.sf(statistic) * 2 == pytest.approx(expected.pvalue, rel=1e-6)


def test_half_of_what_was_seen_is_asked_about():
    assert changes.least(math.log(1.1)) == pytest.approx(0.05)
    assert changes.least(-math.log(1.1)) == pytest.approx(0.05)
    assert changes.least(math.log(1.001)) == changes.SMALLEST


def test_the_newest_of_few_points_must_be_farther_off():
    flat = [bool(changes.newest(noise(9, seed=seed), [0, 9])) for seed in range(3000)]
    assert np.mean(flat) < 0.005
    found = [bool(changes.newest(noise(9, seed=seed) + step(0.2, 8, 9), [0, 9])) for seed in range(100)]
    assert np.mean(found) > 0.9


def test_a_step_brings_no_more_false_ones_than_a_flat_series_has():
    found = [changes.changes(noise(POINTS, seed=seed) + step(0.05)) for seed in range(400)]
    assert np.mean([len(steps) > 1 for steps in found]) < WORSE + 2 * math.sqrt(WORSE / 400)


@pytest.mark.parametrize(("name", "other", "far"), [("NEARLY", 0.0, 0.0), ("FAR", math.inf, 0.3)])
def test_a_step_is_located_better_for_it(monkeypatch, name, other, far):
    """By the most likely neighbourhood, not point; and whatever a point far off beside it says."""
    random, series = np.random.default_rng(0), []
    for _ in range(1500):
        values = random.normal(0, 0.02, POINTS) + far * (random.random(POINTS) < 0.05) + step(0.03)
        series.append((values, int(np.argmax(changes.scan(values))) + SHORTEST))

    def near() -> int:
        return sum(abs(changes.located(values, first) - AT) <= 3 for values, first in series)

    with_it = near()
    monkeypatch.setattr(changes, name, other)
    assert with_it > near() + 20


def test_what_is_measured_again_lies_a_few_points_off():
    clear = changes.Change(40, 40, 40, 0.1, 0.01, 1e-9)
    assert clear.around(POINTS) == (36, 43)
    assert clear._replace(low=30, high=50).around(POINTS) == (29, 50)
    assert clear._replace(first=1, low=1, high=1).around(3) == (0, 2)
    assert clear._replace(error=0.0).around(POINTS) == (39, 40)


def test_the_second_slow_night_points_to_the_first():
    for last in (AT + 1, AT + 2):
        (one,) = changes.changes((noise(POINTS, seed=2) + step(0.1))[:last])
        assert (one.first, one.low, one.high) == (AT, AT, last - 1)
    (one,) = changes.changes((noise(POINTS, seed=2) + step(0.1))[: AT + 3])
    assert one.low <= AT <= one.high
