"""The lane of MLX's own commits, end to end: a stand-in for its repository, real asv, wheels of the package index."""

import shutil
import subprocess
from pathlib import Path

import pytest
from asv import environment, util
from asv.config import Config
from asv.repo import get_repo
from nights import CASES, SETTINGS, Night, derive, replace
from upstreams import Upstream

from scripts import asv_mlx, asv_plugin, ledger, runs, upstream
from scripts.nightly import night, record

pytestmark = pytest.mark.slow

OLD, NEW, NEVER = "0.32.3", "0.32.4", "0.99.0"
"""Two releases, and one that there is only a tag of."""


class LaneNight(Night):
    """Nights of MLX's lane; its environment is made of the one that tests share."""

    def __init__(self, folder: Path, environments: Path) -> None:
        super().__init__(folder)
        self.upstream = Upstream(folder / "mlx")
        replace(self.path / "asv.mlx.conf.json", [("https://github.com/ml-explore/mlx.git", str(self.upstream.path))])
        self.settings(SETTINGS.replace('["adamw"]', '["mlx"]'))
        derive(environments, self.path, self.environment, OF_THE_LANE)

    @property
    def results_folder(self) -> Path:
        return self.path / "results" / "mlx" / self.machine


OF_THE_LANE = """
from asv import environment
from asv.config import Config
from scripts import asv_mlx
(made,) = environment.get_environments(Config.load("asv.mlx.conf.json"), [])
"""


@pytest.fixture
def lane(tmp_path, environments) -> LaneNight:
    return LaneNight(tmp_path, environments)


def test_a_new_release_is_measured_the_night_it_appears(lane):
    old = lane.upstream.commit("old", f"v{OLD}")
    code, out = lane.run()
    assert code == night.GREEN, out
    new = lane.upstream.commit("new", f"v{NEW}", annotated=True)
    never = lane.upstream.commit("never", f"v{NEVER}")
    code, out = lane.run()
    tried = {one.commit: one for one in record.read(lane.path / "results" / "mlx", lane.machine)}
    assert {commit: one.outcome for commit, one in tried.items()} == {
        old: record.MEASURED, new: record.MEASURED, never: record.NOT_INSTALLED,
    }  # fmt: skip
    assert tried[never].reason.startswith(f"mlx {NEVER}: the package index has no mlx=={NEVER} for "), tried[never]
    for commit, release in ((old, OLD), (new, NEW)):
        (path,) = runs.paths(lane.results_folder, commit)
        entries = runs.entries(path)
        assert ledger.machine(entries)["settings"]["mlx"] == release
        assert sorted(ledger.by_case(entries)) == sorted(CASES)
    listed = lane.call("git", "ls-tree", "-r", "--name-only", "results-mlx", where=lane.origin).splitlines()
    brought = [*runs.paths(lane.results_folder), *lane.results_folder.glob("n*.jsonl")]
    assert {f"{lane.machine}/{path.relative_to(lane.results_folder)}" for path in brought} <= set(listed)
    assert not [path for path in (lane.path / "results").iterdir() if path.name != "mlx"]


def test_a_commit_between_releases_is_built_once_and_skipped_without_tools(lane, tmp_path, monkeypatch):
    builds = tmp_path / "builds"
    commits = [lane.upstream.commit_source(builds, number) for number in (1, 2)]
    tagged = lane.upstream.commit("release", f"v{NEVER}")
    monkeypatch.chdir(lane.path)
    monkeypatch.setattr(asv_plugin, "start_scratch", lambda: None)  # it is for a process of asv's own
    config = Config.load("asv.mlx.conf.json")
    repo = get_repo(config)
    (made,) = environment.get_environments(config, [])
    made.create()
    for commit, number in ((commits[0], 1), (commits[1], 2), (commits[0], 1)):
        made.install_project(config, repo, commit)
        python = made.find_executable("python")
        asked = "import importlib.metadata as m, adamw; print(m.version('mlx'), adamw.__file__, sep='\\n')"
        version, ours = subprocess.check_output([python, "-c", asked], cwd=tmp_path, text=True).splitlines()
        assert version == f"0.99.dev1+{number}"
        assert Path(ours).is_relative_to(made._path)
    assert builds.read_text().splitlines() == ["built", "built"]
    assert not subprocess.check_output(["git", "status", "--porcelain", "adamw"], text=True)  # nothing was built there
    (lane.path / "adamw" / "base.py").open("a").write("# changed\n")
    (changed,) = environment.get_environments(config, [])
    assert made.installed_commit_hash == commits[0]
    assert changed.installed_commit_hash is None  # with the adamw of now it is another installation
    shutil.rmtree(asv_mlx.WHEELS)
    monkeypatch.setattr(shutil, "which", lambda name, *_: None)
    for commit, words in (
        (commits[1], f"{commits[1][:8]} is no release of MLX and cannot be built here: no g++, no make, no cmake;"),
        (tagged, f"mlx {NEVER}: the package index has no mlx=={NEVER} for "),
    ):
        with pytest.raises(util.ProcessError) as told:
            changed.install_project(config, repo, commit)
        assert told.value.stderr.startswith(words)
    assert upstream.of_commit(repo._path, tagged) == NEVER
