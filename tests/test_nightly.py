"""Whole nights, run by real asv on a tiny suite: what they measure, share and say, and what nothing can destroy."""

import http.server
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import psutil
import pytest
from nights import CASES, SETTINGS, VARIANTS, Night, Quick, replace, wait_until

from scripts import ledger, runs
from scripts.nightly import night, record

pytestmark = pytest.mark.slow

KILLS = 4


@pytest.fixture
def a_night(tmp_path, environments) -> Night:
    return Night(tmp_path, environments)


@pytest.fixture
def quick(tmp_path) -> Quick:
    """Nights whose measuring is not what is tested."""
    return Quick(tmp_path)


def complete(made: Night, commit: str = "HEAD") -> bool:
    """Whether all cases of a commit are in asv's results once, and in the ledger once."""
    assert sorted(made.seconds(commit)) == sorted(made.cases)
    by_case = ledger.by_case(made.ledger(commit))
    assert {case: len(entries) for case, entries in by_case.items()} == dict.fromkeys(made.cases, 1)
    return True


@pytest.fixture
def yesterday():
    """The address of a server whose clock is a day behind this one's."""

    class Yesterday(http.server.BaseHTTPRequestHandler):
        def date_time_string(self, timestamp=None):
            return format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)

        def do_HEAD(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Yesterday)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_a_night_measures_shares_and_reports_and_the_next_has_nothing_to_do(a_night, tmp_path, yesterday):
    """On a machine whose clock is a day off, which the results say."""
    a_night.settings(f'{SETTINGS.replace("report = false", "")}[checks.clock]\nurl = "{yesterday}"\n')
    code, out = a_night.run("--summary", str(tmp_path / "summary.md"), "--json", str(tmp_path / "night.json"))
    assert code == night.GREEN, out
    assert complete(a_night)
    head = a_night.git("rev-parse", "HEAD")
    told = json.loads((tmp_path / "night.json").read_text())
    measured = [(one["commit"], one["outcome"], one["cases"]) for one in told["commits"]]
    assert measured == [(head, "measured", len(CASES))]
    summary = (tmp_path / "summary.md").read_text()
    assert f"| {head[:8]} | measured | {len(CASES)} | 0 |" in summary
    assert (a_night.path / ".asv" / "html" / "index.html").exists()
    assert "clock: the clock is +864" in out
    (tried,) = a_night.tried()
    assert tried.marks.startswith("the clock is +864")
    assert ledger.marks(a_night.ledger()) == tried.marks
    on_branch = a_night.branch()  # which there was not before
    assert {name: (a_night.path / "results" / name).read_text() for name in shared(a_night)} == on_branch
    assert a_night.git("status", "--porcelain", "--", "adamw", "benchmarks", "scripts") == ""
    assert a_night.git("worktree", "list").count("\n") == 0
    assert list((a_night.path / ".asv" / "tmp").iterdir()) == []
    assert not a_night.processes()

    before = {path: path.read_bytes() for path in (a_night.path / "results").rglob("*") if path.is_file()}
    code, out = a_night.run()
    assert code == night.GREEN
    assert "nothing new" in out
    assert "measured " not in out
    assert before == {path: path.read_bytes() for path in (a_night.path / "results").rglob("*") if path.is_file()}


def test_the_newest_commit_first_then_what_was_missed_the_oldest_first_as_long_as_there_is_time(quick, tmp_path):
    assert quick.run()[0] == night.GREEN
    commits = [quick.commit(f"number {number}") for number in range(3)]
    quick.settings(SETTINGS.replace("hours = 1", "hours = 0"))
    code, out = quick.run("--summary", str(tmp_path / "summary.md"))
    assert code == night.GREEN, out
    assert [one.commit for one in quick.tried()][1:] == [commits[2]]
    assert "2 more commits are left" in (tmp_path / "summary.md").read_text()
    assert "0 worse" in (tmp_path / "summary.md").read_text()  # beside the commit of the night before, counted
    quick.settings(SETTINGS)
    code, out = quick.run()
    assert code == night.GREEN, out
    assert [one.commit for one in quick.tried()][2:] == [commits[0], commits[1]]
    assert all(complete(quick, commit) for commit in commits)


def kill_and_rerun(made: Night, kills: int) -> None:
    """Kill nights at random moments until so many were, then let one end: everything is there, once."""
    chance = random.Random(1)
    measured: set[str] = set()
    for _ in range(kills):
        process = made.start()
        time.sleep(chance.uniform(0.5, 14))
        made.kill(process)
        assert wait_until(lambda: not made.processes(), 10), made.processes()
        for path in (made.path / "results").rglob("*.json"):
            json.loads(path.read_text())  # whole, whenever it was killed
        now = finished_cases(made)
        assert measured <= now  # what was measured stays measured
        measured = now
    code, out = made.run()
    assert code == night.GREEN, out
    assert complete(made)
    assert not any(f"measured {case}" in out for case in measured)
    head = made.git("rev-parse", "HEAD")
    assert [(one.commit, one.outcome) for one in made.tried()] == [(head, record.MEASURED)]
    assert not list((made.path / ".asv" / "night").glob("*.run"))
    assert len(runs.paths(made.path / "results" / made.machine)) == 1  # who begins again goes on
    assert not list((made.path / "results").rglob("*.partial"))
    assert shared(made) == set(made.branch())


def shared(made: Night) -> set[str]:
    """What of a checkout's results belongs on the branch."""
    folder = made.path / "results" / made.machine
    found = [*runs.paths(folder), folder / "nights.jsonl", folder / "machine.json"]
    return {f"{made.machine}/{path.relative_to(folder)}" for path in found}


def finished_cases(made: Night) -> set[str]:
    found = runs.paths(made.path / "results" / made.machine)
    return {case for path in found for case in ledger.by_case(runs.entries(path))}


def test_killed_at_random_moments_nothing_is_lost_and_nothing_twice(a_night):
    kill_and_rerun(a_night, KILLS)


@pytest.mark.thorough
def test_killed_at_twenty_random_moments(a_night):
    kill_and_rerun(a_night, 20)


def test_a_runner_that_is_told_to_end_does_and_the_next_goes_on(a_night, tmp_path):
    process = a_night.start("--summary", str(tmp_path / "summary.md"))
    assert wait_until(lambda: finished_cases(a_night), 90)
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)  # what the issue of a runner gives: a limit, not a figure
    assert time.monotonic() - begin < 30
    assert process.returncode == 143
    assert "Traceback" not in out
    assert "interrupted" in (tmp_path / "summary.md").read_text()
    assert wait_until(lambda: not a_night.processes(), 10)
    before = finished_cases(a_night)
    assert before
    code, out = a_night.run()
    assert code == night.GREEN, out
    assert complete(a_night)
    assert not any(f"measured {case}" in out for case in before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_full_disk_loses_nothing(a_night):
    results = a_night.path / "results"
    results.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "none", str(results)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        (results / "filler").write_bytes(b"x" * 50_000)  # what is left holds the descriptions, and not all results
        code, out = a_night.run()
        assert code in (night.NOTHING, night.ERROR), out
        assert "No space left on device" in out or "No space left on device" in logs(a_night)
        assert not [path for path in results.rglob("*") if path.name.endswith(".partial")]
        kept = finished_cases(a_night)
        assert kept < set(CASES)
        (results / "filler").unlink()
        code, out = a_night.run()
        assert code == night.GREEN, out
        assert complete(a_night)
        assert not any(f"measured {case}" in out for case in kept)  # no case a second time
    finally:
        subprocess.run(["umount", str(results)], check=True)


def logs(made: Night) -> str:
    return "".join(path.read_text() for path in (made.path / ".asv" / "night").glob("*.log"))


CRASHES, HANGS = "__import__('os').abort()", "__import__('time').sleep(1000)"
EATS = "held = [bytearray(b'x') * 2**26 for _ in iter(int, 1)]"
MISBEHAVIOUR = {"compiled": ("pass", CRASHES), "eager": (EATS, HANGS)}
"""Of each variant: what it does with one leaf, and with two, before a step."""


def test_cases_that_misbehave_take_no_other_with_them(a_night):
    replace(a_night.path / "benchmarks/harness/suite.py", [("timeout = 1800", "timeout = 20")])
    a_night.settings(f"memory_floor_gb = {psutil.virtual_memory().available / 1e9 - 5}\n{SETTINGS}")
    for variant, (with_one, with_two) in MISBEHAVIOUR.items():
        path = a_night.path / f"adamw/variants/{variant}.py"
        lines = [
            "original = AdamW.apply_gradients",
            "def misbehaving(self, gradients, parameters):",
            "    if isinstance(parameters['weight'], list):",
            f"        {with_two}",
            "    else:",
            f"        {with_one}",
            "    return original(self, gradients, parameters)",
            "AdamW.apply_gradients = misbehaving",
        ]
        path.write_text("\n".join([path.read_text(), *lines, ""]))
    a_night.git("add", "-A", "adamw")
    a_night.commit("three cases misbehave")
    code, out = a_night.run()
    assert code == night.PARTLY, out
    bad = ["compiled/float32/two_leaves", "eager/float32/one_leaf", "eager/float32/two_leaves"]
    assert sorted(a_night.seconds()) == sorted(set(CASES) - set(bad))
    (tried,) = a_night.tried()
    assert sorted(tried.missing) == bad
    assert all("died: out of memory, a crash, or asv's time-out" in reason for reason in tried.missing.values())
    assert "killed a process that held" in out
    assert not a_night.processes()
    assert a_night.run()[0] == night.GREEN  # they are not tried for ever


def test_without_a_network_the_results_stay_and_the_next_night_pushes(quick):
    moved = quick.origin.with_name("away")
    quick.origin.rename(moved)
    code, out = quick.run()
    assert code == night.NOT_PUSHED, out
    assert "cannot be reached" in out
    assert complete(quick)
    moved.rename(quick.origin)
    assert quick.run()[0] == night.GREEN
    assert shared(quick) == set(quick.branch())


def test_a_result_that_stays_here_is_told_and_the_night_is_not_all_well(quick):
    assert quick.run()[0] == night.GREEN
    quick.commit("third")
    damaged = quick.path / "results" / quick.machine / "runs" / "deadbeef-0123456789abcdef.jsonl"
    damaged.write_text("{")
    code, out = quick.run("--summary", str(quick.folder / "night.md"))
    assert code == night.NOT_PUSHED, out
    assert f"left out: {quick.machine}/runs/{damaged.name}: it does not say what it is of" in out
    told = f"Not pushed: `night/runs/{damaged.name}: it does not say what it is of"
    assert told in (quick.folder / "night.md").read_text()
    damaged.unlink()
    (damaged.parent / ".DS_Store").write_text("a Mac's")
    assert quick.run()[0] == night.GREEN


def test_of_two_nights_the_second_leaves_or_waits(quick):
    first = quick.start()
    assert wait_until(lambda: list((quick.path / ".asv" / "night").glob("*.log")), 60)
    code, out = quick.run()
    assert code == night.ANOTHER
    assert "another night is under way" in out
    quick.settings(f"wait_minutes = 3\n{SETTINGS}")
    waiting = quick.start()
    out, _ = first.communicate()
    assert first.returncode == night.GREEN, out
    out, _ = waiting.communicate()
    assert waiting.returncode == night.GREEN
    assert "nothing new" in out
    assert complete(quick)


def test_odd_things_on_the_branch_and_a_new_main_are_no_obstacle(quick, tmp_path):
    assert quick.run()[0] == night.GREEN
    lost = quick.git("rev-parse", "HEAD")
    name = next(name for name in quick.branch() if "/runs/" in name and lost[:8] in name)
    corrupt = tmp_path / "corrupt"
    quick.call("git", "clone", "-q", "-b", "results", str(quick.origin), str(corrupt), where=tmp_path)
    (corrupt / name).write_text('{"half')
    (corrupt / "other").mkdir()
    (corrupt / "other" / "machine.json").write_text("[]")
    (corrupt / "other" / f"{lost[:8]}-env.json").write_text("\x00")
    (corrupt / quick.machine / "deadbeef-env.json").write_text("[1]")
    (corrupt / ".git" / "info" / "exclude").write_text("")
    quick.call("git", "add", "-A", where=corrupt)
    quick.call("git", "commit", "-q", "-m", "damage", where=corrupt)
    quick.call("git", "push", "-q", "origin", "results", where=corrupt)

    quick.git("commit", "-q", "--amend", "--allow-empty", "-m", "another history")
    quick.git("push", "-q", "--force", "origin", "main")
    (of_asv,) = (quick.path / "results" / quick.machine).glob(f"{lost[:8]}-*.json")
    of_asv.write_text('{"damaged here')
    code, out = quick.run()
    assert code == night.GREEN, out
    assert complete(quick)
    assert quick.git("rev-parse", "HEAD") != lost


def test_a_commit_that_does_not_install_is_named_and_tried_twice(a_night):
    a_night.commit("broken", "pyproject.toml", '[build-system]\nrequires = []\nbuild-backend = "nothing"\n')
    for _ in range(2):
        code, out = a_night.run()
        assert code == night.NOTHING, out
        assert "does not install, 0 cases" in out
        assert "No module named 'nothing'" in out
    code, out = a_night.run()
    assert code == night.NOTHING  # given up, and not forgotten
    assert "nothing new" in out


def test_a_night_in_which_every_case_fails_is_red(a_night):
    for variant in VARIANTS:
        source = (a_night.path / f"adamw/variants/{variant}.py").read_text()
        (a_night.path / f"adamw/variants/{variant}.py").write_text(
            source
            + "\n    def apply_gradients(self, gradients, parameters):\n        raise ValueError('no such thing')\n"
        )
    a_night.git("add", "-A", "adamw")
    a_night.commit("all broken")
    code, out = a_night.run()
    assert code == night.NOTHING, out
    (tried,) = a_night.tried()
    assert "no such thing" in tried.reason


def test_a_machine_that_is_not_fit_measures_nothing(quick):
    quick.settings(SETTINGS.replace("limit = 0.1", "limit = 1e9"))
    code, out = quick.run()
    assert code == night.UNFIT
    assert "GB of disk free (refused)" in out
    assert not (quick.path / "results" / quick.machine).exists()
    assert quick.run("--dry-run")[0] == night.UNFIT


def test_a_dry_run_writes_nothing(quick):
    before = quick.git("status", "--porcelain", "--ignored")
    code, out = quick.run("--dry-run")
    assert code == night.GREEN
    assert "would measure" in out
    assert quick.git("status", "--porcelain", "--ignored") == before


def test_a_fleet_shares_one_branch_and_one_report_shows_all(tmp_path):
    first = Quick(tmp_path / "mac-one", machine="mac-one")
    others = [Quick(tmp_path / name, origin=first.origin, machine=name) for name in ("mac-two", "Ann's Mac Studio")]
    fleet = [first, *others]
    running = [one.start() for one in fleet]
    for process in running:
        out, _ = process.communicate()
        assert process.returncode == night.GREEN, out
    on_branch = first.branch()
    for one in fleet:
        assert complete(one)
        for name in shared(one):
            assert on_branch[name] == (one.path / "results" / name).read_text()
    reader = Quick(tmp_path / "reader", origin=first.origin)
    reader.call(sys.executable, "-m", "scripts.share", "pull")
    reader.call(sys.executable, "-m", "scripts.report")
    newest = (reader.path / ".asv" / "html" / "data" / "newest.js").read_text()
    assert all(one.machine in newest for one in fleet)
    assert all(one.machine in (reader.path / ".asv" / "html" / "summary.md").read_text() for one in fleet)


def test_make_bench_measures_prints_and_reports_with_the_same_parts(quick):
    told = quick.call(sys.executable, "-m", "scripts.bench", "--machine", quick.machine)
    assert "measured compiled/float32/one_leaf" in told
    assert "report: .asv/html/index.html" in told
    assert (quick.path / ".asv" / "html" / "index.html").exists()
    assert sorted(quick.seconds()) == sorted(quick.cases)
