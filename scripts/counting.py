"""Counts the cases of a side: a worker process with that side's `adamw` and MLX, asked case by case."""

import argparse
import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.harness import cases
from benchmarks.harness.cases import Case
from benchmarks.harness.counters import FIGURES, Counters
from scripts import asv_plugin, command, scratch
from scripts.sides import Side

ANSWER_SECONDS = 300
FEW = 20
"""Cases that are counted in no time worth announcing."""

WORKER = "benchmarks.harness.worker"


class Failure(NamedTuple):
    """Why a case could not be counted, in one line."""

    message: str


Counted = Counters | Failure


class Worker:
    """A process that counts cases of `side`, one at a time. It ends with its `with` block, or when this process does.

    A case that kills the process fails, and the next one gets a new process. `hello` is what the process says it is.
    """

    def __init__(self, side: Side) -> None:
        check(side)
        self.side = side
        self.stopped = self.late = False
        self.hello = self._start()
        if not self.hello:
            raise command.UserError(f"{side}: {self._reason()}")
        if Path(self.hello["adamw"]).resolve() != side.folder.resolve():
            raise command.UserError(
                f"{side}: its adamw comes from {self.hello['adamw']}; unset PYTHONPATH and try again"
            )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def count(self, case: str) -> Counted:
        """The counters of `case`, or a failure that says why there are none."""
        if self.stopped:
            return Failure("stopped")
        if self.process.poll() is not None:
            self._start()
        try:
            assert self.process.stdin
            self.process.stdin.write(case + "\n")
            self.process.stdin.flush()
            answer = self._answer()
        except BrokenPipeError:
            answer = {}
        if not answer:
            return Failure(self._reason())
        return Failure(one_line(answer["failed"])) if "failed" in answer else Counters(**answer["counters"])

    def stop(self) -> None:
        """Count no more, and end the process."""
        self.stopped = True
        self._kill()

    def _start(self) -> dict[str, Any]:
        """Start the process; its first answer, empty if it died."""
        self.log = scratch.folder() / f"worker-{id(self)}.log"
        paths = [str(self.side.folder), str(Path(__file__).parent.parent)]
        settings = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [self.side.python, "-m", WORKER],
                cwd=scratch.folder(),
                env=os.environ | settings,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the command, which ends this
            )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=listen, args=(self.process, self._answers), daemon=True).start()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        """The next answer; empty if the process died or takes too long."""
        try:
            line = self._answers.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            line, self.late = "", True
        if not line:
            self._kill()
        return json.loads(line) if line else {}

    def _kill(self) -> None:
        """End the process and the compilers it started, which would go on writing into a folder that is removed."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _reason(self) -> str:
        code, late, self.late = self.process.wait(), self.late, False
        if late:
            return f"took longer than {ANSWER_SECONDS} s"
        last = asv_plugin.last_line(self.log.read_text(errors="replace"))
        return one_line(f"the process that counts died (exit code {code}): {last}")


def one_line(text: str) -> str:
    """`text` as one printable line of at most 300 characters."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())[:300]


def listen(process: subprocess.Popen, answers: queue.Queue[str]) -> None:
    """Hand on every line of `process`, and at its end an empty one."""
    assert process.stdout
    for line in process.stdout:
        answers.put(line)
    process.wait()
    answers.put("")


def check(side: Side) -> None:
    """Raise UserError if MLX does not run, or does not compile, in the interpreter of `side`."""
    done = subprocess.run([side.python, "-c", asv_plugin.PREFLIGHT], capture_output=True, text=True)
    if done.returncode:
        raise command.UserError(f"{side}: {asv_plugin.last_line(done.stderr or done.stdout)}")


def count(workers: list[Worker], wanted: list[Case], console: Console) -> list[dict[str, Counted]]:
    """For every worker the counters of those `wanted` cases whose variant it has; all at once, with progress."""
    names = [[str(case) for case in wanted if case.variant in worker.hello["variants"]] for worker in workers]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    total = sum(map(len, names))
    if not console.is_terminal and total > FEW:
        print(f"counting {total} cases, one to three minutes for two hundred", file=sys.stderr)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("counting", total=total)

        def count_all(worker: Worker, chosen: list[str]) -> dict[str, Counted]:
            counted = {}
            for case in chosen:
                counted[case] = worker.count(case)
                progress.update(task, advance=1, description=case)
            return counted

        with ThreadPoolExecutor() as pool:
            try:
                return list(pool.map(count_all, workers, names))
            except BaseException:
                for worker in workers:
                    worker.stop()
                raise


def select(workers: list[Worker], profile: str, pattern: str | None) -> list[Case]:
    """The cases of `profile`, of every variant that a worker has, whose name `pattern` finds. Raises UserError."""
    try:
        wanted = re.compile(pattern or "")
    except re.error as error:
        raise command.UserError(f"--case {pattern!r} is no regular expression: {error}") from error
    variants = sorted({name for worker in workers for name in worker.hello["variants"]})
    found = [case for case in cases.chosen(variants, profile) if wanted.search(str(case))]
    if not found:
        raise command.UserError(
            f"no case of profile {profile} matches {pattern!r}; names are like compiled/float32/gpt2"
        )
    return found


def missing(counted: dict[str, Counted]) -> dict[str, list[str]]:
    """For every figure that was not told in some case the variants of those cases."""
    told = [(name.partition("/")[0], one) for name, one in counted.items() if isinstance(one, Counters)]
    absent = {
        figure.name: sorted({variant for variant, one in told if getattr(one, figure.name) is None})
        for figure in FIGURES
    }
    return {name: variants for name, variants in absent.items() if variants}


def describe(worker: Worker, counted: dict[str, Counted]) -> list[str]:
    """What was counted on what, and what it could not tell, in lines."""
    hello = worker.hello
    lines = [f"{worker.side}, {hello['backend']} backend, Python {hello['python']}, {len(counted)} cases"]
    lines += [f"  {reason}" for reason in hello["unavailable"].values()]
    for figure, variants in missing(counted).items():
        lines.append(f"  {figure.replace('_', ' ')}: not available in mlx {hello['mlx']} for {', '.join(variants)}")
    return lines


def as_json(worker: Worker, counted: dict[str, Counted]) -> dict[str, Any]:
    figures = {
        name: {"failed": one.message} if isinstance(one, Failure) else one._asdict() for name, one in counted.items()
    }
    return {"name": worker.side.name, "commit": worker.side.commit, **worker.hello, "cases": figures}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that counts."""
    parser.add_argument(
        "--case", metavar="REGEX", help="only the cases whose name it finds; default: all of the profile"
    )
    parser.add_argument("--profile", choices=cases.PROFILES, default="default", help="default: default")
    parser.add_argument("--json", type=command.file_path, metavar="FILE", help="also write every figure as JSON")
