"""What is remembered of alerts: states, files that git merges, triage."""

import json
import subprocess
import sys
from pathlib import Path

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
    lines += [json.dumps({"when": f"2099-0{month}", "alert": name, "event": state, "reason": "r"})
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


def test_what_came_of_looking_for_the_commit_is_remembered(tmp_path):
    (tmp_path / "mac").mkdir()
    begun = {
        "alert": "0123abcd",
        "event": alerts.SUSPECTED,
        "worse": True,
        "good": "a" * 40,
        "bad": "b" * 40,
        "series": [],
    }
    found = {"alert": "0123abcd", "event": alerts.SEARCHED, "reason": "commit c"}
    alerts.add(tmp_path, "mac", [begun, found, {"alert": "0123abcd", "event": alerts.CONFIRMED, "reason": "+9 %"}])
    ((known,), problems) = alerts.read(tmp_path, "mac")
    assert (known.state, known.reason, known.culprit) == (alerts.CONFIRMED, "+9 %", "commit c")
    assert problems == []


@pytest.mark.parametrize("name", ["--output=x", "a" * 39, "A" * 40, "HEAD", ""])
def test_a_commit_that_is_no_hash_is_passed_over(tmp_path, name):
    (tmp_path / "mac").mkdir()
    about = {"worse": True, "good": name, "bad": "b" * 40, "series": []}
    alerts.add(tmp_path, "mac", [{"alert": "0123abcd", "event": alerts.SUSPECTED} | about])
    known, problems = alerts.read(tmp_path, "mac")
    assert known == []
    assert len(problems) == 1
