"""MLX's releases: which commits they are, of which packages they consist on this machine, which the index has."""

import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asv import util
from asv.config import Config
from asv.repo import get_repo
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from benchmarks.harness.host import HERE
from scripts import asv_git, asv_plugin, command, git, lanes, setup  # noqa: F401

TAG = re.compile(r"v(\d{1,4}(?:\.\d{1,4}){1,3})")
"""What MLX calls the commit of a release."""

SOURCES = ("CMakeLists.txt", "cmake", "mlx", "python/mlx", "python/src", "setup.py")
"""What of MLX's repository a step runs."""

REFS = "%(refname:strip=2) %(objectname) %(*objectname)"
"""A tag, what it names, and of an annotated one the commit."""

fetched: set[str] = set()
"""The repositories that this process has brought up to date."""

YANKED = re.compile(r"yanked version: '([^']+)' candidate.*\n(?:Reason for being yanked: (.*))?")
"""What pip says of a release that was withdrawn; it installs one that is asked for by its number all the same."""


class NotThere(Exception):
    """The package index has no such release for this machine, or not any more; the message says so, in one line."""


def of_tag(tag: str) -> str | None:
    """The release that a tag names."""
    found = TAG.fullmatch(tag)
    return found[1] if found else None


def of_commit(clone: str, commit: str) -> str | None:
    """The release that `commit` is in the `clone` of MLX; None if it is none."""
    names = git.tags_at(commit, where=Path(clone))
    return next(filter(None, map(of_tag, names)), None)


def supported() -> SpecifierSet:
    """The releases that the variants run on, as the project says itself."""
    with open("pyproject.toml", "rb") as file:
        dependencies = tomllib.load(file)["project"]["dependencies"]
    return next(need for need in map(Requirement, dependencies) if need.name == "mlx").specifier


def releases() -> list[str]:
    """The releases that the package index has for this machine and the variants run on, the oldest first.

    Raises UserError.
    """
    both = [set(versions(name)) for name in packages()]
    return sorted(supported().filter(set.intersection(*both)), key=Version)


def versions(package: str) -> list[str]:
    """The versions of a package that the index has for this machine. Raises UserError."""
    asked = [sys.executable, "-m", "pip", "index", "versions", package]
    done = subprocess.run(asked, capture_output=True, text=True, errors="replace", env=command.uncoloured())
    found = re.search(r"^Available versions: (.*)$", done.stdout, re.MULTILINE)
    if not found:
        reason = f"{asv_plugin.last_line(done.stderr)}{offline(done.stderr)}"
        raise command.UserError(f"no list of MLX's releases: {reason}")
    return found[1].split(", ")


def offline(said: str) -> str:
    """What helps a program that failed with these words; empty unless it had no network."""
    return "; check the network" if setup.unreachable(said) else ""


def configuration() -> Config:
    """The lane's. Raises UserError."""
    try:
        return Config.load(str(lanes.MLX))
    except (util.UserError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        raise command.UserError(f"{command.one_line(str(error))}{lanes.missing(lanes.MLX)}") from error


def repository(config: Config) -> Any:
    """The repository that a configuration names, cloned if it is elsewhere. Raises UserError."""
    try:
        return get_repo(config)
    except util.UserError as error:
        raise command.UserError(command.one_line(str(error))) from error


def find(revision: str) -> tuple[Config, Any, str]:
    """The lane's configuration, MLX's repository as it names it, and the full hash of one of its commits.

    `0.31.2` is the tag v0.31.2. Raises UserError.
    """
    config = configuration()
    repo = repository(config)
    if repo._path not in fetched:  # else `main` would be as old as the mirror
        repo.pull()
        fetched.add(repo._path)
    for name in (revision, f"v{revision}"):
        if commit := git.find_commit(name, where=Path(repo._path)):
            return config, repo, commit
    raise command.UserError(
        f"no commit {revision[:80]!r} in {config.repo}; name a tag as v0.31.2 or a commit, and fetch if it is new"
    )


def commit_of(side: str) -> tuple[Any, str]:
    """MLX's repository, and the commit in it of a side called `mlx==0.31.2` or `mlx@COMMIT`. Raises UserError."""
    _, repo, commit = find(re.sub("^mlx(==|@)", "", side))
    return repo, commit


def is_older(side: str, other: str) -> bool:
    """Whether a side's commit is an ancestor of another's, and not the same. Raises UserError."""
    repo, commit = commit_of(side)
    _, newer = commit_of(other)
    return commit != newer and git.output("rev-list", "-n1", commit, f"^{newer}", where=Path(repo._path)) == ""


def between(side: str, other: str) -> list[str]:
    """The names of MLX's commits after one side's, up to another's, that touch what a step runs, the oldest first."""
    repo, commit = commit_of(side)
    _, newer = commit_of(other)
    asked = ["rev-list", "--first-parent", "--reverse", f"{commit}..{newer}", "--", *SOURCES]
    return [f"mlx@{one}" for one in git.output(*asked, where=Path(repo._path)).split()]


def described(side: str) -> str:
    """The hash of a side's commit and the first line of its message: somebody's text, made printable and short."""
    repo, commit = commit_of(side)
    return f"{commit[:10]} of MLX {command.one_line(git.subject(commit, where=Path(repo._path)))[:60]}"


def release_commits(config: Config) -> dict[str, str]:
    """The commits that are releases the variants run on, the oldest first, and each one's release.

    Raises UserError if there are none.
    """
    found = tagged(config)
    if not found:
        if any(map(of_tag, git.output("tag", "--list", where=Path(repository(config)._path)).split())):
            raise command.UserError(f"{config.repo} has no tag of a release that the variants run on, mlx{supported()}")
        raise command.UserError(f"no release's tag in {config.repo}; in a clone: git fetch --tags")
    return found


def with_releases(config: Config, commits: Sequence[str]) -> list[str]:
    """`commits`, the oldest first, and the releases that are none of them, each after the newest that it grew from."""
    places = {commit: place for place, commit in enumerate(commits)}
    beside: dict[int, list[str]] = {}
    for release in tagged(config):
        if release not in places:
            grown_from = git.output("rev-list", release, where=Path(repository(config)._path)).split()
            place = max((places[commit] for commit in grown_from if commit in places), default=-1)
            beside.setdefault(place, []).append(release)
    found = beside.get(-1, [])
    for place, commit in enumerate(commits):
        found += [commit, *beside.get(place, [])]
    return found


def tagged(config: Config) -> dict[str, str]:
    """The commits with the tag of a release that the variants run on, the oldest first, and each one's release."""
    listed = git.output("for-each-ref", "--format", REFS, "refs/tags", where=Path(repository(config)._path))
    wanted = supported()
    found = {}
    for name, *hashes in map(str.split, listed.splitlines()):
        release = of_tag(name)
        if release and wanted.contains(release):
            found[hashes[-1]] = release
    return dict(sorted(found.items(), key=lambda pair: Version(pair[1])))


def packages() -> tuple[str, ...]:
    """What a release consists of here: MLX itself, and the backend."""
    cuda = asv_plugin.installed(asv_plugin.CUDA_PACKAGE)
    return ("mlx", asv_plugin.CUDA_PACKAGE if cuda else HERE.backend_package)


def download(python: str, release: str, folder: Path) -> None:
    """Have `python`'s pip bring the wheels of a release for itself into `folder`. Raises NotThere."""
    wanted = [f"{name}=={release}" for name in packages()]
    asked = [python, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), *wanted]
    done = subprocess.run(asked, capture_output=True, text=True, errors="replace", env=command.uncoloured())
    said = done.stdout + done.stderr
    if withdrawn := YANKED.search(said):
        reason = command.one_line(withdrawn[2] or "") or "no reason given"
        raise NotThere(f"mlx {release} was withdrawn from the package index ({withdrawn[1]}: {reason})")
    missing = re.search(r"No matching distribution found for (([\w-]+)\S*)", said)
    machine = f"{HERE.name} {platform.machine()} and Python {platform.python_version()}"
    if missing and "from versions: none" in said:  # no answer, or an index that has never had it
        why = f"no connection to the package index, or it has none{offline(said)}"
        raise NotThere(f"mlx {release}: nothing called {missing[2]} can be had for {machine}: {why}")
    if missing:
        raise NotThere(f"mlx {release}: the package index has no {missing[1]} for {machine}")
    if done.returncode:
        raise NotThere(f"mlx {release} cannot be downloaded: {asv_plugin.last_line(said)}{offline(said)}")
