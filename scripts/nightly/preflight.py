"""Whether the machine is fit to measure on: what is looked at, and what follows if it is not.

A check that cannot be told on a system passes and says so. No check needs root.
"""

import email.utils
import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import NamedTuple

import psutil

from benchmarks.harness import machine
from benchmarks.harness.host import HERE
from scripts import git
from scripts.nightly.settings import Check, Checks

LOAD_SECONDS = 2.0
"""For which the processor is watched."""

POLL = 15.0
"""Seconds from one look to the next while a check is waited for."""

ANSWER_SECONDS, DEVICE_SECONDS = 10.0, 120.0
"""That a server may take to tell the time, and MLX to say what it runs on."""

PARAVIRTUAL = "paravirtual"
"""In the name of the GPU that a virtual Mac has: it is not the chip's."""

DEVICE = """
import json
from benchmarks.harness import machine
here = machine.identify()
print(json.dumps([here.backend, here.chip, str(here)]))
"""


class Finding(NamedTuple):
    """What a check found: whether it is as it should be (None: it cannot be told here), and in words."""

    fit: bool | None
    says: str


class Result(NamedTuple):
    """What all checks came to.

    refused  why nothing may be measured; empty if it may
    marks    what the results must say
    said     a line a check
    """

    refused: list[str]
    marks: list[str]
    said: list[str]


def power(check: Check) -> Finding:
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is None:
        return Finding(True, "no battery")
    if battery.power_plugged is None:
        return Finding(None, "power source unknown")
    return Finding(bool(battery.power_plugged), "on mains" if battery.power_plugged else "on battery")


def low_power(check: Check) -> Finding:
    on = HERE.low_power()
    if on is None:
        return Finding(None, "low-power mode unknown")
    return Finding(not on, f"low-power mode {'on' if on else 'off'}")


def thermal(check: Check) -> Finding:
    level = machine.conditions().get("thermal_pressure")
    if not isinstance(level, int):
        return Finding(None, "thermal pressure unknown")
    return Finding(level <= (check.limit or 0), f"thermal pressure {level}")


def load(check: Check) -> Finding:
    """The share of all cores that is busy while this process sleeps: the load average would tell of the past."""
    busy = psutil.cpu_percent(interval=LOAD_SECONDS)
    return Finding(check.limit is None or busy <= check.limit, f"other processes take {busy:.0f} % of all cores")


def disk(check: Check) -> Finding:
    free = shutil.disk_usage(".").free / 1e9
    return Finding(check.limit is None or free >= check.limit, f"{free:.1f} GB of disk free")


def memory(check: Check) -> Finding:
    free = psutil.virtual_memory().available / 1e9
    return Finding(check.limit is None or free >= check.limit, f"{free:.1f} GB of memory available")


def device(check: Check) -> Finding:
    """In a process of its own, so that this one never holds a GPU."""
    try:
        done = subprocess.run([sys.executable, "-c", DEVICE], capture_output=True, text=True, timeout=DEVICE_SECONDS)
    except subprocess.TimeoutExpired:
        return Finding(False, f"MLX does not answer within {DEVICE_SECONDS:.0f} s; restart the machine")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        return Finding(False, f"MLX does not run: {lines[-1][:200]}")
    backend, chip, description = json.loads(done.stdout)
    if PARAVIRTUAL in chip.lower():
        return Finding(False, f"{chip} is a virtual machine's GPU, not the chip's")
    if check.expect and backend != check.expect:
        return Finding(False, f"MLX runs on {backend}, {check.expect} is expected")
    return Finding(True, description)


def clock(check: Check) -> Finding:
    """Beside a server's clock if one is asked; else it is only seen that a clock is behind the newest commit."""
    limit = 3600 * (1.0 if check.limit is None else check.limit)
    if check.url:
        beside = seconds_beside(check.url)
        if beside is None:
            return Finding(None, f"clock unknown: {check.url} does not answer")
        return Finding(abs(beside) <= limit, f"the clock is {beside:+.0f} s beside that of {check.url}")
    behind = git.committed_at("HEAD") - time.time()
    if behind > limit:
        return Finding(False, f"the clock is {behind / 3600:.1f} h behind the newest commit")
    return Finding(True, "the clock is not behind the newest commit")


def seconds_beside(url: str) -> float | None:
    """Seconds that this clock is ahead of the server's; None if it does not tell."""
    if not url.startswith(("https://", "http://")):
        return None
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=ANSWER_SECONDS) as answer:
            date = answer.headers["Date"]
    except urllib.error.HTTPError as error:
        date = error.headers["Date"]
    except (OSError, ValueError):
        return None
    try:
        return time.time() - email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return None


def awake(check: Check) -> Finding:
    keeper = next(iter(HERE.keep_awake()), None)
    if not keeper:
        return Finding(None, "sleep is not watched here")
    kept = any(child.name() == keeper for child in psutil.Process().children())
    return Finding(kept, f"kept awake by {keeper}" if kept else "nothing keeps this machine awake")


CHECKS: Mapping[str, Callable[[Check], Finding]] = {
    one.__name__: one for one in (power, low_power, thermal, load, disk, memory, device, clock, awake)
}


def run(checks: Checks, say: Callable[[str], None], wait: bool = True) -> Result:
    """Look at everything, waiting where that is asked for; what is found is said at once."""
    refused, marks, said = [], [], []
    for name, look in CHECKS.items():
        check = getattr(checks, name)
        found = waited(look, check, say) if wait and check.then == "wait" else look(check)
        line = f"{name}: {found.says}"
        if found.fit is False:
            if check.then == "refuse":
                refused.append(found.says)
            elif check.then in ("degrade", "wait"):
                marks.append(found.says)
            line += {"pass": "", "refuse": " (refused)"}.get(check.then, " (the results are marked)")
        said.append(line)
        say(line)
    return Result(refused, marks, said)


def waited(look: Callable[[Check], Finding], check: Check, say: Callable[[str], None]) -> Finding:
    """What is found as soon as it is fit, or at the end of the time that may be waited."""
    deadline = time.monotonic() + 60 * check.minutes
    found = look(check)
    while found.fit is False and time.monotonic() < deadline:
        say(f"waiting, at most {check.minutes:g} min: {found.says}")
        time.sleep(min(POLL, max(deadline - time.monotonic(), 0)))
        found = look(check)
    return found
