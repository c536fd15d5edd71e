"""The environment in which every git is started: of no other repository, and with nobody's wishes of how text looks.

A hook is started with GIT_DIR and the like, which name its repository whatever folder a git is started in. What a user
has set of credentials, proxies and trusted folders stays.
"""

import os
import subprocess
from collections.abc import Mapping
from functools import lru_cache

COUNT = "GIT_CONFIG_COUNT"
PAIR = ("GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_")
"""How settings are handed on in the environment: their number, and numbered a name and a value each."""

ELSEWHERE = ("core.bare", "core.worktree", "core.gitdir")
"""Settings that say which repository it is."""

MORE = ("GIT_NAMESPACE", "GIT_QUARANTINE_PATH", "GIT_ATTR_SOURCE", "GIT_EXTERNAL_DIFF")
"""What a hook or a user may have set that git does not count among a repository's own variables."""

COLOURED = ("advice", "branch", "diff", "grep", "interactive", "push", "remote", "showBranch", "status", "transport")

SETTINGS = {
    "color.ui": "false",
    **{f"color.{what}": "false" for what in COLOURED},
    **{f"column.{what}": "never" for what in ("ui", "branch", "clean", "status", "tag")},
    "clone.defaultRemoteName": "origin",
    "clone.rejectShallow": "false",
    "core.pager": "cat",
    "core.quotePath": "true",
    "diff.mnemonicPrefix": "false",
    "diff.noprefix": "false",
    "format.pretty": "medium",
    "i18n.logOutputEncoding": "UTF-8",
    "log.date": "default",
    "log.decorate": "false",
    "log.showSignature": "false",
    "safe.bareRepository": "all",
    "status.branch": "false",
    "status.relativePaths": "true",
    "status.short": "false",
    "status.showStash": "false",
    "status.showUntrackedFiles": "normal",
    "status.submoduleSummary": "false",
    "tag.sort": "refname",
}
"""git's own defaults, whatever the user's files say of these."""


@lru_cache
def local_variables() -> frozenset[str]:
    """What git itself counts among the variables that belong to one repository; none where there is no git."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    asked = ["git", "rev-parse", "--local-env-vars"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, env=clean).stdout
    except OSError:
        told = ""
    return frozenset(told.split())


def given() -> list[tuple[str, str]]:
    """The settings that this process was handed in its environment, without those that name a repository."""
    count = os.environ.get(COUNT, "")
    numbers = range(int(count)) if count.isdecimal() and len(count) < 5 else range(0)
    name, value = PAIR
    pairs = [(os.environ.get(f"{name}{number}", ""), os.environ.get(f"{value}{number}", "")) for number in numbers]
    return [pair for pair in pairs if pair[0] and pair[0].lower() not in ELSEWHERE]


def without_repository(settings: Mapping[str, str] = {}) -> dict[str, str]:
    """This process's environment without what names a repository, and with `settings` over those it was handed."""
    dropped = local_variables() | {COUNT, *MORE}
    told = {name: value for name, value in os.environ.items() if name not in dropped and not name.startswith(PAIR)}
    handed = [*given(), *settings.items()]
    for number, pair in enumerate(handed):
        told |= {f"{name}{number}": text for name, text in zip(PAIR, pair, strict=True)}
    return told | ({COUNT: str(len(handed))} if handed else {})


def environment(more: Mapping[str, str] = {}) -> dict[str, str]:
    """The environment for a git, in English; `more` are settings beside ours."""
    return without_repository(SETTINGS | dict(more)) | {"LC_ALL": "C", "LANGUAGE": "en"}


def forget_repository() -> None:
    """Take out of this process's own environment, and so of all that it starts, what names a repository."""
    clean = without_repository()
    for name in os.environ.keys() - clean.keys():
        del os.environ[name]
    os.environ.update(clean)
