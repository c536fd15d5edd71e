"""Set-up answers what can go wrong in one line, and leaves nothing half made that counts as ready."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import setup

ROOT = Path(__file__).parent.parent


def test_an_old_python_is_told_which_one_is_needed(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    monkeypatch.setattr(sys, "argv", ["setup.py"])
    with pytest.raises(SystemExit) as stopped:
        setup.main()
    assert str(stopped.value).startswith("set-up failed: Python 3.11 or newer is needed, this is ")
    assert "make setup PYTHON=" in str(stopped.value)


@pytest.mark.skipif(not shutil.which("python3.10"), reason="needs a Python 3.10 beside this one")
def test_a_really_old_python(tmp_path):
    copied = shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    done = subprocess.run(["python3.10", str(copied / "setup.py")], cwd=tmp_path, capture_output=True, text=True)
    if "command not found" in done.stderr:
        pytest.skip("python3.10 is only a name here")
    assert done.returncode == 1
    assert done.stderr.startswith("set-up failed: Python 3.11 or newer is needed, this is 3.10")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / ".venv").exists()


@pytest.mark.slow
def test_no_network_is_one_line_and_not_ready(tmp_path):
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (tmp_path / "README.md").write_text("")
    cut_off = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1",
               "PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "setup.py")],
        cwd=tmp_path,
        env=os.environ | cut_off,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "set-up failed: the package index cannot be reached" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / ".venv" / "ready").exists()


def test_ready_means_this_python_backend_and_requirements(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text("requirements")
    Path(".venv").mkdir()
    assert not setup.is_ready("cpu")
    Path(".venv/ready").write_text(setup.stamp("cpu"))
    assert setup.is_ready("cpu")
    assert not setup.is_ready("cuda13")
    assert setup.backend_before() == "cpu"
    Path("pyproject.toml").write_text("other requirements")
    assert not setup.is_ready("cpu")


def test_a_broken_environment_is_seen(tmp_path):
    assert setup.broken(str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    assert setup.broken(str(tmp_path / "python"))
    assert not setup.broken(sys.executable)
