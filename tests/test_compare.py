"""`scripts.compare` from the outside: two commits timed, verdicts, exit codes, nothing left behind."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from test_exact import Checkout

from scripts import command, pairs, sides

ROOT = Path(__file__).parent.parent


def compare(checkout: Checkout, *arguments: str) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, "-m", "scripts.compare", *arguments]
    return subprocess.run(asked, cwd=checkout.path, env=checkout.environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Checkout:
    """HEAD~1, and HEAD where one variant computes more than it must, one crashes, one is new."""
    made = Checkout(tmp_path_factory.mktemp("timed") / "checkout")
    made.edit("adamw/variants/flat.py", "number, leaves = count(), []", "import os; os.abort()")
    (made.path / "adamw" / "variants" / "another.py").write_text("from adamw.variants.eager import AdamW as AdamW\n")
    path = made.path / "adamw" / "variants" / "eager.py"
    path.write_text(path.read_text() + "\n    def apply_single(self, gradient, parameter, state):\n"
                    "        import numpy as np\n        for _ in range(200):\n"
                    "            np.multiply(np.ones(4096), 2.0)\n"
                    "        return super().apply_single(gradient, parameter, state)\n")  # fmt: skip
    made.commit("slower, broken, new")
    return made


@pytest.mark.slow
def test_a_slower_variant_is_called_so_and_the_others_have_their_own_verdicts(checkout, tmp_path):
    files = ["--json", str(tmp_path / "found.json"), "--html", str(tmp_path / "page.html")]
    done = compare(checkout, "HEAD~1", "HEAD", "--case", "/float32/leaf_1024$", "--budget", "15", *files)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    rows = {row["name"].partition("/")[0]: row for row in found["verdicts"]}
    assert set(rows) == {"eager", "flat", "another"}  # the same code on both sides is not timed
    assert rows["eager"]["verdict"] == "slower"
    assert rows["eager"]["ratio"] > rows["eager"]["low"] > 1.02
    assert rows["eager"]["pairs"] == len(rows["eager"]["logs"]) > 3
    assert rows["flat"]["verdict"] == "broken"
    assert "head: its process died (exit code -6)" in rows["flat"]["why"]
    assert rows["another"]["verdict"] == "new"
    words = " ".join(done.stdout.split())
    assert "1 broken, 1 slower, 1 new" in words
    assert "cases run the same code with the same MLX on both sides" in words
    assert "slower" in (tmp_path / "page.html").read_text()
    assert found["head"]["commit"] == checkout.git("rev-parse", "HEAD")
    assert found["conditions"]["before"]["load"] >= 0
    assert list((checkout.path / ".asv" / "tmp").iterdir()) == []
    assert checkout.git("worktree", "list").count("\n") == 0
    assert checkout.git("status", "--porcelain") == ""


@pytest.mark.slow
def test_the_same_code_is_not_timed_and_uncommitted_changes_are_noted(checkout):
    begin = time.monotonic()
    for head in ("HEAD", "."):
        done = compare(checkout, "HEAD", head)
        assert done.returncode == 0
        assert "all cases run the same code with the same MLX on both sides" in done.stdout
        assert "note:" not in done.stdout
    assert time.monotonic() - begin < 60  # not one case of a minute
    checkout.edit("adamw/variants/eager.py", "range(200)", "range(300)")
    assert "adamw/ has uncommitted changes, which took no part" in compare(checkout, "HEAD", "HEAD").stdout
    checkout.git("checkout", "-q", "--", "adamw")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_comparison_leaves_no_process(checkout, number):
    asked = [sys.executable, "-m", "scripts.compare", "HEAD~1", "HEAD", "--case", "eager/float32/leaf_1024"]
    process = subprocess.Popen(asked, cwd=checkout.path, env=checkout.environment, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    workers: list[psutil.Process] = []
    deadline = time.monotonic() + 90
    while len(workers) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children()
            workers = [child for child in children if pairs.MODULE in child.cmdline()]
    process.send_signal(number)
    assert process.wait(timeout=30) == {signal.SIGINT: 130, signal.SIGKILL: -9}.get(number, 128 + number)
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert workers
    assert not alive


def test_an_unknown_side_exits_with_2_and_one_line():
    for name in ("no-such-branch", "variant:none", "python:none"):
        asked = [sys.executable, "-m", "scripts.compare", name, "."]
        done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


def test_a_shallow_clone_is_said_to_be_one(tmp_path, monkeypatch):
    made = Checkout(tmp_path / "whole")
    made.commit("second")
    subprocess.run(["git", "clone", "-q", "--depth", "1", made.path.as_uri(), tmp_path / "shallow"], check=True)
    monkeypatch.chdir(tmp_path / "shallow")
    with pytest.raises(command.UserError, match=r"no commit 'HEAD~1' in this shallow clone \(git fetch --unshallow"):
        sides.resolve("HEAD~1")


@pytest.mark.parametrize(
    "arguments", [["--budget", "0"], ["--budget", "inf"], ["--min-effect", "-1"], ["--min-effect", "x"]]
)
def test_numbers_that_make_no_sense_are_refused(arguments):
    asked = [sys.executable, "-m", "scripts.compare", ".", ".", *arguments]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_help_has_two_examples():
    for name in ("compare", "calibrate"):
        asked = [sys.executable, "-m", f"scripts.{name}", "--help"]
        done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.count(f"  python -m scripts.{name}") >= 2
