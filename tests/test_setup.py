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


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("ERROR: could not build wheels\n", "ERROR: could not build wheels (all of it: "),
        ("no word of what\n", "no word of what (all of it: "),
        ("OSError: [Errno 28] No space left on device\n", "; make room, then `make setup` again"),
        ("not created successfully because ensurepip is not\navailable\n", "; install Python's venv module"),
        (
            "ERROR: from versions: 1.0, 2.0\nERROR: No matching distribution found for mlx==9\n",
            "for mlx==9 (all of it: ",
        ),
        (
            "ERROR: Could not find a version (from versions: none)\n",
            "cannot be reached or lacks a package: ERROR: Could",
        ),
        ("Retrying: NewConnectionError\nERROR: (from versions: none)\n", "cannot be reached; check the network"),
        ("Retrying: NewConnectionError\nERROR: Permission denied\n", "set-up failed: ERROR: Permission denied (all"),
        ("socket.timeout: Read timed out.\n", "cannot be reached; check the network"),
    ],
)
def test_a_next_step_is_given_for_a_cause_that_is_known_and_for_no_other(printed, told, tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "LOG", str(tmp_path / "log"))
    with pytest.raises(SystemExit) as stopped:
        setup.run([sys.executable, "-c", f"import sys; print({printed!r}, end=''); sys.exit(1)"], "installing")
    assert told in str(stopped.value)
    hints = ("check the network", "make room", "venv module", "remove .venv")
    assert [hint for hint in hints if hint in str(stopped.value)] == [hint for hint in hints if hint in told]
    assert str(stopped.value).count("\n") == 0


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "; make room, then `make setup` again"),
        (PermissionError(13, "Permission denied", ".venv"), ".venv: Permission denied"),
    ],
)
def test_a_folder_that_cannot_be_written_is_told_with_the_systems_word(error, told, monkeypatch):
    def install(backend):
        raise error

    monkeypatch.setattr(sys, "argv", ["setup.py"])
    monkeypatch.setattr(setup, "is_ready", lambda backend: False)
    monkeypatch.setattr(setup, "install", install)
    with pytest.raises(SystemExit) as stopped:
        setup.main()
    assert str(stopped.value).endswith(told)


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
