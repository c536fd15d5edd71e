"""What is looked at on every system."""

import getpass
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from benchmarks.harness.host import commands
from scripts import command, setup
from scripts.doctor.finding import Finding, Look, text_of
from scripts.nightly import preflight
from scripts.nightly.settings import Settings

MACHINES = Path.home() / ".asv-machine.json"
"""Where asv keeps what it knows of machines."""

MEND = {
    "power": "plug it in",
    "low_power": "sudo pmset -a lowpowermode 0 (a Mac), powerprofilesctl set balanced (Linux)",
    "thermal": "let it cool: give it air, end what else runs",
    "load": "end what else runs; `top` names it",
    "disk": "make room: rm -r .asv/env frees what asv makes again",
    "memory": "end what else holds memory; `top` names it",
    "device": "name checks.device.expect in nightly.toml rightly, or: rm -r .venv && make setup",
    "clock": "sudo sntp -sS time.apple.com (a Mac), sudo timedatectl set-ntp true (Linux)",
    "awake": "start it by `python -m scripts.nightly`, which keeps the Mac awake",
}
"""What to do about each check of a night, by its name in preflight.CHECKS."""


def python(version: tuple[int, ...]) -> Finding:
    says = f"Python {'.'.join(map(str, version))}"
    oldest = ".".join(map(str, setup.OLDEST))
    if version < setup.OLDEST:
        return Finding(False, f"{says}, {oldest} is needed", "rm -r .venv && make setup PYTHON=python3.12")
    return Finding(True, says)


def repository(git: str, shallow: str) -> Finding:
    """From `git --version` and `git rev-parse --is-shallow-repository`."""
    if not git.startswith("git version"):
        return Finding(False, "git does not run", "xcode-select --install (a Mac), sudo apt install git (Linux)")
    if shallow.strip() == "true":
        return Finding(False, "the clone has not all commits", "git fetch --unshallow")
    if shallow.strip() != "false":
        return Finding(False, "this folder is no clone", "git clone the repository and run this in its root")
    return Finding(True, git.strip())


def environment() -> Finding:
    """By the stamp that `make setup` leaves."""
    backend = setup.backend_before()
    if backend is None:
        return Finding(False, ".venv is not made", "make setup")
    if not setup.is_ready(backend):
        return Finding(False, ".venv was made for another Python or other requirements", "make setup")
    return Finding(True, f".venv is current, for {backend}")


def asv_machine(text: str, name: str) -> Finding:
    """Whether `name` is in the text of ~/.asv-machine.json."""
    try:
        known = json.loads(text or "{}")
    except ValueError:
        return Finding(False, f"{MACHINES} is no JSON", f"rm {MACHINES} && {named_for_asv(name)}")
    if not isinstance(known, dict) or name not in known:
        return Finding(False, f"asv does not know the machine {name}", named_for_asv(name))
    return Finding(True, f"asv knows the machine {name}")


def named_for_asv(name: str) -> str:
    return f".venv/bin/python -m asv machine --yes --machine '{name}'"


def remote(night: Settings) -> Finding:
    if not night.remote:
        return Finding(True, "no remote is set: results stay here")
    reason = unreachable(night.remote)
    if reason:
        do = f"git ls-remote '{night.remote}' must answer without a question; mend `remote` in nightly.toml or the key"
        return Finding(False, nameless(f"the remote cannot be read: {reason}"), nameless(do))
    return Finding(True, nameless(f"the remote {night.remote} answers"))


def unreachable(repository: str) -> str:
    """Why it cannot be read; empty if it can. Nothing is asked for: at night nobody is there to type a password."""
    quiet = os.environ | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    quiet.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    asked = ["git", "ls-remote", "--", repository, "HEAD"]
    try:
        done = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, timeout=commands.SECONDS, env=quiet)
    except subprocess.TimeoutExpired:
        return f"no answer in {commands.SECONDS} s"
    except OSError as error:
        return f"git does not run: {error.strerror}"
    if done.returncode == 0:
        return ""
    return command.one_line(done.stderr.decode(errors="replace")) or "no reason given"


def nameless(text: str) -> str:
    """`text` without the user names and tokens of its addresses."""
    return re.sub(r"//[^/@\s']+@", "//", command.one_line(text))


def results(folder: Path) -> Finding:
    if not folder.is_dir():
        return Finding(False, f"there is no folder {folder}", f"mkdir {folder}")
    if not os.access(folder, os.W_OK):
        return Finding(False, f"{folder} cannot be written", f"sudo chown -R {getpass.getuser()} {folder}")
    return Finding(True, f"{folder} can be written")


def one_night(commands: list[list[str]]) -> Finding:
    """From the command lines of all processes: whatever checkout a night runs in, the machine is the same."""
    under_way = any("scripts.nightly" in words for words in commands)
    if under_way:
        return Finding(False, "a night is under way on this machine", "wait until it ends, then look again")
    return Finding(True, "no night is under way")


def command_lines() -> list[list[str]]:
    return [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]


def of_a_night(name: str) -> Look:
    """The check of that name, as a night makes it, but looked at once and not waited for."""

    def look(night: Settings) -> Finding:
        check = getattr(night.checks, name)
        found = preflight.CHECKS[name](check)
        if found.fit is not False:
            return Finding(found.fit, found.says)
        if check.then == "pass":
            return Finding(True, f"{found.says} (the settings let it pass)")
        follows = "a night would measure nothing" if check.then == "refuse" else "its results would be marked"
        return Finding(False, f"{found.says}: {follows}", MEND[name])

    return look


EVERYWHERE: Mapping[str, Look] = {
    "python": lambda night: python(sys.version_info[:3]),
    "git": lambda night: repository(
        commands.output("git", "--version"), commands.output("git", "rev-parse", "--is-shallow-repository")
    ),
    "environment": lambda night: environment(),
    "asv's machine": lambda night: asv_machine(text_of(MACHINES), night.machine or platform.node()),
    **{name: of_a_night(name) for name in preflight.CHECKS},
    "remote": remote,
    "results": lambda night: results(Path("results")),
    "one night": lambda night: one_night(command_lines()),
}
