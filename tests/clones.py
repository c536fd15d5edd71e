"""Clones of one repository, with a results branch or without: what machines share meets there."""

import contextlib
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import made_runs

from scripts import command, share

ROOT = Path(__file__).parent.parent


def git(where: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    asked = ["git", *identity, *arguments]
    return subprocess.check_output(asked, cwd=where, text=True, stderr=subprocess.STDOUT).strip()


def make_origin(folder: Path, kind: str = "sha1") -> Path:
    """A bare repository with one commit of code."""
    path, first = folder / "origin", folder / "first"
    git(folder, "init", "-q", "--bare", "-b", "main", f"--object-format={kind}", str(path))
    git(folder, "init", "-q", f"--object-format={kind}", str(first))
    git(first, "remote", "add", "origin", str(path))
    (first / "asv.conf.json").write_bytes((ROOT / "asv.conf.json").read_bytes())
    git(first, "add", "asv.conf.json")
    git(first, "commit", "-q", "-m", "first")
    git(first, "push", "-q", "origin", "HEAD:main")
    return path


class Clone:
    """A clone with results of one machine."""

    def __init__(self, folder: Path, origin: Path | str, machine: str, *options: str) -> None:
        self.path, self.machine = folder / machine, machine
        folder.mkdir(exist_ok=True)
        git(folder, "clone", "-q", *options, str(origin), str(self.path))
        self.results = self.path / "results"
        self.folder = self.results / machine
        self.add("machine.json", made_runs.described(machine))

    def add(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def add_run(self, number: int, **figures: float) -> str:
        """A run of that number; its path on the branch."""
        self.add(made_runs.path(number), made_runs.text(self.machine, **figures))
        return f"{self.machine}/{made_runs.path(number)}"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A process of its own that shares."""
        return subprocess.Popen(
            [sys.executable, "-m", "scripts.share", *arguments], cwd=self.path, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *arguments: str) -> tuple[int, str]:
        """What comes of sharing in this process: the exit code, and the last line that is printed."""
        out = StringIO()
        with contextlib.chdir(self.path), contextlib.redirect_stdout(out):
            try:
                return share.main(list(arguments)), out.getvalue().splitlines()[-1]
            except command.UserError as error:
                return 2, f"error: {error}"

    def files(self) -> dict[str, str]:
        """The files of results that are here, but for the lock and what is made of runs."""
        found = [path for path in self.results.rglob("*") if path.is_file() and path.name != ".lock"]
        whole = {path.relative_to(self.results).as_posix(): path.read_text() for path in found}
        return {name: text for name, text in whole.items() if not text.startswith('{"derived": ')}


def on_branch(origin: Path) -> dict[str, str]:
    """What the files of the results branch have, by their path."""
    lines = git(origin, "ls-tree", "-r", "-z", "results").split("\0")[:-1]
    found = [(about.split()[2], path) for about, _, path in (line.partition("\t") for line in lines)]
    return {
        path: subprocess.check_output(["git", "cat-file", "-p", blob], cwd=origin, text=True) for blob, path in found
    }


PLAIN, PROGRAM, LINK, SUBMODULE = "100644", "100755", "120000", "160000"


def put(origin: Path, files: dict[str, str], mode: str = PLAIN) -> str:
    """Somebody else's commit on the branch, which is made if it is not there; a submodule's file is its commit."""
    stream = "commit refs/heads/results\ncommitter other <other@example.org> now\ndata 5\nother\n"
    if git(origin, "branch", "--list", "results"):
        stream += "from refs/heads/results^0\n"
    for name, text in files.items():
        path = "".join(f"\\{byte:03o}" for byte in os.fsencode(name))
        told = f'{text} "{path}"' if mode == SUBMODULE else f'inline "{path}"\ndata {len(text.encode())}\n{text}'
        stream += f"M {mode} {told}\n"
    asked = ["git", "fast-import", "--quiet", "--date-format=now"]
    subprocess.run(asked, cwd=origin, input=stream.encode(), check=True)
    return git(origin, "rev-parse", "results")
