"""What is remembered of alerts: states, files that git merges, triage."""

import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from synthetic import CASE, SECONDS, History
from test_detect import AT, COUNT, nights, run

from scripts import alerts, command, triage

ROOT = Path(__file__).parent.parent


@pytest.fixture
def recorded(tmp_path) -> History:
    made = History(tmp_path, COUNT)
    made.add_all({SECONDS: nights(size=0.1)})
    run(made, "--record")
    return made


def known(made: History) -> alerts.Known:
    (one,) = alerts.read(made.results, "mac")[0]
    return one


def test_an_alert_begins_with_its_commits_and_levels(recorded):
    one = known(recorded)
    assert one.state == alerts.SUSPECTED
    assert recorded.commits.index(one.good) < AT <= recorded.commits.index(one.bad)
    before, after = one.levels["", SECONDS, CASE]
    assert 1.05 < after / before < 1.15


def test_an_alert_is_known_again_with_more_points_and_a_commit_elsewhere(recorded):
    name = known(recorded).name
    other = nights(size=0.1, seed=0)
    other[AT] = other[AT - 1]  # as if it began a commit later
    recorded.add_all({SECONDS: other})
    code, _, found = run(recorded)
    assert code == 0
    assert [one["alert"] for one in found["alerts"]] == [name]


def test_a_refuted_step_may_still_be_a_much_smaller_one(tmp_path):
    """The first point after a step of 10 % was far off: nothing as large as that was there when it was measured."""
    made, last = History(tmp_path, COUNT), COUNT - 1
    made.add_all({SECONDS: nights(size=0.6, at=last, seed=2)})
    run(made, "--record")
    first = known(made).name
    alerts.add(made.results, "mac", [{"alert": first, "event": alerts.REFUTED, "reason": "+10 %"}])
    assert run(made)[0] == 0
    for size, code in ((0.4, 0), (0.1, 1)):
        made.add_all({SECONDS: nights(size=size, at=last, seed=2)})
        assert run(made, "--record")[0] == code
    assert {one.state for one in alerts.read(made.results, "mac")[0]} == {alerts.REFUTED, alerts.SUSPECTED}
    assert run(made)[0] == 0


def test_states_do_not_depend_on_the_order_of_the_lines(recorded):
    name = known(recorded).name
    path = recorded.results / "mac" / alerts.FILE
    lines = path.read_text().splitlines()
    lines += [json.dumps({"when": f"2099-0{month}-01T00:00:00Z", "alert": name, "event": state, "reason": "r"})
              for month, state in ((1, alerts.CONFIRMED), (2, alerts.ACKNOWLEDGED))]  # fmt: skip
    for order in (lines, lines[::-1]):
        path.write_text("\n".join(order) + "\n")
        assert known(recorded).state == alerts.ACKNOWLEDGED


def test_git_joins_two_nights_without_a_conflict(tmp_path, recorded):
    made, path = recorded, recorded.results / "mac" / alerts.FILE
    (made.folder / ".gitattributes").write_text((ROOT / ".gitattributes").read_text())
    made.git("checkout", "-q", "main")
    made.git("add", "-A")
    made.git("commit", "-qm", "a night")
    name = known(made).name
    for branch, state in (("one", alerts.CONFIRMED), ("other", alerts.ACKNOWLEDGED)):
        made.git("checkout", "-qb", branch, "main")
        alerts.add(made.results, "mac", [{"alert": name, "event": state, "reason": branch}])
        made.git("commit", "-qam", branch)
    made.git("merge", "-q", "-m", "both", "one")
    assert path.read_text().count("\n") == 3
    assert known(made).state in (alerts.CONFIRMED, alerts.ACKNOWLEDGED)


def test_triage_acknowledges_with_a_reason(recorded, capsys):
    name, results = known(recorded).name, ["--results", str(recorded.results)]
    with pytest.raises(command.UserError, match="say why"):
        triage.main([name, *results])
    assert triage.main([name, "--reason", "[bold]less memory[/bold]\n\x1b[31m", *results]) == 0
    assert known(recorded).reason == "[bold]less memory[/bold]"  # data, printed as it is
    triage.main(results)
    assert "[bold]less memory" in capsys.readouterr().out.split("is acknowledged")[1]
    with pytest.raises(command.UserError, match="no alert 'none'"):
        triage.main(["none", "--reason", "x", *results])
    with pytest.raises(command.UserError, match="no machine 'pro'"):
        triage.main(["--machine", "pro", *results])
    with pytest.raises(command.UserError, match="--reason of which alert"):
        triage.main(["--reason", "x", *results])
    with pytest.raises(command.UserError, match="no results below"):
        triage.main(["--results", str(recorded.folder / "none")])
    alerts.add(recorded.results, "mac", [{"alert": name, "event": alerts.CLOSED, "reason": "it went"}])
    with pytest.raises(command.UserError, match="is closed: it went"):
        triage.main([name, "--reason", "x", *results])


def test_a_file_that_is_far_too_large_is_not_read(recorded, monkeypatch):
    monkeypatch.setattr(alerts, "LARGEST_FILE", 10)
    found, problems = alerts.read(recorded.results, "mac")
    assert not found
    assert "shorten it" in problems[0]


def test_help_has_two_examples():
    for name in ("detect", "confirm", "triage", "bisect", "simulate"):
        asked = [sys.executable, "-m", f"scripts.{name}", "--help"]
        done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.count(f"  python -m scripts.{name}") >= 2


NAME = "0123abcd"
BEGUN = {
    "alert": NAME,
    "event": alerts.SUSPECTED,
    "worse": True,
    "good": "a" * 40,
    "bad": "b" * 40,
    "series": [["", SECONDS, CASE, 1.0, 1.1]],
}
OLD = '{"when": "2026-01-01T00:00:00+00:00", "alert": "0123abcd", "event": '
"""How the lines of versions begin that gave events no ids."""


@pytest.fixture
def path(tmp_path) -> Path:
    """The file of a machine, in which an alert begins."""
    (tmp_path / "mac").mkdir()
    alerts.add(tmp_path, "mac", [BEGUN])
    return tmp_path / "mac" / alerts.FILE


def of(path: Path) -> tuple[alerts.Known, list[str]]:
    """The only alert in a file, and what is wrong with that."""
    ((known,), problems) = alerts.read(path.parents[1], path.parent.name)
    return known, problems


def say(path: Path, *states: str) -> None:
    alerts.add(path.parents[1], path.parent.name, [{"alert": NAME, "event": state} for state in states])


def test_what_came_of_looking_for_the_commit_is_remembered(tmp_path, path):
    found = {"alert": NAME, "event": alerts.SEARCHED, "reason": "commit c"}
    alerts.add(tmp_path, "mac", [found, {"alert": NAME, "event": alerts.CONFIRMED, "reason": "+9 %"}])
    known, problems = of(path)
    assert (known.state, known.reason, known.culprit) == (alerts.CONFIRMED, "+9 %", "commit c")
    assert problems == []


def test_the_series_that_an_alert_began_with_stay_the_first(tmp_path, path):
    grown = {"alert": NAME, "event": alerts.GROWN, "series": [["", "another", CASE, 1, 2], *BEGUN["series"]]}
    alerts.add(tmp_path, "mac", [grown])
    assert [metric for _, metric, _ in of(path)[0].levels] == [SECONDS, "another"]


class TestEvents:
    """Every line is an event of its own, once, wherever it stands."""

    def test_each_has_an_id(self, path):
        say(path, alerts.CONFIRMED, alerts.REFUTED)
        ids = [json.loads(line)["id"] for line in path.read_text().splitlines()]
        assert len({*ids, ""}) == 4

    def test_a_line_that_is_there_twice_is_one_event(self, path):
        say(path, alerts.UNDECIDED)
        twice = path.read_text().splitlines(keepends=True)[1]
        say(path, alerts.ACKNOWLEDGED)
        for again in (twice, json.dumps(json.loads(twice) | {"reason": "as another tool writes it"}) + "\n"):
            path.write_text(path.read_text() + again)
        known, _ = of(path)
        assert (known.state, known.tried) == (alerts.ACKNOWLEDGED, 1)

    def test_two_events_in_the_same_words_are_two(self, path):
        say(path, alerts.UNDECIDED, alerts.UNDECIDED)
        assert of(path)[0].tried == 2

    def test_lines_without_an_id_are_read_and_the_same_text_counts_once(self, path):
        undecided, confirmed = f'{OLD}"undecided"}}\n', f'{OLD}"confirmed", "reason": "r"}}\n'
        path.write_text(path.read_text() + undecided + confirmed + undecided)
        known, problems = of(path)
        assert (known.state, known.reason, known.tried, problems) == (alerts.CONFIRMED, "r", 2, [])

    def test_older_lines_have_infinities_as_python_writes_them(self, path):
        path.write_text(path.read_text().replace("1.1", "Infinity"))
        assert of(path)[0].levels["", SECONDS, CASE] == (1.0, math.inf)
        path.write_text(path.read_text().replace("Infinity", '"Infinity"'))
        assert of(path)[0].levels["", SECONDS, CASE] == (1.0, math.inf)

    def test_what_was_added_later_is_later_whatever_the_clock_says_and_wherever_the_line_is(self, path, monkeypatch):
        said = [alerts.CONFIRMED, alerts.ACKNOWLEDGED, alerts.CONFIRMED, alerts.REFUTED, alerts.UNDECIDED]
        for year, state in zip((2026, 2090, 1970, 2026, 9998), said, strict=True):
            clock = SimpleNamespace(now=lambda zone, year=year: datetime(year, 1, 1, tzinfo=zone))
            monkeypatch.setattr(alerts, "datetime", clock)
            say(path, state)
            lines = path.read_text().splitlines(keepends=True)
            for order in itertools.permutations(lines[-3:]):
                path.write_text("".join([*lines[:-3], *order]))
                assert of(path)[0].state == state

    def test_events_that_are_added_together_keep_their_order(self, path):
        for number in range(8):
            order = [alerts.CONFIRMED, alerts.REFUTED] if number % 2 else [alerts.REFUTED, alerts.CONFIRMED]
            say(path, *order)
            assert of(path)[0].state == order[-1]

    @pytest.mark.parametrize(
        "when", ["~", "", "2026", "2026-01-01T00:00:00", "9999-12-31T23:59:59.999999-23:00", 7, None]
    )
    def test_an_event_of_no_time_is_none_so_that_it_cannot_be_the_last_for_ever(self, path, when):
        odd = {"when": when, "alert": NAME, "event": alerts.ACKNOWLEDGED}
        path.write_text(path.read_text() + json.dumps(odd) + "\n")
        known, problems = of(path)
        assert known.state == alerts.SUSPECTED
        assert problems == [f"{path}:2: no event of an alert; it is passed over"]
        say(path, alerts.CONFIRMED)
        assert of(path)[0].state == alerts.CONFIRMED


VALUES = ([], {}, "", None, 1e300, -1, True, "~" * 1000, [[]], [{}], "\ud800")


class TestOddLines:
    """A line is what its schema says, or it is named, and does no harm to another."""

    @pytest.mark.parametrize("key", [*BEGUN, "id", "when", "rate", "reason"])
    @pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:9])
    def test_any_value_in_any_place_harms_no_other_line(self, tmp_path, path, key, value):
        whole = {"id": "0" * 16, "when": "2026-01-01T00:00:00Z", "rate": 0.1, "reason": "r"} | BEGUN
        others = [
            {"alert": "f" * 8, "event": alerts.DRIFTS}, {"event": alerts.GROWN}, {"event": alerts.SEARCHED},
            {"event": alerts.CONFIRMED},
        ]  # fmt: skip
        path.write_text("".join(json.dumps(whole | other | {key: value}) + "\n" for other in [{}, *others]))
        alerts.add(tmp_path, "mac", [BEGUN | {"alert": "f" * 8}])
        known, problems = alerts.read(tmp_path, "mac")
        assert "f" * 8 in [one.name for one in known]
        assert all(
            len(text) <= 300 for one in known for text in (one.reason, one.culprit, *itertools.chain(*one.levels))
        )
        assert all(one.levels for one in known)
        assert len(problems) <= 6

    @pytest.mark.parametrize(
        "change",
        [
            {"series": []}, {"series": {}}, {"series": [[]]}, {"series": [["", SECONDS, CASE, "1", "2"]]},
            {"series": [["", SECONDS, 3, 1, 2]]}, {"series": [["", SECONDS, CASE, 1, -math.inf]]},
            {"good": []}, {"good": "a" * 40 + "\n"}, {"worse": "yes"}, {"worse": 1}, {"rate": -1}, {"rate": math.inf},
            {"rate": math.nan}, {"reason": 7}, {"id": 7}, {"alert": "0123ABCD"}, {"alert": "0123abcd\n"},
            {"event": "new"}, {"event": []},
        ],
        ids=str,
    )  # fmt: skip
    def test_what_is_no_event_is_named(self, path, change):
        line = json.loads(path.read_text()) | change
        path.write_text(json.dumps(line) + "\n")
        assert alerts.read(path.parents[1], "mac") == ([], [f"{path}:1: no event of an alert; it is passed over"])

    @pytest.mark.parametrize("line", [b"[" * 100_000, b"\xff\xfe", b"\0", b"9" * 5000, b'{"when": 1e999}'], ids=len)
    def test_what_is_no_json_is_named(self, path, line):
        path.write_bytes(line + b"\n" + path.read_bytes())
        assert of(path)[1] == [f"{path}:1: no event of an alert; it is passed over"]

    def test_many_are_counted(self, path):
        path.write_text(path.read_text() + "odd\n" * 1000)
        _, problems = of(path)
        assert len(problems) == alerts.MOST_PROBLEMS + 1
        assert problems[-1] == f"{path}: {1000 - alerts.MOST_PROBLEMS} more lines are no events of alerts"

    def test_more_series_than_a_suite_has_are_none(self, tmp_path, path):
        many = [["", SECONDS, str(number), 1, 2] for number in range(alerts.MOST_SERIES + 1)]
        for series, count in ((many, 1), (many[1:], alerts.MOST_SERIES + 1)):
            alerts.add(tmp_path, "mac", [{"alert": NAME, "event": alerts.GROWN, "series": series}])
            assert len(of(path)[0].levels) == count

    def test_text_is_shortened_where_it_is_read(self, tmp_path, path):
        alerts.add(tmp_path, "mac", [{"alert": NAME, "event": alerts.CONFIRMED, "reason": "\x1b[31mx\n" * 1000}])
        assert of(path)[0].reason == ("x " * 150)

    @pytest.mark.parametrize("name", ["--output=x", "a" * 39, "A" * 40, "HEAD", ""])
    def test_a_commit_that_is_no_hash_is_passed_over(self, tmp_path, path, name):
        alerts.add(tmp_path, "mac", [BEGUN | {"alert": "f" * 8, "good": name}])
        assert len(of(path)[1]) == 1


class TestTurns:
    """Who is measured again tonight, where there is time for some only."""

    @pytest.fixture
    def night(self, tmp_path, path):
        def run(suspected: list[str], limit: int = 4) -> list[str]:
            known, _ = alerts.read(tmp_path, "mac")
            tonight = alerts.in_turn(suspected, known)[:limit]
            for name in tonight:
                alerts.add(tmp_path, "mac", [{"alert": name, "event": alerts.UNDECIDED}])
            return tonight

        return run

    def begin(self, tmp_path: Path, *names: str) -> None:
        alerts.add(tmp_path, "mac", [BEGUN | {"alert": name} for name in names])

    @pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
    def test_all_that_stay_undecided_are_measured_about_equally_often(self, tmp_path, night, limit):
        names = [f"{number:08x}" for number in range(6)]
        self.begin(tmp_path, *names)
        counts = Counter(name for _ in range(12) for name in night(names, limit))
        assert sum(counts.values()) == 12 * limit
        assert set(counts) == set(names)
        assert max(counts.values()) - min(counts.values()) <= 1

    def test_what_is_new_is_among_the_first_that_night(self, tmp_path, night):
        names = [f"{number:08x}" for number in range(6)]
        self.begin(tmp_path, *names)
        for _ in range(3):
            night(names)
        self.begin(tmp_path, "f" * 8)
        assert "f" * 8 in night([*names, "f" * 8])[:2]

    @pytest.mark.parametrize("limit", [1, 4])
    def test_however_many_are_new_each_night_none_waits_for_ever(self, tmp_path, night, limit):
        names, tonight = ["e" * 8, "f" * 8], []
        self.begin(tmp_path, *names)
        for number in range(20):
            tonight += night(names, limit)
            new = [f"{4 * number + place:08x}" for place in range(4)]
            self.begin(tmp_path, *new)
            names = [*new, *names]
        counts = Counter(tonight)
        assert min(counts["e" * 8], counts["f" * 8]) >= 2
        assert len(counts) > 10
