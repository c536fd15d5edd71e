"""Files that survive what happens to them: joined by git, whole after a kill, there after the power went."""

import shutil
import subprocess
from pathlib import Path

import pytest

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
