"""asv's plugin: this machine's backend, files in one piece, nothing left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from asv import environment, results, util
from asv.commands import compare, publish, show
from asv.commands.setup import Setup
from asv.config import Config

from scripts import asv_plugin, ledger, scratch, storing


def test_the_cuda_backend_takes_the_place_of_the_cpus_where_it_is_installed(monkeypatch):
    wanted = {"mlx": "0.32.4", "mlx-cpu": "0.32.4", "numpy": "2.4.6"}
    monkeypatch.setattr(asv_plugin, "installed", lambda package: False)
    assert asv_plugin.with_backend(wanted) == wanted
    monkeypatch.setattr(asv_plugin, "installed", lambda package: package == "mlx-cuda-13")
    assert asv_plugin.with_backend(wanted) == {"mlx": "0.32.4", "mlx-cuda-13": "0.32.4", "numpy": "2.4.6"}
    assert asv_plugin.with_backend({"mlx": "0.32.4"}) == {"mlx": "0.32.4"}  # a Mac


def test_installed_tells_what_is_there():
    assert asv_plugin.installed("mlx")
    assert not asv_plugin.installed("no-such-package-here")


def test_asv_writes_its_files_through_the_plugin(tmp_path):
    path = tmp_path / "results" / "x.json"
    util.write_json(str(path), {"a": 1}, 2)
    assert json.loads(path.read_text()) == {"a": 1, "version": 2}
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_text('{"old": true}')

    def full(target, *_):
        Path(target).write_text('{"half')
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storing, "original_write_json", full)
    with pytest.raises(util.UserError, match=r"cannot write .*x.json: No space left on device; the old file is whole"):
        util.write_json(str(path), {"new": True})
    assert json.loads(path.read_text()) == {"old": True}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_really_full_device(tmp_path, monkeypatch):
    original = storing.original_write_json
    monkeypatch.setattr(storing, "original_write_json", lambda path, *rest: original("/dev/full", *rest))
    with pytest.raises(util.UserError, match="No space left on device"):
        util.write_json(str(tmp_path / "x.json"), {"new": True})


def test_scratch_of_a_killed_run_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(asv_plugin.atexit, "register", lambda *_, **__: None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv(ledger.VARIABLE, raising=False)
    dead, alive = scratch.ROOT / "999999999", scratch.ROOT / str(os.getppid())
    for folder in (dead, alive):
        (folder / "kernels").mkdir(parents=True)
    asv_plugin.start_scratch()
    assert not dead.exists()
    assert alive.exists()
    mine = scratch.ROOT / str(os.getpid())
    assert mine.exists()
    assert Path(os.environ["TMPDIR"]) == mine.absolute()
    os.environ.pop(ledger.VARIABLE)


def test_the_share_of_measuring_is_said_at_the_end(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run" / "ledger.jsonl"
    run.parent.mkdir()
    run.write_text(
        '{"what": "machine", "wall": 1.0}\n{"what": "case", "case": "a", "wall": 2.0}\n{"what": "case", "ca'  # killed
    )
    monkeypatch.setenv(ledger.VARIABLE, str(run))
    monkeypatch.setattr(storing, "BEGUN", {})
    monkeypatch.setattr(asv_plugin.time, "perf_counter", lambda: 104.0)
    asv_plugin.finish(100.0)
    said = capsys.readouterr().out
    assert "1 cases measured: 3 s of 4 s (75%)" in said
    assert len(said) < 80  # with three-digit figures it still fits the screen of 100 columns


def test_one_line_of_a_long_complaint():
    assert asv_plugin.last_line("Collecting mlx\nERROR: No matching distribution\n\n[notice] upgrade pip\n") == (
        "ERROR: No matching distribution"
    )
    assert asv_plugin.last_line("") == "no reason given"


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("ImportError('libmlx.so: cannot open shared object file')", True),
        ("ModuleNotFoundError(\"No module named 'mlx'\")", True),
        ("ImportError('libcudart.so.13: cannot open shared object file')", False),
        ("RuntimeError('[metal::load_device] no device')", False),
    ],
)
def test_a_backend_is_asked_for_only_where_mlx_itself_is_missing(raised, told, tmp_path):
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx" / "core.py").write_text(f"raise {raised}")
    done = subprocess.run(
        [sys.executable, "-c", asv_plugin.PREFLIGHT], env=os.environ | {"PYTHONPATH": str(tmp_path)}, text=True,
        capture_output=True,
    )  # fmt: skip
    assert done.stderr.startswith("MLX does not run here (")
    assert ("install a backend" in done.stderr) == told


@pytest.mark.parametrize(
    ("said", "told"),
    [("ERROR: Max retries exceeded with url: /simple", True), ("ERROR: No space left on device", False)],
)
def test_the_network_is_blamed_only_where_there_was_none(said, told, monkeypatch):
    def fail(environment):
        raise util.ProcessError(["pip"], 1, "", said)

    monkeypatch.setattr(asv_plugin.Virtualenv, "_setup", fail)
    made = object.__new__(asv_plugin.MlxEnvironment)
    made._requirements, made._path = {"mlx": "0.32.4"}, "env"
    with pytest.raises(util.UserError, match=rf"^cannot install mlx into env: {said}") as error:
        made._setup()
    assert ("check the network" in str(error.value)) == told


def test_another_lanes_results_below_are_not_this_ones(tmp_path):
    for machine in ("mac", "mlx/mac", "mlx/pc"):
        folder = tmp_path / machine
        folder.mkdir(parents=True)
        util.write_json(str(folder / "machine.json"), {"machine": folder.name}, 1)
        of = {"commit_hash": "0123abcd" * 5, "env_name": "env", "date": 1, "results": {}, "result_columns": []}
        util.write_json(str(folder / "0123abcd-env.json"), of | {"params": {"machine": folder.name}}, 2)
    of_lane = [(root, name) for root, name, _ in results.iter_results_paths(str(tmp_path))]
    assert of_lane == [(str(tmp_path / "mac"), "0123abcd-env.json")]
    assert len(list(results.iter_results_paths(str(tmp_path / "mlx")))) == 2
    assert len(list(results.iter_results_paths(str(tmp_path / "mlx" / "pc")))) == 1
    for module in (compare, publish, show):
        assert list(module.iter_machine_files(str(tmp_path))) == [str(tmp_path / "mac" / "machine.json")]


@pytest.mark.parametrize("kind", ["existing", "mlx"])
def test_a_run_in_any_environment_keeps_a_ledger(kind, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(asv_plugin, "start_scratch", lambda: begun.append(kind))
    monkeypatch.setattr(asv_plugin, "original_perform_setup", lambda environments, parallel: environments)
    configuration = Config.from_json({"project": "test", "repo": str(tmp_path), "env_dir": str(tmp_path / "env")})
    python = {"existing": sys.executable, "mlx": "3.11"}[kind]
    chosen = environment.get_environment_class_by_name(kind)(configuration, python, {}, {})
    assert list(Setup.perform_setup([chosen], parallel=1)) == [chosen]
    assert begun == [kind]


def test_what_runs_in_an_existing_environment_knows_in_which(tmp_path, monkeypatch):
    monkeypatch.delenv("ASV_ENV_NAME", raising=False)
    configuration = Config.from_json({"project": "test", "repo": str(tmp_path), "env_dir": str(tmp_path / "env")})
    made = environment.get_environment_class_by_name("existing")(configuration, sys.executable, {}, {})
    asked = ["-c", "import os; print(os.environ['ASV_ENV_NAME'], os.environ.get('OTHER'))"]
    assert made.run(asked).split() == [made.name, "None"]
    assert made.run(asked, env=os.environ | {"OTHER": "given"}).split() == [made.name, "given"]
