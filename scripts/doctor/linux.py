"""What is looked at on Linux."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import psutil

from benchmarks.harness.host import commands
from scripts.doctor.finding import NOT_TOLD, RUNNER, Finding, Look, text_of

CPU = Path("/sys/devices/system/cpu")
APT = ("apt-daily.timer", "apt-daily-upgrade.timer")
SLEEP = ("sleep.target", "suspend.target", "hibernate.target", "hybrid-sleep.target")


def tools(missing: list[str]) -> Finding:
    if missing:
        return Finding(False, f"not on PATH: {', '.join(missing)}", f"sudo apt install {' '.join(missing)}")
    return Finding(True, "g++ and make are there")


def governor(text: str) -> Finding:
    if not text:
        return NOT_TOLD
    if text == "performance":
        return Finding(True, text)
    return Finding(False, f"{text}: the clock follows the load", "sudo cpupower frequency-set -g performance")


def turbo(no_turbo: str, boost: str) -> Finding:
    """From intel_pstate/no_turbo, or cpufreq/boost of other drivers: noted only, either way is a machine's own."""
    on = {"0": True, "1": False}.get(no_turbo, {"1": True, "0": False}.get(boost))
    if on is None:
        return NOT_TOLD
    file = "intel_pstate/no_turbo" if no_turbo else "cpufreq/boost"
    steady = f"steadier without: echo {1 if no_turbo else 0} | sudo tee {CPU / file}"
    return Finding(True, "on", steady) if on else Finding(True, "off")


def sleep_targets(text: str) -> Finding:
    """From `systemctl show --property=LoadState` of several units; is-enabled fails for a masked one."""
    states = re.findall(r"^LoadState=(.+)$", text, re.MULTILINE)
    if not states:
        return NOT_TOLD
    if set(states) <= {"masked", "not-found"}:
        return Finding(True, "masked")
    return Finding(False, "this machine may sleep", f"sudo systemctl mask {' '.join(SLEEP)}")


def upgrades(text: str) -> Finding:
    """From `systemctl show --property=ActiveState` of apt's timers."""
    states = re.findall(r"^ActiveState=(.+)$", text, re.MULTILINE)
    if not states:
        return NOT_TOLD
    if "active" in states:
        return Finding(False, "apt upgrades by itself", f"sudo systemctl disable --now {' '.join(APT)}")
    return Finding(True, "apt does nothing by itself")


def scheduled(units: str, timers: str, table: str, told: bool) -> Finding:
    """From systemctl's units, the user's timers and `crontab -l`; `told` is whether any of them can answer."""
    found = re.findall(rf"^\W*({re.escape(RUNNER)}\S+|adamw-nightly\.timer)", units, re.MULTILINE)
    found += ["adamw-nightly.timer"] if "adamw-nightly.timer" in timers else []
    entries = [line for line in table.splitlines() if not line.lstrip().startswith("#")]
    found += ["crontab"] if any("scripts.nightly" in line for line in entries) else []
    if found:
        return Finding(True, ", ".join(dict.fromkeys(found)))
    if not told:
        return NOT_TOLD
    return Finding(False, "nothing starts the nights", "crontab -e, with the line of NIGHTLY.md, or install a runner")


def swap(total: int) -> Finding:
    """`total` in bytes; noted only."""
    if not total:
        return Finding(True, "no swap")
    advice = "steadier without: sudo swapoff -a; a night then ends what takes too much memory"
    return Finding(True, f"{total / 1e9:.1f} GB of swap", advice)


def shown(field: str, units: tuple[str, ...]) -> str:
    return commands.output("systemctl", "show", f"--property={field}", *units)


def schedule_now() -> Finding:
    listed = ("--all", "--plain", "--no-legend")
    return scheduled(
        commands.output("systemctl", "list-units", *listed, f"{RUNNER}*", "adamw-nightly.timer"),
        commands.output("systemctl", "--user", "list-units", *listed, "adamw-nightly.timer"),
        commands.output("crontab", "-l"),
        Path("/run/systemd/system").is_dir() or bool(shutil.which("crontab")),
    )


LINUX: Mapping[str, Look] = {
    "tools": lambda night: tools([name for name in ("g++", "make") if not shutil.which(name)]),
    "governor": lambda night: governor(text_of(CPU / "cpu0/cpufreq/scaling_governor")),
    "turbo": lambda night: turbo(text_of(CPU / "intel_pstate/no_turbo"), text_of(CPU / "cpufreq/boost")),
    "sleep": lambda night: sleep_targets(shown("LoadState", SLEEP)),
    "upgrades": lambda night: upgrades(shown("ActiveState", APT)),
    "schedule": lambda night: schedule_now(),
    "swap": lambda night: swap(psutil.swap_memory().total),
}
