"""What a night does after measuring, each a command of its own: one that fails does not take the others with it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from scripts import alerts, command, git, lanes
from scripts.nightly.plan import FOLDER
from scripts.nightly.settings import Settings

END = 6.0
"""Seconds that a command has to end when it is asked to."""

DRIFT = "a drift over many commits: none of them alone made it"

LONGEST = 6 * 3600.0
MOST_LINES = 40


class Done(NamedTuple):
    """What a command came to: its exit code, what it printed, and what it said beside that."""

    code: int
    lines: list[str]
    errors: list[str]

    @property
    def last(self) -> str:
        return command.one_line((self.errors or self.lines or ["no reason given"])[-1])


def run(*arguments: str, seconds: float = LONGEST) -> Done:
    """Run `python -m ARGUMENTS` in a process group of its own, which ends with this call, whatever happens."""
    environment = command.uncoloured() | {"COLUMNS": "120", command.PARENT: str(os.getpid())}
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        text=True, errors="replace", start_new_session=True, env=environment,
    )  # fmt: skip
    try:
        out, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        end(process)
        return Done(124, [], [f"{arguments[0]} took longer than {seconds:.0f} s"])
    except BaseException:
        end(process)
        raise
    return Done(process.returncode, out.splitlines(), errors.splitlines())


def end(process: subprocess.Popen) -> None:
    """Ask a command and what it started to end, and end them if they do not."""
    with command.undisturbed(), contextlib.suppress(psutil.Error):
        started = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
        psutil.wait_procs(started, timeout=END)
        for one in started:
            with contextlib.suppress(psutil.Error):
                one.kill()
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)  # what it has started since
        psutil.wait_procs(started, timeout=END)
        process.wait()


class Found(NamedTuple):
    """What the history shows: what detect printed, and what is to be measured again, what is worse first."""

    done: Done
    suspected: list[str]


def detect(lane: str, machine: str) -> Found:
    path = FOLDER / "detect.json"
    path.unlink(missing_ok=True)
    done = run("scripts.detect", "--lane", lane, "--machine", machine, "--record", "--json", str(path))
    try:
        told: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return Found(done, [])
    listed = sorted(told["alerts"], key=lambda one: not one["worse"])
    wanted = ("new", alerts.SUSPECTED, alerts.UNDECIDED)
    return Found(done, [one["alert"] for one in listed if one["state"] in wanted])


def confirm(lane: str, machine: str, alert: str, settings: Settings) -> Done:
    """Code 1: it is confirmed."""
    budget = str(settings.confirm_seconds)
    asked = ["--lane", lane, "--machine", machine, "--alert", alert, "--budget", budget]
    return run("scripts.confirm", *asked, seconds=3 * settings.confirm_seconds + 600)


def search(lane: str, results: Path, machine: str, one: alerts.Known, settings: Settings) -> str:
    """Look for the commit of a confirmed alert, and remember what came of it, in words."""
    if one.rate is not None:
        alerts.add(results, machine, [{"alert": one.name, "event": alerts.SEARCHED, "reason": DRIFT}])
        return DRIFT
    try:
        alone = Path(lane).name != lanes.MLX.name and only_commit(one.good, one.bad)
    except command.UserError as error:  # a commit that is gone
        alone, reason = False, f"not found: {error}"
    else:
        reason = f"{one.bad[:10]}: no other commit lies between" if alone else ""
    if not reason:
        _, metric, case = next(iter(one.levels))
        budget = str(settings.bisect_seconds)
        asked = ["--lane", lane, one.good, one.bad, "--case", f"^{case}$", "--metric", metric, "--budget", budget]
        done = run("scripts.bisect", *asked, seconds=3 * settings.bisect_seconds + 600)
        reason = command.one_line("; ".join(done.lines[-3:])) if done.code in (0, 1, 3) else f"not found: {done.last}"
    alerts.add(results, machine, [{"alert": one.name, "event": alerts.SEARCHED, "reason": reason}])
    return reason


def only_commit(good: str, bad: str) -> bool:
    """Whether `bad` comes right after `good`."""
    return git.output("rev-list", "--count", "--first-parent", "--end-of-options", f"{good}..{bad}") == "1"
