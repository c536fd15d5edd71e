"""Two sides counted: revisions, the working tree, releases; what is said, and what the exit code says."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import here
import psutil
import pytest
from nights import another_mlx
from rich.console import Console

from benchmarks.harness import cases
from benchmarks.harness.count import count
from benchmarks.harness.counters import FIGURES, Counters
from scripts import command, counting, exact, git, scratch, sides
from scripts.counting import Failure
from scripts.matching import Match

ROOT = Path(__file__).parent.parent
COUNTED = 2 * len(here.FLOAT32)
"""Cases that `Checkout.compare` counts: every variant on two float32 workloads."""

GPT2 = cases.case("compiled", "bfloat16/gpt2")
MATCH = Match(str(GPT2), GPT2, GPT2)
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
    evaluations=0,
    waits=0,
    wrong_results=0,
    traces=1,
    calls=1700,
    result_bytes=3 * SIZE,
    parameter_dtypes="bfloat16",
    state_dtypes="bfloat16",
)


def test_words_a_reviewer_understands():
    worse = BASE._replace(kernels=3 * 148, fused_kernels=0, modelled_bytes=17 * SIZE, bytes_read=9 * SIZE)
    found = exact.change(MATCH, BASE, worse)
    assert found.words == "3 kernels a leaf, was 1; traffic 17N, was 7N"
    assert found.verdict == exact.WORSE
    assert set(found.figures) == {"kernels", "unfused_kernels", "modelled_bytes", "bytes_read", "bytes_written"}


def test_no_change_is_none():
    assert exact.change(MATCH, BASE, BASE._replace()) is None


def test_verdicts():
    better, worse = BASE._replace(peak_bytes=4 * SIZE), BASE._replace(calls=1701)
    assert exact.change(MATCH, BASE, better).verdict == exact.BETTER
    assert exact.change(MATCH, BASE, worse).verdict == exact.WORSE
    mixed = exact.change(MATCH, BASE, better._replace(traces=10, calls=1701))
    assert mixed.verdict == exact.WORSE
    assert mixed.words == "traced 10 times in 10 steps, was 1; but better: peak up to 4N, was 7N"
    assert mixed.calls == 1
    assert exact.change(MATCH, BASE, BASE._replace(state_dtypes="float16")).verdict == exact.WORSE
    assert exact.change(MATCH, None, BASE).verdict == exact.OTHER
    assert exact.change(MATCH, BASE, None).words == "gone"
    assert exact.change(MATCH, BASE, Failure("no")).verdict == exact.WORSE
    assert exact.change(MATCH, Failure("no"), BASE).verdict == exact.BETTER
    assert exact.change(MATCH, Failure("no"), Failure("no")).verdict == exact.OTHER


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_every_figure_alone_is_told(figure):
    name = {"unfused_kernels": "fused_kernels", "bytes_written": "bytes_read"}.get(figure.name, figure.name)
    old = getattr(BASE, name)
    new = "float32" if isinstance(old, str) else old - 1 if name == "fused_kernels" else old + 1
    found = exact.change(MATCH, BASE, BASE._replace(**{name: new}))
    assert found
    assert figure.name in found.figures
    assert found.words or (figure.name == "calls" and found.calls == 1)


def test_a_difference_that_rounding_hides_is_told_in_full():
    found = exact.change(MATCH, BASE, BASE._replace(modelled_bytes=7 * SIZE + 2))
    assert found.words == f"traffic {7 * SIZE + 2} (a step), was {7 * SIZE}"


def test_what_one_side_does_not_tell_is_not_compared():
    assert exact.change(MATCH, BASE._replace(primitives=None), BASE) is None
    assert counting.missing({"a/b": BASE._replace(primitives=None), "c/d": Failure("no")}) == {"primitives": ["a"]}


def shown(changes: list[exact.Change], capsys) -> str:
    Console(width=100).print(exact.table(changes))
    return " ".join(capsys.readouterr().out.split())


def test_python_calls_have_a_row_of_their_own(capsys):
    changes = [exact.Change(f"compiled/float32/t{n}", exact.WORSE, "", n, {}) for n in (1, 148)]
    assert "worse compiled float32/t1, float32/t148 1 to 148 more Python calls a step" in shown(changes, capsys)
    fewer = [exact.Change("compiled/float32/t", exact.WORSE, "words", -1, {})]
    assert "worse compiled float32/t words better compiled float32/t 1 fewer Python call a step" in shown(fewer, capsys)


def test_equal_changes_share_a_row_and_markup_is_text(capsys):
    changes = [exact.Change(f"compiled/float32/tree_{n}", exact.WORSE, "[red]words", 0, {}) for n in range(9)]
    text = shown(changes, capsys)
    assert text.count("compiled") == 1
    assert "tree_3 and" in text
    assert "5 more" in text
    assert "[red]words" in text


def test_a_failure_is_one_printable_line():
    assert command.one_line("a\x1b[31m\n::error::b" + 400 * "x").startswith("a ::error::bxx")
    assert len(command.one_line(400 * "x")) == 300


def test_selection_of_cases():
    found = counting.select(["compiled", "eager"], "quick", "resnet50$")
    assert [str(case) for case in found] == ["compiled/float32/resnet50", "eager/float32/resnet50"]
    with pytest.raises(command.UserError, match="no case of profile quick"):
        counting.select(["compiled"], "quick", "no such tree")
    with pytest.raises(command.UserError, match="no regular expression"):
        counting.select(["compiled"], "quick", "(")


@pytest.fixture
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-such-branch", "no commit 'no-such-branch'; name one git revision"),
        ("--help", "no commit '--help'"),
        ("HEAD:README.md", "no commit"),
        ("HEAD~1..HEAD", "name one git revision"),
        ("0.31.2", "for a release write mlx==0.31.2"),
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


def test_a_release_has_three_numbers_and_keeps_its_suffix(at_root):
    assert [sides.release(text) for text in ("0.31", "0.31.2", "0.33.0rc1")] == ["0.31.0", "0.31.2", "0.33.0rc1"]


def test_the_pin_of_a_folder(tmp_path, at_root):
    (tmp_path / "asv.conf.json").write_text('{"matrix": {"req": {"mlx": ["0.31.2"]}}} // comment')
    assert sides.pinned(tmp_path) == "0.31.2"
    (tmp_path / "asv.conf.json").write_text("{")
    with pytest.raises(command.UserError, match="Unexpected end of input") as error:
        sides.pinned(tmp_path)
    assert "add it to its matrix" not in str(error.value)
    for broken in ("{}", '{"matrix": {"req": {"mlx": []}}}', "[]"):
        (tmp_path / "asv.conf.json").write_text(broken)
        with pytest.raises(command.UserError, match="pins no mlx"):
            sides.pinned(tmp_path)


def test_the_working_tree_is_this_python_and_this_folder(at_root):
    side = sides.resolve(".")
    assert (side.folder, side.python, side.commit) == (ROOT, sys.executable, None)
    with counting.Counter(side) as counter:
        assert counter.hello["adamw"] == str(ROOT)
        assert str(side) == f"working tree, mlx {counter.hello['mlx']}"


def test_a_worker_counts_what_this_process_counts_and_survives_a_wrong_name(at_root):
    with counting.Counter(sides.resolve(".")) as counter:
        assert counter.count("compiled/float32/two_leaves") == count(cases.case("compiled", "float32/two_leaves"))
        assert "unknown variant" in counter.count("nothing/float32/two_leaves").message
        counter.worker.process.kill()
        counter.worker.process.wait()
        assert isinstance(counter.count("eager/float32/two_leaves"), Counters)
    assert not counter.worker.alive


def test_a_variant_that_does_not_import_fails_alone(at_root, tmp_path):
    shutil.copytree(ROOT / "adamw", tmp_path / "adamw")
    (tmp_path / "adamw" / "variants" / "split.py").write_text("import no_such_module\n")
    (tmp_path / "adamw" / "variants" / "flat.py").write_text("import os\nos.abort()\n")
    with counting.Counter(sides.resolve(".")._replace(folder=tmp_path)) as counter:
        assert {"split", "flat", "eager"} < set(counter.variants)
        assert "No module named 'no_such_module'" in counter.count("split/float32/leaf_1024").message
        assert "its process died (exit code -6)" in counter.count("flat/float32/leaf_1024").message
        assert isinstance(counter.count("eager/float32/leaf_1024"), Counters)


class Checkout:  # used by test_workflows too
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
        "tree_map(update, gradients, parameters, weak_self.state)",
        "tree_map(lambda g, p, s: update(g + 0 * mx.sum(g), p, s), gradients, parameters, weak_self.state)",
    )
    made.commit("a reduction that cannot be fused")
    made.edit(
        "adamw/variants/eager.py",
        "from adamw.base import ResumableAdamW\n",
        "from adamw.base import ResumableAdamW\n\nprint('{not json')\n",
    )
    made.edit("adamw/variants/split.py", "rates, epsilon = cache", "import os; os.abort(); rates, epsilon = cache")
    made.commit("one variant prints, another crashes")
    return made


@pytest.mark.slow
def test_a_change_that_leaves_the_work_the_same_reports_nothing(checkout):
    done = checkout.compare("HEAD~3", "HEAD~2")
    assert done.returncode == 0, done.stderr
    assert "0 worse, 0 changed, 0 better, 2 the same in all" in done.stdout
    assert f"{COUNTED - 2} cases run the same code with the same MLX on both sides" in done.stdout


@pytest.mark.slow
def test_a_planted_commit_is_named_and_fails(checkout, tmp_path):
    done = checkout.compare("HEAD~2", "HEAD~1", "--json", str(tmp_path / "found.json"))
    assert done.returncode == 1, done.stderr
    words = " ".join(done.stdout.split())
    assert "worse compiled float32/two_leaves, float32/nested 2 kernels a leaf, was 1; traffic 8N, was 7N" in words
    assert "2 worse, 0 changed, 0 better, 0 the same" in words
    found = json.loads((tmp_path / "found.json").read_text())
    assert [change["case"] for change in found["changes"]] == ["compiled/float32/two_leaves", "compiled/float32/nested"]
    assert found["changes"][0]["figures"]["kernels"] == [2, 4]
    assert found["head"]["commit"] == checkout.git("rev-parse", "HEAD~1")
    assert len(found["head"]["cases"]) == 2


@pytest.mark.slow
def test_a_crash_fails_its_case_alone_and_prints_disturb_nothing(checkout):
    done = checkout.compare("HEAD~1", ".")
    assert done.returncode == 1
    words = " ".join(done.stdout.split())
    assert "failed: its process died (exit code -6)" in words
    assert "2 worse, 0 changed, 0 better, 4 the same" in words
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_an_mlx_that_tells_less_gives_the_rest_of_the_table(checkout, tmp_path, environments):
    """mlx 0.29.0 has no callback for its primitives, and its fused kernels do not write over their inputs."""
    another_mlx(environments, checkout.path, "0.29.0", checkout.environment)
    shutil.copytree(ROOT / "adamw", checkout.path / "adamw", dirs_exist_ok=True)
    done = checkout.compare("mlx==0.29.0", ".", "--json", str(tmp_path / "found.json"))
    checkout.git("checkout", "-q", "--", "adamw")
    assert done.returncode == 1, done.stderr  # the newer MLX calls Python a little more
    assert f"primitives: not available in mlx 0.29.0 for {', '.join(here.FLOAT32)}" in " ".join(done.stdout.split())
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["base"]["mlx"] == "0.29.0"
    assert not found["base"]["tells_primitives"]
    assert found["base"]["cases"]["compiled/float32/nested"]["primitives"] is None
    assert found["head"]["cases"]["compiled/float32/nested"]["primitives"] > 0
    split = {change["case"]: change["words"] for change in found["changes"]}["split/float32/two_leaves"]
    assert "peak up to 4N, was 7N" in split


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_an_interrupted_comparison_ends_at_once_and_leaves_nothing(checkout, number):
    command = [sys.executable, "-m", "scripts.compare", "HEAD~3", "HEAD~2", "--exact"]
    process = subprocess.Popen(command, cwd=checkout.path, env=checkout.environment, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    workers: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    while len(workers) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
        with contextlib.suppress(psutil.NoSuchProcess):  # a child that is done between two looks
            children = psutil.Process(process.pid).children()
            workers = [child for child in children if "benchmarks.harness.worker" in child.cmdline()]
    time.sleep(3)  # well into the counting
    process.send_signal(number)
    expected = {signal.SIGINT: 130, signal.SIGKILL: -9}.get(number, 128 + number)
    assert process.wait(timeout=30) == expected
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert workers
    assert not alive
    if number != signal.SIGKILL:  # which the next command cleans up after
        assert not (checkout.path / ".asv" / "tmp" / str(process.pid)).exists()


@pytest.mark.slow
def test_nothing_is_left_behind(checkout):
    assert checkout.compare("HEAD~3", "HEAD~2", "--profile", "quick").returncode == 0
    assert list((checkout.path / ".asv" / "tmp").iterdir()) == []
    assert checkout.git("worktree", "list").count("\n") == 0
    assert checkout.git("status", "--porcelain") == ""


def test_an_unknown_revision_exits_with_2_and_one_line():
    command = [sys.executable, "-m", "scripts.compare", "no-such-branch", ".", "--exact"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no commit 'no-such-branch'")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("path", ["elsewhere", None])
def test_pythonpath_is_blamed_only_where_it_is_set(path, at_root, tmp_path, monkeypatch):
    monkeypatch.setattr(counting.workers, "check", lambda side: None)
    monkeypatch.setattr(counting.Counter, "_start", lambda self: {"adamw": "/other", "variants": []})
    monkeypatch.setenv("PYTHONPATH", path) if path else monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(command.UserError, match="its adamw comes from /other") as error:
        counting.Counter(sides.Side(".", None, tmp_path, "0.32.4", sys.executable))
    assert ("unset PYTHONPATH" in str(error.value)) == bool(path)


def test_an_interpreter_without_mlx_is_one_line(tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # without its packages
    python.chmod(0o755)
    with pytest.raises(command.UserError, match=r"working tree, mlx 0.32.4: MLX does not run here .*No module named"):
        counting.Counter(sides.Side(".", None, ROOT, "0.32.4", str(python)))


def test_the_archive_of_a_commit_is_bounded(tmp_path, monkeypatch, at_root):
    commit = git.output("rev-parse", "HEAD")
    git.extract(commit, ["adamw", "no-such-file"], tmp_path)
    assert (tmp_path / "adamw" / "base.py").exists()
    monkeypatch.setattr(git, "LARGEST_ARCHIVE", 10)
    with pytest.raises(command.UserError, match="over 0 MiB, no code"):
        git.extract(commit, ["adamw"], tmp_path)


def test_a_link_out_of_a_commit_is_refused(tmp_path, monkeypatch):
    (tmp_path / "adamw").symlink_to("/etc")
    identity = ["-c", "user.email=t@t", "-c", "user.name=t"]
    for arguments in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "link"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(command.UserError, match="has a file that leads elsewhere"):
        git.extract("HEAD", ["adamw"], tmp_path / "out")


def test_scratch_is_one_folder_a_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scratch.atexit, "register", lambda *_, **__: None)
    assert scratch.folder() == scratch.folder()
    assert scratch.folder().parent.parent.name == ".asv"
