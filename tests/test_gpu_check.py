"""gpu-check where there is no GPU: with stand-ins for its processes, and with what an H200 really answered."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import fake_peers
import mlx.core as mx
import numpy as np
import pytest
import shim
from meters import LOG, Clock
from rich.console import Console

from adamw import gpu
from benchmarks.harness import agreement, cases, ceiling, counters, energy, machine, measure, ncu, peer_process, peers
from benchmarks.harness.gpu import card, chosen, lines, traffic
from benchmarks.harness.gpu import counters as counted
from benchmarks.harness.gpu import energy as joules
from benchmarks.harness.gpu import machine as described
from benchmarks.harness.gpu import peers as beside
from benchmarks.harness.gpu import process as looking
from benchmarks.harness.gpu import right as rightness
from benchmarks.harness.gpu import steps as timing
from benchmarks.harness.host.meter import Meter
from scripts import command, gpu_check
from scripts.gpu import findings, process, tables
from scripts.gpu.findings import Line

ROOT = Path(__file__).parent.parent
H200 = ROOT / "results/gpu/nvidia-h200/2026-11-27.jsonl"
COUNTED = {name: 0 if name in findings.ZERO else 7 for name in counters.Counters._fields if not name.endswith("dtypes")}
CUDA = {"what": "machine", "description": "NVIDIA H200, CUDA", "backend": "CUDA", "cache_bytes": 60 * 2**20}
COPY = {"what": "ceiling", "kernel": "torch copy", "bytes_per_second": 4e12, "bytes": 2**31, "in_memory": True}


def step(case: str, seconds: float, what: str = "step", **more: Any) -> Line:
    about = cases.Case(*case.split("/")[:3])
    return {
        "what": what,
        "case": case,
        "ideal_bytes": about.ideal_bytes,
        "seconds": [seconds] * 7,
        "error": 1e-7,
    } | more


def found(*lines: Line) -> dict[str, findings.Finding]:
    return {one.assumed: one for one in findings.judged(list(lines))}


def only(lines: list[Line], words: str) -> findings.Finding:
    (one,) = (one for assumed, one in found(*lines).items() if words in assumed)
    return one


class TestFindings:
    def test_nothing_found_is_nothing_told(self):
        assert findings.judged([]) == []
        for why in ("no time was left: not begun", "not available here: ncu is not installed"):
            assert findings.judged([{"what": "lost", "part": "right kernel mixed", "why": why}]) == []

    @pytest.mark.parametrize("part", ["right kernel mixed", "counters gpu", "steps gpt2"])
    def test_a_part_that_dies_is_wrong(self, part):
        lost = {"what": "lost", "part": part, "why": "its process died (exit code -6): an illegal memory access"}
        one = only([lost], "whatever is right and counted is told")
        assert (one.holds, one.found) == (False, f"{part}: {lost['why']}")
        assert findings.judged([lost | {"part": "torch"}]) == []  # nobody's fault here

    @pytest.mark.parametrize(("excess", "holds"), [(1.0, True), (1.1, False)])
    def test_rounded_once(self, excess, holds):
        lines = [{"what": "right", "variant": "kernel", "dtypes": name, "excess": excess} for name in ("a", "b")]
        one = only(lines, "kernel: float32 arithmetic")
        assert one.holds is holds
        assert one.found == f"error over bound: a {excess:.2f}, b {excess:.2f}"

    def test_an_error_that_is_no_number_is_wrong(self):
        """JSON has no infinity."""
        for value in (None, "Infinity"):
            lines = [{"what": "right", "variant": "kernel", "dtypes": "mixed", "excess": value}]
            assert only(lines, "kernel: float32 arithmetic").holds is False
            assert "inf" in tables.progress(lines[0])
            lines = [{"what": "way", "variant": "kernel", "precision": "mixed", "steps": 200, "error": value}]
            assert only(lines, "way in 200 steps").holds is False

    @pytest.mark.parametrize(
        ("precision", "error", "holds"),
        [("float32", 1e-6, True), ("float32", 1e-3, False), ("bfloat16", 1e-3, True), ("bfloat16", 0.1, False)],
    )
    def test_the_way(self, precision, error, holds):
        lines = [{"what": "way", "variant": "kernel", "precision": precision, "steps": 200, "error": error}]
        assert only(lines, "way in 200 steps").holds is holds

    @pytest.mark.parametrize(("cpu", "holds"), [([True, False], True), ([False, False], False), (None, None)])
    def test_donation(self, cpu, holds):
        def line(device: str, plain: bool, fused: bool) -> Line:
            return {"what": "donates", "device": device, "plain": plain, "fused": fused, "several_outputs": False}

        lines = [line("gpu", True, False), *([line("cpu", *cpu)] if cpu else [])]
        assert only(lines, "donates").holds is holds

    def counted(self, device: str, **other: int) -> Line:
        return {"what": "counters", "device": device, "case": "eager/float32/two_leaves"} | COUNTED | other

    def test_counters(self):
        same = [self.counted("gpu"), self.counted("cpu")]
        assert all(one.holds for one in found(*same).values())
        one = only([self.counted("gpu", kept_arrays=2)], "nothing is wrong")
        assert (one.holds, one.found) == (False, "eager/float32/two_leaves: kept_arrays 2")
        one = only([self.counted("gpu", kernels=8), self.counted("cpu")], "CPU backend's")
        assert (one.holds, one.found) == (False, "eager/float32/two_leaves: kernels 8, on the CPU 7")
        one = only([self.counted("gpu", peak_bytes=8), self.counted("cpu")], "CPU backend's")
        assert one.holds  # named, and no fault: it is of what is donated
        assert "peak_bytes 8" in one.found
        assert "the counters of a step are the CPU backend's" not in found(self.counted("gpu"))

    def test_a_step_faster_than_memory(self):
        fair, impossible = step("kernel/float32/gpt2", 0.001), step("kernel/float32/llama_1b", 0.001)
        assert only([CUDA, COPY, fair], "faster than the ceiling").holds
        one = only([CUDA, COPY, fair, impossible], "faster than the ceiling")
        assert one.holds is False
        assert one.found.startswith("kernel/float32/llama_1b ")
        cached = step("kernel/float32/thousand_leaves", 1e-9)
        assert only([CUDA, COPY, cached], "faster than the ceiling").holds
        assert not found(fair)["every variant that runs here is right on every tree"].found.startswith("kernel")

    def test_a_variant_that_is_wrong(self):
        lines = [step("kernel/float32/gpt2", 1), {"what": "step", "case": "x/float32/gpt2", "why": "WrongCase: x"}]
        one = only(lines, "right on every tree")
        assert (one.holds, one.found) == (False, "x/float32/gpt2: WrongCase: x")

    @pytest.mark.parametrize(("seconds", "holds"), [(0.00095, True), (0.002, False)])
    def test_the_share_of_the_copys_bandwidth(self, seconds, holds):
        one = only([CUDA, COPY, step("kernel/float32/gpt2", seconds)], "kernel in float32: at least 90%")
        assert one.holds is holds
        moved = {"what": "traffic", "case": "kernel/float32/gpt2", "nanoseconds": seconds * 1e9, "read": None}
        assert only([COPY, moved], "its kernels' own time").holds is holds

    def test_beside_torch(self):
        fused = step("torch_fused/float32/gpt2", 0.002, "peer")
        own = [step("kernel/float32/gpt2/bias_correction", 0.001), step("kernel/float32/resnet50/bias_correction", 1)]
        torch = fused | {"case": "torch_fused/float32/gpt2/bias_correction"}
        one = only([torch, *own], "PyTorch fused")
        assert (one.holds, one.found) == (True, "gpt2 0.50")
        slower = step("kernel/float32/gpt2/bias_correction", 0.003)
        assert only([torch, slower], "PyTorch fused").holds is False
        assert findings.times_torch([torch, *own])["torch_fused/float32/gpt2/bias_correction"] == 1

    @pytest.mark.parametrize(("share", "holds"), [(1.02, True), (0.9, False)])
    def test_measured_and_modelled_bytes(self, share, holds):
        case = cases.case("eager", "float32/one_leaf")
        half = share * case.ideal_bytes * 30 / 7 / 2
        line = {"what": "traffic", "case": str(case), "read": half, "written": half, "nanoseconds": None}
        untold = [line | {"case": "split/float32/one_leaf", name: None} for name in ("read", "written")]
        one = only([line, *untold], "measured DRAM bytes")
        assert (one.holds, one.found) == (holds, f"measured over modelled: eager/float32/one_leaf {share:.3f}")
        counted = self.counted("gpu", modelled_bytes=int(2 * half)) | {"case": str(case)}
        assert only([line, counted], "measured DRAM bytes").holds

    @pytest.mark.parametrize(("second", "holds"), [(4.1, True), (5.0, False)])
    def test_energy_repeats(self, second, holds):
        lines = [{"what": "energy", "case": "a", "joules": joules} for joules in (4.0, second)]
        assert only(lines, "joules a step").holds is holds
        assert findings.judged(lines[:1]) == []


class TestTheH200:
    """What a card answered, in the format of that day: it is read for ever."""

    LINES = gpu_check.read(H200)

    def test_what_was_found(self):
        told = found(*self.LINES)
        assert {assumed: one.holds for assumed, one in told.items()} == {
            "kernel: float32 arithmetic, each result rounded once": True,
            "kernel in float32, its kernels' own time: at least 90% of the copy's bandwidth": False,
            "kernel_inplace in float32, its kernels' own time: at least 90% of the copy's bandwidth": False,
            "measured DRAM bytes are within 3% of the modelled ones": True,
            "joules a step repeat within 5%": True,
        }

    def test_it_is_shown(self, capsys):
        assert gpu_check.main(["--show", str(H200)]) == 1
        printed = capsys.readouterr().out
        assert "NVIDIA H200, 140 GiB, MLX's CUDA backend" in printed
        assert "spec ceiling 4800.0 GB/s" in printed or "spec ceiling 4800 GB/s" in printed
        assert "energy by NVML, the whole card" in printed
        assert max(map(len, printed.split("as assumed")[0].splitlines())) <= command.WIDTH
        assert re.search(r"^kernel/float32/gpt2 +7 +1991\.1 +1491\.3 +0\.999 +0\.9062 +56 +48$", printed, re.MULTILINE)

    def test_no_number_and_no_name_of_a_single_card_is_in_it(self):
        assert not re.search(r"uuid|serial|GPU-[0-9a-f]{8}", H200.read_text(), re.IGNORECASE)


class TestPage:
    PAGE = (ROOT / "docs/gpu.md").read_text()

    def test_what_it_shows_is_what_the_command_prints(self, capsys):
        gpu_check.main(["--show", str(H200)])
        printed = capsys.readouterr().out.split("as assumed")[0]
        shown = re.search(r"<!-- shown -->\n(.*)<!-- end -->", self.PAGE, re.DOTALL)
        assert shown
        assert [line[4:].rstrip() for line in shown[1].splitlines()] == [
            line.rstrip() for line in printed.rstrip().splitlines()
        ]

    def test_its_figures_are_those_of_the_results(self):
        told = {one.assumed: one.found for one in findings.judged(TestTheH200.LINES)}
        off = [
            abs(float(ratio) - 1)
            for ratio in re.findall(r"\b[01]\.\d{3}\b", told[next(k for k in told if "DRAM" in k)])
        ]
        assert f"within {max(off):.1%} of the modelled bytes in all twelve cases".replace("%", " %") in self.PAGE
        assert len(off) == 12
        for assumed, words in told.items():
            if assumed.startswith("kernel in float32, its kernels' own time"):
                one_leaf, gpt2 = (float(share) for share in re.findall(r"([\d.]+)%", words))
                assert f"reach {one_leaf:.0f} % (one leaf) and {gpt2:.0f} % (GPT-2)" in self.PAGE
        joules = [line["joules"] for line in TestTheH200.LINES if line["what"] == "energy"]
        assert f"takes {joules[0] / joules[2]:.1f} times the joules" in self.PAGE
        launch = next(line for line in TestTheH200.LINES if line["what"] == "launch")
        assert (
            f"took {1e6 * launch['fixed']:.0f} µs on the H200, each further kernel {1e6 * launch['each']:.1f} µs"
            in self.PAGE
        )

    def test_what_it_names_is_there(self):
        for name in re.findall(r"\]\(([^)#]+)", self.PAGE):
            assert (ROOT / "docs" / name).exists(), name
        assert "[docs/gpu.md](docs/gpu.md)" in (ROOT / "README.md").read_text()
        assert re.search(r"^gpu-check: setup$", (ROOT / "Makefile").read_text(), re.MULTILINE)
        codes = gpu_check.EPILOG.partition("exit codes: ")[2]
        assert codes.startswith("0 nothing assumed was wrong, 1 something was, 2 error")


class TestTables:
    def test_a_block_a_workload_the_fastest_first(self):
        lines = [
            COPY,
            step("kernel/float32/gpt2", 0.002, host=1e-4, resident_bytes=100, peak=175),
            step("compiled/float32/gpt2", 0.001),
            step("torch_fused/float32/gpt2", 0.001, "peer", peak=None),
            step("kernel/bfloat16/gpt2", 0.002),
        ]
        console = Console(width=command.WIDTH, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
        tables.show(lines, [findings.Finding("it is so", None, "no word")], console)
        printed = console.export_text().splitlines()
        names = [line.split()[0] for line in printed if line.strip()]
        assert names.index("float32/gpt2") < names.index("compiled") < names.index("kernel")
        (row,) = (line.split() for line in printed if line.startswith("  kernel") and " 1.75 " in line)
        assert row == ["kernel", "2", "0.0", "1742", "43.6", "0.1", "1.75", "1e-07", "2.00"]
        assert "not told    it is so: no word" in printed

    def test_a_line_of_progress(self):
        assert tables.progress(CUDA) == "NVIDIA H200, CUDA"
        assert tables.progress(COPY) == "torch copy: 4000 GB/s"
        assert tables.progress(step("a/float32/gpt2", 0.5)) == "a/float32/gpt2: 500 ms"
        right = {"what": "right", "variant": "kernel", "dtypes": "mixed", "excess": 0.5}
        assert tables.progress(right) == "kernel mixed: 0.50 of the error that is allowed"
        assert tables.progress({"what": "step", "case": "a", "skipped": "no room"}) == "a: no room"
        assert tables.progress({"what": "card", "when": "before"}) == ""


STAND_IN = """
import json, os, sys, time
sys.stderr.write("ready\\n"); sys.stderr.flush()
sys.stdin.readline()
does = sys.argv[1]
print("a word that is no answer", flush=True)
print(json.dumps({"what": "answer", "words": sys.argv[1:], "there": os.environ.get("SAID")}), flush=True)
if does == "dies":
    sys.exit("RuntimeError: no kernel image is available for execution on the device")
if does == "crashes":
    os.abort()
if does == "silent":
    os._exit(3)
if does == "hangs":
    time.sleep(600)
"""


@pytest.fixture
def stand_in(monkeypatch, tmp_path) -> str:
    """A folder with a module that stands for the processes."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.setattr(process, "MODULE", "stand_in")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return str(tmp_path)


class TestProcess:
    def lines(self, folder: str, *words: str, seconds: float = 30, **variables: str) -> list[Line]:
        part = process.Part(words, folder, **variables)
        try:
            return list(part.lines(seconds))
        finally:
            part.close()

    def test_it_waits_to_be_told_and_answers(self, stand_in):
        part = process.Part(["answers"], stand_in, SAID="so")
        time.sleep(0.5)
        assert part.process.poll() is None
        assert list(part.lines(30)) == [{"what": "answer", "words": ["answers"], "there": "so"}]
        part.begin()  # again, without harm
        part.close()

    @pytest.mark.parametrize(
        ("does", "why"),
        [
            ("dies", r"exit code 1\): RuntimeError: no kernel image is available"),
            ("crashes", r"exit code -6\): ready"),
            ("silent", r"exit code 3\): ready"),
        ],
    )
    def test_one_that_dies_says_how(self, stand_in, does, why):
        answer, lost = self.lines(stand_in, does, "more")
        assert answer["what"] == "answer"
        assert lost["what"] == "lost"
        assert lost["part"] == f"{does} more"
        assert re.search(why, lost["why"])

    def test_one_that_takes_too_long_is_ended(self, stand_in):
        start = time.monotonic()
        answer, lost = self.lines(stand_in, "hangs", seconds=2)
        assert answer["what"] == "answer"
        assert lost["why"] == "no time was left: ended after 2 s"
        assert time.monotonic() - start < 30

    def test_one_that_cannot_start(self, stand_in):
        Path(stand_in, "stand_in.py").unlink()
        (lost,) = self.lines(stand_in, "x")
        assert "No module named" in lost["why"]

    def test_one_whose_words_are_gone(self, stand_in):
        part = process.Part(["silent"], stand_in)
        part.errors.unlink()
        assert list(part.lines(30))[-1]["why"].endswith("(exit code 3): no word")
        part.close()

    def test_one_that_says_nothing_at_all(self, stand_in):
        Path(stand_in, "stand_in.py").write_text("import os; os._exit(4)")
        (lost,) = self.lines(stand_in, "x")
        assert lost["why"].endswith("(exit code 4): no word")

    def test_closing_ends_it(self, stand_in):
        part = process.Part(["hangs"], stand_in)
        part.close()
        assert part.process.poll() is not None


class TestCommand:
    @pytest.fixture
    def parts(self, monkeypatch, tmp_path) -> dict[str, list[Line]]:
        """What the processes find, by their words."""
        told: dict[str, list[Line]] = {"machine": [CUDA]}

        class FakePart(process.Part):
            def __init__(self, words, folder, before=(), **variables):
                self.words, self.before, self.folder, self.variables = list(words), before, folder, variables

            def begin(self):
                pass

            def lines(self, seconds):
                assert seconds > 0
                yield from told.get(" ".join(self.words), [])

            def close(self):
                pass

        monkeypatch.setattr(gpu_check, "Part", FakePart)
        monkeypatch.setattr(gpu_check.git, "here", lambda: "a" * 40)
        monkeypatch.chdir(tmp_path)
        return told

    def test_all_of_it(self, parts, capsys):
        parts["right kernel float32"] = [{"what": "right", "variant": "kernel", "dtypes": "float32", "excess": 0.5}]
        assert gpu_check.main([]) == 0
        printed = capsys.readouterr().out
        assert "as assumed  kernel: float32 arithmetic" in printed
        assert printed.endswith("written: gpu-check.jsonl\n")
        lines = gpu_check.read(Path("gpu-check.jsonl"))
        assert [line["what"] for line in lines] == ["begun", "machine", "right", "lost"]
        assert lines[0]["commit"] == "a" * 40
        assert lines[-1]["why"] == "not available here: ncu, NVIDIA's profiler, is not installed"

    def test_something_assumed_that_is_wrong(self, parts):
        parts["right kernel mixed"] = [{"what": "right", "variant": "kernel", "dtypes": "mixed", "excess": 2.0}]
        assert gpu_check.main(["--json", "x.jsonl"]) == 1

    def test_what_is_not_a_number_is_none(self, parts):
        parts["steps gpt2"] = [step("kernel/float32/gpt2", 1.0, error=float("inf"))]
        assert gpu_check.main(["--only", "steps"]) == 0
        (line,) = (line for line in Path("gpu-check.jsonl").read_text().splitlines() if "step" in line)
        assert findings.number(json.loads(line)["error"]) == float("inf")

    def test_only_some(self, parts):
        gpu_check.main(["--only", "machine", "--only", "card"])
        assert len(gpu_check.read(Path("gpu-check.jsonl"))) == 2
        gpu_check.main(["--skip", "machine"])
        assert [line["what"] for line in gpu_check.read(Path("gpu-check.jsonl"))] == ["begun", "lost"]

    def test_a_second_run_leaves_the_first_where_it_is(self, parts):
        gpu_check.main(["--only", "machine"])
        parts["machine"] = [CUDA | {"description": "another"}]
        gpu_check.main(["--only", "machine"])
        assert len(Path("gpu-check.jsonl").read_text().splitlines()) == 4
        assert [line.get("description") for line in gpu_check.read(Path("gpu-check.jsonl"))] == [None, "another"]

    def test_one_that_hangs_takes_nothing_from_those_beside_it(self, monkeypatch, stand_in):
        """With real processes: what the others found is told at once, not after it."""
        monkeypatch.setattr(gpu_check, "LONGEST", 3.0)
        start = time.monotonic()
        told = [
            (line, time.monotonic() - start)
            for line in gpu_check.looked(
                [[["hangs"], ["answers", "1"], ["answers", "2"]], [["answers", "3"]]], start + 60
            )
        ]
        answers = {" ".join(line["words"]): seconds for line, seconds in told if line["what"] == "answer"}
        assert answers.keys() == {"hangs", "answers 1", "answers 2", "answers 3"}
        (lost,) = ((line, seconds) for line, seconds in told if line["what"] == "lost")
        assert lost[0]["part"] == "hangs"
        assert answers["answers 2"] < lost[1] < answers["answers 3"]

    def test_the_card_that_mlx_uses_is_told_to_those_without_mlx(self, parts, monkeypatch):
        monkeypatch.delenv(lines.BUS, raising=False)
        parts["machine"] = [CUDA, {"what": "settings", "device_info": {"pci_bus_id": "0000:00:06.0"}}]
        gpu_check.main(["--only", "machine"])
        assert os.environ[lines.BUS] == "0000:00:06.0"

    def test_what_is_not_timed_runs_at_once(self):
        assert [len(group) for group in gpu_check.groups(["machine", "right", "counters", "card"])] == [1, 1, 11, 1]
        every = [words for name in gpu_check.plan() for words in gpu_check.plan()[name]]
        assert len({tuple(words) for words in every}) == len(every)
        assert {words[0] for words in every} == set(looking.PARTS)

    def test_when_the_time_is_over_the_rest_says_so(self, parts):
        assert gpu_check.main(["--seconds", "1e-9"]) == 0
        lines = gpu_check.read(Path("gpu-check.jsonl"))
        assert {line["why"] for line in lines[1:]} == {"no time was left: not begun"}
        assert len(lines) == 1 + sum(len(part) for part in gpu_check.plan().values())

    @pytest.mark.parametrize("backend", ["CPU", "Metal"])
    def test_another_machine_is_told_what_it_is(self, parts, backend):
        parts["machine"] = [CUDA | {"backend": backend, "description": "a Mac"}]
        with pytest.raises(command.UserError, match=f"MLX runs on {backend} here: a Mac; gpu-check is for an NVIDIA"):
            gpu_check.main([])

    def test_without_mlx(self, parts, monkeypatch):
        monkeypatch.setattr(gpu_check.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(command.UserError, match="this Python has no MLX; install it"):
            gpu_check.main([])

    def test_a_card_that_mlx_does_not_run_on(self, parts, capsys):
        """Nothing is found, and every part says why."""
        parts.clear()
        why = "its process died (exit code 1): no kernel image is available"
        parts["machine"] = [{"what": "lost", "part": "machine", "why": why}]
        with pytest.raises(command.UserError, match=r"MLX does not run here: .*no kernel image is available"):
            gpu_check.main([])

    @pytest.fixture
    def profiler(self, monkeypatch):
        monkeypatch.setattr(ncu.shutil, "which", lambda name: "/bin/ncu")

    def test_the_bytes_that_kernels_moved(self, parts, profiler, monkeypatch):
        parts["traffic"] = [
            {"what": "profiled", "case": "kernel/float32/one_leaf"},
            {"what": "lost", "part": "traffic", "why": "its process died"},
        ]
        begun = gpu_check.begun

        def logged(words, folder, stack):
            part = begun(words, folder, stack)
            if words == ["traffic"]:
                assert part.before[0] == "/bin/ncu"
                assert part.variables["MLX_USE_CUDA_GRAPHS"] == "0"
                Path(folder, "ncu.csv").write_text(LOG)
            return part

        monkeypatch.setattr(gpu_check, "begun", logged)
        assert gpu_check.main(["--only", "traffic"]) == 0
        _, lost, moved = gpu_check.read(Path("gpu-check.jsonl"))
        assert lost["why"] == "its process died"
        assert moved["nanoseconds"] == 129_344
        monkeypatch.setattr(sys.modules[__name__], "LOG", "==ERROR== ERR_NVGPUCTRPERM - no permission\n")
        assert gpu_check.main(["--only", "traffic"]) == 0
        assert gpu_check.read(Path("gpu-check.jsonl"))[-1]["why"].endswith("ncu says ERR_NVGPUCTRPERM - no permission")

    def test_a_profiler_that_wrote_nothing(self, parts, profiler):
        assert gpu_check.main(["--only", "traffic"]) == 0
        assert len(gpu_check.read(Path("gpu-check.jsonl"))) == 1

    def test_files_that_are_none_of_its_own(self, tmp_path):
        with pytest.raises(command.UserError, match="cannot be read"):
            gpu_check.main(["--show", str(tmp_path / "none")])
        for text in ("", "no json", '{"other": 1}\n[1]\n{"what": 3}'):
            (tmp_path / "odd").write_text(text)
            with pytest.raises(command.UserError, match="has nothing that gpu-check found; name a file that it wrote"):
                gpu_check.read(tmp_path / "odd")
        (tmp_path / "odd").write_bytes(b"\xff\xfe")
        with pytest.raises(command.UserError, match="cannot be read"):
            gpu_check.read(tmp_path / "odd")
        (tmp_path / "cut").write_text(json.dumps(CUDA) + '\n{"what": "ceil')
        assert gpu_check.read(tmp_path / "cut") == [CUDA]

    def test_the_command_itself_says_that_mlx_runs_on_the_cpu(self, tmp_path):
        done = subprocess.run(
            [sys.executable, "-m", "scripts.gpu_check", "--json", str(tmp_path / "x.jsonl")],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.startswith("error: MLX runs on CPU here: ")
        assert done.stderr.count("\n") == 1
        lines = gpu_check.read(tmp_path / "x.jsonl")
        assert [line["what"] for line in lines] == ["begun", "machine"]

    def test_it_is_killed_half_way_and_what_it_found_is_there(self, stand_in, tmp_path):
        program = (
            "import sys; from scripts import command, gpu_check; from scripts.gpu import process\n"
            "process.MODULE = 'stand_in'\n"
            "gpu_check.groups = lambda wanted: [[['answers', 'hangs']], [['hangs']]]\n"
            "sys.exit(command.run(gpu_check.main))"
        )
        path = tmp_path / "x.jsonl"
        command_line = [sys.executable, "-c", program, "--json", str(path)]
        running = subprocess.Popen(command_line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not path.exists() or path.read_text().count('"what": "answer"') < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        running.kill()
        running.wait()
        assert [line["what"] for line in gpu_check.read(path)] == ["begun", "answer", "answer"]

    def test_help_has_examples(self):
        assert gpu_check.EPILOG.count("python -m scripts.gpu_check") >= 2


class TestParts:
    """What the processes do, in this one; a part that needs a GPU has a stand-in for it."""

    @pytest.mark.parametrize("variant", chosen.OWN)
    def test_right(self, monkeypatch, variant):
        monkeypatch.setattr(gpu, "MOST_THREADS", gpu.MOST_THREADS)  # which it changes
        monkeypatch.setattr(rightness, "STEPS", 5)
        with shim.gpu("cuda"):
            right, way = rightness.right(variant, "float32")
            (mixed,) = rightness.right(variant, "all_different") if variant == "kernel" else ({"excess": 0},)
        assert right["excess"] <= 1
        assert way["error"] < findings.SAME_WAY["float32"]
        assert mixed["excess"] <= 1

    def test_right_sees_a_wrong_kernel(self, monkeypatch):
        monkeypatch.setattr(gpu, "MOST_THREADS", gpu.MOST_THREADS)
        wrong = gpu.arithmetic.BODY.replace("chunk += groups", "chunk += 2 * groups + 1")
        monkeypatch.setattr(gpu.arithmetic, "BODY", wrong)
        with shim.gpu("cuda"), pytest.raises(AssertionError, match="written once"):
            list(rightness.right("kernel", "float32"))

    def test_right_without_a_gpu(self):
        (line,) = rightness.right("kernel", "float32")
        assert "needs a GPU" in line["why"]

    def test_machine(self, monkeypatch):
        assert [line["what"] for line in described.machine()] == ["machine", "settings", "card"]
        monkeypatch.setattr(ceiling, "mlx_kernels", lambda size: [("MLX copy", 1e9)])
        for chip in ("NVIDIA H200", "NVIDIA Nobody Knows"):
            here = machine.Machine(chip, "CUDA", None, 2**37, 2**20, "Linux")
            monkeypatch.setattr(machine, "identify", lambda here=here: here)
            monkeypatch.setattr(machine, "free_bytes", lambda: 2**36)
            lines = {line["what"]: line for line in described.machine()}
            assert lines.keys() == {"machine", "settings", "card", "spec", "ceiling", "launch"}
            assert ("why" in lines["spec"]) == ("Nobody" in chip)
            assert "uuid" not in lines["settings"]["device_info"]

    def test_torch(self, monkeypatch):
        class Tensor:
            def copy_(self, other):
                done.append("copy")

            def mul_(self, factor):
                done.append("scale")

        done: list[str] = []
        torch = ModuleType("torch")
        vars(torch).update(
            __version__="2.11",
            ones=lambda size, device: Tensor(),
            add=lambda a, b, alpha, out: done.append("triad"),
            cuda=SimpleNamespace(synchronize=lambda: done.append("waited"), empty_cache=lambda: done.append("emptied")),
        )
        monkeypatch.setitem(sys.modules, "torch", torch)
        lines = list(card.torch())
        assert [line["kernel"] for line in lines] == [
            "torch 2.11 copy", "torch 2.11 triad", "torch 2.11 scale in place"
        ]  # fmt: skip
        assert set(done) == {"copy", "triad", "scale", "waited"}
        beside.emptied("torch_fused")
        beside.emptied("optax")
        assert done[-1] == "emptied"

    def test_counters(self, monkeypatch):
        few = [cases.case("compiled", "float32/leaf_1024"), cases.Case("no_such_variant", "float32", "leaf_1024")]
        monkeypatch.setattr(cases, "chosen", lambda variants, profile: few)
        donates, compiled, failed = counted.counters("cpu")
        assert donates["fused"] is True
        assert compiled["kernels"] == 1
        assert failed["why"].startswith("UnknownVariant: unknown variant 'no_such_variant'")

    def test_steps(self, monkeypatch):
        monkeypatch.setattr(timing, "PRECISIONS", ("float32", "master"))
        monkeypatch.setattr(timing, "OWN", ("split",))
        lines = {line["case"]: line for line in timing.steps("leaf_1024")}
        assert {"split/float32/leaf_1024", "split/float32/leaf_1024/bias_correction"} <= lines.keys()
        assert "master/master/leaf_1024" in lines
        assert "kernel/float32/leaf_1024" not in lines
        assert all(line["error"] < 1e-2 for line in lines.values())
        assert only(list(lines.values()), "right on every tree").holds

    def test_a_tree_that_memory_is_too_small_for(self, monkeypatch):
        monkeypatch.setattr(machine, "free_bytes", lambda: 10_000)
        monkeypatch.setattr(timing, "PRECISIONS", ("float32",))
        lines = list(timing.steps("leaf_1024"))
        assert lines
        assert all(re.search(r"needs 0.0 GB of memory, 0.0 GB are free", line["skipped"]) for line in lines)
        assert findings.of(lines, "step") == []

    def test_a_step_that_is_traced_while_the_clock_runs(self, monkeypatch):
        def traced(step, synchronize, budget, minimum):
            measure.TRACES.traces += 1
            return SimpleNamespace()

        monkeypatch.setattr(measure, "sample", traced)
        with pytest.raises(agreement.WrongCase, match="traced 1 times while the clock ran"):
            timing.timed(cases.case("compiled", "float32/leaf_1024"))

    def test_peers(self, monkeypatch):
        monkeypatch.setitem(peers.PEERS, "right", fake_peers.Right)
        monkeypatch.setitem(peers.PEERS, "widening", fake_peers.Widening)
        monkeypatch.setitem(peers.PEERS, "absent", fake_peers.Absent)
        monkeypatch.setenv(peer_process.THREADS, "1")
        monkeypatch.setattr(beside, "TREES", ("leaf_1024",))
        monkeypatch.setattr(beside, "PEERS_PRECISIONS", ("float32",))
        monkeypatch.setattr(fake_peers.Right, "device", "gpu")
        (line,) = beside.peers("right")
        assert line["case"] == "right/float32/leaf_1024/bias_correction"
        assert len(line["seconds"]) >= 7
        (line,) = beside.peers("widening")
        assert line["why"].startswith("WrongCase: ")
        monkeypatch.setattr(fake_peers.Right, "device", "cpu")
        monkeypatch.setattr(fake_peers.Right, "versions", classmethod(lambda cls: "jax 0.1"))
        (line,) = beside.peers("right")
        assert line["why"] == "RuntimeError: it ran on the processor: jax 0.1 on cpu"
        (line,) = beside.peers("absent")
        assert line["why"] == "no_such_framework not installed"

    def test_traffic(self, monkeypatch):
        called: list[str] = []
        driver = SimpleNamespace(
            cuProfilerStart=lambda: called.append("start"), cuProfilerStop=lambda: called.append("stop")
        )
        monkeypatch.setattr(traffic.ctypes, "CDLL", lambda name: driver)
        lines = list(traffic.traffic("compiled/float32/leaf_1024", "split/float32/leaf_1024"))
        assert [line["case"] for line in lines] == ["compiled/float32/leaf_1024", "split/float32/leaf_1024"]
        assert called == ["start", "stop"] * 2

    @pytest.fixture
    def meter(self, monkeypatch) -> Clock:
        """A meter of which every step uses 3 J."""
        clock = Clock()
        monkeypatch.setattr(energy.time, "perf_counter", lambda: clock.now)
        monkeypatch.setattr(energy.time, "sleep", clock.pass_by)
        monkeypatch.setattr(energy, "HERE", SimpleNamespace(energy=lambda backend, bus: Meter("a clock", clock.joules)))
        return clock

    def test_energy(self, meter, monkeypatch):
        class Working(joules.Step):
            def __call__(self) -> None:
                super().__call__()
                meter.pass_by(0.01, working=True)

        monkeypatch.setattr(joules, "Step", Working)
        monkeypatch.setattr(joules, "ENERGY", ("compiled/float32/leaf_1024", "split/float32/leaf_1024"))
        lines = list(joules.energy())
        assert [line["joules"] for line in lines] == pytest.approx([3.0] * 4, rel=0.05)
        assert lines[0]["parameters"] == 1024
        assert only(lines, "joules a step").holds
        monkeypatch.setattr(machine, "free_bytes", lambda: 0)
        assert {line["why"] for line in joules.energy()} == {"needs more memory than is free"}

    def test_no_energy(self, meter, monkeypatch):
        monkeypatch.setattr(meter, "joules", lambda: 1.0)
        monkeypatch.setattr(energy, "HERE", SimpleNamespace(energy=lambda backend, bus: Meter("a stone", meter.joules)))
        (line,) = joules.energy()
        assert line["why"] == "not available here: a stone: the counter stands still"
        monkeypatch.setattr(energy, "HERE", SimpleNamespace(energy=lambda backend, bus: None))
        (line,) = joules.energy()
        assert line["why"].startswith("not available here")
        monkeypatch.setattr(beside, "importable", lambda package: False)
        (line,) = beside.torch_energy()
        assert line["why"] == "not available here: torch is not installed"
        monkeypatch.setattr(beside, "importable", lambda package: True)
        (line,) = beside.torch_energy()
        assert line["why"].startswith("not available here: nothing counts energy")

    def test_energy_of_torch(self, meter, monkeypatch):
        class Working(fake_peers.Right):
            def __call__(self):
                meter.pass_by(0.01, working=True)

        monkeypatch.setitem(peers.PEERS, "torch_fused", Working)
        monkeypatch.setattr(beside, "importable", lambda package: True)
        monkeypatch.setattr(beside.trees, "build", lambda name: {"weight": beside.trees.shape(1000)})
        lines = list(beside.torch_energy())
        assert [line["joules"] for line in lines] == pytest.approx([3.0] * 2, rel=0.05)

    def test_card(self):
        assert list(card.card()) == [{"what": "card", "when": "after"}]

    @pytest.mark.parametrize("part", ["torch", "peers", "torch_energy", "card", "steps"])
    def test_ready(self, part):
        looking.ready(part)

    @pytest.mark.parametrize("part", looking.WITH_TORCH)
    def test_a_process_of_others_has_no_mlx_in_it(self, part):
        """It would keep some of the card's memory."""
        program = (
            f"import sys; from benchmarks.harness.gpu import process; process.ready({part!r}); print(*sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        assert "mlx.core" not in done.stdout.split()

    def test_ready_imports_torch_where_it_is(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
        monkeypatch.setattr(looking, "importable", lambda package: True)
        looking.ready("torch")

    @pytest.mark.parametrize("words", [["card"], ["steps", "no_such_tree"]])
    def test_main(self, monkeypatch, words, tmp_path):
        answers = (tmp_path / "answers").open("w")
        monkeypatch.setattr(looking, "own_output", lambda: answers)
        monkeypatch.setattr(looking, "end_with_parent", lambda parent: None)
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(readline=lambda: "go\n"))
        looking.main(words)
        answers.close()
        (line,) = map(json.loads, (tmp_path / "answers").read_text().splitlines())
        if words == ["card"]:
            assert line == {"what": "card", "when": "after"}
        else:
            assert line["what"] == "lost"
            assert line["part"] == "steps no_such_tree"
            assert line["why"].startswith("ValueError: unknown tree 'no_such_tree'")

    def test_the_process_itself(self):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.harness.gpu.process", "card"],
            cwd=ROOT, input=b"go\n", capture_output=True,
        )  # fmt: skip
        assert json.loads(done.stdout) == {"what": "card", "when": "after"}


@pytest.mark.parametrize("size", [10, 10**6])
def test_values_are_looked_at_in_a_copy(monkeypatch, size):
    """On CUDA an array that NumPy has seen lies in the host's memory from then on."""
    from adamw.ownership import address
    from benchmarks.harness import check, rounding

    array = mx.array(np.arange(size, dtype=np.float32))
    seen: list[int] = []
    convert = np.array

    def watched(given: Any, *arguments: Any) -> np.ndarray:
        if isinstance(given, mx.array):
            mx.eval(given)
            seen.append(address(given))
        return convert(given, *arguments)

    monkeypatch.setattr(np, "array", watched)
    for look in (check.compared, rounding.float64):
        assert look(array)[0] == 0
    start = address(array)
    assert len(seen) == 2
    assert not [place for place in seen if start <= place < start + array.nbytes]
