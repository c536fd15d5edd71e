"""The workflows are valid, safe by a linter's account, and their steps do what they say, run here."""

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


def script(workflow: str, name: str) -> str:
    """What the step called `name` runs."""
    jobs = YAML(typ="safe").load(ROOT / ".github" / "workflows" / workflow)["jobs"]
    (found,) = (step["run"] for job in jobs.values() for step in job["steps"] if step.get("name") == name)
    return found


@pytest.mark.slow
def test_a_push_is_compared_with_what_was_there_before(tmp_path):
    checkout = Checkout(tmp_path / "checkout")
    (checkout.path / ".venv" / "bin").mkdir(parents=True)
    python = checkout.path / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    first = checkout.git("rev-parse", "HEAD")
    checkout.edit("adamw/variants/eager.py", "kernels_a_leaf", "another = (0, 0)\n    kernels_a_leaf")
    checkout.commit("the same work")
    checkout.edit("benchmarks/harness/cases.py", "in [*WORKLOADS, *sweep()]", "in ['float32/two_leaves']")  # quick
    step = script("exact.yml", "Compare")

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


def test_the_environment_of_a_step_is_no_more_than_it_needs():
    for path in WORKFLOWS:
        workflow = YAML(typ="safe").load(path)
        assert workflow["permissions"] == {}
        for job in workflow["jobs"].values():
            assert set(job["permissions"]) <= {"contents"}
            assert "secrets" not in str(job)
