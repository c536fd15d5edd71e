"""What a night does after measuring, each a command of its own: one that fails does not take the others with it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from scripts import alerts, command, lanes
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


@contextlib.contextmanager
def going_on(failed: list[str], what: str) -> Iterator[None]:
    """Whatever goes wrong in a part of a night is a line of what `failed`, and the night goes on."""
    try:
        yield
    except command.UserError as error:
        failed.append(command.one_line(f"{what}: {error}"))
    except Exception as error:  # nobody's mistake but ours
        *_, last = traceback.extract_tb(error.__traceback__)
        place = f"{Path(last.filename).name}:{last.lineno}"
        failed.append(command.one_line(f"{what}: {type(error).__name__} in {place}: {error}"))


class Found(NamedTuple):
    """What the history shows: what detect printed, and what is to be measured again, what is worse first."""

    lines: list[str]
    suspected: list[str]


def detect(lane: str, machine: str) -> Found:
    """Raises UserError."""
    path = FOLDER / "detect.json"
    path.unlink(missing_ok=True)
    done = run("scripts.detect", "--lane", lane, "--machine", machine, "--record", "--json", str(path))
    if done.code not in (0, 1) or not path.exists():  # an error of ours ends with 1
        raise command.UserError(done.last)
    told: dict[str, Any] = json.loads(path.read_text())
    listed = sorted(told["alerts"], key=lambda one: not one["worse"])
    wanted = ("new", alerts.SUSPECTED, alerts.UNDECIDED)
    return Found(done.lines, [one["alert"] for one in listed if one["state"] in wanted])


def confirm(lane: str, results: Path, machine: str, alert: str, settings: Settings) -> None:
    """Measure an alert again. What ends without an answer is undecided: it had its turn. Raises UserError."""
    before = tried(results, machine, alert)
    budget = str(settings.confirm_seconds)
    asked = ["--lane", lane, "--machine", machine, "--alert", alert, "--budget", budget]
    done = run("scripts.confirm", *asked, seconds=3 * settings.confirm_seconds + 600)
    if tried(results, machine, alert) == before:
        reason = f"cannot be measured again: {done.last}"
        alerts.add(results, machine, [{"alert": alert, "event": alerts.UNDECIDED, "reason": reason}])
        raise command.UserError(done.last)


def tried(results: Path, machine: str, alert: str) -> int:
    """How many times an alert was measured again."""
    return next((one.tried for one in alerts.read(results, machine)[0] if one.name == alert), 0)


def search(
    lane: str, results: Path, machine: str, one: alerts.Known, commits: Sequence[str], settings: Settings
) -> str:
    """Look for the commit of a confirmed alert among the lane's `commits`, and remember what came of it, in words."""
    reason = known_without(lane, one, commits) or bisect(lane, one, settings)
    alerts.add(results, machine, [{"alert": one.name, "event": alerts.SEARCHED, "reason": reason}])
    return reason


def known_without(lane: str, one: alerts.Known, commits: Sequence[str]) -> str:
    """What comes of looking for an alert's commit, where that is known without a search; else empty.

    Whoever adds a line to a file of alerts may name any commit: one of the results branch, or a stranger's. Only those
    that are measured anyway may run.
    """
    if one.rate is not None:
        return DRIFT
    places = {commit: place for place, commit in enumerate(commits)}
    good, bad = places.get(one.good), places.get(one.bad)
    if good is None or bad is None:
        return f"not found: {(one.good if good is None else one.bad)[:10]} is not on the searched branch"
    if good >= bad:
        return f"not found: {one.good[:10]} does not come before {one.bad[:10]}"
    alone = bad - good == 1 and Path(lane).name != lanes.MLX.name
    return f"{one.bad[:10]}: no other commit lies between" if alone else ""


def bisect(lane: str, one: alerts.Known, settings: Settings) -> str:
    """What a search between the commits of an alert came to, for the first of its series."""
    _, metric, case = next(iter(one.levels))
    asked = [f"--case=^{re.escape(case)}$", f"--metric={metric}", f"--budget={settings.bisect_seconds}"]
    seconds = 3 * settings.bisect_seconds + 600
    done = run("scripts.bisect", "--lane", lane, one.good, one.bad, *asked, seconds=seconds)
    said = done.lines[-3:] if done.code in (0, 1, 3) else []
    return command.one_line("; ".join(said) or f"not found: {done.last}")
