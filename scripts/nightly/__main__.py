"""Measure a night unattended: what is new, what changed, what to do; report and share it.

Looks whether the machine is fit, measures the newest commit and then missed ones as long as there is time, says what a
step does otherwise, searches the history, measures again what is suspected, looks for the commit of what is confirmed,
writes the report and shares the results. It can be killed at any time: the next night goes on where this one ended.
"""

import argparse
import contextlib
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import filelock

from benchmarks.harness import cases
from benchmarks.harness.host import HERE
from scripts import command, machines
from scripts.nightly import night, plan, preflight, settings
from scripts.nightly.night import Night
from scripts.nightly.plan import FOLDER
from scripts.nightly.work import Lane, Work, whole

EPILOG = """examples:
  python -m scripts.nightly --dry-run                    look at the machine, and say what would be measured
  python -m scripts.nightly --profile full --summary night.md

exit codes:
""" + "".join(f"  {code:3}  {meaning}\n" for code, meaning in night.MEANINGS.items())


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument(
        "--settings", type=Path, default=Path("nightly.toml"), metavar="FILE", help="default: nightly.toml"
    )
    parser.add_argument("--profile", choices=cases.PROFILES, help="default: that of the settings")
    parser.add_argument("--machine", metavar="NAME", help="asv's name of this machine; default: that of the settings")
    parser.add_argument("--remote", metavar="R", help="where the results branch is; default: that of the settings")
    parser.add_argument("--no-push", action="store_true", help="pull, but push nothing: scripts.share pack brings it")
    parser.add_argument("--dry-run", action="store_true", help="measure nothing, write nothing")
    parser.add_argument("--summary", type=command.file_path, metavar="FILE", help="add a summary in Markdown to FILE")
    parser.add_argument("--json", type=command.file_path, metavar="FILE", help="write what the night came to as JSON")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    wanted = settings.read(options.settings)
    machine = machines.this(options.machine or wanted.machine)
    push = False if options.no_push else None
    wanted = settings.with_options(wanted, profile=options.profile, machine=machine, remote=options.remote, push=push)
    lanes = [Lane.of(name) for name in wanted.lanes]
    told = Night(wanted.machine)
    work = Work(wanted, told, command.console())
    if options.dry_run:
        return dry_run(work, lanes)
    start = time.monotonic()
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(FOLDER / "lock", timeout=60 * wanted.wait_minutes), awake():
            whole(work, lanes)
    except filelock.Timeout:
        work.say(f"{night.MEANINGS[night.ANOTHER]}: {FOLDER / 'lock'} is held")
        return night.ANOTHER
    except KeyboardInterrupt:
        told.interrupted = 130
    except SystemExit as signalled:
        told.interrupted = int(signalled.code or 0)
    except Exception as error:
        told.error = command.one_line(f"{type(error).__name__}: {error}")
        if not isinstance(error, command.UserError):
            traceback.print_exc()  # nobody's mistake but ours
    told.seconds = time.monotonic() - start
    with command.undisturbed():
        if options.summary:
            night.write_summary(options.summary, night.summary(told))
        if options.json:
            command.write_json(options.json, told.as_json())
        work.say(f"{told.verdict}; {told.seconds:.0f} s" + (f": {told.error}" if told.error else ""))
    return told.code


def dry_run(work: Work, lanes: list[Lane]) -> int:
    """Say what would be done. The exit code is that of a night that is refused, if it would be."""
    found = preflight.run(work.wanted.checks, work.say, wait=False)
    for lane in lanes:
        if not plan.is_here(lane.config):
            work.say(f"{lane.name}: would clone {lane.config.repo}, and measure its newest release")
            continue
        planned = plan.plan(lane.config, lane.name, lane.results, work.wanted.machine, work.wanted.profile)
        for one in planned:
            work.say(f"{lane.name}: would measure {one.commit[:8]}, {one.why}, profile {work.wanted.profile}")
        if not planned:
            work.say(f"{lane.name}: nothing new")
    for line in found.refused:
        work.say(f"refused: {line}")
    return night.UNFIT if found.refused else night.GREEN


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """Keep the machine awake where that can be asked for: as long as this process lives, and no longer."""
    asked = HERE.keep_awake()
    if not asked:
        yield
        return
    keeper = subprocess.Popen(asked)
    try:
        yield
    finally:
        keeper.terminate()
        keeper.wait()


if __name__ == "__main__":
    sys.exit(command.run(main))
