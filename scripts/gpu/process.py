"""A part of a GPU check in a process of its own: started ahead, told to begin, and ended in time."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import IO, Any, cast

from scripts import command

MODULE = "benchmarks.harness.gpu.process"
NO_TIME = "no time was left"


class Part:
    """A process that looks at one part, behind the words of a profiler if there are any."""

    def __init__(self, words: Sequence[str], folder: str, before: Sequence[str] = (), **variables: str) -> None:
        self.words = list(words)
        self.errors = Path(folder, f"{'-'.join(words)}.log")
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", MODULE, *words],
                env=os.environ | {"TMPDIR": folder, "PYTHONDONTWRITEBYTECODE": "1"} | variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is for the command, which ends this
            )

    def begin(self) -> None:
        """Tell it to begin, once."""
        stdin = cast(IO[str], self.process.stdin)
        if not stdin.closed:
            with suppress(BrokenPipeError):  # how it ended is told by `lines`
                stdin.write("go\n")
                stdin.close()

    def lines(self, seconds: float) -> Iterator[dict[str, Any]]:
        """What it finds, as it finds it; a line with `why` if it dies or has not done within `seconds`."""
        late = Timer(seconds, self.end)
        late.start()
        try:
            self.begin()
            for line in cast(IO[str], self.process.stdout):
                if line.startswith("{"):
                    yield json.loads(line)
            code = self.process.wait()
            if not late.is_alive():
                yield self.lost(f"{NO_TIME}: ended after {seconds:.0f} s")
            elif code:
                yield self.lost(f"its process died (exit code {code}): {self.last_line()}")
        finally:
            late.cancel()

    def lost(self, why: str) -> dict[str, Any]:
        return {"what": "lost", "part": " ".join(self.words), "why": why}

    def last_line(self) -> str:
        """The last thing it said on standard error."""
        with suppress(OSError):  # who does not look any further has removed it
            written = [line.strip() for line in self.errors.read_text(errors="replace").splitlines() if line.strip()]
            return written[-1][:300] if written else "no word"
        return "no word"

    def end(self) -> None:
        """End it and all it started, whatever it is doing."""
        command.kill(self.process)

    def close(self) -> None:
        """End it if it still runs, and leave nothing open."""
        if self.process.poll() is None:
            self.end()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                cast(IO[str], stream).close()
