"""The branch that machines share: nothing is lost, whoever is faster, and nothing odd on it does harm."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from asv.results import Results

from scripts import alerts, asv_plugin, carried, command, share

ROOT = Path(__file__).parent.parent
HASH = "0123abcd"


class Clone:
    """A clone with results of one machine."""

    def __init__(self, folder: Path, origin: Path, machine: str) -> None:
        self.path, self.machine = folder / machine, machine
        folder.mkdir(exist_ok=True)
        git(folder, "clone", "-q", str(origin), str(self.path))
        self.results = self.path / "results"
        self.add("machine.json", json.dumps({"machine": machine}))

    def add(self, name: str, text: str) -> None:
        path = self.results / self.machine / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def start(self, *arguments: str) -> subprocess.Popen:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "GIT_CONFIG_GLOBAL": os.devnull}
        return subprocess.Popen(
            [sys.executable, "-m", "scripts.share", *arguments], cwd=self.path, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        out, _ = process.communicate()
        assert "Traceback" not in out
        return process.returncode, out


def git(where: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.check_output(
        ["git", *identity, *arguments], cwd=where, text=True, stderr=subprocess.STDOUT
    ).strip()


@pytest.fixture
def origin(tmp_path) -> Path:
    path = tmp_path / "origin"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(path))
    git(tmp_path, "clone", "-q", str(path), "first")
    shutil.copy(ROOT / "asv.conf.json", tmp_path / "first")
    git(tmp_path / "first", "add", "asv.conf.json")
    git(tmp_path / "first", "commit", "-q", "-m", "first")
    git(tmp_path / "first", "push", "-q", "origin", "HEAD:main")
    return path


@pytest.fixture
def clone(tmp_path, origin, monkeypatch) -> Clone:
    """One clone, in which this process is."""
    made = Clone(tmp_path, origin, "mac")
    monkeypatch.chdir(made.path)
    return made


def on_branch(origin: Path) -> dict[str, str]:
    names = git(origin, "ls-tree", "-r", "--name-only", "results").splitlines()
    return {name: subprocess.check_output(["git", "show", f"results:{name}"], cwd=origin, text=True) for name in names}


def put(origin: Path, folder: Path, files: dict[str, str]) -> None:
    """Somebody else's commit on the branch."""
    git(folder, "clone", "-q", "-b", "results", str(origin), "other")
    for name, text in files.items():
        (folder / "other" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "other" / name).write_text(text)
    git(folder / "other", "add", "-A", "-f")
    git(folder / "other", "commit", "-q", "-m", "other")
    git(folder / "other", "push", "-q")


@pytest.mark.slow
def test_three_machines_push_at_once_ten_times_and_nothing_is_lost(tmp_path, origin):
    clones = [Clone(tmp_path, origin, f"mac-{number}") for number in range(3)]
    expected = {}
    for turn in range(10):
        for one in clones:
            one.add(f"{turn:08x}-env.json", json.dumps([one.machine, turn]))
            one.add("nights.jsonl", "".join(f"{one.machine} {number}\n" for number in range(turn + 1)))
        running = [one.start("push", "--machine", one.machine) for one in clones]
        for process in running:
            out, _ = process.communicate()
            assert process.returncode == 0, out
        expected |= {
            f"{one.machine}/{path.name}": path.read_text()
            for one in clones
            for path in (one.results / one.machine).iterdir()
        }
        assert on_branch(origin) == expected
    assert len(expected) == 3 * 12
    assert git(origin, "rev-list", "--count", "results") >= "30"


def test_a_branch_that_is_not_there_is_made_and_nothing_new_makes_no_commit(clone, origin, capsys):
    clone.add(f"{HASH}-env.json", "1")
    assert share.main(["push"]) == 0
    assert capsys.readouterr() == ("2 files put on the branch\n", "pushing results, branch results of origin\n")
    first = git(origin, "rev-parse", "results")
    assert set(on_branch(origin)) == {"mac/machine.json", f"mac/{HASH}-env.json"}
    assert share.main(["push"]) == 0
    assert git(origin, "rev-parse", "results") == first
    assert git(clone.path, "status", "--porcelain", "--", "results") == "?? results/"
    assert git(clone.path, "worktree", "list").count("\n") == 0


def test_what_others_did_is_brought_and_stays(clone, origin, tmp_path):
    clone.add(f"{HASH}-env.json", "1")
    share.main(["push"])
    put(origin, tmp_path, {"other/machine.json": "{}", "other/deadbeef-env.json": "2", "mac/00000000-env.json": "3"})
    clone.add("11111111-env.json", "4")
    share.main(["push"])
    assert len(on_branch(origin)) == 6
    share.main(["pull"])
    assert (clone.results / "other" / "deadbeef-env.json").read_text() == "2"
    assert (clone.results / "mac" / "00000000-env.json").read_text() == "3"


def test_lines_that_people_added_are_joined(clone, origin, tmp_path):
    clone.add(alerts.FILE, "one\n")
    share.main(["push"])
    put(origin, tmp_path, {f"mac/{alerts.FILE}": "one\nacknowledged\n"})
    clone.add(alerts.FILE, "one\ntwo\n")
    share.main(["pull"])
    assert (clone.results / "mac" / alerts.FILE).read_text() == "one\ntwo\nacknowledged\n"
    clone.add(alerts.FILE, "one\ntwo\n")
    share.main(["push"])
    assert on_branch(origin)[f"mac/{alerts.FILE}"] == "one\nacknowledged\ntwo\n"


NAME = "01234567-env"


def result(**figures: tuple[float, float]) -> str:
    """asv's results of a commit: by metric the value, and when it was measured."""
    found = Results({"machine": "mac"}, {}, "0123456789" * 4, 0, "3.11", "env", {})
    for metric, (value, moment) in figures.items():
        found._results[metric], found._benchmark_params[metric] = [value], [["x"]]
        found._samples[metric] = found._stats[metric] = None
        found._started_at[metric], found._benchmark_version[metric] = moment * 1000, "1"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "mac").mkdir()
        asv_plugin.original_save(found, folder)
        return next(Path(folder, "mac").glob("*.json")).read_text()


class TestTwoVersions:
    """Of one file, on the branch and here."""

    @pytest.fixture
    def shared(self, clone, origin):
        clone.add(f"{NAME}.json", result(a=(1.0, 100)))
        share.main(["push"])
        share.main(["pull"])
        return clone

    def values(self, clone, origin) -> tuple[dict, dict]:
        """What is here, and what is on the branch: by file the value."""
        here = {path.name: path.read_text() for path in (clone.results / "mac").glob(f"{NAME}*")}
        there = {Path(name).name: text for name, text in on_branch(origin).items() if NAME in name}
        return tuple(
            {name.rpartition(".")[2]: json.loads(text)["results"]["a"][0][0] for name, text in files.items()}
            for files in (here, there)
        )

    def test_only_here_it_was_measured_again(self, shared, origin):
        shared.add(f"{NAME}.json", result(a=(2.0, 200)))
        share.main(["pull"])
        share.main(["push"])
        assert self.values(shared, origin)[1]["json"] == 2.0

    def test_only_there_it_was_measured_again(self, shared, origin, tmp_path):
        put(origin, tmp_path, {f"mac/{NAME}.json": result(a=(2.0, 200))})
        share.main(["pull"])
        assert self.values(shared, origin)[0] == {"json": 2.0}
        share.main(["push"])
        assert self.values(shared, origin)[1] == {"json": 2.0}

    @pytest.mark.parametrize("when", [200, 300])
    def test_both_were_measured_again(self, shared, origin, tmp_path, when):
        put(origin, tmp_path, {f"mac/{NAME}.json": result(a=(2.0, 250))})
        shared.add(f"{NAME}.json", result(a=(3.0, when)))
        for _ in range(2):
            share.main(["push"])
            share.main(["pull"])
        newer, older = (3.0, 2.0) if when == 300 else (2.0, 3.0)
        assert self.values(shared, origin) == ({"json": newer, "earlier": older},) * 2

    def test_a_new_clone_that_could_not_pull_replaces_nothing(self, shared, origin, tmp_path):
        other = Clone(tmp_path / "new", origin, "mac")
        other.add(f"{NAME}.json", result(a=(3.0, 300)))
        code, out = other.run("push")
        assert code == 0, out
        assert self.values(other, origin)[1] == {"json": 3.0, "earlier": 1.0}

    @pytest.mark.parametrize("damage", ["", "{", "null and void"])
    def test_a_damaged_file_is_mended_from_the_branch_and_never_pushed(self, shared, origin, damage):
        shared.add(f"{NAME}.json", damage)
        shared.add("89abcdef-env.json", damage)
        share.main(["push"])
        assert self.values(shared, origin) == ({"json": 1.0}, {"json": 1.0})
        assert "mac/89abcdef-env.json" not in on_branch(origin)

    def test_damage_on_the_branch_replaces_nothing(self, shared, origin, tmp_path):
        shared.add(f"{NAME}.json", result(a=(2.0, 200)))
        put(origin, tmp_path, {f"mac/{NAME}.json": "{"})
        share.main(["pull"])
        share.main(["push"])
        assert self.values(shared, origin) == ({"json": 2.0}, {"json": 2.0})

    def test_a_ledger_goes_with_the_newer_result(self, shared, origin, tmp_path):
        shared.add(f"{NAME}.jsonl", '{"time": 100.5}\n')
        share.main(["push"])
        put(origin, tmp_path, {f"mac/{NAME}.jsonl": '{"time": 250}\n'})
        shared.add(f"{NAME}.jsonl", '{"time": 200}\n')
        share.main(["pull"])
        assert (shared.results / "mac" / f"{NAME}.jsonl").read_text() == '{"time": 250}\n'


def test_names_that_lead_elsewhere_are_passed_over(clone, origin, tmp_path):
    clone.add(f"{HASH}-env.json", "1")
    share.main(["push"])
    odd = {"mac/run.sh": "x", "mac/.hidden.json": "x", "deep/er/x.json": "x", "top.json": "x", ".git-hooks/x.json": "x"}
    put(origin, tmp_path, odd)
    other = tmp_path / "other"
    os.symlink("/etc/passwd", other / "mac" / "link.json")
    git(other, "add", "-A", "-f")
    git(other, "commit", "-q", "-m", "link")
    git(other, "push", "-q")
    share.main(["pull"])
    assert {path.name for path in clone.results.rglob("*")} == {"mac", "machine.json", f"{HASH}-env.json"}
    os.symlink("/etc/passwd", clone.results / "mac" / "secret.json")
    clone.add("notes.txt", "x")
    share.main(["push"])
    assert set(on_branch(origin)) == {"mac/machine.json", f"mac/{HASH}-env.json", "mac/link.json", *odd}


def test_too_large_a_file_is_left_where_it_is(clone, origin, monkeypatch, tmp_path):
    monkeypatch.setattr(carried, "LARGEST_FILE", 10)
    clone.add("machine.json", "{}")
    clone.add(f"{HASH}-env.json", "1" * 11)
    share.main(["push"])
    assert set(on_branch(origin)) == {"mac/machine.json"}
    put(origin, tmp_path, {"mac/deadbeef-env.json": "2" * 11})
    share.main(["pull"])
    assert not (clone.results / "mac" / "deadbeef-env.json").exists()


@pytest.mark.parametrize(
    "machine", ["Mac Studio", "Alice\u2019s Mac Studio", "The Lab's-Mac", "mac (2)", "büro", "é" * 50]
)
def test_a_machine_of_any_name_that_is_one_arrives_at_another(machine, origin, tmp_path, monkeypatch):
    clone, other = Clone(tmp_path / "a", origin, machine), Clone(tmp_path / "b", origin, "other")
    clone.add(f"{HASH}-existing-py_Users_Ann Example_mlx[cpu]+x.json", "1")
    code, out = clone.run("push", "--machine", machine)
    assert (code, out.splitlines()[-1]) == (0, "2 files put on the branch")
    assert other.run("pull")[0] == 0
    assert other.results.joinpath(machine, f"{HASH}-existing-py_Users_Ann Example_mlx[cpu]+x.json").read_text() == "1"
    code, out = other.run("pack", "--into", str(tmp_path / "packed"), "--machine", machine)
    assert (code, out.splitlines()[-1]) == (0, "0 files packed")


@pytest.mark.parametrize("name", ["-mac", "x" * 120, "00:11:22", "mac*", "MLX", "bu\u0308ro"])
@pytest.mark.parametrize("what", [share.push, share.pack, share.pull])
def test_a_name_that_no_machine_has_is_refused_before_anything_is_carried(name, what, clone, origin, tmp_path):
    shutil.copytree(clone.results / "mac", clone.results / name)
    where = share.Where(str(origin), "results", clone.results)
    given = {share.push: (name, "message"), share.pack: (name, tmp_path / "packed"), share.pull: (name,)}[what]
    with pytest.raises(command.UserError, match=f"no machine can be called '{re.escape(name)}'"):
        what(where, *given)
    assert git(origin, "branch", "--list", "results") == ""


def test_of_what_is_not_carried_each_file_is_named_with_the_reason(clone, origin, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(carried, "LARGEST_FILE", 30)
    (clone.results / "mac:1").mkdir()
    (clone.results / "mac:1" / "machine.json").write_text("{}")
    for name, text in {"notes.txt": "x", "big-env.json": "1" * 31, f"{HASH}-env.json": "{", "ok-env.json": "1"}.items():
        clone.add(name, text)
    os.symlink("/etc/passwd", clone.results / "mac" / "secret.json")
    (clone.results / "lost").mkdir()
    (clone.results / "lost" / "x.json").write_text("1")
    assert share.main(["push"]) == 0
    assert set(on_branch(origin)) == {"mac/machine.json", "mac/ok-env.json"}
    told = capsys.readouterr().out
    for line in (
        "2 files put on the branch", "left out: mac/notes.txt: no file of results", "left out: mac/big-env.json: over",
        f"left out: mac/{HASH}-env.json: it cannot be read", "left out: mac/secret.json: a link, or a program",
        "no machine can be called 'mac:1'", "results/lost: it has results, but no machine.json",
    ):  # fmt: skip
        assert line in told
    put(
        origin,
        tmp_path,
        {"deep/er/x.json": "1", "a*/x.json": "1", "mac/y.json": "1" * 31} | {f"top{n}.json": "1" for n in range(5)},
    )
    assert share.main(["pull"]) == 0
    told = capsys.readouterr().out
    assert "left out: a*/x.json: no machine can be called 'a*'" in told
    assert "left out: mac/y.json: over 0 MiB" in told
    assert "left out: 3 more files" in told
    assert share.main(["push", "--machine", "mac"]) == 0
    assert "mac:1" not in capsys.readouterr().out


def test_two_machines_whose_names_differ_in_case_do_not_share_a_folder(clone, origin, tmp_path, capsys):
    share.main(["push"])
    other = Clone(tmp_path / "b", origin, "MAC")
    code, out = other.run("push", "--machine", "MAC")
    assert code == 2
    assert "the branch has a machine 'mac', and 'MAC' is the same folder on a Mac" in out
    put(origin, tmp_path, {"MAC/machine.json": "{}", "Büro/machine.json": "1", "BÜRO/machine.json": "2"})
    capsys.readouterr()
    share.main(["pull"])
    assert {path.name for path in clone.results.iterdir()} == {"mac", "BÜRO"}
    told = capsys.readouterr().out
    assert "left out: MAC/machine.json: where case makes no difference it is mac's folder" in told
    assert "left out: Büro/machine.json: where case makes no difference it is BÜRO's folder" in told


def test_a_machine_that_is_not_here_is_told_those_that_are(clone):
    code, out = clone.run("push", "--machine", "Mac Studio")
    assert code == 2
    assert "no machine 'Mac Studio' below results; there are: mac" in out
    (clone.results / "mac" / "machine.json").unlink()
    clone.add("x.json", "1")
    code, out = clone.run("push")
    assert code == 2
    assert "results/mac: it has results, but no machine.json" in out
    assert "run asv" not in out


def test_of_two_descriptions_of_a_benchmark_the_newer_is_kept(clone, origin, tmp_path):
    def described(**versions):
        return json.dumps(
            {name: {"version": version, "params": [["x"] * count]} for name, (version, count) in versions.items()}
        )

    (clone.results / "benchmarks.json").write_text(described(a=("2", 1), b=("1", 1), c=("10", 1)))
    share.main(["push"])
    put(origin, tmp_path, {"benchmarks.json": described(a=("1", 1), b=("1", 2), c=("9", 5), d=("1", 1))})
    share.main(["push"])
    told = json.loads(on_branch(origin)["benchmarks.json"])
    assert {name: (one["version"], len(one["params"][0])) for name, one in told.items()} == {
        "a": ("2", 1), "b": ("1", 2), "c": ("10", 1), "d": ("1", 1)
    }  # fmt: skip
    share.main(["pull"])
    assert json.loads((clone.results / "benchmarks.json").read_text()) == told
    (clone.results / "benchmarks.json").write_text("[[[")
    share.main(["pull"])
    assert json.loads((clone.results / "benchmarks.json").read_text()) == told


def test_packed_is_what_the_branch_has_not(clone, origin, tmp_path):
    clone.add(f"{HASH}-env.json", "1")
    share.main(["push"])
    share.main(["pack", "--into", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()
    clone.add("deadbeef-env.json", "2")
    share.main(["pack", "--into", str(tmp_path / "packed")])
    assert {path.name for path in (tmp_path / "packed" / "mac").iterdir()} == {"machine.json", "deadbeef-env.json"}
    origin.rename(tmp_path / "away")
    share.main(["pack", "--into", str(tmp_path / "all")])
    assert {path.name for path in (tmp_path / "all" / "mac").iterdir()} == {
        "machine.json", f"{HASH}-env.json", "deadbeef-env.json"
    }  # fmt: skip
    (tmp_path / "away").rename(origin)
    share.main(["push", "--results", str(tmp_path / "packed"), "--remote", str(origin)])
    assert set(on_branch(origin)) == {"mac/machine.json", f"mac/{HASH}-env.json", "mac/deadbeef-env.json"}


def test_only_the_machine_that_is_named(clone, origin):
    (clone.results / "intruder").mkdir()
    (clone.results / "intruder" / "machine.json").write_text("{}")
    share.main(["push", "--machine", "mac"])
    assert set(on_branch(origin)) == {"mac/machine.json"}


def test_a_lock_that_a_killed_git_left_is_no_obstacle(clone, origin):
    share.main(["push"])
    lock = clone.path / ".git" / "refs" / "adamw" / "results.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    clone.add(f"{HASH}-env.json", "1")
    assert share.main(["push"]) == 0
    assert f"mac/{HASH}-env.json" in on_branch(origin)


def test_errors_are_one_line(clone, origin, tmp_path, capsys):
    moved = origin.rename(tmp_path / "away")
    code, out = clone.run("push")
    assert code == 2
    assert "origin cannot be reached" in out
    assert "results stay in results" in out
    assert len([line for line in out.splitlines() if "error" in line]) == 1
    moved.rename(origin)
    for arguments in (["--branch", "a..b"], ["--remote", "-x"], ["--remote", "--upload-pack=touch x"]):
        code, out = clone.run("pull", *(f"{arguments[0]}={arguments[1]}",))
        assert code == 2, out
    assert clone.run("pack")[0] == 2
    assert clone.run("push", "--machine", "nobody")[0] == 2
    assert not (clone.path / "x").exists()


def test_a_remote_that_takes_no_push_is_told_and_nothing_lost(clone, origin, monkeypatch):
    hook = origin / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'the branch is protected' >&2\nexit 1\n")
    hook.chmod(0o755)
    monkeypatch.setattr(share.time, "sleep", lambda seconds: None)
    with pytest.raises(command.UserError, match="takes no push"):
        share.main(["push"])
    hook.unlink()
    assert share.main(["push"]) == 0


def test_who_is_slower_builds_on_what_the_faster_pushed(clone, origin, tmp_path, monkeypatch):
    share.main(["push"])
    original, raced = share.call, threading.Event()

    def race(*arguments, **more):
        if arguments[0] == "push" and not raced.is_set():
            raced.set()
            put(origin, tmp_path, {"faster/machine.json": "{}"})
        return original(*arguments, **more)

    monkeypatch.setattr(share, "call", race)
    clone.add(f"{HASH}-env.json", "1")
    assert share.main(["push"]) == 0
    assert set(on_branch(origin)) == {"mac/machine.json", f"mac/{HASH}-env.json", "faster/machine.json"}
