"""A stand-in for MLX's repository: empty commits with the tags of releases, and a commit that can be built."""

import os
import subprocess
from pathlib import Path

SETUP = """
import sys
from setuptools import setup
if "bdist_wheel" in sys.argv:
    with open({counter!r}, "a") as file:
        file.write("built\\n")
setup(name="mlx", version="0.99.dev1+{number}", packages=["mlx"])
"""

CORE = """
cpu = "cpu"
Device = str
def default_device(): return "gpu"
def ones(count): return count
def eval(array): pass
"""
"""As much of MLX as whoever installs it looks at."""


class Upstream:
    """A repository in `folder`; every commit is a day younger than the one before."""

    def __init__(self, folder: Path) -> None:
        self.path, self.count = folder, 0
        folder.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        identity = {f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        dates = {f"GIT_{who}_DATE": f"{1_780_000_000 + 86_400 * self.count} +0000" for who in ("AUTHOR", "COMMITTER")}
        environment = os.environ | identity | dates | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        return subprocess.check_output(["git", *arguments], cwd=self.path, env=environment, text=True).strip()

    def commit(self, subject: str = "work", tag: str = "", annotated: bool = False) -> str:
        self.count += 1
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", subject)
        if tag:
            self.git("tag", *(["-a", "-m", tag] if annotated else []), tag)
        return self.git("rev-parse", "HEAD")

    def commit_source(self, counter: Path, number: int) -> str:
        """A commit whose build is noted in `counter`."""
        (self.path / "mlx").mkdir(exist_ok=True)
        (self.path / "mlx" / "__init__.py").write_text("")
        (self.path / "mlx" / "core.py").write_text(CORE)
        (self.path / "setup.py").write_text(SETUP.format(counter=str(counter), number=number))
        (self.path / "pyproject.toml").write_text(
            '[build-system]\nrequires = ["setuptools>=77"]\nbuild-backend = "setuptools.build_meta"\n'
        )
        return self.commit(f"source {number}")
