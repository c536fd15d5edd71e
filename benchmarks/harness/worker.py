"""A process that counts cases for `scripts.compare`, with the `adamw` and the MLX that its interpreter finds.

It reads a case a line from its standard input and answers each with a line of JSON; the first line says what it is.
When the input ends, or whoever started it is gone, so does the process, even in the middle of a case.
"""

import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO


def main() -> None:
    answers = own_output()
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="adamw-kernels-", dir=os.getcwd()) as folder:
        os.environ["TMPDIR"] = folder  # MLX finds its compiled kernels by name, not by content
        for answer in serve(sys.stdin):
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def own_output() -> TextIO:
    """Standard output for the answers alone: whatever a variant prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def serve(lines: TextIO) -> Iterator[dict[str, Any]]:
    """An answer that describes this process, then one to every line of `lines`."""
    import adamw
    from benchmarks.harness import cases, donation, machine, primitives
    from benchmarks.harness.count import count
    from benchmarks.harness.run import unavailable

    yield {
        "mlx": version("mlx"),
        "python": platform.python_version(),
        "backend": machine.backend(),
        "adamw": str(Path(adamw.__file__).parent.parent),
        "variants": [name for name in adamw.names() if not unavailable(name)],
        "unavailable": {name: reason for name in adamw.names() if (reason := unavailable(name))},
        "tells_primitives": primitives.available(),
        "donation": donation.measure()._asdict(),
    }
    for line in lines:
        variant, _, workload = line.strip().partition("/")
        try:
            yield {"counters": count(cases.case(variant, workload, adamw.names()))._asdict()}
        except Exception as error:
            yield {"failed": f"{type(error).__name__}: {error}"[:500]}


if __name__ == "__main__":
    main()
