"""Where asv keeps its mirror of a repository that is elsewhere, and what it says when that cannot be reached.

asv's own place is a folder named after the project in the current one, and what git says ends asv with a traceback.
"""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from asv import util
from asv.console import log
from asv.plugins.git import Git

from scripts import command, lanes, scratch

MIRRORS = Path(".asv")
warned: set[str] = set()

original_init = Git.__init__
original_pull = Git.pull


def init(self: Git, url: str, mirror_path: str) -> None:
    """asv's own `__init__`, but a mirror is there whole or not at all, and is one of `url`."""
    mirror = MIRRORS / f"{Path(mirror_path).name}.git"
    if Git.is_local_repo(url) or mirror.exists():
        original_init(self, url, str(mirror))
        if self._path == str(mirror.absolute()) and (of := origin(mirror)) != url:
            raise util.UserError(f"{mirror} is a mirror of {of}, not of {url}; remove it")
        return
    MIRRORS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch.folder()) as folder:
        try:
            original_init(self, url, str(Path(folder, "mirror")))
        except util.ProcessError as error:
            raise util.UserError(
                f"cannot clone {url}: {reason(error)}; check the network, or name a clone as `repo` in {lanes.MLX}"
            ) from error
        Path(folder, "mirror").rename(mirror)
    self._path = str(mirror.absolute())


def origin(mirror: Path) -> str:
    """What a mirror was cloned from."""
    asked = ["git", "-C", str(mirror), "config", "--get", "remote.origin.url"]
    return subprocess.run(asked, capture_output=True, text=True).stdout.strip()


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
    done = subprocess.run(["git", "-C", clone, "status", "--porcelain", "-uno"], capture_output=True, text=True)
    if done.returncode == 0 and done.stdout.strip():  # a mirror has no working tree
        log.warning(f"{clone} has uncommitted changes, which take no part: what is measured is the commit")


def reason(error: Any) -> str:
    """What git gave as the reason, in one line."""
    lines = [line for line in str(error.stderr or error.stdout or "").splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return command.one_line((fatal or lines or [str(error)])[0])


Git.__init__ = init
Git.pull = pull
