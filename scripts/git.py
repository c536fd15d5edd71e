"""What git says, and the files of a commit."""

import re
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

from scripts import command

LARGEST_ARCHIVE = 64 * 2**20
CURRENT = Path()


def output(*arguments: str, where: Path = CURRENT) -> str:
    """What git prints of the clone that is there. Raises UserError if git is missing or fails."""
    return run(*arguments, where=where).decode(errors="replace").strip()


def run(*arguments: str, where: Path = CURRENT) -> bytes:
    try:
        return subprocess.run(["git", "-C", str(where), *arguments], capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise command.UserError("git is not installed; install it, commits are read with it") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        hint = "run it in a clone of the repository" if where == CURRENT else f"look at {where}"
        raise command.UserError(f"git {arguments[0]}: {reason[-1][:300]}; {hint}") from error


def find_commit(revision: str, where: Path = CURRENT) -> str | None:
    """The full hash of `revision`, None if git knows no such commit."""
    arguments = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
    done = subprocess.run(["git", "-C", str(where), *arguments], capture_output=True, text=True)
    found = done.stdout.strip()
    return found if re.fullmatch("[0-9a-f]{40,64}", found) else None  # a range gives several


def shallow() -> str:
    """A hint for those whose clone has not all commits; empty for others."""
    done = subprocess.run(["git", "rev-parse", "--is-shallow-repository"], capture_output=True, text=True)
    return " in this shallow clone (git fetch --unshallow gets the rest)" if done.stdout.strip() == "true" else ""


def extract(commit: str, paths: list[str], folder: Path) -> None:
    """Write those of `paths` that `commit` has into `folder`. Raises UserError if they are unreasonably large."""
    present = output("ls-tree", "--name-only", commit, "--", *paths).splitlines()
    if not present:
        return
    sizes = [line.split()[3] for line in output("ls-tree", "-r", "-l", commit, "--", *present).splitlines()]
    if sum(int(size) for size in sizes if size.isdecimal()) > LARGEST_ARCHIVE:
        raise command.UserError(
            f"commit {commit[:8]}: {', '.join(present)} is over {LARGEST_ARCHIVE >> 20} MiB, no code"
        )
    archive = run("archive", "--format=tar", commit, "--", *present)
    try:
        with tarfile.open(fileobj=BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise command.UserError(f"commit {commit[:8]} has a file that leads elsewhere: {error}") from error


def here() -> str | None:
    """What this is a checkout of; None for a copy without git."""
    try:
        return output("rev-parse", "HEAD")
    except command.UserError:
        return None
