"""Measure this commit on this machine: run asv, print the table, write the HTML report."""

import argparse
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asv import util
from asv.machine import MachineCollection
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import adamw
from benchmarks.harness import cases
from scripts import command, git, ledger, table
from scripts.report.publisher import publish

LOG = Path(".asv/bench.log")
HTML = Path(".asv/html")
ASV = [sys.executable, "-m", "asv"]
POLL = 0.5  # seconds

EPILOG = """examples:
  python -m scripts.bench                       the quick profile: about five minutes
  python -m scripts.bench --profile default     everything that `asv run` measures by default

exit codes: 0 everything measured, 1 a case failed (the table says which), 2 error, 130 interrupted
"""


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


@contextmanager
def running(asv: list[str], run_ledger: Path, profile: str) -> Iterator[subprocess.Popen]:
    """asv in a process group of its own, writing to LOG; nothing of it outlives this block."""
    LOG.parent.mkdir(exist_ok=True)
    environment = os.environ | {
        ledger.VARIABLE: str(run_ledger),
        "ADAMW_PROFILE": profile,
        command.PARENT: str(os.getpid()),
    }
    with LOG.open("w") as log:
        process = subprocess.Popen(asv, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def watch(process: subprocess.Popen, run_ledger: Path, total: int, console: Console) -> None:
    """Show how many cases are done until `process` ends; without a terminal, a line a case."""
    description = TextColumn("{task.description}")
    columns = (SpinnerColumn(), description, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("preparing asv's environment", total=total)
        done = 0
        while process.poll() is None:
            time.sleep(POLL)
            finished = ledger.finished(ledger.read(run_ledger))
            for case in finished[done:]:
                if not console.is_terminal:
                    console.print(f"[{time.strftime('%H:%M:%S')}] measured {case}", markup=False, highlight=False)
            done = len(finished)
            progress.update(task, completed=done, description=finished[-1] if finished else "preparing")


def last_line(text: str) -> str:
    """The last line that says something; of asv's output, the reason why it stopped."""
    lines = [line.strip(" ·\t") for line in text.splitlines() if line.strip(" ·\t") and command.OWN_WORK not in line]
    return lines[-1][:500] if lines else "no reason given"


def check_machine(name: str | None) -> None:
    """Have asv describe this machine, if it has not yet: `asv run` would stop and ask."""
    try:
        MachineCollection.load(name or platform.node())
    except util.UserError:
        described = ["--machine", name] if name else []
        subprocess.run([*ASV, "machine", "--yes", *described], capture_output=True, check=True)


def run_asv(profile: str, machine: str | None, console: Console) -> int:
    """asv's exit code, 0 or 2. Raises UserError if it could not run."""
    asv = [*ASV, "run", "--show-stderr", "HEAD^!"]
    for expression in selection(profile):
        asv += ["--bench", expression]
    if profile == "quick":
        asv += ["--attribute", "rounds=1"]
    if machine:
        asv += ["--machine", machine]
    with tempfile.TemporaryDirectory() as folder:
        run_ledger = Path(folder, "ledger.jsonl")
        with running(asv, run_ledger, profile) as process:
            watch(process, run_ledger, expected(profile), console)
            if process.returncode not in (0, 2) or not ledger.finished(ledger.read(run_ledger)):
                reason = last_line(LOG.read_text(errors="replace"))
                raise command.UserError(f"asv measured nothing: {reason} (all of it: {LOG})")
            return process.returncode


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("--profile", choices=cases.PROFILES, default="quick", help="default: quick")
    parser.add_argument("--machine", metavar="NAME", help="asv's name of this machine; default: its host name")
    parser.add_argument("--json", type=command.file_path, metavar="FILE", help="also write the table's rows as JSON")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else table.WIDTH)
    commit = git.output("rev-parse", "HEAD")
    if git.output("status", "--porcelain", "--", "adamw"):
        console.print("note: adamw/ has uncommitted changes; what is measured is the commit", markup=False)
    check_machine(options.machine)
    start = time.perf_counter()
    code = run_asv(options.profile, options.machine, console)
    report = table.Report(table.newest(Path("results"), options.machine, commit))
    publish(Path("asv.conf.json"))
    table.show(report, Console(width=table.WIDTH))
    print(next((line for line in reversed(LOG.read_text().splitlines()) if command.OWN_WORK in line), ""))
    print(f"report: {HTML / 'index.html'}")
    print(f"done in {time.perf_counter() - start:.0f} s")
    if options.json:
        table.write_json(report, options.json)
    return 1 if code or report.failures else 0


if __name__ == "__main__":
    sys.exit(command.run(main))
