"""What is looked at on every system."""

import getpass
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from benchmarks.harness.host import commands
from scripts import machines, setup
from scripts.doctor import repository
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


def environment() -> Finding:
    """By the stamp that `make setup` leaves."""
    backend = setup.backend_before()
    if backend is None:
        return Finding(False, ".venv is not made", "make setup")
    if not setup.is_ready(backend):
        return Finding(False, ".venv was made for another Python or other requirements", "make setup")
    return Finding(True, f".venv is current, for {backend}")


def asv_machine(text: str, name: str) -> Finding:
    """Whether `name` can be a machine's, and is in the text of ~/.asv-machine.json under its own name."""
    if machines.why_not(name):
        return Finding(False, machines.refusal(name), f'machine = "{machines.allowed(name)}" in nightly.toml')
    try:
        known = json.loads(text or "{}")
    except ValueError:
        return Finding(False, f"{MACHINES} is no JSON", f"rm {MACHINES} && {machines.for_asv(name)}")
    if not isinstance(known, dict) or name not in known:
        return Finding(False, f"asv does not know the machine {name}", machines.for_asv(name))
    if not isinstance(known[name], dict) or known[name].get("machine", name) != name:
        return Finding(False, f"asv would put the results of {name} elsewhere", machines.for_asv(name))
    return Finding(True, f"asv knows the machine {name}")


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
    "git": lambda night: repository.runs(commands.output("git", "--version")),
    "clone": lambda night: repository.clone(),
    "commits": lambda night: repository.commits(night),
    "environment": lambda night: environment(),
    "asv's machine": lambda night: asv_machine(text_of(MACHINES), night.machine or platform.node()),
    **{name: of_a_night(name) for name in preflight.CHECKS},
    "remote": repository.remote,
    "results": lambda night: results(Path("results")),
    "not committed": repository.tracked,
    "one night": lambda night: one_night(command_lines()),
}
