"""Measure this commit on this machine: run asv, print the table, write the HTML report."""

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console

from benchmarks.harness import cases
from scripts import command, git, ledger, machines, measuring, runs, table
from scripts.report.publisher import publish

LOG = Path(".asv/bench.log")
HTML = Path(".asv/html")
RESULTS = Path("results")

EPILOG = """examples:
  python -m scripts.bench                       the quick profile: about five minutes
  python -m scripts.bench --profile default     everything that `asv run` measures by default

exit codes: 0 everything measured, 1 a case failed (the table says which), 2 error, 130 interrupted
"""


def run_asv(commit: str, profile: str, machine: str | None, console: Console) -> tuple[int, Path]:
    """asv's exit code, 0 or 2, and the run. Raises UserError if it could not run."""
    run = runs.new_path(RESULTS / machines.this(machine), commit)
    with measuring.running(measuring.arguments("HEAD", profile, machine), run, profile, LOG) as process:
        measuring.watch(process, run, measuring.expected(profile), console)
        if process.returncode not in (0, 2) or not ledger.finished(ledger.read(run)):
            reason = measuring.last_line(LOG.read_text(errors="replace"))
            raise command.UserError(f"asv measured nothing: {reason} (all of it: {LOG})")
        runs.complete(run)
        return process.returncode, run


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("--profile", choices=cases.PROFILES, default="quick", help="default: quick")
    parser.add_argument("--machine", metavar="NAME", help="asv's name of this machine; default: its host name")
    parser.add_argument("--json", type=command.file_path, metavar="FILE", help="also write the table's rows as JSON")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = command.console()
    commit = git.output("rev-parse", "HEAD")
    if git.changed("adamw"):
        console.print("note: adamw/ has uncommitted changes; what is measured is the commit", markup=False)
    measuring.check_machine(options.machine)
    start = time.perf_counter()
    code, run = run_asv(commit, options.profile, options.machine, console)
    report = table.Report(run)
    table.show(report, command.console(width=command.WIDTH))
    print(next((line for line in reversed(LOG.read_text().splitlines()) if command.OWN_WORK in line), ""), flush=True)
    if options.json:
        table.write_json(report, options.json)
    publish(Path("asv.conf.json"))
    print(f"report: {HTML / 'index.html'}")
    print(f"done in {time.perf_counter() - start:.0f} s")
    return 1 if code or report.failures else 0


if __name__ == "__main__":
    sys.exit(command.run(main))
