"""The results branch is reached from a store of its own, whatever the clone is like and whatever became of it."""

import base64
import os
import shutil
import stat
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import made_runs
import pytest
from clones import Clone, git, make_origin, on_branch, put

from scripts import branch, command, lines, share
from scripts import git as git_command

A, B = (made_runs.path(number) for number in (1, 2))


@pytest.fixture
def origin(tmp_path) -> Path:
    return make_origin(tmp_path)


@pytest.fixture
def clone(tmp_path, origin, monkeypatch) -> Clone:
    """One clone, in which this process is."""
    made = Clone(tmp_path, origin, "mac")
    monkeypatch.chdir(made.path)
    return made


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The commands of git that are started."""
    told: list[str] = []
    original = git_command.start

    def start(*arguments: str, **more: object) -> object:
        words = iter(arguments)
        told.append(next(word for word in words if not word.startswith("-") or (word == "-c" and not next(words))))
        return original(*arguments, **more)

    monkeypatch.setattr(git_command, "start", start)
    return told


def store(remote: str = "origin") -> branch.Branch:
    return branch.checked(remote, "results")


def pull(remote: str = "origin") -> int:
    return share.pull(store(remote), Path("results")).changed


def push(remote: str = "origin") -> int:
    return share.push(store(remote), Path("results"), None, "results").changed


def works(clone: Clone, origin: Path, remote: str = "origin") -> None:
    """Results go to the branch and come from it, and are not in the clone of the code."""
    before = set(on_branch(origin)) if git(origin, "branch", "--list", "results") else set()
    run = clone.add_run(1, a=1.0)
    assert push(remote) == len({"mac/machine.json", run} - before)
    tip = put(origin, {f"mac/{B}": made_runs.text(a=2.0)})
    clone.add("nights.jsonl", "one\n")
    assert (push(remote), push(remote), pull(remote)) == (1, 0, 0)
    expected = {"mac/machine.json", "mac/nights.jsonl", *(f"mac/{path}" for path in (A, B))}
    assert expected <= clone.files().keys()
    assert expected <= on_branch(origin).keys()
    assert git(origin, "rev-parse", "results^") == tip
    assert not is_there(clone, tip)


def is_there(clone: Clone, commit: str) -> bool:
    """Whether the clone itself has a commit, without asking anybody for it."""
    listed = git(clone.path, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)")
    return commit in listed.split()


def packs(path: Path) -> list[Path]:
    return list(path.glob("objects/pack/*.pack"))


def garble_all(path: Path) -> None:
    for pack in packs(path):
        garble(pack)


def locks(path: Path) -> list[Path]:
    names = ("HEAD", "config", "shallow", "packed-refs", branch.SEEN, branch.NEXT)
    return [path / f"{name}.lock" for name in names]


def garble(path: Path, start: int = 20) -> None:
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    text = path.read_bytes()
    path.write_bytes(text[:start] + bytes(255 - byte for byte in text[start:-40]) + text[-40:])


DAMAGES = {
    "gone": shutil.rmtree,
    "no HEAD": lambda path: (path / "HEAD").unlink(),
    "HEAD cut short": lambda path: (path / "HEAD").write_text(""),
    "no packs": lambda path: shutil.rmtree(path / "objects" / "pack"),
    "one pack less": lambda path: max(packs(path), key=os.path.getsize).unlink(),
    "a pack cut short": lambda path: [os.truncate(one, 100) for one in packs(path)],
    "packs of something else": garble_all,
    "no names": lambda path: shutil.rmtree(path / "refs"),
    "names of nothing": lambda path: (path / branch.SEEN).write_text("0" * 40 + "\n"),
    "names of something else": lambda path: (path / branch.SEEN).write_text("no commit\n"),
    "no settings": lambda path: (path / "config").write_text("["),
    "locks": lambda path: [lock.touch() for lock in locks(path)],
}


@pytest.mark.parametrize("kind", ["sha1", "sha256"])
class TestProcesses:
    """How many gits are started: each costs a while."""

    @pytest.fixture
    def origin(self, tmp_path, kind) -> Path:
        return make_origin(tmp_path, kind)

    def test_a_pull_with_nothing_new_asks_the_remote_and_the_store_once(self, clone, origin, asked):
        clone.add_run(1, a=1.0)
        push()
        git(origin, "update-ref", "refs/heads/refs/heads/results", "main")
        there = store()
        asked.clear()
        share.pull(there, clone.results)
        assert asked == ["ls-remote", "ls-tree"]

    def test_a_pull_of_something_new_starts_six(self, clone, origin, asked):
        push()
        put(origin, {"mac/nights.jsonl": "one\n", f"mac/{A}": made_runs.text(a=1.0)})
        there = store()
        asked.clear()
        assert share.pull(there, clone.results).changed == 2
        assert asked == ["ls-remote", "ls-tree", "rev-parse", "fetch", "ls-tree", "cat-file"]

    def test_large_files_are_read_one_after_the_other(self, clone, origin, asked, monkeypatch):
        monkeypatch.setattr(branch, "AT_ONCE", 10)
        files = {f"mac/{number}.json": "x" * number for number in (11, 1, 2, 4, 5, 6, 7)}
        put(origin, files)
        there = store()
        there.fetch()
        asked.clear()
        assert {path: text.decode() for path, text in there.contents(there.files().items())} == files
        assert asked == ["cat-file"] * 6  # of 1, 11, 2 and 4, 5, 6, 7

    def test_a_push_of_something_new_starts_five_and_three_more_if_there_is_something_to_fetch(
        self, clone, origin, asked
    ):
        push()
        for others in ([], ["rev-parse", "fetch", "ls-tree"]):
            if others:
                put(origin, {"benchmarks.json": "{}"})
            clone.add_run(len(others), a=1.0)
            there = store()
            asked.clear()
            assert share.push(there, clone.results, None, "results").changed == 1
            assert asked == ["ls-remote", "ls-tree", *others, "fast-import", "rev-parse", "push"]


class TestStore:
    def test_of_a_long_history_only_the_newest_commit_is_fetched_and_nothing_is_in_the_clone(self, clone, origin):
        for number in range(5):
            tip = put(origin, {"mac/nights.jsonl": f"{number}\n" * number})
        pull()
        there = store().store
        assert git(there, "rev-list", "--all") == tip
        assert git(there, "for-each-ref", "--format=%(refname)") == branch.SEEN
        assert git(clone.path, "for-each-ref", "--format=%(refname)", "refs/adamw") == ""
        assert not is_there(clone, tip)
        assert git_command.start("cat-file", "-e", tip).returncode
        works(clone, origin)

    @pytest.mark.parametrize("to", ["an older commit", "one that has nothing to do with it", "nothing"])
    def test_a_branch_that_was_forced_elsewhere_is_followed_and_pushed_to(self, clone, origin, to):
        first = put(origin, {"mac/nights.jsonl": "zero\n"})
        put(origin, {"mac/alerts.jsonl": "x\n"})
        works(clone, origin)
        if to == "an older commit":
            git(origin, "update-ref", "refs/heads/results", first)
        else:
            git(origin, "update-ref", "-d", "refs/heads/results")
        if to == "one that has nothing to do with it":
            put(origin, {"other/machine.json": made_runs.described("other")})
        before = clone.files()
        for one in range(3):
            clone.add("alerts.jsonl", f"x\n{one}\n")
            push()
        told = {name: set(text.splitlines()) for name, text in on_branch(origin).items()}
        assert told["mac/alerts.jsonl"] >= {"x", "0", "1", "2"}
        assert all(told[name] >= set(text.splitlines()) for name, text in before.items())

    @pytest.mark.parametrize(
        "damage",
        DAMAGES.values(),
        ids=DAMAGES,
    )
    def test_a_store_that_is_lost_or_damaged_is_made_anew_and_nothing_is_lost(self, clone, origin, damage):
        clone.add_run(1, a=1.0)
        clone.add("nights.jsonl", "one\n")
        push()
        put(origin, {"mac/alerts.jsonl": "one\n"})
        assert pull() == 1
        damage(store().store)
        assert (pull(), push()) == (0, 0)
        damage(store().store)
        put(origin, {"mac/nights.jsonl": "one\ntwo\n"})
        clone.add("nights.jsonl", "one\nthree\n")
        clone.add_run(2, b=2.0)
        assert push() == 2
        assert on_branch(origin)["mac/nights.jsonl"] == "one\ntwo\nthree\n"
        damage(store().store)
        shutil.rmtree(clone.results)
        assert pull() == 5
        assert clone.files() == on_branch(origin)

    def test_damage_that_only_reading_shows_is_mended(self, clone, origin):
        clone.add_run(1, a=1.0)
        push()
        shutil.rmtree(clone.results)
        for pack in packs(store().store):
            garble(pack, 100)
        assert pull() == 2

    def test_damage_meanwhile_is_mended(self, clone, origin):
        put(origin, {"mac/nights.jsonl": "one\n"})
        there = store()
        there.fetch()
        DAMAGES["no packs"](there.store)
        assert dict(there.contents(there.files().items())) == {"mac/nights.jsonl": b"one\n"}

    @pytest.mark.parametrize(
        "what",
        [
            lambda there: list(there.contents(there.files().items())),
            lambda there: there.push({"mac/nights.jsonl": b"one\nthree\n"}, "results"),
        ],
        ids=["it is read", "it is written"],
    )
    def test_damage_meanwhile_while_others_push_ends_before_anything_is_written_over(self, clone, origin, what):
        put(origin, {"mac/nights.jsonl": "one\n"})
        there = store()
        there.fetch()
        DAMAGES["no packs"](there.store)
        put(origin, {"mac/nights.jsonl": "one\ntwo\n"})
        with pytest.raises(command.UserError, match=r"was damaged and is whole again; say it again"):
            what(there)
        assert on_branch(origin) == {"mac/nights.jsonl": "one\ntwo\n"}
        assert pull() == 1

    def test_a_branch_that_moves_while_it_is_fetched_is_what_it_is_then(self, clone, origin, monkeypatch):
        before = put(origin, {"mac/nights.jsonl": "one\n"})
        put(origin, {"mac/nights.jsonl": "one\ntwo\n"})
        monkeypatch.setattr(branch.Branch, "newest", lambda self: before)
        run = clone.add_run(1, a=1.0)
        assert push() == 2
        assert on_branch(origin).keys() == {"mac/nights.jsonl", "mac/machine.json", run}
        assert on_branch(origin)["mac/nights.jsonl"] == "one\ntwo\n"

    @pytest.mark.parametrize("what", [pull, push])
    def test_a_store_of_many_packs_is_made_anew(self, clone, origin, monkeypatch, what):
        monkeypatch.setattr(branch, "MOST_PACKS", 3)
        push()
        for number in range(9):
            if what is pull:
                put(origin, {"mac/nights.jsonl": f"{number}\n"})
            else:
                lines.add(clone.folder / "nights.jsonl", {"id": str(number)})
            assert what() == 1
            assert len(packs(store().store)) <= 4
        assert len((clone.folder / "nights.jsonl").read_text().split("\n")) == 10

    def test_what_older_versions_kept_in_the_clone_is_let_go_of(self, clone, origin):
        tip = put(origin, {"mac/nights.jsonl": "one\n"})
        git(
            clone.path,
            "fetch",
            "-q",
            "--no-write-fetch-head",
            "--refmap=",
            "origin",
            "+refs/heads/results:refs/adamw/results",
        )
        git(clone.path, "update-ref", "refs/adamw/base/results", tip)
        (clone.path / ".git/refs/adamw/results.lock").touch()
        pull()
        assert git(clone.path, "for-each-ref", "refs/adamw") == ""
        git(clone.path, "gc", "-q", "--prune=now")
        assert not is_there(clone, tip)

    def test_two_branches_do_not_meet(self, clone, origin):
        for name in ("results", "results-mlx", "a/b"):
            clone.add("nights.jsonl", f"{name}\n")
            share.push(branch.checked("origin", name), clone.results, None, "results")
            assert git(origin, "show", f"{name}:mac/nights.jsonl") == name
        assert len(list(Path(".asv").glob("results-*.git"))) == 3

    def test_a_program_that_the_clone_runs_for_its_own_pushes_is_not_run(self, clone, origin):
        hook = clone.path / ".hooks" / "pre-push"
        hook.parent.mkdir()
        hook.write_text("#!/bin/sh\nexit 1\n")
        hook.chmod(stat.S_IRWXU)
        git(clone.path, "config", "core.hooksPath", ".hooks")
        works(clone, origin)

    def test_two_processes_take_turns_and_who_waits_too_long_says_so(self, clone, monkeypatch):
        monkeypatch.setattr(branch, "WAIT_SECONDS", 0.01)
        other = store()
        with other.alone(), pytest.raises(command.UserError, match=r"another process has had .* for 0.01 s; end it"):
            pull()
        assert pull() == 0


class TestClone:
    """A clone is as it is: the remote is reached as from there."""

    @pytest.mark.parametrize("remote", ["origin", "a.name", "../origin", "a URL", "a path"])
    def test_the_remote_is_called(self, clone, origin, remote):
        git(clone.path, "remote", "set-url", "origin", "../origin")
        git(clone.path, "remote", "add", "a.name", "../origin")
        works(clone, origin, {"a URL": origin.as_uri(), "a path": str(origin)}.get(remote, remote))

    def test_addresses_stand_for_others(self, clone, origin):
        git(clone.path, "config", f"url.{origin.parent}/.insteadOf", "short:")
        git(clone.path, "remote", "set-url", "origin", "short:origin")
        works(clone, origin)

    def test_pushes_go_elsewhere(self, clone, origin, tmp_path):
        git(tmp_path, "clone", "-q", "--bare", str(origin), "writable")
        git(clone.path, "remote", "set-url", "--push", "origin", "../writable")
        clone.add_run(1, a=1.0)
        assert push() == 2
        assert len(on_branch(tmp_path / "writable")) == 2
        assert git(origin, "branch", "--list", "results") == ""

    def test_settings_of_its_own_say_how_it_logs_in(self, clone, origin, tmp_path):
        ssh = tmp_path / "my ssh"
        ssh.write_text('#!/bin/sh\nfor last; do :; done\necho "$last" >> log\neval "$last"\n')
        ssh.chmod(stat.S_IRWXU)
        git(clone.path, "config", "core.sshCommand", f"'{ssh}'")
        git(clone.path, "remote", "set-url", "origin", f"ssh://example.invalid{origin}")
        works(clone, origin)
        assert {"git-upload-pack", "git-receive-pack"} <= set(Path("log").read_text().split())

    @pytest.mark.parametrize("how", ["a helper", "a header", "a file that is included"])
    def test_over_http_it_says_the_password_that_it_has(self, clone, origin, how):
        with served(origin) as address:
            git(clone.path, "remote", "set-url", "origin", address)
            with pytest.raises(branch.Unreachable):
                pull()
            if how == "a helper":
                helper = "!f() { echo username=user; echo password=word; }; f"
                git(clone.path, "config", f"credential.{address}.helper", helper)
            else:
                file = [] if how == "a header" else ["--file", "ours.config"]
                git(clone.path, "config", *file, f"http.{address}.extraHeader", f"Authorization: {PASSWORD}")
                git(clone.path, "config", "include.path", "../ours.config")
            works(clone, origin)

    @pytest.mark.parametrize(
        "options", [["--filter=blob:none"], ["--filter=tree:0"], ["--depth=1"], ["--no-checkout"], ["-o", "theirs"]],
        ids=" ".join,
    )  # fmt: skip
    def test_it_is_partial_or_shallow(self, origin, tmp_path, options, monkeypatch):
        for name in ("allowFilter", "allowAnySHA1InWant"):
            git(origin, "config", f"uploadpack.{name}", "true")
        put(origin, {f"mac/{B}": made_runs.text(a=2.0)})
        clone = Clone(tmp_path / "c", origin.as_uri(), "mac", *options)
        monkeypatch.chdir(clone.path)
        remote = git(clone.path, "remote")
        pull(remote)
        there = store(remote).store
        assert git(there, "rev-list", "--objects", "--missing=print", "--all").count("?") == 0
        assert not list(there.glob("objects/pack/*.promisor"))
        works(clone, origin, remote)

    @pytest.mark.parametrize(
        "settings",
        [
            {"extensions.worktreeConfig": "true", "core.repositoryFormatVersion": "1"},
            {"extensions.preciousObjects": "true", "core.repositoryFormatVersion": "1"},
            {"extensions.partialClone": "origin", "core.repositoryFormatVersion": "1"},
            {"core.worktree": ".."},
            {"core.bare": "false", "core.logAllRefUpdates": "always", "core.sharedRepository": "group"},
            {"core.compression": "0", "core.autocrlf": "true", "core.safecrlf": "true", "core.eol": "crlf"},
            {"core.bigFileThreshold": "1", "pack.packSizeLimit": "1m", "transfer.unpackLimit": "1000"},
            {"fetch.prune": "true", "fetch.pruneTags": "true", "remote.origin.prune": "true"},
            {"remote.origin.tagOpt": "--tags", "fetch.recurseSubmodules": "true", "fetch.writeCommitGraph": "true"},
            {"remote.origin.promisor": "true", "remote.origin.partialCloneFilter": "blob:none"},
            {"push.recurseSubmodules": "only", "push.followTags": "true", "push.default": "nothing"},
            {"submodule.recurse": "true", "transfer.fsckObjects": "true", "receive.denyNonFastForwards": "true"},
            {"commit.gpgSign": "true", "gc.auto": "1", "user.useConfigOnly": "true", "fetch.parallel": "0"},
            {"remote.origin.fetch": "+refs/heads/main:refs/remotes/origin/main", "remote.pushDefault": "nowhere"},
            {"protocol.version": "0"},
            {"protocol.version": "1", "push.negotiate": "true", "fetch.negotiationAlgorithm": "skipping"},
            {"safe.bareRepository": "explicit", "transfer.hideRefs": "refs/adamw", "color.ui": "always"},
            {"init.defaultBranch": "trunk", "init.templateDir": "/nowhere", "core.excludesFile": "/nowhere"},
        ],
        ids=lambda settings: " ".join(settings),
    )
    def test_it_has_settings(self, clone, origin, settings):
        git(origin, "config", "uploadpack.allowFilter", "true")
        for name, value in settings.items():
            git(clone.path, "config", name, value)
        works(clone, origin)

    def test_it_is_a_linked_worktree_that_is_moved(self, clone, origin, tmp_path, monkeypatch):
        git(clone.path, "worktree", "add", "-q", str(tmp_path / "linked"))
        git(clone.path, "config", f"url.{origin}.insteadOf", "elsewhere")
        git(clone.path, "remote", "set-url", "origin", "elsewhere")
        shutil.copytree(clone.results, tmp_path / "linked" / "results")
        clone.results, clone.folder = (tmp_path / "linked" / name for name in ("results", "results/mac"))
        monkeypatch.chdir(tmp_path / "linked")
        works(clone, origin)
        git(clone.path, "worktree", "move", str(tmp_path / "linked"), str(tmp_path / "moved"))
        monkeypatch.chdir(tmp_path / "moved")
        Path("results/mac/nights.jsonl").write_text("two\n")
        assert push() == 1

    def test_it_is_moved(self, clone, origin, tmp_path, monkeypatch):
        works(clone, origin)
        clone.path.rename(tmp_path / "moved")
        monkeypatch.chdir(tmp_path / "moved")
        Path("results/mac/nights.jsonl").write_text("two\n")
        assert push() == 1

    def test_its_repository_is_elsewhere(self, origin, tmp_path, monkeypatch):
        clone = Clone(tmp_path / "c", origin, "mac", "--separate-git-dir", str(tmp_path / "git dir"))
        monkeypatch.chdir(clone.path)
        works(clone, origin)

    def test_its_objects_have_longer_names(self, tmp_path, monkeypatch):
        (tmp_path / "long").mkdir()
        origin = make_origin(tmp_path / "long", "sha256")
        clone = Clone(tmp_path / "c", origin, "mac")
        monkeypatch.chdir(clone.path)
        works(clone, origin)
        assert len(git(origin, "rev-parse", "results")) == 64

    def test_the_remote_is_shallow_itself(self, clone, origin, tmp_path):
        put(origin, {"mac/alerts.jsonl": "zero\n"})
        put(origin, {"mac/alerts.jsonl": "zero\none\n"})
        shallow = tmp_path / "shallow"
        git(tmp_path, "clone", "-q", "--bare", "--depth=1", "--no-single-branch", origin.as_uri(), str(shallow))
        works(clone, shallow, "../shallow")

    def test_there_is_none(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(command.UserError, match="this folder is no clone of a repository; git clone it"):
            store()


class TestRefused:
    @pytest.mark.parametrize(
        ("remote", "name", "told"),
        [
            ("-x", "results", "no remote '-x'; git remote lists them"),
            ("", "results", "no remote ''"),
            ("origin", "a..b", "'a..b' cannot be a branch's name"),
            ("origin", "", "'' cannot be a branch's name"),
            ("origin", "x.lock", "cannot be a branch's name"),
        ],
    )
    def test_names_that_are_none(self, clone, remote, name, told):
        with pytest.raises(command.UserError, match=told):
            branch.checked(remote, name)

    @pytest.mark.parametrize("remote", ["nowhere", "ext::sh -c 'touch ran'", "ssh://-oProxyCommand=touch/x"])
    def test_a_remote_that_is_none(self, clone, remote):
        git(clone.path, "config", "protocol.ext.allow", "always")
        with pytest.raises(branch.Unreachable, match=r"cannot be reached: git ls-remote: fatal: .*; results stay here"):
            pull(remote)
        assert not Path("ran").exists()

    @pytest.mark.parametrize("what", [pull, push])
    def test_a_remote_that_does_not_answer(self, clone, what, monkeypatch):
        monkeypatch.setattr(branch, "ANSWER_SECONDS", 0.2)
        git(clone.path, "config", "core.sshCommand", "sleep 1 #")
        with pytest.raises(branch.Unreachable, match=r"git ls-remote: no answer in 0.2 s; check the network"):
            what("ssh://example.invalid/x")

    def test_a_push_that_does_not_end_is_not_tried_again(self, clone, origin, monkeypatch):
        hook = origin / "hooks" / "pre-receive"
        hook.write_text("#!/bin/sh\nsleep 2\n")
        hook.chmod(stat.S_IRWXU)
        monkeypatch.setattr(branch, "TRANSFER_SECONDS", 0.5)
        with pytest.raises(branch.Unreachable, match=r"git push: no answer in 0.5 s; check the network"):
            push()


PASSWORD = "Basic " + base64.b64encode(b"user:word").decode()


class served:
    """A repository over HTTP, for whom has the password; its address."""

    def __init__(self, origin: Path) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler(origin))

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return f"http://127.0.0.1:{self.server.server_port}/origin"

    def __exit__(self, *told: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def handler(origin: Path) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers["Authorization"] != PASSWORD:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            about = {
                "GIT_PROJECT_ROOT": str(origin.parent), "GIT_HTTP_EXPORT_ALL": "1", "REMOTE_USER": "user",
                "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers["Content-Type"] or "",
                "HTTP_CONTENT_ENCODING": self.headers["Content-Encoding"] or "",
            }  # fmt: skip
            given = self.rfile.read(int(self.headers["Content-Length"] or 0))
            told = subprocess.run(["git", "http-backend"], input=given, env=os.environ | about, capture_output=True)
            head, _, body = told.stdout.partition(b"\r\n\r\n")
            self.send_response(200)
            for line in head.decode().splitlines():
                self.send_header(*line.split(": ", 1))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *told: object) -> None: ...

    return Handler
