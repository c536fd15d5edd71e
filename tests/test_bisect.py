"""Which commit it was: the search on evidence of every kind, and the command on planted commits."""

import inspect
import math
import subprocess
import sys
import time
import timeit
from pathlib import Path

import numpy as np
import pytest
from defects import DEFECTS
from scipy import stats
from test_exact import BASE, MATCH, Checkout

from scripts import bisect, command, culprit, exact, figures, pairs, sides
from scripts.counting import Failure
from scripts.culprit import Evidence, Skipped, certain
from scripts.sides import Side

COMMITS = [f"commit{number}" for number in range(20)]
LATER = math.inf


def exactly(first: int, asked: list[str] | None = None):
    def probe(commit: str) -> Evidence:
        if asked is not None:
            asked.append(commit)
        return certain(COMMITS.index(commit) >= first)

    return probe


@pytest.mark.parametrize("first", range(20))
def test_without_noise_it_halves(first):
    asked: list[str] = []
    found = culprit.search(COMMITS, exactly(first, asked), LATER)
    assert found.likely == [first]
    assert found.chances[first] == 1
    assert len(asked) <= math.ceil(math.log2(20))


def test_a_single_commit_needs_no_measurement():
    assert culprit.search(COMMITS[:1], exactly(0), LATER).likely == [0]


def test_noise_is_tolerated_and_commits_are_visited_again():
    random = np.random.default_rng(0)
    size, scale, right, visits = math.log(1.1), 0.05, 0, []

    def noisy(commit: str) -> Evidence:
        log = size * (COMMITS.index(commit) >= first) + scale * random.standard_t(4)
        return Evidence(*(float(stats.t.logpdf(log, 4, loc=level, scale=scale)) for level in (size, 0.0)))

    for number in range(200):
        first = number % 20
        found = culprit.search(COMMITS, noisy, LATER)
        right += found.likely == [first]
        visits.append(max(found.visits))
    assert right >= 198  # as sure as SURE
    assert max(visits) > 1


def test_what_cannot_be_measured_is_skipped_and_named_among_what_may_be_it():
    def probe(commit: str) -> Evidence:
        if commit in COMMITS[9:12]:
            raise Skipped("does not import")
        return exactly(11)(commit)

    found = culprit.search(COMMITS, probe, LATER)
    assert sorted(found.likely) == [9, 10, 11, 12]  # 8 is good, 12 is bad
    assert set(found.skipped) <= {9, 10, 11}
    assert "does not import" in found.skipped.values()


def test_it_ends_with_its_time():
    found = culprit.search(COMMITS, lambda commit: Evidence(0.0, 0.0), time.monotonic() + 0.05)
    assert len(found.likely) == 20


def test_the_noise_of_the_pairs_is_what_a_pair_is_held_against(monkeypatch):
    logs = np.log(1.1) + np.random.default_rng(0).normal(0, 0.02, 30)
    monkeypatch.setattr(bisect.sides, "resolve", lambda commit: commit)
    said = {}
    for log in (0.0, 0.05, math.log(1.1), 5.0):
        monkeypatch.setattr(bisect.figures, "pair", lambda *_, log=log: pairs.Pair(log, (1.0, 1.0), 1, 0))
        evidence = bisect.by_pairs(None, bisect.SECONDS, "case", logs.tolist())("head")
        said[log] = evidence.bad - evidence.good
    assert said[0.0] < -3
    assert said[math.log(1.1)] > 3
    assert abs(said[0.05]) < 1
    assert 0 < said[5.0] < 1  # one that is far off says little


def test_one_failed_pair_is_bad_luck_and_two_pass_a_commit_over(monkeypatch):
    monkeypatch.setattr(bisect.sides, "resolve", lambda commit: commit)
    luck = iter([False, True, False, False])

    def pair(*_):
        if next(luck):
            return pairs.Pair(0.1, (1.0, 1.0), 1, 0)
        raise pairs.Failed(["", "it died"])

    monkeypatch.setattr(bisect.figures, "pair", pair)
    probe = bisect.by_pairs(None, bisect.SECONDS, "case", [0.09, 0.1, 0.11])
    evidence = probe("head")
    assert evidence.bad > evidence.good
    with pytest.raises(Skipped, match="it died"):
        probe("head")


def test_both_must_be_commits_and_in_order(monkeypatch):
    with pytest.raises(command.UserError, match=r"\. is no commit"):
        bisect.main([".", "HEAD", "--case", "x"])
    with pytest.raises(command.UserError, match="HEAD and HEAD are the same commit"):
        bisect.main(["HEAD", "HEAD", "--case", "x"])
    with pytest.raises(command.UserError, match="name two commits, or two releases"):
        bisect.main(["HEAD", "mlx==0.1", "--case", "x"])
    for metric in ("nosuch", "nosuch.metric", "memory.Memory.track_nope", "memory", "..", "memory."):
        with pytest.raises(command.UserError, match="write it as asv does"):
            bisect.main(["HEAD~1", "HEAD", "--case", "x", "--metric", metric])
    with pytest.raises(command.UserError, match="HEAD is no ancestor of HEAD~1; name the older one first"):
        bisect.main(["HEAD", "HEAD~1", "--case", "x"])


def test_a_figure_is_searched_by_what_it_is_nearer_to():
    change = exact.change(MATCH, BASE, BASE._replace(peak_bytes=2 * BASE.peak_bytes, kernels=100, calls=2000))
    assert bisect.clearest(change) == "peak_bytes"  # worse before better, and before calls
    better = exact.change(MATCH, BASE, BASE._replace(kernels=100, calls=2000))
    assert bisect.clearest(better) == "kernels"
    assert not bisect.is_bad(1705, 1700, 2000)  # another commit's few calls
    assert bisect.is_bad(1995, 1700, 2000)
    assert bisect.is_bad("float32", "bfloat16", "float16")
    assert bisect.clearest(exact.change(MATCH, BASE, Failure("no"))) is None


def test_releases_are_searched_as_commits_are(monkeypatch):
    """Only those that are asked for are made; one that cannot be had may be the one."""
    made = []

    def resolve(name: str) -> Side:
        made.append(name)
        if name == "mlx==0.30.1":
            raise command.UserError("it was yanked")
        return Side(name, None, Path("clone"), name.removeprefix("mlx=="), sys.executable)

    monkeypatch.setattr(
        bisect.upstream, "releases", lambda: ["0.29.0", "0.29.1", "0.30.0", "0.30.1", "0.31.0", "0.32.4"]
    )
    monkeypatch.setattr(bisect.sides, "resolve", resolve)
    good, bad = resolve("mlx==0.29.0"), resolve("mlx==0.31.0")
    bisect.check_order(good, bad)
    with pytest.raises(command.UserError, match="name the older one first"):
        bisect.check_order(bad, good)
    made.clear()
    found = bisect.candidates(good, bad, "compiled")
    assert found == ["mlx==0.29.1", "mlx==0.30.0", "mlx==0.30.1", "mlx==0.31.0"]
    assert not made

    def probe(name: str) -> Evidence:
        return certain(bisect.side_of(name).mlx >= "0.30.1")

    lines = bisect.described(found, culprit.search(found, probe, LATER))
    assert lines[0].startswith("one of these 2 releases")
    assert {line.split(":")[0] for line in lines[1:3]} == {"mlx==0.30.1", "mlx==0.31.0"}
    assert lines[-1] == "skipped mlx==0.30.1: it was yanked"
    assert set(made) == {"mlx==0.30.0", "mlx==0.30.1"}


def test_a_commit_that_cannot_be_had_may_be_the_one(monkeypatch):
    def resolve(name: str) -> Side:
        if name == "gone":
            raise command.UserError("it has no adamw")
        return Side(name, name, Path(name), "0.32.4", sys.executable)

    monkeypatch.setattr(bisect, "commits", lambda *_: ["same", "gone", "other"])
    monkeypatch.setattr(bisect.sides, "resolve", resolve)
    monkeypatch.setattr(bisect.sides, "same", lambda one, other, _: other.name == "same")
    assert bisect.candidates(resolve("good"), resolve("bad"), "compiled") == ["gone", "other"]


class Planted:
    """A repository in whose commits one variant works more from `slow` on, and from `leaky` on computes more."""

    def __init__(self, folder: Path) -> None:
        self.checkout = Checkout(folder)
        self.path = folder / "adamw" / "variants" / "eager.py"
        text = self.path.read_text()
        self.text = text + WORK
        self.hashes: dict[str, str] = {}

    def commit(self, name: str, **changes: str) -> None:
        """A commit called `name`; those that change nothing still have other code."""
        for old, new in changes.values():
            assert old in self.text
            self.text = self.text.replace(old, new)
        self.path.write_text(f"{self.text}\n# {name}\n")
        self.checkout.commit(name)
        self.hashes[name] = self.checkout.git("rev-parse", "HEAD")

    def bisect(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        asked = [sys.executable, "-m", "scripts.bisect", *arguments, "--case", "^eager/float32/leaf_1024$"]
        return subprocess.run(
            asked, cwd=self.checkout.path, env=self.checkout.environment, capture_output=True, text=True
        )


IMPORTS = """
import mlx.core as mx
import mlx.optimizers
from mlx.utils import tree_flatten, tree_map, tree_unflatten
from adamw.variants.eager import AdamW as Eager
"""


def plant(made: Checkout, variant: str, code: str, position: int, count: int) -> str:
    """`count` commits that change nothing of a variant, but for the one at `position`, which adds `code`; its hash."""
    path = made.path / "adamw" / "variants" / f"{variant}.py"
    for number in range(count):
        path.write_text(path.read_text() + (code if number == position else "") + f"\n# {number}\n")
        made.commit(f"commit {number}")
    return made.git("rev-parse", f"HEAD~{count - 1 - position}")


def named(made: Checkout, count: int, case: str) -> str:
    """What the command prints of the last `count` commits. It must have found one."""
    asked = [
        sys.executable,
        "-m",
        "scripts.bisect",
        f"HEAD~{count}",
        "HEAD",
        "--case",
        f"^{case}$",
        "--profile",
        "full",
    ]
    done = subprocess.run(asked, cwd=made.path, env=made.environment, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    return done.stdout


@pytest.mark.thorough
@pytest.mark.parametrize("run", range(10))
@pytest.mark.parametrize("number", range(len(DEFECTS)), ids=[defect.planted.__name__ for defect in DEFECTS])
def test_every_exact_defect_is_bisected_to_its_commit(tmp_path, number, run):
    defect, made = DEFECTS[number], Checkout(tmp_path / "checkout")
    source, name, old = inspect.getsource(defect.planted), defect.planted.__name__, defect.of.capitalize()
    position = (number + run) % 4
    culprit_commit = plant(made, defect.of, f"{IMPORTS}\n{old} = AdamW\n{source}\nAdamW = {name}\n", position, 4)
    printed = named(made, 4, f"{defect.of}/{defect.case.workload}")
    assert f"{culprit_commit[:10]} commit {position}: 100.0% likely" in printed


SMOOTHING = """
import numpy as np

AsFast, MORE, FEW = AdamW, np.ones(1), np.ones(256)


class AdamW(AsFast):
    def apply_gradients(self, gradients, parameters):
        np.convolve(MORE, FEW)
        return super().apply_gradients(gradients, parameters)
"""


def amount(case: str, size: float) -> int:
    """How many elements to smooth take as long as `size` of a step of `case`; as many calls as a single one."""
    more, few = np.ones(10_000), np.ones(256)
    one = min(timeit.repeat(lambda: np.convolve(more, few), number=20, repeat=5)) / 20 / len(more)
    return round(size * figures.figure(sides.resolve("."), bisect.SECONDS, case) / one)


@pytest.mark.thorough
@pytest.mark.parametrize("run", range(10))
def test_a_step_of_10_percent_is_bisected_to_its_commit(tmp_path, run):
    made, case = Checkout(tmp_path / "checkout"), "eager/float32/leaf_1048576"
    plant(made, "eager", SMOOTHING, 0, 1)
    culprit_commit = plant(made, "eager", f"\nMORE = np.ones({amount(case, 0.10)})\n", run % 8, 8)
    printed = named(made, 8, case)
    assert f"{culprit_commit[:10]} commit {run % 8}: " in printed
    assert f"{bisect.SECONDS} +" in printed  # and not by the counters


WORK = """
    def apply_single(self, gradient, parameter, state):
        import numpy as np
        np.ones(1000).sum()
        return super().apply_single(gradient, parameter, state)
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Planted:
    made = Planted(tmp_path_factory.mktemp("bisect") / "checkout")
    made.commit("first")
    made.commit("second")
    made.commit("broken", work=("import numpy as np", "import no_such_module as np"))
    made.commit("mended", work=("import no_such_module as np", "import numpy as np"))
    made.commit("slow", work=("np.ones(1000)", "np.ones(2000000)"))
    made.commit("other")
    made.commit("leaky", work=("apply_single(gradient, ", "apply_single(gradient * 1.0, "))
    made.commit("last")
    (made.checkout.path / "README.md").write_text("not what is measured\n")
    made.checkout.commit("documentation")
    return made


@pytest.mark.slow
def test_what_changes_the_counters_is_named(planted):
    done = planted.bisect(planted.hashes["first"], "HEAD")
    assert done.returncode == 0, done.stderr
    assert f"{planted.hashes['leaky'][:10]} leaky: 100.0% likely" in done.stdout
    assert "1 more Python call" in done.stdout or "kernels" in done.stdout
    assert "7 commits may change what it runs" in done.stdout  # not the documentation


@pytest.mark.slow
def test_a_slow_commit_is_named_by_time_and_one_that_does_not_run_is_skipped(planted):
    done = planted.bisect(planted.hashes["first"], planted.hashes["other"], "--budget", "240")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{planted.hashes['slow'][:10]} slow: " in done.stdout
    assert "step.Step.track_seconds +" in done.stdout
    assert f"skipped {planted.hashes['broken'][:10]} broken: " in done.stdout
    assert "No module named 'no_such_module'" in done.stdout
    assert list((planted.checkout.path / ".asv" / "tmp").iterdir()) == []


@pytest.mark.slow
def test_between_equal_commits_there_is_nothing(planted):
    assert planted.bisect(planted.hashes["last"], "HEAD").returncode == 1
    done = planted.bisect(planted.hashes["first"], planted.hashes["mended"], "--metric", "work.Work.track_kernels")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "do not differ" in done.stdout
