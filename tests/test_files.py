"""Files that survive what happens to them: joined by git, whole after a kill, there after the power went."""

import errno
import os
import shutil
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.harness import files
from scripts import alerts, calibrate, upstream_history
from scripts.nightly import record

ROOT = Path(__file__).parent.parent


class TestJoined:
    """What git does where two machines, or two nights, added to a file."""

    def merge(self, folder: Path, path: str) -> str:
        shutil.copy(ROOT / ".gitattributes", folder)
        subprocess.run(["git", "init", "-q", folder], check=True)
        told = subprocess.check_output(["git", "check-attr", "merge", "--", path], cwd=folder, text=True)
        return told.strip().rpartition(": ")[2]

    @pytest.mark.parametrize("lane", ["results", "results/mlx"])
    @pytest.mark.parametrize(
        "name", [alerts.FILE, record.FILE, calibrate.FILE, upstream_history.FILE, "runs/x.jsonl", "0123abcd-mlx.jsonl"]
    )
    def test_lines_that_are_only_added_to_are_all_kept(self, tmp_path, lane, name):
        assert self.merge(tmp_path, f"{lane}/mac/{name}") == "union"

    def test_nothing_else_is_joined_line_by_line(self, tmp_path):
        assert self.merge(tmp_path, "results/mac/0123abcd-mlx.json") == "unspecified"


class TestDurable:
    """What is asked of the disk, and when: an fcntl that a Mac has, or another system's."""

    FULL = 51

    @pytest.fixture
    def asked(self, monkeypatch) -> list[tuple]:
        """(how, what and how large it was) for every sync, and every file that took its place."""
        told: list[tuple] = []
        replace = os.replace

        def what(file: int) -> tuple[int, int]:
            about = os.fstat(file)
            return about.st_ino, about.st_size

        def replacing(old: Path, new: Path) -> None:
            told.append(("replace", os.stat(old).st_ino))
            replace(old, new)

        monkeypatch.setattr(os, "replace", replacing)
        monkeypatch.setattr(os, "fsync", lambda file: told.append(("fsync", what(file))))
        monkeypatch.setattr(files, "fcntl", SimpleNamespace(fcntl=lambda file, how: told.append((how, what(file)))))
        return told

    @pytest.fixture(params=["a Mac", "another system"])
    def how(self, request, asked) -> int | str:
        if request.param != "a Mac":
            return "fsync"
        files.fcntl.F_FULLFSYNC = self.FULL
        return self.FULL

    def test_a_whole_file_is_on_the_disk_before_its_name_is_and_the_name_after(self, tmp_path, asked, how):
        path = tmp_path / "a" / "x.json"
        files.write_whole(path, "text", durable=True)
        file, folder = path.stat(), path.parent.stat()
        assert asked == [(how, (file.st_ino, 4)), ("replace", file.st_ino), (how, (folder.st_ino, folder.st_size))]

    def test_a_line_is_on_the_disk_and_so_is_the_name_of_its_file(self, tmp_path, asked, how):
        path = tmp_path / "x.jsonl"
        for number in (1, 2):
            asked.clear()
            files.append_line(path, "{}", durable=True)
            folder = tmp_path.stat()
            assert asked == [(how, (path.stat().st_ino, 3 * number)), (how, (folder.st_ino, folder.st_size))]

    def test_nobody_waits_for_the_disk_who_did_not_ask(self, tmp_path, asked, how):
        files.write_whole(tmp_path / "x", "text")
        files.append_line(tmp_path / "x", "more")
        assert [one[0] for one in asked] == ["replace"]

    def refusing(self, monkeypatch, number: int) -> None:
        def refuse(file: int, how: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(files, "fcntl", SimpleNamespace(fcntl=refuse, F_FULLFSYNC=self.FULL))

    @pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOTTY, errno.EINVAL])
    def test_where_the_file_system_knows_no_full_sync_it_is_asked_for_a_plain_one(
        self, tmp_path, monkeypatch, asked, number
    ):
        self.refusing(monkeypatch, number)
        files.write_whole(tmp_path / "x", "text", durable=True)
        assert [one[0] for one in asked] == ["fsync", "replace", "fsync"]

    def test_a_disk_that_fails_is_an_error_and_the_old_file_stays(self, tmp_path, monkeypatch, asked):
        path = tmp_path / "x"
        path.write_text("old")
        self.refusing(monkeypatch, errno.EIO)
        with pytest.raises(OSError, match="Input/output error"):
            files.write_whole(path, "new", durable=True)
        assert [*tmp_path.iterdir(), path.read_text()] == [path, "old"]
        assert asked == []

    def test_a_folder_that_cannot_be_synced_is_no_error(self, tmp_path, monkeypatch):
        real = os.fsync

        def of_files(file: int) -> None:
            if stat.S_ISDIR(os.fstat(file).st_mode):
                raise OSError(errno.EINVAL, "Invalid argument")
            real(file)

        monkeypatch.setattr(os, "fsync", of_files)
        files.write_whole(tmp_path / "x", "text", durable=True)
        assert (tmp_path / "x").read_text() == "text"
