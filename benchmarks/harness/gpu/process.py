"""A process that looks at one part of a GPU, for `scripts.gpu_check`: a line of JSON for everything it finds.

    python -m benchmarks.harness.gpu.process steps gpt2

It waits for a line on standard input before it touches the GPU, so that it can be started ahead: importing takes
seconds. It ends with whoever started it. What a part needs and a machine lacks is a line with `why`.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module

from benchmarks.harness import numbers
from benchmarks.harness.conversation import end_with_parent, own_output
from benchmarks.harness.gpu.lines import Line, importable, in_words

PARTS = {
    "machine": "machine",
    "torch": "card",
    "right": "right",
    "counters": "counters",
    "steps": "steps",
    "peers": "peers",
    "traffic": "traffic",
    "energy": "energy",
    "torch_energy": "peers",
    "card": "card",
}
"""Of every part the module here that has the function of that name."""

WITH_TORCH = ("torch", "peers", "torch_energy")


def main(arguments: list[str]) -> None:
    answers = own_output()
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    part, *rest = arguments
    look = ready(part)
    sys.stdin.readline()
    try:
        for line in look(*rest):
            answers.write(numbers.line(line) + "\n")
            answers.flush()
    except Exception as error:
        answers.write(numbers.line({"what": "lost", "part": " ".join(arguments), "why": in_words(error)}) + "\n")
        answers.flush()


def ready(part: str) -> Callable[..., Iterator[Line]]:
    """The function of a part; what it needs and what takes seconds to import is imported, the GPU is not touched."""
    if part in WITH_TORCH and importable("torch"):
        import_module("torch")
    return getattr(import_module(f"benchmarks.harness.gpu.{PARTS[part]}"), part)


if __name__ == "__main__":
    main(sys.argv[1:])
