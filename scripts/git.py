"""What git says, and the files of a commit."""

import re
import shlex
import subprocess
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from scripts import command, git_environment

LARGEST_ARCHIVE = 64 * 2**20
CURRENT = Path()

SOMEBODY_ELSES = re.compile(r"(?:dubious ownership in repository at |unsafe repository \()'([^'\n]+)'")
"""What git says of a repository that another user owns, in its new words and its old ones."""

NO_NETWORK = re.compile(
    r"[Cc]ould not resolve|[Ff]ailed to connect|Connection (?:refused|timed out|reset)|Operation timed out|"
    r"[Nn]etwork is (?:unreachable|down)|Temporary failure in name resolution"
)
"""What git and ssh say where nobody answers."""

WHOLE = "git fetch --refetch --no-filter"
"""What makes a partial clone whole."""


class NoAnswer(command.UserError):
    """git took longer than it may."""


def start(
    *arguments: str,
    where: Path = CURRENT,
    given: bytes = b"",
    seconds: float | None = None,
    more: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """What came of a git that is `given` that on its standard input, whether it failed or not.

    Here every git of ours is started. Raises UserError if there is no git, NoAnswer after `seconds`.
    """
    try:
        return subprocess.run(
            ["git", "-C", str(where), *arguments],
            input=given,
            capture_output=True,
            env=git_environment.environment() | dict(more or {}),
            timeout=seconds,
        )
    except FileNotFoundError as error:
        raise command.UserError("git is not installed; install it, commits are read with it") from error
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"no answer in {seconds:g} s; check the network") from error


def output(*arguments: str, where: Path = CURRENT) -> str:
    """What git prints of the clone that is there. Raises UserError if git is missing or fails."""
    return run(*arguments, where=where).decode(errors="replace").strip()


def run(*arguments: str, where: Path = CURRENT) -> bytes:
    done = start(*arguments, where=where)
    if done.returncode:
        told = done.stderr.decode(errors="replace")
        raise command.UserError(known_cause(told, where) or f"git {arguments[0]}: {reason(told)}")
    return done.stdout


def reason(told: str) -> str:
    """What git gave as the reason, in one line: its first error, with what the program said that it had started."""
    lines = [line for line in told.splitlines() if line.strip()] or ["no reason given"]
    number = next(
        (number for number, line in enumerate(lines) if line.startswith(("fatal:", "error:"))), len(lines) - 1
    )
    began = number - 1 if "Could not read from remote" in lines[number] and number else number  # ssh's own words
    return command.one_line(" ".join(lines[began : number + 1]))


def known_cause(told: str, where: Path = CURRENT) -> str:
    """The cause and the next step, of an error of git's that is known; else empty."""
    if found := SOMEBODY_ELSES.search(told):
        path = command.one_line(found[1])
        trust = f"git config --global --add safe.directory {shlex.quote(path)}"
        return f"{path} belongs to another user, so git reads nothing of it; if you trust it: {trust}"
    if "promisor remote" in told:
        lacks = f"this clone is partial (--filter), and what it lacks cannot be fetched ({reason(told)})"
        return f"{lacks}; check the network, or get all of it while there is one: {WHOLE}"
    if "not a git repository" in told:
        place = "this folder" if where == CURRENT else str(where)
        return f"{place} is no clone of a repository; git clone it, and run this in its root"
    return ""


def find_commit(revision: str, where: Path = CURRENT) -> str | None:
    """The full hash of `revision`, None if git knows no such commit. Raises UserError if git may not look."""
    done = start("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}", where=where)
    told = done.stderr.decode(errors="replace")
    if SOMEBODY_ELSES.search(told):
        raise command.UserError(known_cause(told, where))
    found = done.stdout.decode(errors="replace").strip()
    return found if re.fullmatch("[0-9a-f]{40,64}", found) else None  # a range gives several


def is_ancestor(older: str, newer: str, where: Path = CURRENT) -> bool:
    """Whether the history of one commit has the other. Raises UserError if git cannot tell."""
    done = start("merge-base", "--is-ancestor", older, newer, where=where)
    if done.returncode not in (0, 1):
        told = done.stderr.decode(errors="replace")
        raise command.UserError(known_cause(told, where) or f"git merge-base: {reason(told)}")
    return done.returncode == 0


def subject(commit: str, where: Path = CURRENT) -> str:
    """The first line of a commit's message: somebody's text. Raises UserError."""
    told = output("rev-list", "-1", "--format=%s", "--end-of-options", commit, where=where)
    return told.partition("\n")[2]


def committed_at(commit: str, where: Path = CURRENT) -> int:
    """When a commit was made, in seconds since 1970. Raises UserError."""
    return int(output("rev-list", "-1", "--timestamp", "--end-of-options", commit, where=where).split()[0])


def tags_at(commit: str, where: Path = CURRENT) -> list[str]:
    """The tags that name a commit. Raises UserError."""
    asked = ["for-each-ref", f"--points-at={commit}", "--format=%(refname:strip=2)", "refs/tags"]
    return output(*asked, where=where).split()


def changed(*paths: str, where: Path = CURRENT, untracked: str = "all") -> bool:
    """Whether files below `paths` are not as the commit has them, or not in it. Raises UserError."""
    asked = ["status", "--porcelain=v1", f"--untracked-files={untracked}", "--no-renames", "--", *paths]
    return bool(output(*asked, where=where))


def shallow(where: Path = CURRENT) -> str:
    """A hint for those whose clone has not all commits; empty for others."""
    told = start("rev-parse", "--is-shallow-repository", where=where).stdout
    return " in this shallow clone (git fetch --unshallow gets the rest)" if told.strip() == b"true" else ""


def promisor(where: Path = CURRENT) -> str:
    """The address from which a partial clone gets what it lacks; empty for a whole one."""
    asked = ["config", "--get-regexp", "-z", r"^remote\..*\.(promisor|url)$"]
    told = start(*asked, where=where).stdout.decode(errors="replace")
    pairs = dict(entry.partition("\n")[::2] for entry in told.split("\0") if entry)
    names = [
        name.removesuffix(".promisor")
        for name, value in pairs.items()
        if name.endswith(".promisor") and value == "true"
    ]
    return next((pairs[f"{name}.url"] for name in names if f"{name}.url" in pairs), "")


def missing_objects(commit: str, where: Path = CURRENT) -> int:
    """How many files and folders of a commit's history this clone lacks. Raises UserError."""
    listed = output("rev-list", "--objects", "--missing=print", "--end-of-options", commit, where=where)
    return sum(line.startswith("?") for line in listed.splitlines())


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
