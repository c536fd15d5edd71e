"""Counts the cases of a side: a worker process with that side's `adamw` and MLX, asked case by case."""

import json
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness.counters import Counters
from scripts import asv_plugin, command, scratch
from scripts.sides import Side

ANSWER_SECONDS = 300
WORKER = "benchmarks.harness.worker"


class Failure(NamedTuple):
    """Why a case could not be counted."""

    message: str


Counted = Counters | Failure


class Worker:
    """A process that counts cases of `side`, one at a time. Ends with its `with` block, or when this process does."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.log = scratch.folder() / f"worker-{id(self)}.log"
        harness = Path(__file__).parent.parent
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(side.folder), str(harness)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [side.python, "-m", WORKER],
                cwd=scratch.folder(),
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.hello = self._answer()
        if not self.hello:
            raise command.UserError(f"{side}: {self.reason()}")

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def count(self, case: str) -> Counted:
        """The counters of `case`, a failure if there are none; a worker that died is of no more use."""
        try:
            assert self.process.stdin
            self.process.stdin.write(case + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return Failure(self.reason())
        answer = self._answer()
        if not answer:
            self.process.kill()
            return Failure(self.reason())
        return Failure(answer["failed"]) if "failed" in answer else Counters(**answer["counters"])

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def reason(self) -> str:
        code = self.process.wait()
        last = asv_plugin.last_line(self.log.read_text(errors="replace"))
        return f"the process that counts died (exit code {code}): {last[:300]}"

    def _listen(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put("")

    def _answer(self) -> dict[str, Any]:
        """The next answer; empty if the process died or takes too long."""
        try:
            line = self.answers.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            self.process.kill()
            return {}
        return json.loads(line) if line else {}


def check(side: Side) -> None:
    """Raise UserError if MLX does not run, or does not compile, in the interpreter of `side`."""
    done = subprocess.run([side.python, "-c", asv_plugin.PREFLIGHT], capture_output=True, text=True)
    if done.returncode:
        raise command.UserError(f"{side}: {asv_plugin.last_line(done.stderr or done.stdout)}")


def describe(side: Side) -> dict[str, Any]:
    """What a worker of `side` says it is: versions, backend, variants."""
    check(side)
    with Worker(side) as worker:
        if worker.hello["adamw"] != str(side.folder.resolve()):
            raise command.UserError(f"{side}: its adamw comes from {worker.hello['adamw']}; report this")
        return worker.hello


def count(side: Side, cases: Iterable[str], done: Callable[[str], object]) -> dict[str, Counted]:
    """The counters of `cases` on `side`; `done` is told every case. One that kills its process fails alone."""
    counted: dict[str, Counted] = {}
    remaining = list(cases)
    while remaining:
        with Worker(side) as worker:
            while remaining and worker.is_alive:
                case = remaining.pop(0)
                counted[case] = worker.count(case)
                done(case)
    return counted
