"""What a night does about alerts: which are measured again, which commits may run for them, and what fails of it."""

import io
import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from synthetic import SECONDS, History

from scripts import alerts, bisect, command, history
from scripts.nightly import counted, plan, steps, work
from scripts.nightly.night import Night
from scripts.nightly.settings import Settings

BEGUN = {"event": alerts.SUSPECTED, "worse": True, "series": [["", SECONDS, "split/float32/a+b", 1.0, 1.1]]}


class Judging:
    """A night's last parts, in a repository of `count` commits; what its steps are asked, and their answers."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, count: int = 4) -> None:
        self.made = History(folder, count)
        (self.made.results / "mac").mkdir()
        monkeypatch.chdir(folder)
        plan.FOLDER.mkdir(parents=True)
        wanted = Settings(machine="mac", report=False)
        self.work = work.Work(wanted, Night("mac"), Console(file=io.StringIO()))
        self.lane = work.Lane("asv.conf.json", history.configuration(self.made.config))
        self.asked: list[tuple[str, ...]] = []
        self.answers: dict[str, Any] = {"scripts.confirm": self.confirmed}
        monkeypatch.setattr(steps, "run", self.run)

    def run(self, *asked: str, seconds: float = 0.0) -> steps.Done:
        self.asked.append(asked)
        answer = self.answers.get(asked[0], steps.Done(0, ["as it is"], []))
        return answer(*asked) if callable(answer) else answer

    def begin(self, *names: str, state: str = "", between: tuple[int, int] = (0, 3), **more: Any) -> None:
        """What a night, or anybody else, adds to the machine's file."""
        for name in names:
            commits = dict(zip(("good", "bad"), map(self.made.commits.__getitem__, between), strict=True))
            alerts.add(self.made.results, "mac", [{"alert": name} | BEGUN | commits | more])
            alerts.add(self.made.results, "mac", [{"alert": name, "event": state}] if state else [])

    def night(self, suspected: list[str]) -> Night:
        """What the judging of a night tells."""
        told = Night("mac")
        work.judge(self.work._replace(told=told), self.lane, suspected)
        return told

    def known(self) -> dict[str, alerts.Known]:
        return {one.name: one for one in alerts.read(self.made.results, "mac")[0]}

    def confirmed(self, *asked: str, state: str = alerts.CONFIRMED) -> steps.Done:
        """What scripts.confirm does."""
        name = asked[asked.index("--alert") + 1]
        alerts.add(self.made.results, "mac", [{"alert": name, "event": state}])
        return steps.Done(1, ["as it is"], [])

    def undecided(self, *asked: str) -> steps.Done:
        return self.confirmed(*asked, state=alerts.UNDECIDED)


@pytest.fixture
def judging(tmp_path, monkeypatch) -> Judging:
    return Judging(tmp_path, monkeypatch)


@pytest.fixture
def started(monkeypatch) -> list[str]:
    """The words of every process that was started."""
    words: list[str] = []
    begin = subprocess.Popen.__init__

    def start(self, arguments, *more, **others):
        words.extend(map(str, arguments))
        begin(self, arguments, *more, **others)

    monkeypatch.setattr(subprocess.Popen, "__init__", start)
    return words


class TestSearch:
    """Which commits a line of a file may have run."""

    @pytest.fixture
    def strangers(self, judging) -> list[str]:
        """Commits of the results branch, which are in the same repository and have code."""
        git, found = judging.made.git, []
        git("checkout", "-q", "--orphan", "results")
        (judging.made.folder / "adamw").mkdir()
        for number in range(3):
            (judging.made.folder / "adamw" / "__init__.py").write_text(f"open('ran', 'w')  # {number}")
            git("add", "adamw", "asv.conf.json")
            git("commit", "-q", "-m", "results")
            found.append(git("rev-parse", "HEAD"))
        git("checkout", "-q", "-f", "main")
        return found

    @pytest.mark.parametrize(("good", "bad"), [(True, True), (True, False), (False, True)])
    def test_a_commit_of_the_results_branch_is_given_to_no_process(self, judging, strangers, started, good, bad):
        named = {"good": strangers[0]} if good else {}
        named |= {"bad": strangers[2]} if bad else {}
        judging.begin("0123abcd", state=alerts.CONFIRMED, **named)
        told = judging.night(["0123abcd"])
        assert [asked[0] for asked in judging.asked] == ["scripts.confirm"]  # which takes what it sees by itself
        assert not [word for word in started for commit in strangers if commit[:7] in word]
        assert told.failed == []
        stranger = next(iter(named.values()))
        assert judging.known()["0123abcd"].culprit == f"not found: {stranger[:10]} is not on the searched branch"
        judging.asked.clear()
        judging.night([])
        assert judging.asked == []  # it is not asked for every night

    def test_nothing_at_all_is_started_for_it(self, judging, strangers, monkeypatch):
        judging.begin("0123abcd", good=strangers[0], bad=strangers[2])
        commits, _ = history.branch_commits(judging.lane.config)
        monkeypatch.setattr(subprocess, "Popen", None)
        known = judging.known()["0123abcd"]
        told = steps.search("asv.conf.json", judging.made.results, "mac", known, commits, Settings())
        assert told.startswith("not found: ")
        assert judging.asked == []

    @pytest.mark.parametrize(("good", "bad"), [(3, 0), (2, 2)])
    def test_nor_where_the_good_one_is_not_before_the_bad_one(self, judging, good, bad):
        judging.begin("0123abcd", state=alerts.CONFIRMED, between=(good, bad))
        judging.night([])
        assert judging.asked == []
        assert "does not come before" in judging.known()["0123abcd"].culprit

    def test_the_commit_right_after_needs_no_search(self, judging):
        judging.begin("0123abcd", state=alerts.CONFIRMED, between=(1, 2))
        judging.night([])
        assert judging.asked == []
        culprit = judging.known()["0123abcd"].culprit
        assert culprit == f"{judging.made.commits[2][:10]}: no other commit lies between"

    @pytest.mark.parametrize(
        ("answer", "culprit"),
        [
            (steps.Done(0, ["a", "b: 99.9% likely", "c", "d"], []), "b: 99.9% likely; c; d"),
            (steps.Done(2, [], ["error: no such case"]), "not found: error: no such case"),
            (steps.Done(1, [], ["KeyError: 'case'"]), "not found: KeyError: 'case'"),
        ],
    )
    def test_a_case_is_a_name_and_no_pattern_and_what_a_file_says_is_no_option(self, judging, answer, culprit):
        judging.answers["scripts.bisect"] = answer
        series = [["", "--lane=evil.json", "-.*|(a+)+b", 1.0, 1.1]]
        judging.begin("0123abcd", state=alerts.CONFIRMED, series=series)
        judging.night([])
        ((program, *asked),) = judging.asked
        assert program == "scripts.bisect"
        options = bisect.parser().parse_args(asked)
        first, *_, last = judging.made.commits
        assert (options.good, options.bad, options.metric) == (first, last, "--lane=evil.json")
        assert options.lane == Path("asv.conf.json")
        finds = re.compile(options.case).search
        assert [bool(finds(name)) for name in ("-.*|(a+)+b", "x", "-.*|(a+)+b/c", "aab")] == [True, False, False, False]
        assert judging.known()["0123abcd"].culprit == culprit


class TestTurns:
    """Six alerts, of which a night has time for four."""

    NAMES = [f"{number:08x}" for number in range(6)]

    def measured(self, judging) -> Counter[str]:
        return Counter(asked[asked.index("--alert") + 1] for asked in judging.asked)

    @pytest.mark.parametrize("code", [None, 1, 2, 124])
    def test_all_are_measured_about_equally_often(self, judging, code):
        """Also where each ends with an error: one of ours ends a command with 1, as if it were confirmed."""
        judging.begin(*self.NAMES)
        failed = steps.Done(code or 0, [], ["it broke"])
        judging.answers["scripts.confirm"] = judging.undecided if code is None else failed
        for _ in range(6):
            told = judging.night(self.NAMES)
            names = [] if code is None else [asked[asked.index("--alert") + 1] for asked in judging.asked[-4:]]
            assert told.failed == [f"confirm {name}: it broke" for name in names]
        assert self.measured(judging) == dict.fromkeys(self.NAMES, 4)
        assert {one.state for one in judging.known().values()} == {alerts.UNDECIDED}

    def test_what_is_new_is_measured_that_night(self, judging):
        judging.begin(*self.NAMES)
        judging.answers["scripts.confirm"] = judging.undecided
        judging.night(self.NAMES)
        judging.asked.clear()
        judging.begin("f" * 8)
        judging.night([*self.NAMES, "f" * 8])
        assert {"f" * 8, *self.NAMES[4:]} <= set(self.measured(judging))


class TestBoundaries:
    """Whatever goes wrong in a part of a night is one line, and the rest is done."""

    ERRORS = (command.UserError("wrong"), RuntimeError("wrong"), StopIteration("wrong"), MemoryError("wrong\n\x1b[31m"))

    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
    def test_one_alert_holds_up_no_other(self, judging, error):
        names = [f"{number:08x}" for number in range(3)]
        judging.begin(*names, state=alerts.CONFIRMED)

        def fail(*asked: str) -> steps.Done:
            if len(judging.asked) in (2, 5):
                raise error
            return judging.confirmed(*asked) if asked[0] == "scripts.confirm" else steps.Done(0, ["found"], [])

        judging.answers = {"scripts.confirm": fail, "scripts.bisect": fail}
        told = judging.night(names)
        assert [asked[0] for asked in judging.asked] == ["scripts.confirm"] * 3 + ["scripts.bisect"] * 3
        assert [one.split(":")[0] for one in told.failed] == [f"confirm {names[1]}", f"bisect {names[1]}"]
        assert all("wrong" in line and line.isprintable() for line in told.failed)
        assert [one.culprit for one in judging.known().values()] == ["found", "", "found"]
        assert [one.name for one in told.alerts] == names

    def look(self, judging, **settings: Any) -> Night:
        told = Night("mac")
        wanted = msgspec.structs.replace(judging.work.wanted, **settings)
        work.look(judging.work._replace(told=told, wanted=wanted), judging.lane, "a" * 40)
        return told

    @pytest.fixture
    def left(self, judging) -> Path:
        """What says that there is something to look at."""
        path = plan.to_look_at("asv.conf.json", "mac")
        path.touch()
        return path

    @pytest.fixture
    def seen(self, judging):
        """Has detect find an alert that is new."""

        def say(*names: str) -> None:
            listed = [{"alert": name, "state": "new", "worse": True} for name in names]
            judging.answers["scripts.detect"] = lambda *asked: (
                Path(asked[-1]).write_text(json.dumps({"alerts": listed})), steps.Done(1, ["it is new"], [])
            )[1]  # fmt: skip

        return say

    def test_what_is_done_is_not_looked_at_again(self, judging, left, seen):
        judging.begin("0123abcd")
        seen("0123abcd")
        told = self.look(judging)
        assert (told.failed, told.history, left.exists()) == ([], ["it is new"], False)
        assert [one.name for one in told.alerts] == ["0123abcd"]

    @pytest.mark.parametrize(
        ("answer", "why"),
        [
            (steps.Done(2, [], ["error: no results"]), "error: no results"),
            (steps.Done(1, [], ["KeyError: 'case'"]), "KeyError: 'case'"),
            (RuntimeError("odd"), "RuntimeError in"),
        ],
    )
    def test_a_search_that_fails_is_told_and_made_again(self, judging, left, answer, why):
        def run(*_: str) -> steps.Done:
            if isinstance(answer, Exception):
                raise answer
            return answer

        judging.answers["scripts.detect"] = run
        judging.begin("0123abcd", state=alerts.CONFIRMED)
        told = self.look(judging, report=True)
        (line,) = told.failed
        assert line.startswith(f"detect: {why}")
        assert [asked[0] for asked in judging.asked] == ["scripts.detect", "scripts.bisect", "scripts.report"]
        assert left.exists()

    @pytest.mark.parametrize("count", [4, 5])
    @pytest.mark.parametrize("state", [alerts.SUSPECTED, alerts.CONFIRMED])
    def test_what_had_no_turn_is_for_the_next_night(self, judging, left, seen, count, state):
        names = [f"{number:08x}" for number in range(count)]
        judging.begin(*names, state=state if state == alerts.CONFIRMED else "")
        seen(*(names if state == alerts.SUSPECTED else []))
        self.look(judging)
        assert left.exists() == (count == 5)

    def test_a_branch_that_cannot_be_read_hides_no_alert(self, judging, monkeypatch):
        def unreadable(config):
            raise command.UserError("no branch main here")

        judging.begin("0123abcd", state=alerts.CONFIRMED)
        monkeypatch.setattr(history, "branch_commits", unreadable)
        told = judging.night(["0123abcd"])
        assert told.failed == ["bisect: no branch main here"]
        assert [one.name for one in told.alerts] == ["0123abcd"]

    def test_alerts_that_cannot_be_read_hold_up_no_report(self, judging, left, seen, monkeypatch):
        def unreadable(results, machine):
            raise MemoryError

        seen()
        monkeypatch.setattr(alerts, "read", unreadable)
        monkeypatch.setattr(work, "newest_measured", lambda *_: None)
        (line,) = self.look(judging, report=True).failed
        assert line.startswith("alerts: MemoryError in ")
        assert [asked[0] for asked in judging.asked] == ["scripts.detect", "scripts.report"]
        assert left.exists()

    def test_counters_and_a_report_that_break_are_two_lines(self, judging, left, seen, monkeypatch):
        monkeypatch.setattr(work, "newest_measured", lambda *_: "b" * 40)
        monkeypatch.setattr(counted, "told", lambda *_: {}["case"])
        judging.answers["scripts.report"] = steps.Done(2, [], ["error: no space left"])
        seen()
        told = self.look(judging, report=True)
        first, last = told.failed
        assert first.startswith("what a step does: KeyError in test_judging.py:")
        assert last == "report: error: no space left"
        assert told.history == ["it is new"]

    @pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
    def test_who_interrupts_a_night_ends_it(self, judging, signal):
        def interrupted(*_: str) -> steps.Done:
            raise signal

        judging.answers["scripts.detect"] = interrupted
        with pytest.raises(signal):
            self.look(judging)
