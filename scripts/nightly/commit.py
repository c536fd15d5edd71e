"""Measure one commit by asv, so that a kill costs the case under way and no more."""

import contextlib
import time
from pathlib import Path

import psutil
from rich.console import Console

from benchmarks.harness.files import write_whole
from benchmarks.harness.ledger import last_part
from scripts import asv_mlx, command, ledger, measuring, runs
from scripts.nightly import plan, record
from scripts.nightly.record import Tried

NOT_BUILT = "Failed to build the project"
"""What asv says of a commit that cannot be installed."""


class NotRun(Exception):
    """asv did not get so far as to measure, and it is not the commit's fault; the message says why."""


def measure(
    commit: str, lane: str, machine: str, results: Path, profile: str, marks: list[str], floor: float, console: Console
) -> Tried:
    """What came of measuring `commit`. Raises NotRun.

    Who begins again goes on with a run that was interrupted: until `finish` it counts as one. When less than `floor` GB
    of memory are left to the machine, the process that takes most is killed, before the machine kills another.
    """
    run = begun(commit, lane, machine, results)
    log = plan.pointer(lane, machine, commit).with_suffix(".log")
    before = len(ledger.read(run))
    start = time.monotonic()
    asv = measuring.arguments(commit, profile, machine, Path(lane))
    with measuring.running(asv, run, profile, log, "; ".join(marks)) as process:
        total = measuring.expected(profile)
        measuring.watch(process, run, total, console, lambda pid: guard(pid, floor, console))
    told = log.read_text(errors="replace")
    if process.returncode not in (0, 2) and NOT_BUILT not in told:
        raise NotRun(f"{measuring.last_line(told)} (all of it: {log})")
    entries = ledger.read(run)
    work = sum(entry.get("wall", 0.0) for entry in entries[before:])
    seconds = time.monotonic() - start
    tried = judged(commit, lane, last_part(entries), told)
    return tried._replace(id=run.stem, seconds=seconds, work=work, profile=profile)


def begun(commit: str, lane: str, machine: str, results: Path) -> Path:
    """The run of a commit: the one that was interrupted, or a new one. Where it is stays known until it is told of."""
    pointer = plan.pointer(lane, machine, commit)
    folder = results / machine
    with contextlib.suppress(OSError):
        name = pointer.read_text().strip()
        if runs.NAME.fullmatch(name) and name.startswith(commit[:8]):
            return folder / runs.RUNS / name
    path = runs.new_path(folder, commit)
    write_whole(pointer, f"{path.name}\n", durable=True)
    return path


def finish(commit: str, lane: str, machine: str, results: Path) -> None:
    """A commit's run is complete, and told of."""
    path = begun(commit, lane, machine, results)
    if path.exists():
        runs.complete(path)
    plan.pointer(lane, machine, commit).unlink(missing_ok=True)


def judged(commit: str, lane: str, entries: list[ledger.Entry], log: str) -> Tried:
    """What a run that asv ended by itself came to, from its ledger."""
    cases, missing = len(ledger.by_case(entries)), ledger.failures(entries) | ledger.skipped(entries)
    missing = {name: command.one_line(why) for name, why in missing.items()}
    outcome, reason = record.MEASURED if not missing else record.PARTLY, ""
    if NOT_BUILT in log:
        outcome, reason = record.NOT_INSTALLED, why_not_installed(log)
    elif not cases:
        outcome = record.NOTHING
        reason = next(iter(missing.values()), "every case was skipped")
        if asv_mlx.NOT_MEASURED in log:  # asv could read the suite with another commit
            outcome, reason = record.NOT_INSTALLED, why_not_installed(log)
    said = ledger.marks(ledger.with_ceiling(entries))
    return Tried(commit, lane, "", outcome, 0.0, 0.0, cases, missing, reason, said)


def why_not_installed(log: str) -> str:
    """The innermost error in what asv printed of the build; in MLX's lane what its plugin says of the commit."""
    lines = [command.one_line(line) for line in log.splitlines()]
    for line in lines:  # others are of commits that asv tries instead
        if asv_mlx.NOT_MEASURED in line:
            return line.partition(asv_mlx.NOT_MEASURED)[2]
    named = [line for line in lines if "Error:" in line]
    told = [line for line in lines if line.startswith(("error:", "ERROR:"))]
    return (named or told or [NOT_BUILT])[-1]


def guard(asv: int, floor: float, console: Console) -> None:
    """Kill the largest of asv's benchmark processes if less than `floor` GB of memory are left."""
    free = psutil.virtual_memory().available / 1e9
    if free >= floor:
        return
    with contextlib.suppress(psutil.Error, ValueError):
        largest = max(psutil.Process(asv).children(recursive=True), key=resident)
        held = resident(largest) / 1e9
        largest.kill()
        told = f"killed a process that held {held:.1f} GB: {free:.1f} GB were left"
        console.print(told, markup=False, highlight=False)


def resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0
