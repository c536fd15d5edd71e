"""Have asv measure a commit: in a process group of its own, watched while it runs, nothing of it left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from asv import util
from asv.machine import MachineCollection
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import adamw
from benchmarks.harness import cases
from scripts import asv_mlx, command, ledger, machines

ASV = [sys.executable, "-m", "asv"]
POLL = 0.5  # seconds
END = 6.0
"""Seconds that asv has to end when it is asked to."""

QUICK = r"^(step|accuracy\.Accuracy|memory\.Memory\.track_memory_ratio|work\.Work\.track_(traffic|peak)_ratio)\b.*"
"""The suites' figures of a quick run: each is a process for every case. The run's ledger has all of them anyway."""


def selection(profile: str) -> list[str]:
    """asv's --bench expressions for `profile`: what does not match costs nothing, not even a process."""
    workloads = "|".join(
        re.escape(name) for name in [*cases.WORKLOADS, *cases.sweep()] if cases.in_profile(name, profile)
    )
    of_workloads = rf"\('[^/]+/({workloads})'\)$"
    if profile == "quick":
        return [QUICK + of_workloads, r"^controls\."]
    precisions = "|".join(sorted({re.escape(name.partition("/")[0]) for name in workloads.split("|")}))
    return [of_workloads, rf"^accuracy\.LongRun\..*\('[^/]+/({precisions})'\)$", r"^controls\."]


def expected(profile: str) -> int:
    """Cases that `profile` measures where everything fits."""
    return len(cases.chosen([name for name in adamw.names() if not adamw.unavailable(name)], profile))


def check_machine(name: str | None) -> None:
    """Have asv describe this machine, if it has not yet: `asv run` would stop and ask. Raises UserError."""
    called = machines.this(name)
    try:
        known = MachineCollection.load(called)
    except util.UserError:
        described = ["--machine", name] if name else []
        done = subprocess.run(
            [*ASV, "machine", "--yes", *described], capture_output=True, text=True, env=command.uncoloured()
        )
        if done.returncode:
            reason = last_line(done.stdout + done.stderr)
            hint = "; mend ~/.asv-machine.json" if "JSON" in reason else ""
            raise command.UserError(f"asv cannot describe this machine: {reason}{hint}") from None
        return
    if known.get("machine") != called:
        raise command.UserError(
            f"asv would put the results of {called!r} into another machine's folder: mend ~/.asv-machine.json, "
            f"{machines.for_asv(called)}"
        )


def arguments(revision: str, profile: str, machine: str | None, config: Path = Path("asv.conf.json")) -> list[str]:
    """asv's command line for one commit."""
    asv = [*ASV, "run", "--config", str(config), "--show-stderr", f"{revision}^!"]
    for expression in selection(profile):
        asv += ["--bench", expression]
    if profile == "quick":
        asv += ["--attribute", "rounds=1"]
    return [*asv, "--machine", machine] if machine else asv


@contextmanager
def running(asv: list[str], run_ledger: Path, profile: str, log: Path, marks: str = "") -> Iterator[subprocess.Popen]:
    """asv in a process group of its own, writing to `log`; nothing of it outlives this block."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = command.uncoloured() | {
        ledger.VARIABLE: str(run_ledger.absolute()),
        ledger.MARKS: marks,
        "ADAMW_PROFILE": profile,
        command.PARENT: str(os.getpid()),
        asv_mlx.RELEASES_ONLY: "1",
    }
    with log.open("w") as file:
        process = subprocess.Popen(asv, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
        try:
            yield process
        finally:
            with command.undisturbed():
                end(process)


def end(process: subprocess.Popen) -> None:
    """Have asv end, and what it started: its benchmarks are in process groups of their own."""
    if process.poll() is not None:
        return
    started = psutil.Process(process.pid).children(recursive=True)
    with suppress(PermissionError, ProcessLookupError):  # a Mac's answer for a group that has just ended
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(timeout=END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for one in started:
        with suppress(psutil.Error):
            one.kill()


def watch(
    process: subprocess.Popen,
    run_ledger: Path,
    total: int,
    console: Console,
    look: Callable[[int], None] = lambda pid: None,
) -> None:
    """Show how many cases are done until `process` ends; without a terminal, a line a case.

    `look` is called with the process's number at every look.
    """
    description = TextColumn("{task.description}")
    columns = (SpinnerColumn(), description, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_interactive) as progress:
        task = progress.add_task("preparing asv's environment", total=total)
        done = len(ledger.finished(ledger.read(run_ledger)))
        while process.poll() is None:
            time.sleep(POLL)
            look(process.pid)
            finished = ledger.finished(ledger.read(run_ledger))
            for case in finished[done:]:
                if not console.is_interactive:
                    console.print(f"[{time.strftime('%H:%M:%S')}] measured {case}", markup=False, highlight=False)
            done = len(finished)
            progress.update(task, completed=done, description=finished[-1] if finished else "preparing")


def last_line(text: str) -> str:
    """The last line that says something; of asv's output, the reason why it stopped."""
    lines = [line.strip(" ·\t") for line in text.splitlines() if line.strip(" ·\t") and command.OWN_WORK not in line]
    return lines[-1][:500] if lines else "no reason given"
