"""A process of one side: it runs a module of the harness with that side's `adamw` and MLX, and answers questions."""

import contextlib
import json
import os
import queue
import subprocess
import threading
from pathlib import Path
from typing import Any

from scripts import asv_plugin, command, scratch
from scripts.sides import Side

ROOT = Path(__file__).parent.parent


class Lost(Exception):
    """The process died or did not answer in time; the message says why, in one line."""


class Worker:
    """A process that runs `module` for `side`. It ends with its `with` block, or when this process does.

    folder  it works there; default: one that goes when this process does
    """

    def __init__(
        self, side: Side, module: str, environment: dict[str, str] | None = None, folder: str | None = None
    ) -> None:
        self.log = scratch.folder() / f"worker-{id(self)}.log"
        paths = os.pathsep.join([str(side.folder), str(ROOT)])
        settings = {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [side.python, "-m", module],
                cwd=folder or scratch.folder(),
                env=command.uncoloured() | settings | (environment or {}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the command, which ends this
            )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=listen, args=(self.process, self._answers), daemon=True).start()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def tell(self, line: str) -> None:
        """Send a line, to be answered. A process that is gone is noticed when it is asked for the answer."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def answer(self, seconds: float, left: float | None = None) -> dict[str, Any]:
        """The next answer. Raises Lost, and ends the process, if none comes in `seconds`, of which `left` remain."""
        try:
            line = self._answers.get(timeout=seconds if left is None else max(0.0, left))
        except queue.Empty:
            self.end()
            raise Lost(f"took longer than {seconds:g} s") from None
        if not line:
            self.end()
            raise Lost(self._last_words())
        return json.loads(line)

    def end(self) -> None:
        """End the process and the compilers it started, which would go on writing into a folder that is removed."""
        command.kill(self.process)

    def _last_words(self) -> str:
        last = asv_plugin.last_line(self.log.read_text(errors="replace"))
        return command.one_line(f"its process died (exit code {self.process.returncode}): {last}")


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
