"""asv itself, on a repository of two commits made for the purpose: run, compare, show, publish; and killed half-way."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from nights import take

from scripts import ledger, runs

ROOT = Path(__file__).parent.parent
CASE = r"step.Step.track_(seconds|times_roofline)\('compiled/float32/nested'\)"
pytestmark = pytest.mark.slow


class Checkout:
    """A repository of two commits with this working tree's files, and a home directory of its own."""

    def __init__(self, folder: Path, environments: Path) -> None:
        self.path = folder / "checkout"
        listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True)
        for name in listed.splitlines():
            if (ROOT / name).is_file() and not name.startswith("results/"):
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.path / name)
        home = folder / "home"
        home.mkdir()
        cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        identity = {f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        self.environment = os.environ | identity | {"HOME": str(home), "XDG_CACHE_HOME": cache}
        self.environment |= {"GIT_CONFIG_GLOBAL": os.devnull}
        self.environment.pop(ledger.VARIABLE, None)
        self.git("init", "-q", "-b", "main")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "first")
        self.git("commit", "-q", "--allow-empty", "-m", "second")
        take(environments, self.path)
        self.asv("machine", "--yes", "--machine", "test")

    def git(self, *arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.check_output(command, cwd=self.path, env=self.environment, text=True).strip()

    def start(self, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "asv", *arguments]
        return subprocess.Popen(
            command, cwd=self.path, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def asv(self, *arguments: str) -> str:
        process = self.start(*arguments)
        out, _ = process.communicate()
        assert process.returncode == 0, out
        return out


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, environments) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("end-to-end"), environments)


@pytest.fixture(scope="module")
def measured(checkout) -> str:
    """What `asv run` printed about both commits."""
    return checkout.asv("run", "--show-stderr", "--machine", "test", "--bench", CASE, "ALL")


def test_every_commit_has_results_with_samples_statistics_and_a_ledger(checkout, measured):
    for revision in ("HEAD", "HEAD~1"):
        (path,) = (checkout.path / "results" / "test").glob(f"{checkout.git('rev-parse', revision)[:8]}-*.json")
        result = json.loads(path.read_text())
        columns = dict(zip(result["result_columns"], result["results"]["step.Step.track_seconds"], strict=False))
        values = [value for value in columns["result"] if value is not None and not math.isnan(value)]
        assert len(values) == 1
        assert values[0] > 0
        repeats = [repeat for repeat in columns["stats_repeat"] if repeat]
        assert repeats[0] >= 14  # two rounds of at least seven samples
        assert result["requirements"]["mlx"] == "0.32.4"
        (run,) = runs.paths(path.parent, path.name)
        assert runs.is_complete(run)
        entries = runs.entries(run)
        assert len(ledger.by_case(entries)["compiled/float32/nested"]) == 2
        assert ledger.machine(entries)["settings"]["mlx"] == "0.32.4"


def test_two_rounds_are_two_processes_with_samples_of_their_own(measured):
    assert "1 cases measured" in measured


def test_the_share_of_measuring_is_printed(measured):
    assert "in the measured processes' own work" in measured


def test_nothing_is_left_behind(checkout, measured):
    assert list((checkout.path / ".asv" / "tmp").iterdir()) == []
    assert checkout.git("worktree", "list").count("\n") == 0


def test_show_compare_and_publish(checkout, measured):
    assert "step.Step.track_seconds" in checkout.asv("show", "HEAD", "--machine", "test")
    compared = checkout.asv("compare", "HEAD~1", "HEAD", "--machine", "test")
    assert "track_seconds('compiled/float32/nested')" in compared
    checkout.asv("publish")
    index = json.loads((checkout.path / ".asv" / "html" / "index.json").read_text())
    assert index["benchmarks"]["step.Step.track_seconds"]["unit"] == "seconds"
    assert index["benchmarks"]["step.Step.track_seconds"]["type"] == "time"


def test_a_killed_run_damages_nothing_and_can_be_run_again(checkout, measured):
    results = checkout.path / "results"
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    process = checkout.start("run", "--machine", "test", "--bench", CASE, "HEAD^!")
    scratch = checkout.path / ".asv" / "tmp"
    folder = results / "test"
    wait_until(lambda: any(runs.entries(path) for path in set(runs.paths(folder)) - set(before)), seconds=120)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(scratch.iterdir())
    after = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    assert len(set(after) - set(before)) == 1  # the run that it had begun
    assert all(after[path] == content for path, content in before.items() if path.name != "benchmarks.json")
    again = checkout.asv("run", "--machine", "test", "--bench", CASE, "HEAD^!")
    assert "1 cases measured" in again
    assert list(scratch.iterdir()) == []


def test_without_a_compiler_asv_stops_with_one_line(checkout, measured, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("git", f"python{sys.version_info[0]}.{sys.version_info[1]}", "uname"):
        os.symlink(shutil.which(name), tools / name)
    environment = checkout.environment | {"PATH": str(tools)}
    done = subprocess.run(
        [sys.executable, "-m", "asv", "run", "--machine", "test", "--bench", CASE, "HEAD^!"],
        cwd=checkout.path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no g++ on PATH" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_an_unknown_profile_is_one_line(checkout, measured):
    command = [sys.executable, "-m", "asv", "run", "--machine", "test", "HEAD^!"]
    environment = checkout.environment | {"ADAMW_PROFILE": "fast"}
    done = subprocess.run(command, cwd=checkout.path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "unknown profile 'fast'; choose one of: quick, default, full" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_killed_command_leaves_no_process_behind(checkout, measured):
    command = [sys.executable, "-m", "scripts.bench", "--machine", "test"]
    bench = subprocess.Popen(command, cwd=checkout.path, env=checkout.environment, stdout=subprocess.DEVNULL)
    scratch = checkout.path / ".asv" / "tmp"
    wait_until(lambda: list(scratch.iterdir()), seconds=60)
    (asv,) = (int(folder.name) for folder in scratch.iterdir())
    bench.kill()
    bench.wait()
    wait_until(lambda: not psutil.pid_exists(asv), seconds=30)
    assert not psutil.pid_exists(asv)
    assert list(scratch.iterdir()) == []


def wait_until(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
