"""Alerts from night to night: what is known may keep its own series quiet, and no others."""

import json
import threading

import numpy as np
import pytest
from synthetic import CASE, COPY, KERNELS, LOOP, SECONDS, History
from test_detect import AT, COUNT, nights, run

from scripts import alerts, recall

OTHER = "split/float32/two_leaves"
LAST = COUNT - 6


@pytest.fixture
def made(tmp_path) -> History:
    return History(tmp_path, COUNT)


def say(made: History, state: str, name: str) -> None:
    alerts.add(made.results, "mac", [{"alert": name, "event": state, "reason": "said"}])


def recorded(made: History, state: str) -> str:
    """The name of the only alert, after it was recorded and judged."""
    (alert,) = run(made, "--record")[2]["alerts"]
    say(made, state, alert["alert"])
    return alert["alert"]


def states(made: History) -> dict[str, str]:
    return {one.name: one.state for one in alerts.read(made.results, "mac")[0]}


def two(made: History, seconds: np.ndarray, other: np.ndarray) -> None:
    for number in range(COUNT):
        made.add(number, {SECONDS: {CASE: float(seconds[number]), OTHER: float(other[number])}})


@pytest.mark.parametrize("state", [alerts.REFUTED, alerts.ACKNOWLEDGED])
def test_another_case_is_not_kept_quiet(made, state):
    two(made, nights(size=0.05), nights(seed=2))
    recorded(made, state)
    two(made, nights(size=0.05), nights(size=0.3, seed=2))
    code, _, found = run(made)
    assert code == 1
    assert {alert["state"] for alert in found["alerts"]} == {"new", state}


@pytest.mark.parametrize("state", [alerts.REFUTED, alerts.ACKNOWLEDGED, alerts.CONFIRMED])
def test_a_step_that_grows_is_another(made, state):
    made.add_all({SECONDS: nights(size=0.05)})
    name = recorded(made, state)
    made.add_all({SECONDS: nights(size=0.5)})
    code, _, found = run(made, "--record")
    assert code == 1
    assert found["alerts"][0]["alert"] != name
    assert run(made)[0] == 0


def test_night_after_night_it_is_one_alert(made):
    slow, flat = nights(size=0.1, seed=2), nights(seed=3)
    for number in range(COUNT):
        made.add(number, {SECONDS: {CASE: float(slow[number]), OTHER: float(flat[number])}})
        if number >= AT:
            code, _, found = run(made, "--record")
            assert code == int(number == AT), number
            (alert,) = found["alerts"]
            assert made.commits.index(alert["good"]) < AT <= made.commits.index(alert["bad"])
    assert list(states(made).values()) == [alerts.SUSPECTED]


def test_a_false_step_that_could_be_anywhere_is_not_taken_for_the_true_one(made):
    """Its range is wide enough to hold every other step."""
    weak = np.where(np.arange(COUNT) < 25, 1.0, 1.012)
    two(made, nights(size=0.1, at=50, seed=2), nights(0.01, seed=4) * weak)
    found = run(made)[2]["alerts"]
    assert sorted(len(alert["members"]) for alert in found) == [1] * len(found)
    assert len(found) == 2


def test_what_was_only_suspected_may_grow(made):
    made.add_all({SECONDS: nights(size=0.05)})
    name = recorded(made, alerts.UNDECIDED)
    made.add_all({SECONDS: nights(size=0.5)})
    code, _, found = run(made)
    assert code == 0
    assert [alert["alert"] for alert in found["alerts"]] == [name]


def test_as_large_a_step_elsewhere_is_another(made):
    made.add_all({SECONDS: nights(size=0.1, at=45, seed=2)})
    recorded(made, alerts.REFUTED)
    made.add_all({SECONDS: nights(size=0.1, at=15, seed=2)})
    assert run(made)[0] == 1


def test_of_two_that_know_it_the_open_one_speaks(made):
    made.add_all({SECONDS: nights(size=0.05)})
    recorded(made, alerts.REFUTED)
    made.add_all({SECONDS: nights(size=0.5)})
    again = run(made, "--record")[2]["alerts"][0]["alert"]
    made.add_all({SECONDS: nights(size=0.09)})
    (alert,) = run(made)[2]["alerts"]
    assert (alert["alert"], alert["state"]) == (again, alerts.SUSPECTED)


def test_a_far_larger_step_of_another_series_is_not_what_was_confirmed(made):
    two(made, nights(size=0.1), nights(seed=2))
    recorded(made, alerts.CONFIRMED)
    two(made, nights(size=0.1), nights(size=1.0, seed=2))
    code, _, found = run(made)
    assert code == 1
    assert {alert["state"] for alert in found["alerts"]} == {"new", alerts.CONFIRMED}


def test_a_series_that_takes_the_same_step_later_joins_what_is_open(made):
    two(made, nights(size=0.1), nights(seed=2))
    name = recorded(made, alerts.CONFIRMED)
    two(made, nights(size=0.1), nights(size=0.1, seed=2))
    code, _, found = run(made, "--record")
    assert code == 0
    assert [len(alert["members"]) for alert in found["alerts"]] == [2]
    (known,) = alerts.read(made.results, "mac")[0]
    assert (known.name, known.state, len(known.levels)) == (name, alerts.CONFIRMED, 2)
    say(made, alerts.ACKNOWLEDGED, name)
    assert [alert["state"] for alert in run(made)[2]["alerts"]] == [alerts.ACKNOWLEDGED]


def test_a_step_that_comes_back_after_it_was_closed_is_told(made):
    up, away = nights(size=0.4, at=LAST, seed=2), nights(seed=2)
    made.add_all({SECONDS: up})
    first = run(made, "--record")[2]["alerts"][0]["alert"]
    made.add_all({SECONDS: away})
    assert run(made, "--record")[2]["closed"] == [{"alert": first, "reason": recall.GONE}]
    made.add_all({SECONDS: up})
    code, _, found = run(made, "--record")
    assert code == 1
    again = found["alerts"][0]["alert"]
    assert states(made) == {first: alerts.CLOSED, again: alerts.SUSPECTED}
    code, _, found = run(made)
    assert code == 0
    assert [alert["alert"] for alert in found["alerts"]] == [again]


def test_a_figure_that_was_none_and_is_again_closes(made):
    kernels = np.where(np.arange(COUNT) < AT, 0.0, 5.0)
    made.add_all({KERNELS: kernels})
    run(made, "--record")
    kernels[LAST:] = 0
    made.add_all({KERNELS: kernels})
    _, _, found = run(made)
    assert len(found["closed"]) == 1


def test_a_machine_that_gets_faster_closes_nothing(made):
    late = np.arange(COUNT) >= 50
    slower = nights(size=0.05, at=20)
    made.add_all({SECONDS: slower, COPY: nights(seed=1), LOOP: nights(seed=2)})
    name = recorded(made, alerts.CONFIRMED)
    faster = np.where(late, 0.9, 1.0)
    made.add_all({SECONDS: slower * faster, COPY: nights(seed=1) * faster, LOOP: nights(seed=2) * faster})
    code, _, found = run(made)
    assert code == 0
    assert len(found["shifts"]) == 1
    assert found["closed"] == []
    assert [alert["alert"] for alert in found["alerts"]] == [name]


def test_nor_does_one_that_had_become_slower_before(made):
    slower = np.where(np.arange(COUNT) >= 20, 1.1, 1.0)
    values = {SECONDS: nights(size=0.05, at=45), COPY: nights(seed=1), LOOP: nights(seed=2)}
    made.add_all({name: one * slower for name, one in values.items()})
    recorded(made, alerts.CONFIRMED)
    assert run(made)[2]["closed"] == []


def test_a_suspicion_that_is_not_seen_any_more_closes(made):
    made.add_all({SECONDS: nights(size=0.1)})
    name = recorded(made, alerts.UNDECIDED)
    made.add_all({SECONDS: nights() * 2})
    assert run(made)[2]["closed"] == [{"alert": name, "reason": recall.UNCLEAR}]


def test_what_was_confirmed_and_is_not_measured_any_more_is_still_told(made, capsys):
    two(made, nights(size=0.1), nights())
    name = recorded(made, alerts.CONFIRMED)
    for number in range(COUNT):
        made.add(number, {SECONDS: {OTHER: float(nights()[number])}})
    _, printed, found = run(made, capsys=capsys)
    assert found["unseen"] == [{"alert": name, "state": alerts.CONFIRMED, "reason": recall.UNMEASURED}]
    assert f"alert {name} is confirmed, but its series are not measured any more" in printed


def test_a_pin_that_sets_series_apart_later_forgets_nothing(made):
    made.add_all({SECONDS: nights(size=0.1)})
    name = recorded(made, alerts.REFUTED)
    for number in range(AT, COUNT):
        made.add(number, {SECONDS: {CASE: float(nights()[number]) * 1.2}}, pins={"mlx": "0.31.2"})
    code, _, found = run(made)
    assert code == 0
    assert [alert["alert"] for alert in found["alerts"]] == [name]


def test_a_second_environment_is_no_step(made):
    made.add_all({SECONDS: nights()})
    for number in range(AT, COUNT):
        made.add(number, {SECONDS: {CASE: float(nights(seed=2)[number]) * 1.2}}, pins={"mlx": "0.31.2"})
    assert run(made)[2]["alerts"] == []


def test_what_changed_with_the_machine_is_told_of_one_environment(made):
    slow = np.where(np.arange(COUNT) < AT, 1.0, 1.1)
    for pins, seed in (({"mlx": "0.32.4"}, 0), ({"mlx": "0.31.2"}, 5)):
        values = {COPY: nights(seed=seed) * slow, LOOP: nights(seed=seed + 1) * slow}
        made.add_all(values, pins=pins)
    (shift,) = {tuple(shift["told"]) for shift in run(made)[2]["shifts"]}
    assert shift == ()


def test_old_commits_measured_after_the_machine_changed_are_not_the_commits_doing(made):
    """The first third was measured last, on a machine that had become slower."""
    slow = np.where(np.arange(COUNT) < 20, 1.1, 1.0)
    values = {SECONDS: nights() * slow, COPY: nights(seed=1) * slow, LOOP: nights(seed=2) * slow}
    for number in range(COUNT):
        measured = 1_800_000_000 + 86_400 * (number + COUNT * (number < 20))
        told = {name: {CASE: float(one[number])} for name, one in values.items()}
        made.add(number, told, measured=measured)
    _, _, found = run(made)
    assert found["alerts"] == []
    assert len(found["shifts"]) == 1


def test_the_commits_of_another_branch_are_left_out_and_said_to_be(made):
    made.add_all({SECONDS: nights()})
    made.git("branch", "release", made.commits[10])
    made.config.write_text(made.config.read_text().replace('["main"]', '["main", "release"]'))
    _, _, found = run(made)
    assert found["problems"] == ["branch release: only main is searched"]


class TestFile:
    """results/MACHINE/alerts.jsonl, whatever happened to it."""

    @pytest.fixture
    def name(self, made) -> str:
        made.add_all({SECONDS: nights(size=0.1)})
        return run(made, "--record")[2]["alerts"][0]["alert"]

    @pytest.fixture
    def path(self, made, name):
        return made.results / "mac" / alerts.FILE

    def test_a_clock_that_was_ahead(self, made, path, name):
        path.write_text(path.read_text().replace('"when": "20', '"when": "90'))
        say(made, alerts.CONFIRMED, name)
        path.write_text(path.read_text().replace('"when": "20', '"when": "90'))
        say(made, alerts.ACKNOWLEDGED, name)
        assert states(made) == {name: alerts.ACKNOWLEDGED}

    def test_lines_in_any_order(self, made, path, name):
        say(made, alerts.CONFIRMED, name)
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
        assert states(made) == {name: alerts.CONFIRMED}

    @pytest.mark.parametrize("end", [b"", b"\xff\xfe"])
    def test_a_last_line_that_does_not_end(self, made, path, name, end):
        path.write_bytes(path.read_bytes().rstrip(b"\n") + (b"\n" + end) * bool(end))
        say(made, alerts.REFUTED, name)
        assert states(made) == {name: alerts.REFUTED}

    def test_two_writers_lose_nothing(self, made, path, name):
        writers = [
            threading.Thread(target=lambda: [say(made, alerts.REFUTED, name) for _ in range(50)]) for _ in range(2)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert path.read_text().count("\n") == 101

    @pytest.mark.parametrize(
        "change",
        [
            {"series": [["", SECONDS, CASE, 1.0, float("nan")]]},
            {"series": [["", SECONDS, CASE, 1.0]]},
            {"series": [["", SECONDS, CASE, 1.0, int("9" * 400)]]},
            {"series": None},
            {"good": 7},
            {"alert": "\x1b[31m"},
            {"event": "[bold]"},
        ],
        ids=str,
    )
    def test_what_is_no_event_is_named_and_passed_over(self, made, path, name, change):
        path.write_text(
            path.read_text() + json.dumps(json.loads(path.read_text()) | {"alert": "0" * 8} | change) + "\n"
        )
        known, problems = alerts.read(made.results, "mac")
        assert [one.name for one in known] == [name]
        assert problems == [f"{path}:2: no event of an alert; it is passed over"]

    def test_a_folder_in_its_place(self, made, path, name):
        path.unlink()
        path.mkdir()
        code, _, found = run(made)
        assert code == 1
        assert found["problems"] == [f"{path}: Is a directory"]
