"""What Metal does otherwise than this machine's backend, simulated: it must change no figure and break no check."""

import ast
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import psutil
import pytest
from here import VARIANTS

import adamw
from benchmarks.harness import cases, ceiling, count, ledger, machine, measure, roofline, run, sampling, turns
from benchmarks.harness.evaluation import everything, flat
from benchmarks.harness.step import Step

ROOT = Path(__file__).parent.parent
SMALL = cases.case("compiled", "float32/leaf_1024")
LATE = 0.02
"""Seconds that a simulated command buffer takes after it was committed."""

IMPORT_ALL = """
import importlib, sys
from pathlib import Path
import mlx.core as mx, mlx.nn, mlx.optimizers, mlx.utils  # MLX's own, before anything is trapped

ALLOWED = {"compile", "custom_function", "disable_compile", "enable_compile", "metal_kernel", "cuda_kernel"}

def trap(name):
    def trapped(*arguments, **more):
        raise SystemExit(f"{name} was called while {importing} was imported")
    return trapped

class Untouched(type):
    def __call__(self, *arguments, **more):
        trap("mx.array")()

for module in (mx, mx.fast, mx.linalg, mx.metal, mx.random):
    for name, one in list(vars(module).items()):
        if callable(one) and not isinstance(one, type) and name not in ALLOWED and not name.startswith("_"):
            setattr(module, name, trap(f"{module.__name__}.{name}"))
mx.array = Untouched("array", (), {})

files = [path for root in ("adamw", "benchmarks", "scripts") for path in sorted(Path(root).rglob("*.py"))]
for path in [*files, *map(Path, sys.argv[1:])]:
    importing = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    importlib.import_module(importing)
print(len(files))
"""


def imported(folder: Path, *more: str) -> subprocess.CompletedProcess:
    """Import everything below `folder` in a new process, in which each of MLX's functions ends it."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{IMPORT_ALL}", *more],
        cwd=ROOT, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


class TestImport:
    def test_no_module_touches_the_device_when_it_is_imported(self):
        done = imported(ROOT)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) > 100

    @pytest.mark.parametrize("work", ["mx.array(1.0)", "mx.random.key(0)", "mx.default_device()"])
    def test_what_does_is_found(self, work, tmp_path):
        (tmp_path / "eager_import.py").write_text(f"import mlx.core as mx\n{work}\n")
        done = imported(tmp_path, "eager_import.py")
        assert "was called while eager_import was imported" in done.stderr


class TestProcesses:
    """A process forked from one that has used Metal cannot use it."""

    def test_nothing_forks(self):
        sources = [path for root in ("adamw", "benchmarks", "scripts") for path in (ROOT / root).rglob("*.py")]
        assert {path.name for path in sources if forks(ast.parse(path.read_text()))} == set()

    @pytest.mark.parametrize(
        "code",
        [
            "import os\nos.fork()",
            "import multiprocessing",
            "from multiprocessing import Pool",
            "f(preexec_fn=g)",
            "from concurrent.futures import ProcessPoolExecutor",
        ],
    )
    def test_what_forks_is_found(self, code):
        assert forks(ast.parse(code))


def forks(tree: ast.Module) -> bool:
    """Whether a program may fork: subprocess alone does so without running Python in the child, unless it is asked."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.arg or "" for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {part for one in node.names for part in one.name.split(".")}
            names |= set((getattr(node, "module", "") or "").split("."))
    return bool(names & {"fork", "forkpty", "multiprocessing", "preexec_fn", "ProcessPoolExecutor"})


@pytest.fixture
def late(monkeypatch):
    """Evaluation that only commits its work: `mx.eval` returns before it is done, `mx.synchronize` waits."""
    due = 0.0
    evaluate = mx.eval

    def committed(*arrays: object) -> None:
        nonlocal due
        evaluate(*arrays)
        due = time.perf_counter() + LATE

    def wait(*arguments: object) -> None:
        time.sleep(max(0.0, due - time.perf_counter()))

    monkeypatch.setattr(mx, "eval", committed)
    monkeypatch.setattr(mx, "synchronize", wait)


class TestAsynchronousDevice:
    """A clock that stops when work is committed would show the host's time. These times are ratios to LATE."""

    def test_samples_wait_for_the_device(self, late):
        found = sampling.sample(Step(SMALL), mx.synchronize, budget=0.1)
        assert min(found.seconds) >= LATE

    def test_a_step_that_did_not_wait_would_be_seen(self, late, monkeypatch):
        monkeypatch.setattr(Step, "evaluate", lambda self: mx.eval(self.held, self.optimizer.state))
        assert min(sampling.sample(Step(SMALL), mx.synchronize, budget=0.1).seconds) < LATE / 2

    def test_turns_wait(self, late):
        assert turns.turn(Step(SMALL), 2).seconds >= LATE

    def test_a_whole_measurement_waits(self, late, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sampling, "BUDGET", 0.1)
        measured = measure.measure(SMALL)
        assert min(measured.step.seconds) >= LATE
        assert measured.first_step >= LATE

    def test_the_ceiling_and_the_launch_wait(self, late):
        size = 2**22
        assert all(rate <= 1.5 * ceiling.CHAIN * size / LATE for _, rate in ceiling.mlx_kernels(size))
        assert roofline.measure_launch().fixed >= LATE


PAGE = 16 * 1024


def paged(array: mx.array) -> int:
    """Bytes that Metal's allocator takes for an array: beyond a page whole ones (mlx/backend/metal/allocator.cpp)."""
    return array.nbytes if array.nbytes <= PAGE else -(-array.nbytes // PAGE) * PAGE


@pytest.fixture
def pages(monkeypatch) -> Iterator[None]:
    """MLX's memory counter as it is where memory is given in pages, of what the step in hand holds."""
    steps: list[Step] = []
    make, active = count.MiniatureStep.__init__, mx.get_active_memory

    def made(self: Step, case: cases.Case) -> None:
        make(self, case)
        steps[:] = [self]

    def rounded() -> int:
        held = [array for step in steps for array in flat([step.gradients, step.held, everything(step.optimizer)])]
        return active() + sum(paged(one) - one.nbytes for one in {id(one): one for one in held}.values())

    monkeypatch.setattr(count.MiniatureStep, "__init__", made)
    monkeypatch.setattr(mx, "get_active_memory", rounded)
    yield
    steps.clear()


def in_miniature(variant: str) -> dict:
    """Of a tree with an odd number of leaves: a part of a page stays where they are put together."""
    case = cases.Case(variant, next(one for one in cases.precisions(variant) if one != "float32"), "resnet50")
    assert case.leaf_count % 2
    with count.no_garbage_collection(), count.untraced_variants():
        return count.in_miniature(case)


@pytest.mark.skipif(machine.backend() == "Metal", reason="the counter is so already: test_count is the test here")
class TestPages:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_whole_pages_are_no_arrays_left_behind(self, variant, request):
        expected = in_miniature(variant)
        request.getfixturevalue("pages")
        assert in_miniature(variant) == expected
        assert expected["kept_arrays"] == 0

    def test_odd_sizes_would_look_like_arrays(self, pages, monkeypatch):
        monkeypatch.setattr(count, "MINIATURE", count.trees.Shape((3, 100)))
        assert in_miniature("flat")["kept_arrays"] > 0

    def test_what_is_left_behind_is_seen_all_the_same(self, pages, monkeypatch):
        apply = adamw.load("eager").apply_gradients

        def keeping(self, gradients, parameters):
            updated = apply(self, gradients, parameters)
            self.kept = mx.zeros(count.MINIATURE, mx.bfloat16)
            mx.eval(self.kept)
            return updated

        monkeypatch.setattr(adamw.load("eager"), "apply_gradients", keeping)
        monkeypatch.setattr(count, "untraced_variants", lambda: pytest.MonkeyPatch.context())
        assert in_miniature("eager")["kept_arrays"] >= 1


def test_a_peak_that_starts_from_nothing_is_what_is_held(monkeypatch):
    """`reset_peak_memory` sets 0, and a step that writes over everything allocates nothing."""
    step = Step(SMALL)
    monkeypatch.setattr(mx, "get_peak_memory", lambda: 0)
    told = measure.measure_memory(step)
    assert told.peak == told.active >= SMALL.resident_bytes


class TestMemoryPressure:
    """Metal's working set is smaller than the machine's memory, and a wired limit moves it."""

    @pytest.fixture
    def limited(self, monkeypatch):
        identify = machine.identify.__wrapped__  # which is not kept from test to test

        def make(limit: int | None, active: int = 0) -> None:
            told = {"device_name": "Apple M2", **({} if limit is None else {"max_recommended_working_set_size": limit})}
            monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
            monkeypatch.setattr(mx, "device_info", lambda device=None: told)
            monkeypatch.setattr(mx, "metal", SimpleNamespace(is_available=lambda: True))
            monkeypatch.setattr(mx, "get_active_memory", lambda: active)
            monkeypatch.setattr(machine, "identify", identify)

        return make

    def test_free_is_what_the_working_set_has_room_for(self, limited):
        limited(10**9, active=3 * 10**8)
        assert machine.free_bytes() == 7 * 10**8
        assert machine.settings()["working_set"] == 10**9

    def test_never_less_than_nothing_and_never_more_than_there_is(self, limited):
        limited(10**9, active=2 * 10**9)
        assert machine.free_bytes() == 0
        limited(2**60)
        assert machine.free_bytes() <= psutil.virtual_memory().total

    def test_where_it_is_not_told_the_machines_memory_counts(self, limited):
        limited(None)
        assert machine.free_bytes() > 0
        assert machine.settings()["working_set"] is None

    def test_a_case_that_would_not_fit_is_skipped_in_words(self, limited, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        case = cases.case("compiled", "float32/two_leaves")
        limited(case.needed_bytes - 1)
        with pytest.raises(NotImplementedError, match=r"needs 0\.\d GB of memory, 0\.\d GB are free"):
            run.measured(case, tmp_path / "case.json")

    @pytest.mark.parametrize(("limit", "lines"), [(10**9, 0), (2**50, 1)])
    def test_what_can_never_fit_is_no_case_that_is_missing(self, limited, monkeypatch, tmp_path, limit, lines):
        """Only what would fit, were nothing else there, is told in the ledger: a night counts it as missing."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "ledger"))
        case = cases.case("compiled", "float32/gpt2")
        assert 10**9 < case.needed_bytes < run.USABLE * psutil.virtual_memory().total
        limited(limit, active=limit)
        with pytest.raises(NotImplementedError):
            run.measured(case, tmp_path / "case.json")
        written = (tmp_path / "ledger").read_text().splitlines() if (tmp_path / "ledger").exists() else []
        assert len(written) == lines

    def test_on_a_cpu_backend_there_is_no_working_set(self):
        if machine.backend() == "CPU":
            assert machine.working_set_bytes() is None
