"""Two sides compared: revisions, the working tree, releases; what is said, and what the exit code says."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.harness import cases
from benchmarks.harness.count import count
from benchmarks.harness.counters import FIGURES, Counters
from scripts import command, compare, counting, git, scratch, sides
from scripts.counting import Failure

ROOT = Path(__file__).parent.parent
GPT2 = cases.case("compiled", "bfloat16/gpt2")
SIZE = GPT2.parameter_bytes
BASE = Counters(
    kernels=148,
    fused_kernels=148,
    scalar_kernels=3,
    modelled_bytes=7 * SIZE,
    bytes_read=4 * SIZE,
    primitives=2000,
    temporaries=0,
    allocated_bytes=3 * SIZE,
    peak_bytes=7 * SIZE,
    held_arrays=0,
    kept_arrays=0,
    graph_growth=0,
    memory_growth=0,
    traces=1,
    calls=1700,
    result_bytes=3 * SIZE,
    parameter_dtypes="bfloat16",
    state_dtypes="bfloat16",
)


def test_words_a_reviewer_understands():
    worse = BASE._replace(kernels=3 * 148, fused_kernels=0, modelled_bytes=17 * SIZE, bytes_read=9 * SIZE)
    found = compare.change(GPT2, BASE, worse)
    assert found.words == "3 kernels a leaf, was 1; traffic 17N, was 7N"
    assert found.verdict == compare.WORSE
    assert set(found.figures) == {"kernels", "unfused_kernels", "modelled_bytes", "bytes_read", "bytes_written"}


def test_no_change_is_none():
    assert compare.change(GPT2, BASE, BASE._replace()) is None


def test_verdicts():
    better, worse = BASE._replace(peak_bytes=4 * SIZE), BASE._replace(calls=1701)
    assert compare.change(GPT2, BASE, better).verdict == compare.BETTER
    assert compare.change(GPT2, BASE, worse).verdict == compare.WORSE
    mixed = compare.change(GPT2, BASE, better._replace(calls=1701))
    assert (mixed.verdict, mixed.words) == (compare.MIXED, "1 more Python call a step, but peak up to 4N, was 7N")
    assert compare.change(GPT2, BASE, BASE._replace(state_dtypes="float16")).verdict == compare.WORSE
    assert compare.change(GPT2, None, BASE).verdict == compare.OTHER
    assert compare.change(GPT2, BASE, None).words == "gone"
    assert compare.change(GPT2, BASE, Failure("no")).verdict == compare.WORSE
    assert compare.change(GPT2, Failure("no"), BASE).verdict == compare.BETTER
    assert compare.change(GPT2, Failure("no"), Failure("no")).verdict == compare.OTHER


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_every_figure_alone_is_told(figure):
    name = {"unfused_kernels": "fused_kernels", "bytes_written": "bytes_read"}.get(figure.name, figure.name)
    old = getattr(BASE, name)
    new = "float32" if isinstance(old, str) else old - 1 if name == "fused_kernels" else old + 1
    found = compare.change(GPT2, BASE, BASE._replace(**{name: new}))
    assert found
    assert figure.name in found.figures
    assert found.words


def test_a_difference_that_rounding_hides_is_told_in_full():
    found = compare.change(GPT2, BASE, BASE._replace(modelled_bytes=7 * SIZE + 2))
    assert found.words == f"traffic {7 * SIZE + 2} (a step), was {7 * SIZE}; " or f"was {7 * SIZE}" in found.words


def test_what_one_side_does_not_tell_is_not_compared():
    assert compare.change(GPT2, BASE._replace(primitives=None), BASE) is None
    assert counting.missing({"a": BASE._replace(primitives=None), "b": Failure("no")}) == ["primitives"]


def test_python_calls_are_told_a_leaf_or_a_step():
    assert compare.change(GPT2, BASE, BASE._replace(calls=1700 + 148)).words == "1 more Python call a leaf"
    assert compare.change(GPT2, BASE, BASE._replace(calls=1698)).words == "2 fewer Python calls a step"


def test_equal_changes_share_a_row_and_markup_is_text(capsys):
    from rich.console import Console

    changes = [compare.Change(f"compiled/float32/tree_{n}", compare.WORSE, "[red]words", {}) for n in range(9)]
    Console(width=100).print(compare.table(changes))
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("compiled") == 1
    assert "tree_3 and" in shown
    assert "5 more" in shown
    assert "[red]words" in shown


def test_selection_of_cases():
    workers = [SimpleNamespace(hello={"variants": names}) for names in (["compiled"], ["eager", "compiled"])]
    found = counting.select(workers, "quick", "gpt2$")
    assert [str(case) for case in found] == ["compiled/float32/gpt2", "eager/float32/gpt2"]
    with pytest.raises(command.UserError, match="no case of profile quick"):
        counting.select(workers, "quick", "no such tree")
    with pytest.raises(command.UserError, match="no regular expression"):
        counting.select(workers, "quick", "(")


@pytest.fixture
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-such-branch", "no commit 'no-such-branch'; name a git revision"),
        ("--help", "no commit '--help'"),
        ("HEAD:README.md", "no commit"),
        ("mlx==0.1", r"mlx 0.1 is too old; the variants need mlx>=0.26.5"),
        ("mlx==; rm -rf", "is no version"),
        ("mlx==", "is no version"),
    ],
)
def test_a_side_that_is_none_is_one_line(at_root, name, message):
    with pytest.raises(command.UserError, match=message):
        sides.resolve(name)


def test_outside_the_root_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(command.UserError, match="run it from the root"):
        sides.resolve(".")


def test_the_pin_of_a_folder(tmp_path, at_root):
    (tmp_path / "asv.conf.json").write_text('{"matrix": {"req": {"mlx": ["0.31.2"]}}} // comment')
    assert sides.pinned(tmp_path) == "0.31.2"
    for broken in ("{", "{}", '{"matrix": {"req": {"mlx": []}}}', "[]"):
        (tmp_path / "asv.conf.json").write_text(broken)
        with pytest.raises(command.UserError, match="pins no mlx"):
            sides.pinned(tmp_path)


def test_the_working_tree_is_this_python_and_this_folder(at_root):
    side = sides.resolve(".")
    assert (side.folder, side.python, side.commit) == (ROOT, sys.executable, None)
    with counting.Worker(side) as worker:
        assert worker.hello["adamw"] == str(ROOT)
        assert str(side) == f"working tree, mlx {worker.hello['mlx']}"


def test_a_worker_counts_what_this_process_counts_and_survives_a_wrong_name(at_root):
    with counting.Worker(sides.resolve(".")) as worker:
        assert worker.count("compiled/float32/two_leaves") == count(cases.case("compiled", "float32/two_leaves"))
        assert "unknown variant" in worker.count("nothing/float32/two_leaves").message
        worker.process.kill()
        worker.process.wait()
        assert isinstance(worker.count("eager/float32/two_leaves"), Counters)
    assert worker.process.poll() is not None


class Checkout:
    """A repository with this project's adamw, to plant commits in."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        identity = {f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        self.environment = os.environ | identity | {"GIT_CONFIG_GLOBAL": os.devnull, "PYTHONPATH": str(folder)}
        for name in ("adamw", "benchmarks", "scripts"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("asv.conf.json", "pyproject.toml"):
            shutil.copy(ROOT / name, folder / name)
        (folder / ".gitignore").write_text("__pycache__/\n.asv/\n")
        self.git("init", "-q", "-b", "main")
        self.commit("first")

    def git(self, *arguments: str) -> str:
        return subprocess.check_output(["git", *arguments], cwd=self.path, env=self.environment, text=True).strip()

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.path / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def compare(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "scripts.compare",
            *arguments,
            "--exact",
            "--case",
            "float32/(nested|two_leaves)$",
        ]
        return subprocess.run(command, cwd=self.path, env=self.environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Checkout:
    made = Checkout(tmp_path_factory.mktemp("compare") / "checkout")
    made.edit("adamw/variants/compiled.py", "captured[0] = self.state", "captured[0] = self.state  # the same work")
    made.commit("a comment")
    made.edit(
        "adamw/variants/compiled.py",
        "tree_map(weak_self.apply_single, gradients, parameters, weak_self.state)",
        "tree_map(lambda g, p, s: weak_self.apply_single(g + 0 * mx.sum(g), p, s),"
        " gradients, parameters, weak_self.state)",
    )
    made.commit("a reduction that cannot be fused")
    made.edit("adamw/variants/eager.py", "import mlx.optimizers\n", "import mlx.optimizers\n\nprint('{not json')\n")
    made.edit("adamw/variants/split.py", "rates, constants = cache", "import os; os.abort(); rates, constants = cache")
    made.commit("one variant prints, another crashes")
    return made


@pytest.mark.slow
def test_a_change_that_leaves_the_work_the_same_reports_nothing(checkout):
    done = checkout.compare("HEAD~3", "HEAD~2")
    assert done.returncode == 0, done.stderr
    assert "0 worse, 0 mixed, 0 changed, 0 better, 8 the same in all" in done.stdout


@pytest.mark.slow
def test_a_planted_commit_is_named_and_fails(checkout, tmp_path):
    done = checkout.compare("HEAD~2", "HEAD~1", "--json", str(tmp_path / "found.json"))
    assert done.returncode == 1, done.stderr
    words = " ".join(done.stdout.split())
    assert "worse compiled float32/two_leaves, float32/nested 2 kernels a leaf, was 1; traffic 8N, was 7N" in words
    assert "2 worse, 0 mixed, 0 changed, 0 better, 6 the same" in words
    found = json.loads((tmp_path / "found.json").read_text())
    assert [change["case"] for change in found["changes"]] == ["compiled/float32/two_leaves", "compiled/float32/nested"]
    assert found["changes"][0]["figures"]["kernels"] == [2, 4]
    assert found["head"]["commit"] == checkout.git("rev-parse", "HEAD~1")
    assert len(found["head"]["cases"]) == 8


@pytest.mark.slow
def test_a_crash_fails_its_case_alone_and_prints_disturb_nothing(checkout):
    done = checkout.compare("HEAD~1", ".")
    assert done.returncode == 1
    words = " ".join(done.stdout.split())
    assert words.count("cannot be counted: the process that counts died (exit code -6)") == 2
    assert "2 worse, 0 mixed, 0 changed, 0 better, 6 the same" in words
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_nothing_is_left_behind(checkout):
    assert list((checkout.path / ".asv" / "tmp").iterdir()) == []
    assert checkout.git("worktree", "list").count("\n") == 0
    assert checkout.git("status", "--porcelain") == ""


def test_an_unknown_revision_exits_with_2_and_one_line():
    command = [sys.executable, "-m", "scripts.compare", "no-such-branch", ".", "--exact"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no commit 'no-such-branch'")
    assert done.stderr.count("\n") == 1


def test_an_interpreter_without_mlx_is_one_line(tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # without its packages
    python.chmod(0o755)
    with pytest.raises(command.UserError, match=r"working tree, mlx 0.32.4: MLX does not run here .*No module named"):
        counting.Worker(sides.Side(".", None, ROOT, "0.32.4", str(python)))


def test_the_archive_of_a_commit_is_bounded(tmp_path, monkeypatch, at_root):
    commit = git.output("rev-parse", "HEAD")
    git.extract(commit, ["adamw", "no-such-file"], tmp_path)
    assert (tmp_path / "adamw" / "base.py").exists()
    monkeypatch.setattr(git, "LARGEST_ARCHIVE", 10)
    with pytest.raises(command.UserError, match="too large to be code"):
        git.extract(commit, ["adamw"], tmp_path)


def test_scratch_is_one_folder_a_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scratch.atexit, "register", lambda *_, **__: None)
    assert scratch.folder() == scratch.folder()
    assert scratch.folder().parent.parent.name == ".asv"
