"""Whether a night can read what it measures, and push what it measured: git, asked as a night asks."""

import os
import platform
import re

from benchmarks.harness.host import commands
from scripts import command, git
from scripts.doctor.finding import Finding
from scripts.nightly import plan
from scripts.nightly.settings import Settings
from scripts.nightly.work import Lane

SSH_COMMAND = ("config", "--get", "core.sshCommand")
NEVER = "refs/heads/adamw-doctor"
"""The branch that is never pushed, only asked whether it could be."""


def runs(version: str) -> Finding:
    """From `git --version`."""
    if not version.startswith("git version"):
        return Finding(False, "git does not run", "xcode-select --install (a Mac), sudo apt install git (Linux)")
    return Finding(True, version.strip())


def clone() -> Finding:
    """Whether this clone has all commits, and their files or somebody who has them. Raises UserError for none."""
    if git.output("rev-parse", "--is-shallow-repository") == "true":
        return Finding(False, "the clone has not all commits", "git fetch --unshallow")
    address = git.promisor()
    lacks = git.missing_objects("HEAD") if address else 0
    if not lacks:
        return Finding(True, "the clone has all commits and their files")
    says = f"a partial clone, which lacks {lacks} of its files and folders"
    if reason := unreachable(address):
        return Finding(False, nameless(f"{says}, and cannot fetch them: {reason}"), f"{git.WHOLE}, with a network")
    return Finding(True, f"{says}; it fetches them when it needs them", f"to need no network for them: {git.WHOLE}")


def commits(night: Settings) -> Finding:
    """Whether every lane has commits to measure; a mirror that is not here yet is cloned by the first night."""
    found = []
    for lane in map(Lane.of, night.lanes):
        if plan.is_here(lane.config):
            found.append(f"{lane.name}: {len(plan.commits(lane.config))}")
        elif reason := unreachable(lane.config.repo):
            do = f"check the network, or name a clone as `repo` in {lane.name}, or take the lane out of `lanes`"
            return Finding(False, nameless(f"{lane.config.repo} cannot be read: {reason}"), do)
        else:
            found.append(f"{lane.name}: to be cloned")
    return Finding(True, ", ".join(found) or "no lane is set")


def remote(night: Settings) -> Finding:
    """Whether the remote answers, and whether it would take a push, if one is to be made."""
    if not night.remote:
        return Finding(True, "no remote is set: results stay here")
    do = f"git ls-remote '{night.remote}' must answer without a question; mend `remote` in nightly.toml or the key"
    if reason := unreachable(night.remote):
        return Finding(False, nameless(f"the remote cannot be read: {reason}"), nameless(do))
    if night.push and (reason := refused(night.remote)):
        do = f"git push --dry-run '{night.remote}' HEAD:{NEVER} must do without a question; or push = false"
        return Finding(False, nameless(f"the remote takes no push: {reason}"), nameless(do))
    return Finding(True, nameless(f"the remote {night.remote} answers"))


def tracked(night: Settings) -> Finding:
    """Whether git leaves alone what this machine measures: `git checkout --force` puts back what is committed."""
    folders = [lane.results / (night.machine or platform.node()) for lane in map(Lane.of, night.lanes)]
    found = [name for folder in folders for name in git.output("ls-files", "--", str(folder)).splitlines()]
    if not found:
        return Finding(True, "no result of this machine is committed: no checkout puts an older one back")
    do = (
        f"git rm -r --cached '{found[0].rpartition('/')[0]}' on main; scripts.share push has them on the results branch"
    )
    return Finding(False, f"{len(found)} results of this machine are committed, which a forced checkout puts back", do)


def refused(repository: str) -> str:
    """Why nothing can be pushed there; empty if it can. Nothing is."""
    return failure("push", "--dry-run", "--no-verify", "--quiet", "--", repository, f"HEAD:{NEVER}")


def unreachable(repository: str) -> str:
    """Why it cannot be read; empty if it can."""
    return failure("ls-remote", "--", repository, "HEAD")


def failure(*arguments: str) -> str:
    """Why a git fails; empty if it does not. Nothing is asked for: at night nobody is there to type a password."""
    own = os.environ.get("GIT_SSH_COMMAND") or os.environ.get("GIT_SSH") or git.start(*SSH_COMMAND).stdout
    quiet = {"GIT_TERMINAL_PROMPT": "0"} | ({} if own else {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes"})
    try:
        done = git.start(*arguments, seconds=commands.SECONDS, more=quiet)
    except git.NoAnswer as error:
        return str(error)
    return git.reason(done.stderr.decode(errors="replace")) if done.returncode else ""


def nameless(text: str) -> str:
    """`text` without the user names and tokens of its addresses."""
    return re.sub(r"//[^/@\s']+@", "//", command.one_line(text))
