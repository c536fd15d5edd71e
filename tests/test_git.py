"""Whatever environment, settings and clone git is started in: it reads the repository that is meant, or says why."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from asv import util
from asv.config import Config
from asv.plugins.git import Git
from clones import Clone, make_origin, on_branch
from nights import SETTINGS, Quick
from synthetic import CASE, SECONDS, History
from upstreams import Upstream

from scripts import asv_git, bisect, branch, command, git, git_environment, history, share, upstream
from scripts.doctor import repository
from scripts.nightly import night, preflight
from scripts.nightly.settings import Check, Settings
from scripts.report import timeline

ROOT = Path(__file__).parent.parent
SUBJECT = "größer, \N{SNOWMAN} and \N{LINE SEPARATOR}more"
DIFFERENT_OWNER = "GIT_TEST_ASSUME_DIFFERENT_OWNER"
"""With which git takes every repository for another user's."""

SIGNATURE = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n c2lnbmVk\n -----END PGP SIGNATURE-----\n"
GPG = "#!/bin/sh\necho gpg: made by somebody\nexit 1\n"

WISHES = """
[log]
    showSignature = true
    date = relative
    decorate = full
[format]
    pretty = raw
[color]
    ui = always
    status = always
    branch = always
[column]
    ui = always
    tag = always
[core]
    quotePath = false
    abbrev = 4
    pager = cat -n
[i18n]
    logOutputEncoding = UTF-16
[status]
    showUntrackedFiles = no
    short = true
    branch = true
    showStash = true
[clone]
    defaultRemoteName = theirs
    rejectShallow = true
[diff]
    noprefix = true
    renames = copies
[safe]
    bareRepository = explicit
    directory = *
[tag]
    sort = -version:refname
[advice]
    detachedHead = true
[commit]
    gpgSign = true
[push]
    followTags = true
    default = nothing
[fetch]
    prune = true
    pruneTags = true
    recurseSubmodules = true
[submodule]
    recurse = true
[init]
    defaultBranch = trunk
[user]
    useConfigOnly = true
"""


def settings(folder: Path, monkeypatch, text: str) -> None:
    """Make `text` the user's own settings of git."""
    (folder / "settings").write_text(text)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(folder / "settings"))


@pytest.fixture
def two(tmp_path, monkeypatch) -> tuple[Upstream, Upstream]:
    """Two repositories with other commits; this process is in the second."""
    first, second = (Upstream(tmp_path / name) for name in ("first", "second"))
    first.commit("first", "v0.32.0")
    for number in range(3):
        second.commit(f"second {number}", f"v0.3{number}.1", annotated=bool(number))
    shutil.copy(ROOT / "pyproject.toml", second.path)  # it says which releases count
    monkeypatch.chdir(second.path)
    return first, second


@pytest.fixture
def signed(two, tmp_path) -> Upstream:
    """The second repository, whose newest commit is signed and has letters that are not ASCII."""
    second = two[1]
    about, _, _ = second.git("cat-file", "commit", "HEAD").partition("\n\n")
    raw = f"{about}\n{SIGNATURE}\n{SUBJECT}\n"
    made = subprocess.run(
        ["git", "hash-object", "-w", "-t", "commit", "--stdin"], input=raw.encode(), stdout=subprocess.PIPE, check=True
    ).stdout.decode()
    second.git("reset", "-q", "--hard", made.strip())
    (tmp_path / "gpg").write_text(GPG)
    (tmp_path / "gpg").chmod(stat.S_IRWXU)
    return second


def shared() -> tuple[str, bytes, bytes]:
    """What machines would share if main were their branch: its commit, and one on top of it."""
    store = branch.checked(".", "main")
    store.fetch()
    made = store.commit({"file": b"text"}, "message")
    return store.tip, store.call("cat-file", "-p", f"{made}:file"), store.call("rev-parse", f"{made}^")


def read(path: Path) -> dict[str, object]:
    """What every reader of ours, and asv's, sees of the repository at `path`, in which this process is."""
    config = Config()
    config.repo, config.branches, config.project, config.dvcs = str(path), ["main"], "test", "git"
    asvs, (commits, _) = Git(str(path), "test"), history.branch_commits(config)
    return {
        "HEAD": git.output("rev-parse", "HEAD", where=path),
        "here": git.here(),
        "a commit": git.find_commit("main", where=path),
        "subject": git.subject("HEAD", where=path),
        "seconds": git.committed_at("HEAD", where=path),
        "tags": git.tags_at("HEAD~1", where=path),
        "changed": git.changed("adamw"),
        "ancestor": git.is_ancestor("HEAD~1", "HEAD", where=path),
        "shallow": git.shallow(),
        "share": shared(),
        "clock": preflight.clock(Check(limit=1e6)).fit,
        "branch": commits,
        "timeline": timeline.commits(config, commits),
        "releases": upstream.release_commits(config),
        "named": bisect.called(commits[-1]),
        "asv's tags": asvs.get_tags(),
        "asv's dates": [asvs.get_date(one) for one in commits],
        "asv's names": [asvs.get_name_from_hash(one) for one in commits],
        "asv's revisions": asvs.get_revisions(set(commits)),
        "asv's range": asvs.get_hashes_from_range("HEAD^!"),
        "doctor": repository.clone(),
    }


class TestEnvironment:
    @pytest.mark.parametrize("name", [*sorted(git_environment.local_variables()), *git_environment.MORE])
    def test_no_variable_of_a_hook_changes_what_is_read(self, two, name, monkeypatch):
        first, second = two
        before = read(second.path)
        monkeypatch.setenv(name, str(first.path / ".git"))
        assert read(second.path) == before

    def test_all_variables_of_a_hook_together_change_nothing_and_would(self, two, monkeypatch):
        first, second = two
        before = read(second.path)
        monkeypatch.setenv("GIT_DIR", str(first.path / ".git"))
        monkeypatch.setenv("GIT_WORK_TREE", str(first.path))
        monkeypatch.setenv("GIT_INDEX_FILE", str(first.path / ".git" / "index"))
        misled = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
        assert misled == first.git("rev-parse", "HEAD") != before["HEAD"]
        assert read(second.path) == before

    def test_what_a_command_starts_has_no_variable_of_a_hook(self, two, monkeypatch):
        monkeypatch.setattr(command.signal, "signal", lambda *arguments: None)
        monkeypatch.setenv("GIT_DIR", str(two[0].path / ".git"))
        seen = []
        assert command.run(lambda: seen.append(subprocess.check_output(["git", "rev-parse", "HEAD"])) or 0) == 0
        assert seen[0].decode().strip() == git.here()

    @pytest.mark.parametrize("module", ["scripts.asv_plugin", "conftest"])
    def test_asv_and_the_tests_take_them_out_of_all_that_they_start(self, two, module):
        code = f"import os, {module}; print(sorted(name for name in os.environ if name.startswith('GIT_')))"
        environment = os.environ | {"GIT_DIR": str(two[0].path), "GIT_INDEX_FILE": "i", "GIT_SSH_COMMAND": "ssh -4"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        told = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
        assert "GIT_SSH_COMMAND" in told
        assert "GIT_DIR" not in told
        assert "GIT_INDEX_FILE" not in told

    def test_what_a_user_needs_stays(self, two, monkeypatch):
        handed = [("safe.directory", "/one"), ("safe.directory", "/two"), ("core.worktree", "/three")]
        monkeypatch.setenv(git_environment.COUNT, str(len(handed)))
        for number, pair in enumerate(handed):
            for name, text in zip(git_environment.PAIR, pair, strict=True):
                monkeypatch.setenv(f"{name}{number}", text)
        monkeypatch.setenv("GIT_SSH_COMMAND", "ssh -i key")
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
        told = git_environment.environment()
        assert {told[name] for name in ("GIT_SSH_COMMAND", "HTTPS_PROXY")} == {"ssh -i key", "http://proxy"}
        assert told["GIT_CONFIG_GLOBAL"] == os.environ["GIT_CONFIG_GLOBAL"]
        assert git.output("config", "--get-all", "safe.directory").splitlines()[-2:] == ["/one", "/two"]
        assert git.start("config", "core.worktree").returncode == 1

    def test_a_count_of_settings_that_is_none_is_no_obstacle(self, two, monkeypatch):
        for count in ("x", "-1", "9" * 30, ""):
            monkeypatch.setenv(git_environment.COUNT, count)
            assert git.here()

    def test_git_is_started_in_one_place(self):
        starts = re.compile(r"""\[\s*["']git["']""")
        files = [path for path in (ROOT / "scripts").rglob("*.py") if starts.search(path.read_text())]
        assert {path.name for path in files} == {"git.py", "git_environment.py"}

    def test_no_git_is_told_in_a_line(self, two, monkeypatch):
        monkeypatch.setenv("PATH", "")
        with pytest.raises(command.UserError, match="git is not installed; install it"):
            git.output("rev-parse", "HEAD")


class TestWishes:
    def test_no_setting_of_how_text_looks_changes_what_is_read(self, signed, tmp_path, monkeypatch):
        Path("adamw").mkdir()
        Path("adamw", "new.py").write_text("")
        before = read(signed.path)
        settings(tmp_path, monkeypatch, WISHES + f"[gpg]\n    program = {tmp_path / 'gpg'}\n")
        assert read(signed.path) == before
        assert before["changed"] is True
        assert before["subject"] == SUBJECT

    def test_the_same_settings_change_text_for_people_but_in_our_environment(self, signed, tmp_path, monkeypatch):
        asked = (["log", "-1", "--format=%ct"], ["log", "-1"], ["tag", "-l"], ["status", "--porcelain"], ["status"])
        Path("new").write_text("")
        before = [subprocess.check_output(["git", *words]) for words in asked]
        settings(tmp_path, monkeypatch, WISHES + f"[gpg]\n    program = {tmp_path / 'gpg'}\n")
        for words, known in zip(asked, before, strict=True):
            assert subprocess.run(["git", *words], capture_output=True).stdout != known, words
            assert git.run(*words) == known, words

    def test_a_mirror_is_made_fetched_and_read_all_the_same(self, two, tmp_path, monkeypatch):
        second = two[1]
        settings(tmp_path, monkeypatch, WISHES)
        (tmp_path / "clone").mkdir()
        monkeypatch.chdir(tmp_path / "clone")
        address = f"file://{second.path}"
        Git(address, "mlx")
        newest = second.commit("new", "v0.39.1")
        repo = Git(address, "mlx")
        repo.pull()
        assert upstream.of_commit(repo._path, newest) == "0.39.1"
        assert set(repo.get_tags()) == {"v0.30.1", "v0.31.1", "v0.32.1", "v0.39.1"}

    def test_results_are_shared_all_the_same(self, tmp_path, monkeypatch):
        origin = make_origin(tmp_path)
        clones = [Clone(tmp_path / name, origin, name) for name in ("a", "b")]
        settings(tmp_path, monkeypatch, WISHES)
        for clone in clones:
            monkeypatch.chdir(clone.path)
            clone.add_run(1, a=1.0)
            done = share.push(branch.checked("origin", "results"), clone.results, None, "results")
            assert done == share.Shared(2, {})
        settings(tmp_path, monkeypatch, "")
        assert len(on_branch(origin)) == 4
        assert clone.files() == on_branch(origin)

    def test_git_is_asked_in_english_whatever_the_user_speaks(self, tmp_path, monkeypatch):
        speaks = (
            'if [ "$LC_ALL" = C ]; then echo "fatal: not a git repository"; else echo "fatal: Kein Git-Repository"; fi'
        )
        (tmp_path / "git").write_text(f"#!/bin/sh\n({speaks}) >&2\nexit 128\n")
        (tmp_path / "git").chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("LANGUAGE", "de")
        monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
        with pytest.raises(command.UserError, match="is no clone of a repository; git clone it"):
            git.output("rev-parse", "HEAD")


class TestAnotherUser:
    """A checkout that belongs to somebody else, as a container or sudo has it."""

    @pytest.fixture(autouse=True)
    def theirs(self, two, tmp_path, monkeypatch):
        settings(tmp_path, monkeypatch, "")
        monkeypatch.setenv(DIFFERENT_OWNER, "1")

    @pytest.mark.parametrize(
        "look",
        [
            lambda: git.output("rev-parse", "HEAD"),
            lambda: git.find_commit("HEAD"),
            lambda: git.changed("adamw"),
            lambda: branch.checked("origin", "results"),
            lambda: Git(".", "test").get_hash_from_name("main"),
            lambda: Git(".", "test").get_hashes_from_range("main"),
            repository.clone,
            lambda: preflight.clock(Check()),
        ],
    )
    def test_every_reader_says_so_and_what_to_type(self, look):
        with pytest.raises((command.UserError, util.UserError)) as told:
            look()
        path = re.escape(str(Path.cwd()))
        asked = f"{path} belongs to another user, .*; if you trust it: git config --global --add safe.directory {path}"
        assert re.fullmatch(asked, str(told.value))

    def test_what_it_says_helps(self, tmp_path):
        with pytest.raises(command.UserError) as told:
            git.output("rev-parse", "HEAD")
        step = str(told.value).partition("trust it: ")[2]
        subprocess.run(step, shell=True, check=True)
        assert git.here()


@pytest.fixture
def partial(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A clone without the files of old commits, in which this process is, and where it was cloned from."""
    made = Upstream(tmp_path / "made")
    for number in range(3):
        (made.path / "file").write_text(f"{number}")
        made.commit(f"number {number}")
    made.git("config", "uploadpack.allowFilter", "true")
    made.git("config", "uploadpack.allowAnySHA1InWant", "true")
    clone = tmp_path / "clone"
    asked = ["git", "clone", "-q", "--filter=blob:none", made.path.as_uri(), str(clone)]
    subprocess.run(asked, check=True)
    monkeypatch.chdir(clone)
    return clone, made.path


class TestPartial:
    def test_asv_checks_out_what_the_clone_lacks(self, partial, tmp_path):
        repo = Git(".", "test")
        for number in range(3):
            repo.checkout(str(tmp_path / "project"), repo.get_hash_from_name(f"HEAD~{2 - number}"))
            assert (tmp_path / "project" / "file").read_text() == f"{number}"

    def test_without_a_network_it_is_said_what_is_wrong_and_the_checkout_stays(self, partial, tmp_path):
        repo, project = Git(".", "test"), tmp_path / "project"
        repo.checkout(str(project), repo.get_hash_from_name("HEAD"))
        partial[1].rename(tmp_path / "away")
        with pytest.raises(
            util.UserError, match=rf"this clone is partial \(--filter\), .*; check the network.*{git.WHOLE}"
        ):
            repo.checkout(str(project), repo.get_hash_from_name("HEAD~2"))
        assert (project / "file").read_text() == "2"
        with pytest.raises(command.UserError, match="this clone is partial"):
            git.extract(git.output("rev-parse", "HEAD~2"), ["file"], tmp_path / "side")

    def test_the_doctor_advises_and_finds_it_wanting_without_a_network(self, partial, tmp_path):
        found = repository.clone()
        assert found.fit is True
        assert re.match(r"a partial clone, which lacks 2 of its files", found.says)
        assert git.WHOLE in found.do
        partial[1].rename(tmp_path / "away")
        found = repository.clone()
        assert found.fit is False
        assert "cannot fetch them: fatal: " in found.says

    def test_what_the_doctor_advises_makes_it_whole(self, partial):
        subprocess.run(git.WHOLE, shell=True, check=True, capture_output=True)
        assert repository.clone() == (True, "the clone has all commits and their files", "")

    def test_a_whole_clone_is_given_no_other_remote(self, two):
        assert asv_git.promisor_settings(str(two[1].path)) == {}


class TestBranch:
    """A clone without the branch whose commits are measured."""

    @pytest.fixture(params=["master", "single", "detached"])
    def clone(self, two, request, tmp_path, monkeypatch) -> Path:
        second, path = two[1], tmp_path / "clone"
        second.git("branch", "feature")
        kinds = {
            "master": ["-b", "main"],
            "single": ["--single-branch", "-b", "feature"],
            "detached": ["-b", "v0.31.1"],
        }
        quiet = ["-c", "advice.detachedHead=false"]
        asked = ["git", *quiet, "clone", "-q", *kinds[request.param], second.path.as_uri(), str(path)]
        subprocess.run(asked, check=True)
        monkeypatch.chdir(path)
        if request.param == "master":
            subprocess.run(["git", "branch", "-m", "main", "master"], check=True)
        (path / "asv.conf.json").write_text('{"version": 1, "repo": ".", "dvcs": "git", "branches": ["main"]}')
        return path

    def test_what_is_said_helps(self, clone):
        config = history.configuration(Path("asv.conf.json"))
        with pytest.raises(command.UserError) as told:
            history.branch_commits(config)
        cause, _, steps = str(told.value).partition("; ")
        assert cause == ".: no branch main here"
        step, _, other = steps.partition(", or ")
        assert other == "name the branch to measure as `branches` in asv.conf.json"
        subprocess.run(step, shell=True, check=True, capture_output=True)
        assert len(history.branch_commits(config)[0]) == 3

    def test_the_doctor_says_what_a_night_would(self, clone):
        night = Settings(lanes=["asv.conf.json"])
        with pytest.raises(command.UserError, match="no branch main here; git "):
            repository.commits(night)
        subprocess.run(["git", "branch", "main", "HEAD"], check=True)
        assert repository.commits(night) == (
            True,
            "asv.conf.json: 2" if clone_is_detached() else "asv.conf.json: 3",
            "",
        )

    def test_a_range_that_is_none_is_no_missing_branch(self, two):
        with pytest.raises(util.ProcessError):
            Git(".", "test").get_hashes_from_range("nothing..main")


def clone_is_detached() -> bool:
    return git.start("symbolic-ref", "-q", "HEAD").returncode == 1


class TestDoctor:
    def test_a_lane_that_is_elsewhere_is_asked_for_and_not_cloned(self, two, tmp_path):
        there, gone = two[1].path.as_uri(), (tmp_path / "gone").as_uri()
        for name, address in (("there", there), ("gone", gone)):
            told = {"version": 1, "project": "mlx", "repo": address, "dvcs": "git", "branches": ["main"]}
            Path(f"{name}.json").write_text(json.dumps(told))
        assert repository.commits(Settings(lanes=["there.json"])) == (True, "there.json: to be cloned", "")
        found = repository.commits(Settings(lanes=["gone.json"]))
        assert (found.fit, "gone cannot be read: fatal: " in found.says) == (False, True)
        assert "take the lane out of `lanes`" in found.do
        assert not Path(".asv").exists()

    def test_a_remote_that_can_be_read_and_takes_no_push_is_to_do(self, two, tmp_path):
        first, second = two
        second.git("remote", "add", "origin", str(first.path))
        assert repository.remote(Settings(remote="origin")).fit is True
        second.git("remote", "set-url", "--push", "origin", str(tmp_path / "nowhere"))
        found = repository.remote(Settings(remote="origin"))
        assert (found.fit, "takes no push: fatal: " in found.says) == (False, True)
        assert repository.remote(Settings(remote="origin", push=False)).fit is True
        assert first.git("for-each-ref", "--format=%(refname)", "refs/heads") == "refs/heads/main"

    def test_the_users_own_ssh_is_what_is_asked(self, two, tmp_path, monkeypatch):
        (tmp_path / "ssh").write_text("#!/bin/sh\necho my own ssh says no >&2\nexit 255\n")
        (tmp_path / "ssh").chmod(stat.S_IRWXU)
        settings(tmp_path, monkeypatch, f"[core]\n    sshCommand = {tmp_path / 'ssh'}\n")
        assert repository.unreachable("ssh://example.invalid/r") == (
            "my own ssh says no fatal: Could not read from remote repository."
        )

    def test_a_shallow_clone_is_to_do(self, two, tmp_path, monkeypatch):
        subprocess.run(
            ["git", "clone", "-q", "--depth", "1", two[1].path.as_uri(), str(tmp_path / "clone")], check=True
        )
        monkeypatch.chdir(tmp_path / "clone")
        assert repository.clone() == (False, "the clone has not all commits", "git fetch --unshallow")

    def test_git_runs_or_not(self):
        assert repository.runs("git version 2.39.5 (Apple Git-154)\n").fit is True
        assert repository.runs("xcode-select: note: no developer tools").fit is False


def test_an_asv_checkout_of_a_shallow_clone_works_whatever_the_user_rejects(two, tmp_path, monkeypatch):
    subprocess.run(["git", "clone", "-q", "--depth", "1", two[1].path.as_uri(), str(tmp_path / "clone")], check=True)
    monkeypatch.chdir(tmp_path / "clone")
    settings(tmp_path, monkeypatch, WISHES)
    repo = Git(".", "test")
    repo.checkout(str(tmp_path / "project"), repo.get_hash_from_name("main"))
    assert (tmp_path / "project" / ".git").is_dir()


def test_results_of_commits_that_a_shallow_clone_lacks_are_said_to_be_so(tmp_path, monkeypatch):
    (tmp_path / "whole").mkdir()
    made = History(tmp_path / "whole", 3)
    for number in (0, 2):
        made.add(number, {SECONDS: {CASE: 1.0}})
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--depth", "1", made.folder.as_uri(), str(clone)], check=True)
    told = json.loads(made.config.read_text()) | {"repo": str(clone)}
    (tmp_path / "asv.conf.json").write_text(json.dumps(told))
    known = history.read(history.configuration(tmp_path / "asv.conf.json"), made.results)
    (left_out,) = [line for line in known.problems if made.commits[0][:8] in line]
    assert left_out.endswith("or not any more in this shallow clone (git fetch --unshallow gets the rest)")


def test_two_commits_without_a_common_one_are_no_ancestors(two):
    second = two[1]
    before = git.here()
    second.git("checkout", "-q", "--orphan", "other")
    other = second.commit("other")
    assert git.is_ancestor(f"{before}~1", before)
    assert not git.is_ancestor(before, other)
    with pytest.raises(command.UserError, match="git merge-base: fatal: "):
        git.is_ancestor("0" * 40, other)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("", "no reason given"),
        ("warning: one\nfatal: two\nhint: three\n", "fatal: two"),
        ("\x1b[31merror: one\x1b[m\n", "error: one"),
        (
            "ssh: no route\nfatal: Could not read from remote repository.\n\nPlease make sure\nthe repository is.\n",
            "ssh: no route fatal: Could not read from remote repository.",
        ),
    ],
)
def test_of_an_error_the_reason_is_told(told, expected):
    assert git.reason(told) == expected


class TestNights:
    """Whole nights, by real git and a stub that measures."""

    pytestmark = pytest.mark.slow

    @pytest.fixture
    def quick(self, tmp_path) -> Quick:
        made = Quick(tmp_path)
        made.settings(SETTINGS.replace("report = false", "report = true"))
        return made

    def test_one_that_a_hook_of_another_repository_starts_measures_its_own(self, quick, two):
        other = two[0]
        before = other.git("rev-list", "--all"), other.git("status", "--porcelain")
        names = {"GIT_DIR": str(other.path / ".git"), "GIT_INDEX_FILE": str(other.path / ".git" / "index")}
        code, out = quick.run("--summary", str(quick.folder / "s.md"), **names, GIT_WORK_TREE=str(other.path))
        assert code == night.GREEN, out
        assert sorted(quick.seconds()) == sorted(quick.cases)
        assert f"{quick.machine}/nights.jsonl" in quick.branch()
        assert (other.git("rev-list", "--all"), other.git("status", "--porcelain")) == before

    def test_one_with_every_setting_of_a_user_is_green_and_its_report_has_dates_and_subjects(self, quick, tmp_path):
        (tmp_path / "wishes").write_text(WISHES)
        code, out = quick.run(GIT_CONFIG_GLOBAL=str(tmp_path / "wishes"))
        assert code == night.GREEN, out
        assert "the clock is not behind the newest commit" in out
        written = "".join(path.read_text() for path in (quick.path / ".asv" / "html" / "data").glob("*.js"))
        assert '"subject": "second"' in written or '"subject":"second"' in written

    def test_bench_without_the_branch_prints_its_table_and_then_why_there_is_no_report(self, quick, tmp_path):
        quick.git("branch", "-m", "main", "master")
        asked = [
            sys.executable,
            "-m",
            "scripts.bench",
            "--machine",
            quick.machine,
            "--json",
            str(tmp_path / "rows.json"),
        ]
        done = subprocess.run(asked, cwd=quick.path, env=quick.environment, capture_output=True, text=True)
        assert done.returncode == 2
        assert "% of" in done.stdout
        assert len(json.loads((tmp_path / "rows.json").read_text())["cases"]) == len(quick.cases)
        assert done.stderr.splitlines()[-1].startswith(
            "error: asv publish failed: no branch main here; git branch main origin/main, or name"
        )
