"""How asv uses git: in whose environment, where its mirror of a repository elsewhere is, what it says of errors.

asv's own place is a folder named after the project in the current one, and what git says ends asv with a traceback. Its
own mirror has all refs: on GitHub what any stranger asks to be merged, which must not be among what can be measured.
"""

import re
import shlex
import tempfile
from pathlib import Path
from typing import Any

from asv import util
from asv.console import log
from asv.plugins.git import Git

from scripts import command, git, git_environment, lanes, scratch

MIRRORS = Path(".asv")
PROMISOR = "whole"
"""What the remote is called, in a checkout, from which it gets what a partial clone lacks."""

KEPT = ("refs/heads/", "refs/tags/")
"""What a mirror has of a repository."""

FETCHED = "remote.origin.fetch"
REFS = ("for-each-ref", "--format=%(refname)")

BRANCH = re.compile(r"\w(?!.*\.\.)[\w./+-]*")
"""What may be a branch's name; a range is none."""

warned: set[str] = set()

original_init = Git.__init__
original_pull = Git.pull
original_run_git = Git._run_git
original_get_hashes_from_range = Git.get_hashes_from_range


def init(self: Git, url: str, mirror_path: str) -> None:
    """asv's own `__init__`, but a mirror is there whole or not at all, of `url`, and of its branches and tags only."""
    mirror = MIRRORS / f"{Path(mirror_path).name}.git"
    if Git.is_local_repo(url) or mirror.exists():
        original_init(self, url, str(mirror))
        if self._path == str(mirror.absolute()):
            if (of := origin(mirror)) != url:
                raise util.UserError(f"{mirror} is a mirror of {of}, not of {url}; remove it")
            narrow(mirror)
        return
    MIRRORS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch.folder()) as folder:
        try:
            original_init(self, url, str(Path(folder, "mirror")))
        except util.ProcessError as error:
            hint = f"; check the network, or name a clone as `repo` in {lanes.MLX}"
            offline = git.NO_NETWORK.search(str(error.stderr or error.stdout))
            raise util.UserError(f"cannot clone {url}: {reason(error)}{hint if offline else ''}") from error
        narrow(Path(folder, "mirror"))
        Path(folder, "mirror").rename(mirror)
    self._path = str(mirror.absolute())


def origin(mirror: Path) -> str:
    """What a mirror was cloned from."""
    return git.start("config", "--get", "remote.origin.url", where=mirror).stdout.decode(errors="replace").strip()


def narrow(mirror: Path) -> None:
    """Leave a mirror nothing but branches and tags, now and when it fetches. Raises util.UserError."""
    wanted = [f"+{kept}*:{kept}*" for kept in KEPT]
    try:
        if git.start("config", "--local", "--get-all", FETCHED, where=mirror).stdout.decode().split() == wanted:
            return
        forget([ref for ref in git.output(*REFS, where=mirror).split() if not ref.startswith(KEPT)], mirror)
        git.output("config", "--replace-all", FETCHED, wanted[0], where=mirror)
        git.output("config", "--add", FETCHED, wanted[1], where=mirror)
    except command.UserError as error:
        raise util.UserError(str(error)) from error


def forget(refs: list[str], mirror: Path) -> None:
    """Remove `refs` from a mirror, and what nothing else leads to. Raises command.UserError."""
    if not refs:
        return
    asked = "".join(f"delete {ref}\n" for ref in refs)
    told = git.start("update-ref", "--no-deref", "--stdin", where=mirror, given=asked.encode())
    if told.returncode:
        raise command.UserError(f"{mirror}: {git.reason(told.stderr.decode(errors='replace'))}; remove it")
    (mirror / "FETCH_HEAD").unlink(missing_ok=True)
    git.start("gc", "--quiet", "--prune=now", where=mirror)


def run_git(self: Git, args: list[str], cwd: Any = True, **kwargs: Any) -> Any:
    """asv's own `_run_git`, in our environment; an error is one line, and where it is known it says the next step.

    A checkout is a clone that shares its objects with this repository: if that is a partial one, what both lack comes
    from where it came from.
    """
    elsewhere = promisor_settings(self._path) if args[0] in ("clone", "checkout") else {}
    args = ["clone", "--bare", *args[2:]] if args[:2] == ["clone", "--mirror"] else args
    told = kwargs.pop("display_error", True)
    try:
        kwargs |= {"env": git_environment.environment(elsewhere), "display_error": False}
        return original_run_git(self, args, cwd, **kwargs)
    except util.ProcessError as error:
        if cause := git.known_cause(str(error.stderr), Path(self._path)):
            raise util.UserError(cause) from error
        if told:
            log.error(f"git {args[0]}: {reason(error)}")
        raise


def promisor_settings(path: str) -> dict[str, str]:
    """The settings with which a clone of the repository at `path` gets what both lack; none unless that is partial."""
    address = git.promisor(Path(path)) if Git.is_local_repo(path) else ""
    if not address:
        return {}
    remote = {"url": address, "promisor": "true", "partialCloneFilter": "blob:none"}
    return {f"remote.{PROMISOR}.{name}": value for name, value in remote.items()}


def get_hashes_from_range(self: Git, range_spec: str) -> Any:
    """asv's own `get_hashes_from_range`; a branch that is not there is named, with what helps."""
    if BRANCH.fullmatch(range_spec) and not git.find_commit(range_spec, Path(self._path)):
        raise util.UserError(without_branch(range_spec, Path(self._path)))
    return original_get_hashes_from_range(self, range_spec)


def without_branch(branch: str, path: Path) -> str:
    """That a repository has no such branch, and what makes one, in a line."""
    there = "here" if path == Path.cwd() else f"in {path}"
    asked = "git" if path == Path.cwd() else f"git -C {shlex.quote(str(path))}"
    listed = git.output("for-each-ref", "--format=%(refname:strip=2)", f"refs/remotes/*/{branch}", where=path).split()
    remotes = git.output("remote", where=path).split()
    steps = [f"{asked} branch {branch} {one}" for one in listed[:1]]
    steps = steps or [f"{asked} fetch {remote} {branch}:{branch}" for remote in remotes[:1]]
    steps += ["name the branch to measure as `branches` in asv.conf.json"]
    return f"no branch {branch} {there}; {', or '.join(steps)}"


def pull(self: Git) -> None:
    """asv's own `pull`, but commits that were fetched before can be measured without a network."""
    try:
        original_pull(self)
    except util.ProcessError as error:
        log.warning(f"{self._path} cannot be brought up to date: {reason(error)}; going on with what it has")
        self._pulled = True


def warn_of_changes(clone: str) -> None:
    """Say, once, that uncommitted changes in a clone take no part."""
    if clone in warned:
        return
    warned.add(clone)
    has_files = git.output("rev-parse", "--is-inside-work-tree", where=Path(clone)) == "true"  # a mirror has none
    if has_files and git.changed(where=Path(clone), untracked="no"):
        log.warning(f"{clone} has uncommitted changes, which take no part: what is measured is the commit")


def reason(error: Any) -> str:
    """What git gave as the reason, in one line."""
    return git.reason(str(error.stderr or error.stdout or error))


Git.__init__ = init
Git.pull = pull
Git._run_git = run_git
Git.get_hashes_from_range = get_hashes_from_range
