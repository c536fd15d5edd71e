"""Set-up answers what can go wrong in one line, and leaves nothing half made that counts as ready."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
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
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
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
        (
            "Retrying: NewConnectionError\nERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n"
            "    zipp==4.1.2 from https://me:secret@example.org/zipp.whl (from -r requirements.txt (line 1)):\n",
            "set-up failed: zipp==4.1.2 is another file than requirements.lock says; look where it came from (",
        ),
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
    def install(kind, extras):
        raise error

    monkeypatch.setattr(sys, "argv", ["setup.py"])
    monkeypatch.setattr(setup, "is_ready", lambda kind: False)
    monkeypatch.setattr(setup, "install", install)
    with pytest.raises(SystemExit) as stopped:
        setup.main()
    assert str(stopped.value).endswith(told)


@pytest.mark.parametrize("changed", ["pyproject.toml", "requirements.lock"])
def test_ready_means_this_python_backend_and_requirements(changed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text("requirements")
    Path("requirements.lock").write_text("their versions")
    Path(".venv").mkdir()
    assert not setup.is_ready("cpu")
    Path(".venv/ready").write_text(setup.stamp("cpu"))
    assert setup.is_ready("cpu")
    assert not setup.is_ready("cuda13")
    assert not setup.is_ready("only cpu")
    assert setup.backend_before() == "cpu"
    Path(changed).write_text("others")
    assert not setup.is_ready("cpu")


def test_an_environment_of_some_extras_has_no_backend(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("pyproject.toml", "requirements.lock"):
        Path(name).write_text("")
    Path(".venv").mkdir()
    Path(".venv/ready").write_text(setup.stamp("only share"))
    assert setup.backend_before() is None


@pytest.mark.parametrize(
    ("asked", "whole"), [(["--backend", "cuda13"], True), (["--backend", "metal"], True), (["--only", "share"], False)]
)
def test_what_has_no_hash_is_this_project_alone_and_it_fetches_nothing(asked, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    started: list[list[str]] = []
    monkeypatch.setattr(setup, "run", lambda command, what: started.append(command))
    monkeypatch.setattr(sys, "argv", ["setup.py", *asked])
    setup.main()
    first, *others = [words[words.index("install") + 1 :] for words in started if "install" in words]
    wanted = Path(".venv/requirements.txt")
    assert first == ["--require-hashes", "--only-binary", ":all:", "-r", str(wanted)]
    assert all("--hash=sha256:" in one for one in re.split(r"\n(?=\w)", wanted.read_text()))
    assert ("\nsetuptools==" in wanted.read_text()) == whole
    assert others == [["--no-deps", "--no-build-isolation", "-e", "."]] * whole
    assert any("asv" in words for words in started) == whole
    started.clear()
    setup.main()  # it is ready
    assert not [words for words in started if "install" in words]


def test_an_extra_that_does_not_exist_is_told_with_those_that_do(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stopped:
        setup.listed(["share", "shar"])
    assert str(stopped.value).startswith("set-up failed: no extra 'shar' in pyproject.toml; there are: bench, ")


class TestHashes:
    """A project with one requirement, a wheel in a folder, installed for good."""

    LOCK = "# how\ntiny==1.0 \\\n    --hash=sha256:{}\n    # via tiny-project (pyproject.toml)\n"

    @pytest.fixture
    def wheel(self, tmp_path) -> Path:
        (tmp_path / "pyproject.toml").write_text('[project.optional-dependencies]\nsome = ["Tiny>=1"]\n')
        path = tmp_path / "tiny-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("tiny.py", "")
            archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
            archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any")
            archive.writestr("tiny-1.0.dist-info/RECORD", "")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        (tmp_path / "requirements.lock").write_text(self.LOCK.format(digest))
        return path

    def set_up(self, folder: Path) -> subprocess.CompletedProcess[str]:
        here = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}
        command = [sys.executable, str(ROOT / "scripts" / "setup.py"), "--only", "some"]
        return subprocess.run(command, cwd=folder, env=os.environ | here, capture_output=True, text=True)

    @pytest.mark.slow
    def test_a_file_that_the_lock_names_is_installed(self, wheel, tmp_path):
        done = self.set_up(tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert subprocess.run([tmp_path / ".venv/bin/python", "-c", "import tiny"]).returncode == 0
        assert (tmp_path / ".venv/ready").exists()

    @pytest.mark.slow
    def test_another_file_of_the_same_name_is_not(self, wheel, tmp_path):
        with zipfile.ZipFile(wheel, "a") as archive:
            archive.writestr("tiny_too.py", "")
        done = self.set_up(tmp_path)
        assert done.returncode == 1
        assert "set-up failed: tiny==1.0 is another file than requirements.lock says; look where it came" in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / ".venv/ready").exists()
        assert subprocess.run([tmp_path / ".venv/bin/python", "-c", "import tiny"], capture_output=True).returncode == 1


def test_a_broken_environment_is_seen(tmp_path):
    assert setup.broken(str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    assert setup.broken(str(tmp_path / "python"))
    assert not setup.broken(sys.executable)
