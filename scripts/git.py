"""What git says, and the files of a commit."""

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

from scripts import command

LARGEST_ARCHIVE = 64 * 2**20


def output(*arguments: str) -> str:
    """What git prints. Raises UserError if git is missing or fails."""
    return run(*arguments).decode(errors="replace").strip()


def run(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise command.UserError("git is not installed; install it, commits are read with it") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise command.UserError(
            f"git {arguments[0]}: {reason[-1][:300]}; run it in a clone of the repository"
        ) from error


def find_commit(revision: str) -> str | None:
    """The full hash of `revision`, None if git knows no such commit."""
    arguments = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    return done.stdout.strip() or None


def extract(commit: str, paths: list[str], folder: Path) -> None:
    """Write those of `paths` that `commit` has into `folder`. Raises UserError if they are unreasonably large."""
    present = output("ls-tree", "--name-only", commit, "--", *paths).splitlines()
    if not present:
        return
    archive = run("archive", "--format=tar", commit, "--", *present)
    if len(archive) > LARGEST_ARCHIVE:
        raise command.UserError(
            f"commit {commit[:8]}: {', '.join(present)} has {len(archive) >> 20} MiB; too large to be code"
        )
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
