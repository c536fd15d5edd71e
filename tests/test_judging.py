"""What a night does about alerts: which commits may run for them."""

import io
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from synthetic import SECONDS, History

from scripts import alerts, bisect, history
from scripts.nightly import plan, steps, work
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
        self.answers: dict[str, Any] = {}
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

    def stay_undecided(self, *asked: str) -> steps.Done:
        name = asked[asked.index("--alert") + 1]
        alerts.add(self.made.results, "mac", [{"alert": name, "event": alerts.UNDECIDED}])
        return steps.Done(3, [], [])


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
