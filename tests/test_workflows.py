"""The workflows are valid, safe by the linters' account, and their steps do what they say, run here."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from test_exact import Checkout
from test_lock import names

from scripts import setup

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_there_are_workflows():
    assert WORKFLOWS


def test_workflows_have_githubs_schema():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_workflows_are_safe():
    """Pinned actions, no permissions to spare, no credentials left behind, no text of an event in a script."""
    command = [
        shutil.which("zizmor", path=Path(sys.executable).parent),
        "--offline",
        "--no-progress",
        "--persona",
        "pedantic",
        *WORKFLOWS,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("actionlint"), reason="no actionlint")
def test_workflows_pass_actionlint(tmp_path):
    done = subprocess.run(["actionlint", *map(str, WORKFLOWS)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOWS[0].read_text().replace("github.event.before", "github.event_before"))
    done = subprocess.run(["actionlint", str(broken)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode != 0
    assert "event_before" in done.stdout + done.stderr


def test_no_test_fetches_and_runs_somebodys_package():
    fetching = re.compile('"(np|bun|pnp|uv|pip)x"')
    assert not [path.name for path in ROOT.glob("tests/*.py") if fetching.search(path.read_text())]


def script(workflow: str, name: str) -> str:
    """What the step called `name` runs."""
    jobs = YAML(typ="safe").load(ROOT / ".github" / "workflows" / workflow)["jobs"]
    (found,) = (step["run"] for job in jobs.values() for step in job.get("steps", []) if step.get("name") == name)
    return found


def ran(step: str, where: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """What came of a step's lines, run as GitHub's bash does."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step]
    return subprocess.run(command, cwd=where, env=os.environ | more, capture_output=True, text=True)


@pytest.mark.slow
def test_a_push_is_compared_with_what_was_there_before(tmp_path):
    checkout = Checkout(tmp_path / "checkout")
    (checkout.path / ".venv" / "bin").mkdir(parents=True)
    python = checkout.path / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    for path in (checkout.path / "adamw" / "variants").glob("*.py"):
        if path.stem not in ("__init__", "compiled", "eager"):
            path.unlink()
    checkout.commit("two variants")
    first = checkout.git("rev-parse", "HEAD")
    checkout.edit("adamw/variants/eager.py", "kernels_a_leaf", "another = (0, 0)\n    kernels_a_leaf")
    checkout.commit("the same work")
    checkout.edit("benchmarks/harness/cases.py", "in [*WORKLOADS, *sweep()]", "in ['float32/two_leaves']")  # quick
    step = script("ci.yml", "Compare")

    def run(before: str) -> subprocess.CompletedProcess[str]:
        summary = tmp_path / "summary"
        summary.write_text("")
        named = {"BEFORE": before, "DEFAULT": "main", "RUNNER_TEMP": str(tmp_path), "GITHUB_STEP_SUMMARY": str(summary)}
        done = ran(step, checkout.path, **checkout.environment | named)
        lines = [line.removeprefix("| ") for line in done.stdout.splitlines()]
        assert summary.read_text() == "".join(f"    {line}\n" for line in lines)
        return done

    for before in (first, "0" * 40):
        done = run(before)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "0 worse" in done.stdout
        assert f"base: {'HEAD^' if before != first else first[:8]}" in done.stdout
    checkout.edit("adamw/variants/eager.py", "another = (0, 0)", "def apply_single(self, g, p, s):\n"
                  "        return super().apply_single(g + 0, p, s)\n")  # fmt: skip
    checkout.git("add", "adamw")
    checkout.git("commit", "-q", "-m", "an addition too many")
    done = run(checkout.git("rev-parse", "HEAD~1"))
    assert done.returncode == 1
    assert "14 kernels a leaf, was 13; traffic 32N, was 30N" in " ".join(done.stdout.split())


def jobs() -> list[tuple[str, str, dict]]:
    """Every job, with its workflow's name and its own."""
    loaded = [(path.name, YAML(typ="safe").load(path)) for path in WORKFLOWS]
    return [(name, job, told) for name, workflow in loaded for job, told in workflow["jobs"].items()]


ALL_JOBS = pytest.mark.parametrize(
    ("workflow", "name", "job"), jobs(), ids=[f"{workflow}-{name}" for workflow, name, _ in jobs()]
)


@ALL_JOBS
def test_a_job_may_no_more_than_it_needs(workflow, name, job):
    may = {
        ("nightly.yml", "machine"): {"contents": "write", "actions": "write"},  # what its jobs may have at most
        ("machine.yml", "measure"): {},
        ("machine.yml", "save"): {"contents": "write", "actions": "write"},
        ("report.yml", "tell"): {"contents": "read", "issues": "write"},
        ("report.yml", "deploy"): {"pages": "write", "id-token": "write"},
    }
    assert job["permissions"] == may.get((workflow, name), {"contents": "read"})
    assert "secrets" not in str(job)
    assert not any(step.get("with", {}).get("persist-credentials", False) for step in job.get("steps", []))


@ALL_JOBS
def test_what_writes_runs_on_hosted_machines_and_no_machine_of_ours_writes(workflow, name, job):
    writes = "write" in job["permissions"].values()
    own = "self-hosted" in job.get("runs-on", "")
    assert not (writes and own)
    if own:
        assert workflow == "machine.yml"
        assert "github.token" not in str(job)
        assert all("GH_TOKEN" not in step.get("env", {}) for step in job["steps"])


IMPORTED = """
import importlib, importlib.metadata, re, sys
command, *brought = sys.argv[1:]
whose = {
    module: {re.sub(r"[-_.]+", "-", name).lower() for name in found}
    for module, found in importlib.metadata.packages_distributions().items()
}

class Absent:
    def find_spec(name, path=None, target=None):
        if not whose.get(name.partition(".")[0], {"adamw"}) & {"adamw", *brought}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent)
importlib.import_module(command)
print(*{name for module in sys.modules for name in whose.get(module.partition(".")[0], ())})
"""


def imported(command: str, extras: list[str]) -> subprocess.CompletedProcess[str]:
    """The packages that a command imports where only what extras bring is installed."""
    brought = names(setup.locked(setup.listed(extras)))
    return subprocess.run([sys.executable, "-c", IMPORTED, command, *brought], capture_output=True, text=True)


BESIDE_A_TOKEN = {
    (workflow, name): "\n".join(step["run"] for step in job["steps"] if "run" in step)
    for workflow, name, job in jobs()
    if "write" in job["permissions"].values() and any("run" in step for step in job.get("steps", []))
}


def test_there_are_jobs_with_a_token_that_writes():
    assert {("machine.yml", "save"), ("report.yml", "tell")} <= set(BESIDE_A_TOKEN)


@pytest.mark.parametrize("job", BESIDE_A_TOKEN, ids=" ".join)
def test_beside_a_token_that_writes_is_installed_what_is_imported_and_no_more(job, monkeypatch):
    """If it fails, a command imports something new, or no longer: change its extra in pyproject.toml."""
    monkeypatch.chdir(ROOT)
    runs = BESIDE_A_TOKEN[job]
    commands = set(re.findall(r"-m (scripts\.\w+)", runs))
    set_ups = re.findall(r"^.*(?:make |pip |setup\.py).*$", runs, re.MULTILINE)
    assert len(set_ups) == 1
    extras = set_ups[0].removeprefix("python3 scripts/setup.py --only ").split()
    done = [imported(command, extras) for command in commands]
    assert not [one.stderr for one in done if one.returncode]
    assert setup.listed(extras) <= {name for one in done for name in one.stdout.split()}


def test_what_a_command_imports_and_its_extras_do_not_bring_is_found(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert "No module named 'scipy'" in imported("scripts.issue", ["share"]).stderr
    assert "No module named 'mlx'" in imported("mlx.core", ["share", "issue"]).stderr


@ALL_JOBS
def test_actions_are_pinned_and_text_from_outside_is_no_script(workflow, name, job):
    for step in job.get("steps", []):
        assert "uses" not in step or re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"])
        assert "${{" not in step.get("run", "")
    assert "timeout-minutes" in job or "uses" in job


def test_no_workflow_has_permissions_and_ours_for_pull_requests_names_no_machine_of_ours():
    """A pull request brings its own: what keeps it off our machines is a setting of GitHub, which NIGHTLY.md names."""
    for path in WORKFLOWS:
        workflow = YAML(typ="safe").load(path)
        assert workflow["permissions"] == {}
        triggers = workflow.get("on", workflow.get(True))
        assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(triggers)
        assert ("pull_request" in triggers) == (path.name == "ci.yml")
    assert "self-hosted" not in (ROOT / ".github/workflows/ci.yml").read_text()


def test_the_fleet_is_one_list_of_sound_names(tmp_path):
    if not shutil.which("jq"):
        pytest.skip("no jq")
    step = script("nightly.yml", "List the runners")

    def listed(text: str) -> str | None:
        (tmp_path / ".github").mkdir(exist_ok=True)
        (tmp_path / ".github" / "fleet.json").write_text(text)
        out = tmp_path / "out"
        out.write_text("")
        return out.read_text() if ran(step, tmp_path, GITHUB_OUTPUT=str(out)).returncode == 0 else None

    assert listed((ROOT / ".github" / "fleet.json").read_text()).startswith('runners=["')
    assert listed('["mac-1", "mac-2"]') == 'runners=["mac-1","mac-2"]\n'
    for wrong in (
        "[]",
        '["a b"]',
        '["../x"]',
        '["a\\nrunners=b"]',
        '{"a": "b"}',
        "nonsense",
        '["$(id)"]',
        "[1]",
        '["a\\n"]',
    ):
        assert not listed(wrong)


def stand_in(path: Path, *lines: str) -> None:
    """A program that writes down its words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", 'echo "$(basename "$0") $*" >> "$CALLS"', *lines]))
    path.chmod(0o755)


class TestTheMachinesOwnClone:
    @pytest.fixture
    def home(self, tmp_path) -> Path:
        origin = tmp_path / "origin"
        for words in (["init", "-q", "-b", "main", str(origin)], ["clone", "-q", str(origin), str(tmp_path / "adamw")]):
            subprocess.run(["git", *words], check=True, capture_output=True)
        for text in ("one", "two", "three"):
            (origin / "file").write_text(text)
            self.git(origin, "add", "-A")
            self.git(origin, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", text)
        return tmp_path

    def git(self, where: Path, *words: str) -> str:
        return subprocess.check_output(["git", "-C", str(where), *words], text=True).strip()

    def check_out(self, home: Path) -> subprocess.CompletedProcess[str]:
        asked = self.git(home / "origin", "rev-parse", "main~1")
        return ran(script("machine.yml", "Check out"), home, HOME=str(home), GITHUB_SHA=asked)

    def test_it_gets_the_commit_and_keeps_what_nobody_has_saved(self, home):
        clone = home / "adamw"
        for name in (".asv/night/journal", "results/mac/nights.jsonl"):
            (clone / name).parent.mkdir(parents=True)
            (clone / name).write_text("measured")
        (clone / "file").write_text("edited")
        (clone / ".git/index.lock").write_text("")  # a power failure
        done = self.check_out(home)
        assert done.returncode == 0, done.stderr
        assert (clone / "file").read_text() == "two"
        assert self.git(clone, "rev-parse", "main") == self.git(home / "origin", "rev-parse", "main~1")
        assert self.git(clone, "branch", "--show-current") == "main"
        assert [path.read_text() for path in (clone / ".asv/night/journal", clone / "results/mac/nights.jsonl")] == [
            "measured"
        ] * 2

    def test_where_there_is_none_it_is_said_what_to_do(self, home):
        (home / "adamw").rename(home / "elsewhere")
        done = self.check_out(home)
        assert done.returncode == 1
        assert f"error: there is no clone in {home}/adamw; NIGHTLY.md, 7" in done.stdout
        assert "## 7. " in (ROOT / "NIGHTLY.md").read_text()

    def test_nothing_in_the_job_may_empty_it(self):
        job = YAML(typ="safe").load(ROOT / ".github/workflows/machine.yml")["jobs"]["measure"]
        assert not [step for step in job["steps"] if "actions/checkout" in step.get("uses", "")]
        assert all('cd "$HOME/adamw"' in step["run"] for step in job["steps"] if "run" in step)
        assert "\nexec " in script("machine.yml", "Measure")
        assert all(step.get("if") == "always()" for step in job["steps"][-3:])

    def test_a_lane_that_cannot_be_packed_keeps_no_other_back(self, tmp_path):
        stand_in(tmp_path / "adamw/.venv/bin/python", 'case "$*" in *mlx*) ;; *) exit 2 ;; esac')
        there = {"HOME": str(tmp_path), "RUNNER_TEMP": str(tmp_path), "CALLS": str(tmp_path / "calls")}
        done = ran(script("machine.yml", "Pack what is not on the branch yet"), tmp_path, RUNNER="mac-1", **there)
        assert done.returncode == 2
        first, second = (tmp_path / "calls").read_text().splitlines()
        assert "--lane" not in first
        assert "pack --lane mlx --machine mac-1" in second


class TestSaving:
    @pytest.fixture
    def push(self, tmp_path):
        """The step, where a push of the lanes `failing` fails. Its exit code, and what it called."""
        calls = tmp_path / "calls"
        there = {"RUNNER_TEMP": str(tmp_path), "RUNNER": "mac-1", "REPOSITORY": "owner/name", "CALLS": str(calls)}
        stand_in(tmp_path / "gh")

        def push(*failing: str) -> tuple[int, list[str]]:
            calls.unlink(missing_ok=True)
            refuse = [f'case "$*" in *"--lane {lane} "*) exit 2 ;; esac' for lane in failing]
            stand_in(tmp_path / ".venv/bin/python", *refuse)
            path = f"{tmp_path}:{os.environ['PATH']}"
            return ran(script("machine.yml", "Push"), tmp_path, PATH=path, **there).returncode, called()

        def called() -> list[str]:
            return [line.split(" --results ")[0] for line in calls.read_text().splitlines()]

        return push

    LOGIN, REPORT = "gh auth setup-git", "gh workflow run report.yml --repo owner/name"
    FIRST, SECOND = (f"python -m scripts.share push --lane {lane}" for lane in ("adamw", "mlx"))

    @pytest.fixture
    def both(self, tmp_path) -> Path:
        (tmp_path / "arrived/mac-1").mkdir(parents=True)
        (tmp_path / "arrived/mlx/mac-1").mkdir(parents=True)
        return tmp_path

    def test_what_a_machine_brings_is_pushed_under_its_own_name_only(self, both, push):
        assert push() == (0, [self.LOGIN, self.FIRST, self.SECOND, self.REPORT])
        _, first, second, _ = (both / "calls").read_text().splitlines()
        assert first.endswith("/arrived --machine mac-1 --remote https://github.com/owner/name")
        assert second.endswith("/arrived/mlx --machine mac-1 --remote https://github.com/owner/name")

    def test_who_brings_nothing_is_no_error(self, tmp_path, push):
        assert push() == (0, [self.LOGIN])
        (tmp_path / "arrived/mac-2").mkdir(parents=True)
        assert push() == (0, [self.LOGIN])

    def test_a_lane_that_cannot_be_pushed_keeps_no_other_from_being_saved(self, both, push):
        assert push("adamw") == (2, [self.LOGIN, self.FIRST, self.SECOND, self.REPORT])
        assert push("mlx") == (2, [self.LOGIN, self.FIRST, self.SECOND, self.REPORT])
        assert push("adamw", "mlx") == (2, [self.LOGIN, self.FIRST, self.SECOND])


def test_pages_gets_files_and_folders_and_no_links(tmp_path):
    site = tmp_path / "site"
    (site / "mlx").mkdir(parents=True)
    (site / "index.html").write_text("report")
    (site / "mlx" / "hard.html").hardlink_to(site / "index.html")
    (site / "soft.html").symlink_to("index.html")
    assert ran(script("report.yml", "Pack it"), tmp_path, RUNNER_TEMP=str(tmp_path)).returncode == 0
    with tarfile.open(tmp_path / "artifact.tar") as archive:
        members = archive.getmembers()
    assert {one.name for one in members} == {".", "./index.html", "./soft.html", "./mlx", "./mlx/hard.html"}
    assert all(one.isfile() or one.isdir() for one in members)
