"""MLX's releases and commits: what is asked of a repository, of the package index and of this machine."""

import hashlib
import http.server
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import synthetic
from asv import util
from asv.config import Config
from asv.plugins.git import Git
from upstreams import Upstream

from benchmarks.harness import host
from scripts import alerts, asv_git, asv_mlx, command, git, history, lanes, sides, upstream
from scripts.nightly import plan, steps
from scripts.nightly.settings import Settings

ROOT = Path(__file__).parent.parent
TAGS = ("v0.25.2", "v0.26.5", "v0.31.2", "v0.32.0", "v0.33.0rc1", "nightly")


@pytest.fixture
def clone(tmp_path) -> Upstream:
    """Releases with and without wheels, and work after them."""
    made = Upstream(tmp_path / "mlx")
    for tag in ("v0.25.2", "v0.26.5", "", "v0.31.2"):
        made.commit(tag or "work", tag)
    made.commit("release", "v0.32.0", annotated=True)
    made.commit("release candidate", "v0.33.0rc1")
    made.commit("not a release", "nightly")
    return made


@pytest.fixture
def lane(clone, tmp_path, monkeypatch) -> Config:
    """The lane's configuration, of a project that lies in the current folder."""
    project = tmp_path / "project"
    project.mkdir()
    text = (ROOT / lanes.MLX).read_text().replace("https://github.com/ml-explore/mlx.git", str(clone.path))
    (project / lanes.MLX).write_text(text)
    (project / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (project / "benchmarks").mkdir()
    (project / "asv.conf.json").write_text("{}")
    monkeypatch.chdir(project)
    return Config.load(str(lanes.MLX))


class TestReleases:
    def test_a_tag_names_one_or_none(self):
        tags = ("v0.31.2", "v1.0", "v0.33.0rc1", "nightly", "0.31.2", "v0.31.2\n", "v" + "9" * 50)
        assert [upstream.of_tag(tag) for tag in tags] == ["0.31.2", "1.0", None, None, None, None, None]

    def test_a_commit_is_one_or_none_whatever_kind_of_tag_it_has(self, clone):
        found = [upstream.of_commit(str(clone.path), commit) for commit in clone.git("rev-list", "HEAD").split()]
        assert found == [None, None, "0.32.0", "0.31.2", None, "0.26.5", "0.25.2"]

    def test_those_that_the_variants_run_on_the_oldest_first(self, clone, lane):
        clone.commit("later", "v0.29.10")
        found = upstream.release_commits(lane)
        assert list(found.values()) == ["0.26.5", "0.29.10", "0.31.2", "0.32.0"]
        assert all(clone.git("rev-parse", f"v{release}^{{commit}}") == commit for commit, release in found.items())

    def test_a_clone_without_tags_is_told(self, clone, lane):
        for tag in clone.git("tag").split():
            clone.git("tag", "-d", tag)
        with pytest.raises(command.UserError, match=r"no release's tag in .*; in a clone: git fetch --tags"):
            upstream.release_commits(lane)

    def test_a_clone_of_old_tags_is_not_told_to_fetch_them(self, clone, lane):
        for tag in set(clone.git("tag").split()) - {"v0.25.2"}:
            clone.git("tag", "-d", tag)
        with pytest.raises(command.UserError, match="has no tag of a release that the variants run on, mlx>=") as error:
            upstream.release_commits(lane)
        assert "fetch" not in str(error.value)

    def test_only_a_configuration_that_is_not_here_is_looked_for_elsewhere(self, lane):
        lanes.MLX.write_text("{")
        with pytest.raises(command.UserError) as error:
            upstream.find("v0.31.2")
        assert "root of a clone" not in str(error.value)
        lanes.MLX.unlink()
        with pytest.raises(command.UserError, match="run it from the root of a clone"):
            upstream.find("v0.31.2")

    def test_what_the_index_has_for_every_package_of_one(self, at_root, monkeypatch):
        has = {"mlx": ["0.32.0", "0.30.2", "0.25.2", "0.26.5"], "mlx-cpu": ["0.26.5", "0.32.0"]}
        monkeypatch.setattr(upstream, "packages", lambda: tuple(has))
        monkeypatch.setattr(upstream, "versions", has.__getitem__)
        assert upstream.releases() == ["0.26.5", "0.32.0"]

    def test_packages_by_platform(self, monkeypatch):
        monkeypatch.setattr(upstream, "HERE", host.Mac())
        assert upstream.packages() == ("mlx", "mlx-metal")
        monkeypatch.setattr(upstream, "HERE", host.Linux())
        for cuda, backend in ((True, "mlx-cuda-13"), (False, "mlx-cpu")):
            monkeypatch.setattr(upstream.asv_plugin, "installed", lambda package, cuda=cuda: cuda)
            assert upstream.packages() == ("mlx", backend)


class TestOneListForNightsAndForSearches:
    """A release may lie beside the branch: MLX's patch releases are made on branches of their own."""

    @pytest.fixture
    def beside(self, clone) -> dict[str, str]:
        """By release the commits that are on no branch that is searched."""
        found = {}
        for start, tags in (("v0.31.2", ["v0.31.3", "v0.31.10"]), ("v0.26.5", ["v0.26.6"]), ("v0.31.2", ["v0.31.4"])):
            clone.git("checkout", "-q", "-b", f"of-{tags[0]}", start)
            found |= {tag[1:]: clone.commit("patch", tag, annotated=tag == "v0.31.3") for tag in tags}
            clone.git("checkout", "-q", "main")
        clone.git("checkout", "-q", "--orphan", "alone")
        found["0.27.0"] = clone.commit("of another history", "v0.27.0")
        clone.git("checkout", "-q", "main")
        return found

    def test_what_is_measured_is_what_is_searched_in_the_same_order(self, clone, lane, beside):
        measured, searched = plan.commits(lane), history.branch_commits(lane)[0]
        assert [one for one in searched if one in measured] == measured
        releases = upstream.release_commits(lane)
        assert [releases[one] for one in measured] == [
            "0.27.0", "0.26.5", "0.26.6", "0.31.2", "0.31.3", "0.31.4", "0.31.10", "0.32.0"
        ]  # fmt: skip
        on_branch = clone.git("rev-list", "--first-parent", "--reverse", "main").split()
        assert [one for one in searched if one in on_branch] == on_branch
        assert set(searched) == {*on_branch, *beside.values()}

    def test_a_release_that_was_merged_follows_what_it_grew_from(self, clone, lane):
        start = clone.git("rev-parse", "v0.31.2^{commit}")
        clone.git("checkout", "-q", "-b", "side", "v0.31.2")
        merged = clone.commit("patch", "v0.31.5")
        clone.git("checkout", "-q", "main")
        clone.git("merge", "-q", "--no-ff", "-m", "merge", "side")
        searched = history.branch_commits(lane)[0]
        assert searched.index(merged) == searched.index(start) + 1
        assert merged in plan.commits(lane)

    def test_results_of_a_release_beside_the_branch_are_in_the_history(self, tmp_path, clone, lane, beside):
        (tmp_path / "of releases").mkdir()
        made = synthetic.History(tmp_path / "of releases", 1)
        made.commits = [beside["0.31.3"], clone.git("rev-parse", "v0.32.0^{commit}")]
        for number in (0, 1):
            made.add(number, {synthetic.SECONDS: {synthetic.CASE: 1.0 + number}})
        known = history.read(lane, made.results)
        assert [line for line in known.problems if "branch" in line] == []
        (series,) = history.series(known.points)
        assert [known.commits[place] for place in series.positions] == made.commits
        assert series.values.tolist() == [1.0, 2.0]

    def test_a_clone_without_tags_has_a_history_though_nothing_to_measure(self, clone, lane):
        for tag in clone.git("tag").split():
            clone.git("tag", "-d", tag)
        assert history.branch_commits(lane)[0] == clone.git("rev-list", "--reverse", "main").split()
        with pytest.raises(command.UserError, match="no release's tag"):
            plan.commits(lane)

    def test_in_another_lane_tags_are_only_names(self, clone, lane, beside):
        lane.environment_type = "mlx"
        on_branch = clone.git("rev-list", "--reverse", "main").split()
        assert plan.commits(lane) == history.branch_commits(lane)[0] == on_branch


class TestAlerts:
    """An alert's line may name any commit: what runs for it is MLX's own branch, or a release."""

    def search(self, monkeypatch, lane: Config, good: str, bad: str) -> tuple[list[tuple[str, ...]], str]:
        """What is started to find an alert's commit, and what comes of it."""
        started: list[tuple[str, ...]] = []
        known = alerts.Known("0123abcd", "mac", alerts.CONFIRMED, True, good, bad, {("", "m", "c"): (1.0, 2.0)})
        commits, _ = history.branch_commits(lane)
        (Path("results") / "mac").mkdir(parents=True, exist_ok=True)
        with monkeypatch.context() as patched:
            patched.setattr(subprocess, "Popen", None)
            patched.setattr(steps, "run", lambda *asked, seconds: started.append(asked) or steps.Done(0, ["it"], []))
            return started, steps.search(str(lanes.MLX), Path("results"), "mac", known, commits, Settings())

    def test_a_pull_request_that_is_in_a_clone_starts_nothing(self, clone, lane, monkeypatch):
        released = clone.git("rev-parse", "v0.31.2")
        clone.git("checkout", "-q", "--detach")
        stranger = clone.commit("stranger")
        clone.git("update-ref", "refs/pull/1/head", stranger)
        clone.git("tag", "v0.10.0", stranger)  # which no variant runs on
        clone.git("checkout", "-q", "-b", "fork")
        clone.git("checkout", "-q", "main")
        for good, bad in ((released, stranger), (stranger, released), (released, "f" * 40)):
            started, told = self.search(monkeypatch, lane, good, bad)
            assert started == []
            other = bad if good == released else good
            assert told == f"not found: {other[:10]} is not on the searched branch"

    def test_a_release_beside_the_branch_is_searched_for(self, clone, lane, monkeypatch):
        clone.git("checkout", "-q", "-b", "patches", "v0.31.2")
        patch = clone.commit("patch", "v0.31.3")
        clone.git("checkout", "-q", "main")
        released = clone.git("rev-parse", "v0.31.2")
        started, told = self.search(monkeypatch, lane, released, patch)
        assert [(asked[0], asked[3:5]) for asked in started] == [("scripts.bisect", (released, patch))]
        assert told == "it"


class TestCommits:
    def test_names(self, clone, lane):
        tagged = clone.git("rev-parse", "v0.32.0^{commit}")
        for name in ("v0.32.0", "0.32.0", tagged, tagged[:9]):
            assert upstream.find(name)[2] == tagged
        for name in ("v9.9", "--upload-pack=touch x", "HEAD..v0.32.0", ""):
            with pytest.raises(command.UserError, match=r"no commit .* name a tag as v0.31.2 or a commit"):
                upstream.find(name)

    def test_order_and_what_lies_between(self, clone, lane):
        (clone.path / "mlx").mkdir()
        (clone.path / "mlx" / "array.cpp").write_text("int x;")
        touched = clone.commit("\x1b[31m<b>touches</b> " + "x" * 200)
        clone.commit("nothing of a step")
        assert upstream.between("mlx==0.32.0", "mlx@main") == [f"mlx@{touched}"]
        assert upstream.is_older("mlx==0.26.5", "mlx==0.32.0")
        assert not upstream.is_older("mlx==0.32.0", "mlx==0.26.5")
        assert not upstream.is_older("mlx@main", "mlx@main")
        told = upstream.described(f"mlx@{touched}")
        assert told.isprintable()
        assert told.startswith(f"{touched[:10]} of MLX <b>touches</b> xxx")
        assert len(told) < 90

    def test_sides_in_a_lane(self):
        mlx, ours = lanes.lane("mlx"), lanes.lane("adamw")
        assert sides.in_lane(mlx, "v0.31.2") == "mlx@v0.31.2"
        assert [sides.in_lane(mlx, name) for name in (".", "mlx==0.31.2", "variant:flat")] == [
            ".", "mlx==0.31.2", "variant:flat",
        ]  # fmt: skip
        assert sides.in_lane(ours, "main") == "main"

    def test_a_released_commit_is_the_release(self, clone, lane, monkeypatch):
        monkeypatch.setattr(sides, "interpreter", lambda mlx: f"python with {mlx}")
        side = sides.resolve("mlx@v0.31.2")
        assert (side.name, side.mlx, side.python) == ("mlx==0.31.2", "0.31.2", "python with 0.31.2")


def answering(tmp_path: Path, text: str, code: int) -> str:
    """An interpreter that prints `text` and ends with `code`."""
    (tmp_path / "said").write_text(text)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncat "{tmp_path / "said"}"\nexit {code}\n')
    python.chmod(0o755)
    return str(python)


@pytest.fixture
def index(tmp_path):
    """A package index with mlx 0.30.0, and a withdrawn 0.30.2; for pip's environment."""
    files = tmp_path / "index"
    links = []
    for version, attributes in (("0.30.0", ""), ("0.30.2", ' data-yanked="wrong &lt;b&gt;metallib&lt;/b&gt;"')):
        name = f"mlx-{version}-py3-none-any.whl"
        folder = files / "simple" / "mlx"
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder / name, "w") as wheel:
            about = f"mlx-{version}.dist-info"
            wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: mlx\nVersion: {version}\n")
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        links.append(f'<a href="{name}#sha256={digest}"{attributes}>{name}</a>')
    (folder / "index.html").write_text("<!doctype html><html><body>" + "<br>".join(links) + "</body></html>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(files))

        def log_message(self, *_):
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()


class TestDownload:
    """By pip itself, from an index of our own."""

    @pytest.fixture(autouse=True)
    def plain_pip(self, monkeypatch):
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        monkeypatch.setattr(upstream, "packages", lambda: ("mlx",))

    def test_there_withdrawn_and_not_there(self, index, tmp_path, monkeypatch):
        monkeypatch.setenv("PIP_INDEX_URL", index)
        upstream.download(sys.executable, "0.30.0", tmp_path)
        assert (tmp_path / "mlx-0.30.0-py3-none-any.whl").exists()
        with pytest.raises(upstream.NotThere, match=r"^mlx 0.30.2 was withdrawn .* \(mlx: wrong <b>metallib</b>\)$"):
            upstream.download(sys.executable, "0.30.2", tmp_path / "withdrawn")
        with pytest.raises(upstream.NotThere, match=r"^mlx 0.31.9: the package index has no mlx==0.31.9 for "):
            upstream.download(sys.executable, "0.31.9", tmp_path)

    def test_without_a_network(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
        for retries, told in (
            ("1", "; check the network$"),
            ("0", "or it has none$"),
        ):  # without one pip gives no reason
            monkeypatch.setenv("PIP_RETRIES", retries)
            with pytest.raises(upstream.NotThere, match=rf"^mlx 0.30.0: nothing called mlx .*{told}"):
                upstream.download(sys.executable, "0.30.0", tmp_path)

    @pytest.mark.parametrize(
        ("said", "told"),
        [
            ("Retrying after NewConnectionError\nERROR: No matching distribution (from versions: none)", True),
            ("ERROR: HTTPSConnectionPool: Max retries exceeded with url: /simple", True),
            ("Retrying after NewConnectionError\nERROR: the index is broken", False),
            ('ERROR: unknown command "index"', False),
        ],
    )
    def test_only_who_had_no_network_is_sent_to_look_at_it(self, said, told, monkeypatch):
        failed = subprocess.CompletedProcess([], 1, "", said)
        monkeypatch.setattr(upstream.subprocess, "run", lambda *arguments, **more: failed)
        with pytest.raises(command.UserError, match="no list of MLX's releases: ERROR: ") as error:
            upstream.versions("mlx")
        assert ("check the network" in str(error.value)) == told
        with pytest.raises(upstream.NotThere) as not_there:
            upstream.download(sys.executable, "0.30.0", Path())
        assert ("check the network" in str(not_there.value)) == told

    def test_what_else_goes_wrong_is_its_last_error(self, tmp_path):
        python = answering(tmp_path, "Collecting mlx\nERROR: No space left on device\n", 1)
        with pytest.raises(
            upstream.NotThere, match=r"^mlx 0.30.0 cannot be downloaded: ERROR: No space left on device$"
        ):
            upstream.download(python, "0.30.0", tmp_path)


class TestMirror:
    @pytest.mark.parametrize(
        ("said", "told"),
        [
            ("fatal: unable to access 'https://x/': Could not resolve host: x", True),
            ("fatal: unable to access 'https://x/': Failed to connect to x port 443", True),
            (
                "ssh: connect to host x port 22: Connection timed out\nfatal: Could not read from remote repository.",
                True,
            ),
            ("fatal: unable to access 'https://x/': The requested URL returned error: 403", False),
            ("fatal: write error: No space left on device", False),
            ("fatal: repository 'https://x/' not found", False),
        ],
    )
    def test_a_clone_that_failed_is_put_down_to_the_network_only_where_git_says_so(
        self, said, told, tmp_path, monkeypatch
    ):
        def fail(self, url, mirror):
            raise util.ProcessError(["git"], 128, "", said)

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(asv_git, "original_init", fail)
        with pytest.raises(util.UserError, match="cannot clone https://x: ") as error:
            Git("https://x", "mlx")
        assert ("; check the network, or name a clone as `repo` in" in str(error.value)) == told
        assert said.splitlines()[-1] in str(error.value)

    def test_it_lies_below_asv_and_is_brought_up_to_date(self, clone, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        address = f"file://{clone.path}"
        assert Git(address, "mlx")._path == str(tmp_path / ".asv" / "mlx.git")
        newest = clone.commit("new", "v0.32.1")
        repo = Git(address, "mlx")
        repo.pull()
        assert upstream.of_commit(repo._path, newest) == "0.32.1"

    @pytest.mark.parametrize("older", [False, True])
    def test_what_strangers_ask_to_be_merged_is_not_in_it(self, clone, tmp_path, monkeypatch, older):
        """GitHub has every pull request in a ref of its own; asv's own mirror, which an older one is, has them all."""
        monkeypatch.chdir(tmp_path)
        address, forgotten, forget = f"file://{clone.path}", [], asv_git.forget
        monkeypatch.setattr(asv_git, "forget", lambda refs, at: (forgotten.extend(refs), forget(refs, at)))

        def ask(number: int) -> str:
            clone.git("checkout", "-q", "--detach")
            asked = clone.commit(f"stranger {number}")
            clone.git("update-ref", f"refs/pull/{number}/head", asked)
            clone.git("update-ref", f"refs/replace/{clone.git('rev-parse', 'v0.31.2')}", asked)
            clone.git("checkout", "-q", "main")
            return asked

        strangers = [ask(1)]
        mirror = tmp_path / ".asv" / "mlx.git"
        if older:
            clone.git("clone", "-q", "--mirror", address, str(mirror))
            subprocess.run(["git", "fetch", "-q", "origin"], cwd=mirror, check=True)
            assert git.find_commit("refs/pull/1/head", mirror) == strangers[0]
        wanted = {f"refs/heads/{name}" for name in ("main", "patches")} | {f"refs/tags/{tag}" for tag in TAGS}
        clone.git("branch", "patches", "v0.31.2")
        for fetches in (False, True):
            repo = Git(address, "mlx")
            if fetches:
                strangers.append(ask(2))
                newest = clone.commit("new", "v0.32.1")
                wanted.add("refs/tags/v0.32.1")
                repo.pull()
                assert git.find_commit("main", mirror) == newest
            refs = git.output("for-each-ref", "--format=%(refname)", where=mirror).split()
            assert set(refs) == (wanted if fetches or not older else wanted - {"refs/heads/patches"})
            for name in (*strangers, "refs/pull/1/head", "pull/1/head", "refs/pull/2/head"):
                assert git.find_commit(name, mirror) is None
            reachable = git.output("rev-list", "--all", where=mirror).split()
            assert not set(strangers) & set(reachable)
        assert bool(forgotten) == older  # nobody brings them, to throw them away

    def test_another_repository_is_another_mirror(self, clone, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Git(f"file://{clone.path}", "mlx")
        with pytest.raises(
            util.UserError, match=r"^\.asv/mlx\.git is a mirror of file://.*/mlx, not of file:///fork; remove"
        ):
            Git("file:///fork", "mlx")

    def test_a_mirror_is_there_whole_or_not_at_all(self, clone, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        def half(self, url, path):
            Path(path, "objects").mkdir(parents=True)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(asv_git, "original_init", half)
            with pytest.raises(KeyboardInterrupt):
                Git(f"file://{clone.path}", "mlx")
        assert not (tmp_path / ".asv" / "mlx.git").exists()
        assert Git(f"file://{clone.path}", "mlx").get_hash_from_name("v0.31.2")

    def test_what_is_new_is_fetched_when_a_name_is_looked_up(self, clone, lane, tmp_path, monkeypatch):
        text = lanes.MLX.read_text().replace(str(clone.path), f"file://{clone.path}")
        lanes.MLX.write_text(text)
        assert upstream.find("v0.32.0")
        newest = clone.commit("new", "v0.32.1")
        upstream.fetched.clear()
        assert upstream.find("v0.32.1")[2] == newest

    def test_unreachable_is_one_line_and_what_was_fetched_is_enough(self, clone, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(util.UserError) as told:
            Git(f"file://{tmp_path}/nowhere.git", "mlx")
        assert str(told.value).startswith(f"cannot clone file://{tmp_path}/nowhere.git: fatal: ")
        assert "check the network" not in str(told.value)  # there is one, but nothing there
        assert "\n" not in str(told.value)
        address = f"file://{clone.path}"
        Git(address, "mlx")
        clone.path.rename(tmp_path / "gone")
        repo = Git(address, "mlx")
        repo.pull()
        assert upstream.of_commit(repo._path, repo.get_hash_from_name("v0.31.2")) == "0.31.2"

    def test_changes_in_a_clone_are_told_once(self, clone, monkeypatch):
        said = []
        monkeypatch.setattr(asv_git, "log", SimpleNamespace(warning=said.append))
        asv_git.warn_of_changes(str(clone.path))
        assert not said
        (clone.path / "file").write_text("one")
        clone.commit("a file")
        (clone.path / "file").write_text("two")
        asv_git.warned.clear()
        for _ in range(2):
            asv_git.warn_of_changes(str(clone.path))
        assert said == [f"{clone.path} has uncommitted changes, which take no part: what is measured is the commit"]


class TestTools:
    def test_a_night_and_cuda_build_nothing(self, monkeypatch):
        monkeypatch.setattr(asv_mlx, "HERE", SimpleNamespace(missing_build_tools=lambda: "no cmake"))
        assert asv_mlx.missing_tools() == "no cmake"
        monkeypatch.setattr(upstream, "packages", lambda: ("mlx", "mlx-cuda-13"))
        assert asv_mlx.missing_tools() == "what is built from source has no CUDA backend; compare releases"
        monkeypatch.setenv(asv_mlx.RELEASES_ONLY, "1")
        assert asv_mlx.missing_tools() == "a night measures releases only"


def test_why_a_build_failed():
    text = (
        "Collecting\nCMake Error at CMakeLists.txt:3:\n  Could NOT find LAPACK\nERROR: Failed building wheel for mlx\n"
    )
    assert asv_mlx.cause(text) == "Could NOT find LAPACK"
    assert asv_mlx.cause(text.replace("Could NOT find", "no")) == "CMake Error at CMakeLists.txt:3:"
    compiled = (
        "error: subprocess-exited-with-error\nx.cpp:3:1: error: no such thing\nERROR: Failed building wheel for mlx"
    )
    assert asv_mlx.cause(compiled) == "x.cpp:3:1: error: no such thing"
    assert asv_mlx.cause("ERROR: Failed building wheel for mlx\n") == "ERROR: Failed building wheel for mlx"


def test_built_commits_make_room(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commits = [f"{number:040x}" for number in range(1, sides.MOST_BUILT + 3)]
    commits = [commit[::-1] for commit in commits]
    folders = []
    for number, commit in enumerate(commits):
        folders.append(sides.room_for(commit))
        os.utime(folders[-1], (number, number))
    assert sides.room_for(commits[3]) == folders[3]
    assert {path.name for path in sides.BUILT.iterdir()} == {commit[:12] for commit in commits[2:]}


def test_what_is_held_still_has_a_digest_of_its_own(tmp_path):
    for name in asv_mlx.PROJECT:
        subprocess.run(["cp", "-r", str(ROOT / name), str(tmp_path)], check=True)
    assert asv_mlx.digest(tmp_path) == asv_mlx.digest(ROOT)
    (tmp_path / "adamw" / "base.py").open("a").write("# changed\n")
    assert asv_mlx.digest(tmp_path) != asv_mlx.digest(ROOT)
