"""The parts of a night without a night: its settings, its checks of a machine, its plan, its outcome in words."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import ledgers
import msgspec
import psutil
import pytest
from ledgers import MACHINE, entry
from markup import outside
from nights import wait_until
from synthetic import COPY, SECONDS, History

from benchmarks.harness import host, machine
from scripts import alerts, command, history, ledger, lines
from scripts.nightly import commit, counted, night, plan, preflight, record, settings, steps
from scripts.nightly.night import Night
from scripts.nightly.plan import INTERRUPTED, MISSED, NEWEST, Planned
from scripts.nightly.record import Tried
from scripts.nightly.settings import Check, Checks, Settings

ROOT = Path(__file__).parent.parent
TRIED = Tried("c" * 40, "asv.conf.json", "default", record.MEASURED, 60.0, 50.0, 3, {}, "", "")


class TestSettings:
    def test_the_file_says_the_defaults(self):
        assert settings.read(ROOT / "nightly.toml") == Settings()

    def test_what_is_left_out_keeps_its_default(self, tmp_path):
        path = tmp_path / "nightly.toml"
        path.write_text('profile = "full"\n[checks.disk]\nlimit = 7\n')
        read = settings.read(path)
        assert read.profile == "full"
        assert read.checks.disk == Check("refuse", limit=7.0)
        assert msgspec.structs.replace(read.checks, disk=Checks().disk) == Checks()

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("profil = 1", "unknown field `profil`"),
            ("[checks.power]\nthen = 'explode'", "Invalid enum value 'explode' - at `$.checks.power.then`"),
            ("hours = 'many'", "Expected `float`, got `str` - at `$.hours`"),
            ("hours = -1", ">= 0.0 - at `$.hours`"),
            ("[checks.cosmic_rays]", "unknown field `cosmic_rays`"),
            ("checks = 3", "Expected `object`, got `int` - at `$.checks`"),
            ("profile = 'fast'", "no profile 'fast'; choose one of: quick, default, full"),
            ("= 3", "nightly.toml"),
            ("\x00", "nightly.toml"),
        ],
    )
    def test_mistakes_are_named(self, tmp_path, text, says):
        path = tmp_path / "nightly.toml"
        path.write_text(text)
        with pytest.raises(command.UserError) as error:
            settings.read(path)
        assert says in str(error.value)
        assert "\n" not in str(error.value)
        is_toml = text[0] not in "=\x00"
        assert ("its comments say what each key is" in str(error.value)) == (is_toml and "profile" not in text)

    def test_no_file(self, tmp_path):
        with pytest.raises(command.UserError, match="name another with --settings"):
            settings.read(tmp_path / "none.toml")

    def test_the_command_line_comes_last(self):
        assert settings.with_options(Settings(), profile="full", push=None) == Settings(profile="full")


class TestChecks:
    @pytest.mark.parametrize(("plugged", "fit", "says"), [(True, True, "on mains"), (False, False, "on battery")])
    def test_power(self, monkeypatch, plugged, fit, says):
        monkeypatch.setattr(
            preflight.psutil, "sensors_battery", lambda: SimpleNamespace(power_plugged=plugged), raising=False
        )
        assert preflight.power(Check()) == (fit, says)

    def test_power_of_an_unknown_source(self, monkeypatch):
        battery = SimpleNamespace(power_plugged=None)
        monkeypatch.setattr(preflight.psutil, "sensors_battery", lambda: battery, raising=False)
        assert preflight.power(Check()).fit is None

    def test_a_device_that_does_not_answer(self, monkeypatch):
        monkeypatch.setattr(preflight, "DEVICE_SECONDS", 0.01)
        found = preflight.device(Check())
        assert found.fit is False
        assert "does not answer" in found.says

    def test_power_without_a_battery(self, monkeypatch):
        monkeypatch.setattr(preflight.psutil, "sensors_battery", lambda: None, raising=False)
        assert preflight.power(Check()).fit
        monkeypatch.delattr(preflight.psutil, "sensors_battery")
        assert preflight.power(Check()).fit

    @pytest.mark.parametrize(("level", "limit", "fit"), [(0, 0, True), (1, 0, False), (1, 1, True), (None, 0, None)])
    def test_thermal(self, monkeypatch, level, limit, fit):
        monkeypatch.setattr(machine, "conditions", lambda: {"load": 0.0, "thermal_pressure": level})
        assert preflight.thermal(Check(limit=limit)).fit is fit

    def test_load_disk_and_memory_have_limits(self, monkeypatch):
        monkeypatch.setattr(preflight.psutil, "cpu_percent", lambda interval: 30.0)
        monkeypatch.setattr(preflight.psutil, "virtual_memory", lambda: SimpleNamespace(available=3e9))
        monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: SimpleNamespace(free=4e9))
        for look, fine, not_fine in (
            (preflight.load, 31, 29), (preflight.memory, 2, 4), (preflight.disk, 3, 5)
        ):  # fmt: skip
            assert look(Check(limit=fine)).fit
            assert not look(Check(limit=not_fine)).fit
            assert look(Check()).fit

    @pytest.mark.parametrize(
        ("code", "out", "expect", "fit", "says"),
        [
            (0, ["Metal", "Apple M4", "Apple M4, 16 GiB"], "", True, "Apple M4, 16 GiB"),
            (0, ["Metal", "Apple M4", "Apple M4, 16 GiB"], "Metal", True, "Apple M4, 16 GiB"),
            (0, ["CPU", "Intel", "Intel"], "Metal", False, "MLX runs on CPU, Metal is expected"),
            (0, ["Metal", "Apple Paravirtual device", "x"], "", False, "a virtual machine's GPU"),
            (1, "Traceback\nImportError: no mlx", "", False, "MLX does not run: ImportError: no mlx"),
        ],
    )
    def test_device(self, monkeypatch, code, out, expect, fit, says):
        done = SimpleNamespace(returncode=code, stdout=json.dumps(out), stderr=out if code else "")
        monkeypatch.setattr(preflight.subprocess, "run", lambda *_, **__: done)
        found = preflight.device(Check(expect=expect))
        assert found.fit is fit
        assert says in found.says

    def test_the_real_device(self, at_root):
        assert preflight.device(Check(expect="CPU" if machine.backend() == "CPU" else "")).fit

    @pytest.mark.parametrize(("ahead", "fit"), [(0, True), (3000, True), (90000, True), (-3000, True), (-90000, False)])
    def test_a_clock_is_not_behind_the_newest_commit(self, monkeypatch, ahead, fit):
        monkeypatch.setattr(preflight.git, "committed_at", lambda commit: 1_700_000_000)
        monkeypatch.setattr(preflight.time, "time", lambda: 1.7e9 + ahead)
        assert preflight.clock(Check(limit=1.0)).fit is fit

    @pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "file:///etc/passwd", "nonsense", "http://[::"])
    def test_a_server_that_does_not_answer_is_no_reason(self, url):
        found = preflight.clock(Check(url=url))
        assert found.fit is None
        assert "does not answer" in found.says

    def test_awake(self, monkeypatch):
        monkeypatch.setattr(preflight, "HERE", host.Linux())
        assert preflight.awake(Check()).fit is None
        monkeypatch.setattr(preflight, "HERE", host.Mac())
        for names, fit in ((["caffeinate"], True), (["zsh"], False), ([], False)):
            children = [SimpleNamespace(name=lambda name=name: name) for name in names]
            monkeypatch.setattr(
                preflight.psutil, "Process", lambda found=children: SimpleNamespace(children=lambda: found)
            )
            assert preflight.awake(Check()).fit is fit

    def test_there_is_a_setting_for_every_check(self):
        assert list(preflight.CHECKS) == list(Checks.__struct_fields__)


class TestPolicy:
    """What follows from a check that fails."""

    @pytest.fixture
    def outcome(self, monkeypatch):
        def run(then, *told, minutes=1.0, **more):
            findings = iter(told)
            monkeypatch.setattr(
                preflight, "CHECKS", {"power": lambda check: preflight.Finding(next(findings), "as it is")}
            )
            monkeypatch.setattr(preflight.time, "sleep", lambda seconds: None)
            said: list[str] = []
            return preflight.run(Checks(power=Check(then, minutes=minutes)), said.append, **more), said

        return run

    def test_pass(self, outcome):
        assert outcome("pass", False)[0] == ([], [], ["power: as it is"])

    def test_degrade(self, outcome):
        assert outcome("degrade", False)[0] == ([], ["as it is"], ["power: as it is (the results are marked)"])

    def test_refuse(self, outcome):
        assert outcome("refuse", False)[0] == (["as it is"], [], ["power: as it is (refused)"])

    def test_wait_until_it_is_fit(self, outcome):
        found, said = outcome("wait", False, False, True)
        assert found == ([], [], ["power: as it is"])
        assert said[:2] == ["waiting, at most 1 min: as it is"] * 2

    def test_wait_no_longer_than_that(self, outcome):
        assert outcome("wait", False, minutes=0.0)[0].marks == ["as it is"]
        assert outcome("wait", False, wait=False)[0].marks == ["as it is"]

    @pytest.mark.parametrize("then", ["pass", "wait", "degrade", "refuse"])
    @pytest.mark.parametrize("fit", [True, None])
    def test_what_is_fit_or_unknown_has_no_consequence(self, outcome, then, fit):
        assert outcome(then, fit)[0] == ([], [], ["power: as it is"])


class TestPlan:
    COMMITS = ("a", "b", "c", "d", "e")

    @pytest.mark.parametrize(
        ("known", "begun", "expected"),
        [
            ("", "", [("e", NEWEST)]),
            ("abcde", "", []),
            ("b", "", [("e", NEWEST), ("c", MISSED), ("d", MISSED)]),
            ("bde", "", [("c", MISSED)]),
            ("be", "d", [("d", INTERRUPTED), ("c", MISSED)]),
            ("b", "e", [("e", INTERRUPTED), ("c", MISSED), ("d", MISSED)]),
            ("", "a", [("e", NEWEST), ("a", INTERRUPTED)]),
        ],
    )
    def test_order(self, known, begun, expected):
        assert plan.order(self.COMMITS, set(known), set(begun)) == [Planned(*one) for one in expected]

    @pytest.fixture
    def made(self, tmp_path, monkeypatch) -> History:
        made = History(tmp_path, 4)
        monkeypatch.chdir(tmp_path)
        plan.FOLDER.mkdir(parents=True)
        return made

    def planned(self, made) -> list[Planned]:
        return plan.plan(history.configuration(made.config), "lane.json", made.results, "mac", "default")

    def test_results_that_no_night_measured_count_but_not_of_the_newest(self, made):
        whole = {SECONDS: {"a/b": 1.0}, COPY: {"": 1.0}}
        made.add(0, whole, "mac")
        made.add(1, whole | {SECONDS: {"a/b": None}}, "mac")
        made.add(2, {SECONDS: {"a/b": 1.0}}, "mac")  # somebody looked at one figure
        made.add(3, whole, "mac")
        assert [one.commit for one in self.planned(made)] == [made.commits[3], made.commits[1], made.commits[2]]
        made.add(1, whole, "another")
        assert [one.commit for one in self.planned(made)] == [made.commits[3], made.commits[1], made.commits[2]]

    @pytest.mark.parametrize(("profile", "again"), [("quick", True), ("default", False), ("full", False)])
    def test_what_was_measured_with_a_smaller_profile_is_measured_again(self, made, profile, again):
        for name in made.commits:
            record.add(made.results, "mac", TRIED._replace(commit=name, lane="lane.json", profile=profile))
        assert bool(self.planned(made)) == again

    def test_a_commit_is_tried_twice(self, made):
        made.add(0, {SECONDS: {"a/b": 1.0}, COPY: {"": 1.0}}, "mac")
        failed = TRIED._replace(commit=made.commits[3], lane="lane.json", outcome=record.NOT_INSTALLED)
        record.add(made.results, "mac", failed)
        assert self.planned(made)[0] == (made.commits[3], NEWEST)
        record.add(made.results, "mac", failed)
        assert self.planned(made)[0] == (made.commits[1], MISSED)

    def test_another_lanes_commits_are_its_own(self, made):
        record.add(made.results, "mac", TRIED._replace(commit=made.commits[3], lane="another.json"))
        assert self.planned(made)[0] == (made.commits[3], NEWEST)

    def test_what_was_interrupted(self, made):
        for number in (3, 1):
            record.add(made.results, "mac", TRIED._replace(commit=made.commits[number], lane="lane.json"))
        plan.pointer("lane.json", "mac", made.commits[3]).touch()
        gone = plan.pointer("lane.json", "mac", "0" * 40)
        gone.touch()
        assert self.planned(made) == [(made.commits[3], INTERRUPTED), (made.commits[2], MISSED)]
        assert gone.exists()  # who plans only reads

    def test_old_logs_go(self, made, monkeypatch):
        monkeypatch.setattr(plan, "LOGS", 2)
        for number in range(4):
            (plan.FOLDER / f"{number}.log").touch()
        plan.remove_old_logs()
        assert len(list(plan.FOLDER.glob("*.log"))) == 2


class TestRecord:
    def test_lines_come_back_and_odd_ones_are_passed_over(self, tmp_path):
        record.add(tmp_path, "mac", TRIED)
        with (tmp_path / "mac" / record.FILE).open("a") as file:
            file.write('[]\n{"commit": 1}\nnonsense\n' + json.dumps(TRIED._asdict() | {"outcome": "odd"}) + '\n{"cut')
        record.add(tmp_path, "mac", TRIED._replace(commit="d" * 40))
        assert [one.commit for one in record.read(tmp_path, "mac")] == ["c" * 40, "d" * 40]
        assert record.read(tmp_path, "nobody") == []

    def test_too_large_a_file(self, tmp_path, monkeypatch):
        record.add(tmp_path, "mac", TRIED)
        monkeypatch.setattr(lines, "LARGEST_FILE", 3)
        with pytest.raises(command.UserError, match="shorten it"):
            record.read(tmp_path, "mac")


class TestOutcome:
    """What asv's run of a commit came to."""

    ENTRIES = ({"what": "machine"}, {"what": "case", "case": "a/b/c"})
    FAILED = {"what": "failure", "case": "x/y/z", "message": "wrong\nresult"}

    def judged(self, entries, log=""):
        return commit.judged("c" * 40, "asv.conf.json", list(entries), log)

    def test_measured(self):
        told = self.judged(self.ENTRIES)
        assert (told.outcome, told.cases, told.missing) == (record.MEASURED, 1, {})

    def test_in_part(self):
        told = self.judged([*self.ENTRIES, self.FAILED])
        assert (told.outcome, told.missing) == (record.PARTLY, {"x/y/z": "wrong result"})

    def test_nothing(self):
        told = self.judged([self.ENTRIES[0], self.FAILED])
        assert (told.outcome, told.reason) == (record.NOTHING, "wrong result")
        assert self.judged([self.ENTRIES[0]]).reason == "every case was skipped"

    def test_a_case_that_would_fit_an_idle_machine_is_missing(self):
        told = self.judged([*self.ENTRIES, {"what": "skipped", "case": "x/y/z", "message": "needs 3 GB"}])
        assert (told.outcome, told.missing) == (record.PARTLY, {"x/y/z": "needs 3 GB"})

    def test_not_installed(self):
        log = f"error: first\n x ModuleNotFoundError: No module named 'q'\nerror: last\n{commit.NOT_BUILT} and import"
        told = self.judged([], log)
        assert told.outcome == record.NOT_INSTALLED
        assert told.reason.endswith("No module named 'q'")

    def test_marks(self):
        assert self.judged([self.ENTRIES[0] | {"marks": "on battery"}, self.ENTRIES[1]]).marks == "on battery"


KNOWN = alerts.Known("0123abcd", "mac", alerts.CONFIRMED, True, "a" * 40, "b" * 40, {}, "+9 %", "commit b")


class TestNight:
    @pytest.mark.parametrize(
        ("told", "code"),
        [
            ({}, night.GREEN),
            ({"tried": [TRIED]}, night.GREEN),
            ({"tried": [TRIED], "alerts": [KNOWN]}, night.SLOWER),
            ({"tried": [TRIED], "alerts": [KNOWN._replace(worse=False)]}, night.GREEN),
            ({"tried": [TRIED], "alerts": [KNOWN._replace(state=alerts.REFUTED)]}, night.GREEN),
            ({"tried": [TRIED], "failed": ["report: no"]}, night.PARTLY),
            ({"tried": [TRIED, TRIED._replace(outcome=record.NOT_INSTALLED)]}, night.PARTLY),
            ({"tried": [TRIED._replace(outcome=record.PARTLY)]}, night.PARTLY),
            ({"tried": [TRIED._replace(outcome=record.NOTHING)]}, night.NOTHING),
            ({"failed": ["asv did not run"]}, night.NOTHING),
            ({"refused": ["on battery"]}, night.UNFIT),
            ({"newest": "0123abcd: does not install"}, night.NOTHING),
            ({"newest": "0123abcd: does not install", "quiet": ["mlx"]}, night.PARTLY),
            ({"tried": [TRIED._replace(outcome=record.NOT_INSTALLED)], "quiet": ["adamw"]}, night.PARTLY),
            ({"failed": ["mlx: cannot clone"], "quiet": ["adamw"]}, night.PARTLY),
            ({"tried": [TRIED], "error": "OSError: disk"}, night.ERROR),
            ({"interrupted": 129}, 129),
            ({"unpushed": {"a": "no network"}}, night.NOT_PUSHED),
            ({"tried": [TRIED], "interrupted": 143}, 143),
        ],
    )
    def test_the_exit_code(self, told, code):
        made = Night("mac", **told)
        assert made.code == code
        assert made.verdict
        assert night.summary(made).startswith("## AdamW on `mac`: ")
        assert json.loads(json.dumps(made.as_json()))["code"] == code

    def test_every_code_has_its_meaning_in_the_readme(self):
        text = (ROOT / "NIGHTLY.md").read_text()
        for code in night.MEANINGS:
            assert f"{code}" in text

    def test_a_summary_tells_all(self):
        made = Night(
            "mac", checks=["power: on mains"], tried=[TRIED._replace(missing={"x": "x: wrong"}, marks="hot")], left=3,
            failed=["report: no"], alerts=[KNOWN], exact=["worse eager"], history=["1 confirmed"],
            unpushed={"a": "gone"},
        )  # fmt: skip
        text = night.summary(made)
        expected = [
            "| cccccccc | measured | 3 | 1 | 1.0 | `hot` |",
            "3 more commits",
            "cccccccc, x: wrong",
            "report: no",
            "| 0123abcd | confirmed |",
            "aaaaaaaa..bbbbbbbb",
            "    worse eager",
            "    1 confirmed",
            "gone",
            "    power: on mains",
        ]
        for told in expected:
            assert told in text

    def test_hostile_text_stays_text(self):
        hostile = "<script>alert(1)</script> | `x` [a](javascript:x) @all\n# heading " + "y" * 10_000
        made = Night(
            hostile, refused=[hostile], tried=[TRIED._replace(reason=hostile, missing={"x": hostile})],
            failed=[hostile], alerts=[KNOWN._replace(reason=hostile)], unpushed={"a": hostile},
        )  # fmt: skip
        text = night.summary(made)
        told = outside(text)
        assert not [odd for odd in ("script", "javascript", "@all", "heading") if odd in told]
        assert all(line.count("|") == 7 for line in text.splitlines() if line.startswith("| cccc"))
        assert len(text) < 20_000

    def test_long_lists_are_counted(self):
        made = Night("mac", exact=[f"line {number}" for number in range(99)])
        assert f"and {99 - night.MOST} more lines" in night.summary(made)


class TestCounted:
    """What changed in the work of a step, from two ledgers."""

    def write(self, folder: Path, commit: str, **work) -> None:
        one = entry("compiled/float32/gpt2", 0.1)
        one["measurement"]["work"] |= work
        (folder / "mac").mkdir(exist_ok=True)
        ledgers.add(folder / "mac" / f"{commit[:8]}-env.jsonl", ledger.with_ceiling([MACHINE, one]))

    def test_the_same(self, tmp_path):
        self.write(tmp_path, "a" * 40)
        self.write(tmp_path, "b" * 40)
        (line,) = counted.told(tmp_path, "mac", "a" * 40, "b" * 40)
        assert (
            line == "aaaaaaaa to bbbbbbbb: 0 worse, 0 changed, 0 better, 1 the same in all figures that both sides tell"
        )

    def test_worse(self, tmp_path):
        self.write(tmp_path, "a" * 40)
        self.write(tmp_path, "b" * 40, kernels=296, fused_kernels=296)
        lines = " ".join(" ".join(counted.told(tmp_path, "mac", "a" * 40, "b" * 40)).split())
        assert "worse compiled float32/gpt2 2 kernels a leaf, was 1" in lines
        assert "1 worse" in lines

    def test_nothing_to_compare(self, tmp_path):
        self.write(tmp_path, "b" * 40)
        (line,) = counted.told(tmp_path, "mac", "a" * 40, "b" * 40)
        assert line == "what a step does cannot be compared: aaaaaaaa has no counters of these cases"

    def test_odd_entries_are_left_out(self, tmp_path):
        self.write(tmp_path, "a" * 40)
        self.write(tmp_path, "b" * 40, from_the_future=1)
        assert "cannot be compared: bbbbbbbb" in counted.told(tmp_path, "mac", "a" * 40, "b" * 40)[0]


def running(code: str) -> list[list[str]]:
    """The processes whose last word is `code`."""
    lines = [one.info["cmdline"] or [""] for one in psutil.process_iter(["cmdline"])]
    return [line for line in lines if line[-1] == code]


class TestSteps:
    def test_a_step_that_fails_says_why(self, at_root):
        done = steps.run("scripts.table", "--machine", "nobody")
        assert done.code == 2
        assert "nobody" in done.last

    def test_a_step_that_takes_too_long_ends(self, at_root):
        done = steps.run("timeit", "-n1", "-r1", "import time; time.sleep(100)", seconds=0.5)
        assert done.code == 124
        assert "took longer than 0 s" in done.last or "took longer than 1 s" in done.last

    def test_what_a_step_started_ends_with_it(self, at_root):
        code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(987)'])"
        steps.run("timeit", "-n1", "-r1", code, seconds=2.0)
        assert wait_until(lambda: not running("import time; time.sleep(987)"), 20)  # who is killed may take a moment

    def test_what_it_starts_while_it_ends_does_as_well(self, at_root, tmp_path):
        started = tmp_path / "started"
        late = f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(986)']), open({str(started)!r}, 'w')"
        code = (
            f"import signal, subprocess, sys, time; signal.signal(15, lambda *_: ({late}, sys.exit())); time.sleep(60)"
        )
        steps.run("timeit", "-n1", "-r1", code, seconds=3.0)
        assert started.exists()
        assert wait_until(lambda: not running("import time; time.sleep(986)"), 20)  # who is killed may take a moment

    def test_a_step_ends_with_the_night(self, at_root):
        parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        environment = os.environ | {command.PARENT: str(parent.pid)}
        waits = "from scripts import command; import time; command.run(lambda: time.sleep(600))"
        child = subprocess.Popen([sys.executable, "-c", waits], env=environment, stderr=subprocess.DEVNULL)
        time.sleep(1)
        assert child.poll() is None
        parent.kill()
        parent.wait()
        assert child.wait(timeout=60) == 0  # 130 is returned to whoever called
