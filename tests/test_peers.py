"""The table of peers: what is wrong is not timed, what dies is a row, what is missing is named; the peers are AdamW."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_peers
import numpy as np
import psutil
import pytest
from rich.console import Console

from benchmarks.harness import agreement, cases, inputs, peer_process, resident, trees
from benchmarks.harness.cases import Case
from benchmarks.harness.peers import PEERS
from benchmarks.harness.step import filled
from scripts import command, peers

ROOT = Path(__file__).parent.parent
GIVEN = {
    "machine": "a machine",
    "backend": "CPU",
    "cache_bytes": 2**20,
    "ceiling": {"bytes_per_second": 50e9, "kernel": "copy", "working_set": 2**30, "in_memory": True},
    "unavailable": {},
}


def case(name: str) -> Case:
    return Case(*name.split("/"), bias_correction=True)


def row(name: str, milliseconds: float, **more) -> peers.Row:
    answer = {
        "seconds": [milliseconds / 1e3] * 7,
        "peak": case(name).resident_bytes,
        "memory_source": "VmHWM",
        "error": 2e-7,
        "busy": 1.5,
        "environment": "torch 2.13.0 on cpu",
    } | more
    about = {"name": case(name).variant, "workload": peers.workload(case(name)), "tree": case(name).tree_name}
    return about | {"threads": 2} | peers.figures(case(name), answer, GIVEN)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """`python -m scripts.peers` with the fakes among its peers."""
    return subprocess.run(
        [sys.executable, fake_peers.__file__, "command", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def planted(monkeypatch):
    """The fakes, for a test that calls `scripts.peers` in this process."""
    monkeypatch.setattr(peers, "WORKER", [sys.executable, fake_peers.__file__])
    for name, fake in fake_peers.FAKES.items():
        monkeypatch.setitem(PEERS, name, fake)


@pytest.mark.parametrize("tree", ["nested", f"leaf_{2 * inputs.TILE + 5}"])
def test_the_inputs_are_those_of_the_variants(tree):
    import mlx.core as mx

    shapes = trees.build(tree)
    gradients, _ = inputs.tiles()
    given = filled(shapes, inputs.values(np.random.default_rng(inputs.SEED)), mx.float32)
    from benchmarks.harness.evaluation import flat

    for number, (theirs, shape) in enumerate(zip(flat(given), trees.leaves(shapes), strict=True)):
        np.testing.assert_array_equal(inputs.leaf(gradients, number, shape.size), np.array(theirs).reshape(-1))


def test_parameters_and_gradients_are_not_mixed_up():
    from benchmarks.harness.step import Step

    gradients, parameters = inputs.tiles()
    step = Step(case("eager/float32/leaf_1024"))
    np.testing.assert_array_equal(inputs.leaf(gradients, 0, 1024), np.array(step.gradients["weight"]))
    np.testing.assert_array_equal(inputs.leaf(parameters, 0, 1024), np.array(step.parameters["weight"]))


def test_right_and_wrong_peers_and_a_variant_in_one_table(tmp_path):
    names = "right|no_decay|widening|dying|absent|split|torch_fused"
    done = run(
        "--case", f"^({names})/(float32|mixed)/leaf_262144$", "--threads", "1",
        "--json", str(tmp_path / "rows.json"), "--csv", str(tmp_path / "rows.csv"),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    text = " ".join(done.stdout.split())
    assert re.search(r"FAILED no_decay/float32/leaf_262144: WrongCase: .*wrong result: error \S+ in w of leaf 0", text)
    assert "FAILED widening/float32/leaf_262144: WrongCase" in text
    assert "dtype changed: w became float64, was float32" in text
    assert "its process died (exit code 9): Error: cannot go on" in text
    missing = r"left out: absent: no_such_framework not installed; install with: \S+ -m pip install no_such_framework"
    assert re.search(missing, text)
    assert "right" in text.split(" on mixed: it is a fake")[0].split("left out: ")[-1]
    assert "MLX loaded: False, threads 1" in text
    rows = {f"{row['name']}/{row['workload']}": row for row in json.loads((tmp_path / "rows.json").read_text())["rows"]}
    right = rows["right/float32/leaf_262144"]
    assert right["error"] < cases.PRECISIONS["float32"].tolerance
    assert right["memory_source"] in ("VmHWM", "ru_maxrss")
    assert rows["split/mixed/leaf_262144"]["memory_source"] == "MLX"
    assert rows["split/mixed/leaf_262144"]["peak_ratio"] == pytest.approx(1, abs=0.01)
    assert "milliseconds" not in rows["no_decay/float32/leaf_262144"]
    with (tmp_path / "rows.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(rows)


def test_a_missing_peer_is_no_failure(monkeypatch, capsys):
    monkeypatch.setattr(peers, "ask", lambda arguments, threads: GIVEN)
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    assert peers.main(["--case", "^(torch.*|bitsandbytes)/float32(_8bit)?/gpt2$"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    together = "torch_fused, torch_foreach, torch_for_loop: torch not installed; install with:"
    assert f"left out: {together} {sys.executable} -m pip install torch" in text
    assert f"bitsandbytes and torch not installed; install with: {sys.executable} -m pip install bitsandbytes" in text


def test_a_variant_that_cannot_run_is_named_with_its_reason(monkeypatch, capsys):
    monkeypatch.setattr(peers, "ask", lambda *_: GIVEN | {"unavailable": {"split": "split needs a GPU"}})
    assert peers.main(["--case", "^split/float32/gpt2$"]) == 0
    assert "left out: split: split needs a GPU" in capsys.readouterr().out


def test_a_case_that_does_not_fit_is_left_out_with_both_figures(monkeypatch, capsys):
    monkeypatch.setattr(peers, "ask", lambda *_: GIVEN)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10**9}))
    assert peers.main(["--case", "^split/float32/gpt2$"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "left out: split on float32/gpt2: needs 4.0 GB of memory, 1.0 GB are free" in text


def test_without_mlx_the_error_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(peers, "ask", lambda *_: {"failed": "ImportError:\nno libmlx"})
    assert command.run(lambda: peers.main([])) == 2
    assert "error: MLX does not run here: ImportError: no libmlx; try `make setup`\n" in capsys.readouterr().err
    monkeypatch.setattr(peers, "ask", lambda *_: {"failed": "MemoryError: 3 GB"})
    assert command.run(lambda: peers.main([])) == 2
    assert "error: MLX does not run here: MemoryError: 3 GB\n" in capsys.readouterr().err


def test_a_process_that_takes_too_long_is_one_failure(planted, monkeypatch, tmp_path):
    monkeypatch.setattr(peers, "LONGEST", 8)
    monkeypatch.setenv("FAKE_PEER_PID", str(tmp_path / "pid"))
    assert peers.ask(["hanging", "float32", "leaf_1024", "CPU"], 1) == {"failed": "took longer than 8 s"}
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_nothing_outlives_the_command(number, code, tmp_path):
    pid = tmp_path / "pid"
    process = subprocess.Popen(
        [sys.executable, fake_peers.__file__, "command", "--case", "^hanging/float32/leaf_1024$"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "FAKE_PEER_PID": str(pid)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (pid.exists() and pid.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert "Traceback" not in error
    while psutil.pid_exists(int(pid.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_figures_of_a_row():
    one = row("torch_fused/float32/gpt2", 100.0, seconds=[0.1, 0.1, 0.1, 0.12, 0.08], peak=3e9)
    ideal = 124_439_808 * 28 / 0.1
    assert one["milliseconds"] == pytest.approx(100)
    assert one["gigabytes_per_second"] == pytest.approx(ideal / 1e9)
    assert one["ceiling_fraction"] == pytest.approx(ideal / 50e9)
    assert one["peak_ratio"] == pytest.approx(3e9 / (124_439_808 * 16))
    assert one["notes"] == ""
    assert row("torch_fused/float32/gpt2", 1.0)["notes"] == "cache"  # beats the ceiling
    assert row("torch_fused/float32/leaf_1024", 100.0)["notes"] == "cache"  # fits


def test_memory_that_cannot_be_told_from_the_process_is_not_told():
    assert row("torch_fused/float32/leaf_1024", 1.0)["peak_ratio"] is None
    assert row("torch_fused/float32/gpt2", 1.0, peak=None, memory_source=None)["peak_ratio"] is None
    assert row("split/float32/leaf_1024", 1.0, memory_source="MLX")["peak_ratio"] == 1


def test_ratios_are_to_the_same_tree_and_dtype_of_parameters():
    names = ["split/float32/gpt2", "bitsandbytes/float32_8bit/gpt2", "split/bfloat16/gpt2", "split/float32/resnet50"]
    rows = [row("torch_fused/float32/gpt2", 10.0), *(row(name, 25.0) for name in names)]
    rows.append({"name": "torch_fused", "workload": "float32/resnet50", "tree": "resnet50", "failed": "x"})
    peers.add_ratios(rows)
    assert [one.get("ratio") for one in rows] == [1.0, 2.5, 2.5, None, None, None]


def test_blocks_are_sorted_and_fit_the_screen():
    every = [*cases.variant_names(), *PEERS]
    rows = [row(f"{name}/float32/thousand_leaves", 9999 - number) for number, name in enumerate(every)]
    rows.append({"name": "dead", "workload": "float32/thousand_leaves", "tree": "thousand_leaves", "failed": "x"})
    rows.append(row("torch_fused/bfloat16/gpt2", 3.0))
    peers.add_ratios(rows)
    console = Console(width=command.WIDTH, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(peers.shown(rows))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= command.WIDTH
    names = [line.split()[0] for line in lines[2:] if line.strip()]
    assert names == ["float32/thousand_leaves", *reversed(every), "dead", "bfloat16/gpt2", "torch_fused"]
    assert re.search(r"^  torch_fused +3 +0 +581 ", lines[-1])


def test_the_same_reason_is_said_once():
    left_out = [peers.LeftOut(name, place, "why") for name in ("a", "b") for place in ("float16", "mixed")]
    left_out += [peers.LeftOut("c", "mixed", "why"), peers.LeftOut("d", "", "gone")]
    assert peers.lines(left_out) == ["a, b on float16, mixed: why", "c on mixed: why", "d: gone"]


def test_what_runs_by_default():
    names = [peers.title(one) for one in peers.chosen(peers.DEFAULT)]
    assert {"torch_fused/float32/gpt2", "optax/bfloat16/thousand_leaves", "bitsandbytes/float32_8bit/resnet50"} <= {
        *names
    }
    assert {name.split("/")[2] for name in names} == {"gpt2", "resnet50", "one_leaf", "thousand_leaves"}
    assert {name.split("/")[1] for name in names} == {"float32", "bfloat16", "float32_8bit", "bfloat16_8bit"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--case", "("], r"--case '\(' is no regular expression"), (["--case", "gpt5"], "no case matches 'gpt5'; names")],
)
def test_a_case_that_is_none_is_one_line(arguments, message, capsys):
    assert command.run(lambda: peers.main(arguments)) == 2
    error = capsys.readouterr().err
    assert re.match(f"error: {message}", error)
    assert error.count("\n") == 1


@pytest.mark.parametrize("threads", ["0", "-1", "many", "100000"])
def test_threads_that_are_none_are_refused(threads, capsys):
    with pytest.raises(SystemExit) as stopped:
        peers.parser().parse_args(["--threads", threads])
    assert stopped.value.code == 2
    assert "is no number of threads from 1 to" in capsys.readouterr().err


def test_help_has_two_examples():
    done = subprocess.run([sys.executable, "-m", "scripts.peers", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.count("  python -m scripts.peers") >= 2


def test_a_missing_update_of_w_is_found_however_coarse_the_state_is():
    coarse = case("bitsandbytes/float32_8bit/leaf_1024")
    w, g = (inputs.leaf(tile, 0, 1024).astype(float) for tile in inputs.tiles()[::-1])
    ideal = agreement.after_steps(w, g, bias_correction=True)
    found = {"w": ideal.w, "m": ideal.m * 1.05, "v": ideal.v * 0.95}
    assert agreement.worst_error(coarse, [(w, g)], [found]) == pytest.approx(0.05)
    two_steps = w + (ideal.w - w) * 2 / 3
    with pytest.raises(agreement.WrongCase, match=r"error .* in w of leaf 0"):
        agreement.worst_error(coarse, [(w, g)], [found | {"w": two_steps}])


@pytest.mark.skipif(not resident.CLEAR.exists(), reason="only Linux can begin a new peak")
def test_the_peak_is_that_of_its_own_time():
    before, size = resident.now(), 2**26
    resident.forget_peak()
    held = np.ones(size, np.uint8)
    assert resident.peak()[0] - before > 0.9 * size
    del held
    resident.forget_peak()
    assert resident.peak()[0] - before < 0.1 * size


REAL = {name: peer for name, peer in PEERS.items() if name not in fake_peers.FAKES}


@pytest.mark.parametrize(
    ("name", "precision"), [(name, precision) for name, peer in REAL.items() for precision in peer.precisions]
)
def test_a_peer_is_adamw_and_is_measured(name, precision):
    for package in REAL[name].packages:
        pytest.importorskip(package)
    answer = peers.ask([name, precision, "nested", "CPU"], 1)
    assert "failed" not in answer
    assert 0 < answer["error"] < 0.1
    assert len(answer["seconds"]) >= 7
    assert answer["peak"] >= 0.99 * case(f"{name}/{precision}/nested").resident_bytes
    assert REAL[name].packages[0] in answer["environment"]


def made(name: str, precision: str, threads: int = 1):
    for package in REAL[name].packages:
        pytest.importorskip(package)
    peer = REAL[name](peer_process.REHEARSAL, cases.PRECISIONS[precision], "CPU", threads)
    peer_process.rehearse(peer)
    return peer


def test_optax_gives_its_buffers_away():
    peer = made("optax", "float32")
    before = peer.parameters["weight"] + peer.jax.tree.leaves((peer.state[0].mu, peer.state[0].nu))
    peer()
    assert all(array.is_deleted() for array in before)


def test_torch_has_the_threads_that_it_was_given():
    peer = made("torch_fused", "float32", threads=1)
    assert peer.torch.get_num_threads() == 1


def test_a_variant_has_the_threads_that_it_was_given():
    pytest.importorskip("numba")
    given = os.environ | {peer_process.THREADS: "1"}
    code = "from adamw import loops; print(loops.THREADS)"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=given, text=True) == "1\n"


def test_torch_updates_in_place():
    peer = made("torch_fused", "bfloat16")
    before = [leaf.data_ptr() for leaf in peer.leaf(0).values()]
    peer()
    assert [leaf.data_ptr() for leaf in peer.leaf(0).values()] == before
    assert len(set(before)) == 3


def test_small_leaves_have_8_bit_state_too():
    peer = made("bitsandbytes", "float32_8bit")
    states = [peer.optimizer.state[parameter] for parameter in peer.parameters]
    assert {str(state["state2"].dtype) for state in states} == {"torch.uint8"}
