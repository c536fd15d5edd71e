"""Take the suite onto an NVIDIA GPU: six minutes, one file and one table.

What the card is and how fast it streams; whether the GPU kernels of this project are AdamW; what MLX donates to and
what a step does, beside its CPU backend; the seconds of every variant on six trees, PyTorch and optax in the same run;
the bytes that kernels really moved, where ncu may read them; joules a step. No setting of the card is changed.
"""

import argparse
import contextlib
import importlib.util
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.harness import gpu_process
from benchmarks.harness.peer_process import THREADS
from scripts import command
from scripts.gpu import findings, ncu, tables
from scripts.gpu.process import Part

FILE = Path("gpu-check.json")
SECONDS = 360.0

EPILOG = """examples:
  make gpu-check                                        on a machine with an NVIDIA GPU: sets everything up first
  python -m scripts.gpu_check --seconds 200             in a Python that has MLX for CUDA; no network is needed
  python -m scripts.gpu_check --only machine --only right --json right.json

exit codes: 0 nothing assumed was wrong, 1 something was, 2 error (no GPU that MLX runs on), 130 interrupted

The file is written after everything that is found: whatever ends the command, it has what was found so far.
"""


def plan() -> dict[str, list[list[str]]]:
    """The parts by name, in the order in which they run: the words of each of their processes."""
    kernels = [
        ["right", variant, dtypes]
        for variant in gpu_process.OWN
        for dtypes in ("float32", "float16", "bfloat16", "mixed", "all_different")
        if (variant, dtypes) != ("kernel_inplace", "all_different")  # it leaves moments of two dtypes to upstream
    ]
    return {
        "machine": [["machine"], ["torch"]],
        "right": kernels,
        "counters": [["counters", "gpu"], ["counters", "cpu"]],
        "steps": [["steps", tree] for tree in gpu_process.TREES],
        "peers": [["peers", "torch_fused"], ["peers", "torch_foreach"]],
        "traffic": [["traffic"]],
        "energy": [["energy"], ["torch_energy"]],
        "optax": [["peers", "optax"]],
        "card": [["card"]],
    }


UNTIMED = ("right", "counters")
"""Parts that measure no time, so that their processes run at once."""


def groups(wanted: list[str]) -> list[list[list[str]]]:
    """The processes of the `wanted` parts: those of a group run at once, one group after the other."""
    found: list[list[list[str]]] = []
    for untimed, names in itertools.groupby(wanted, UNTIMED.__contains__):
        words = [words for name in names for words in plan()[name]]
        found += [words] if untimed else [[one] for one in words]
    return found


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("--only", action="append", choices=plan(), help="only this part; may be given several times")
    parser.add_argument("--skip", action="append", choices=plan(), help="not this part; may be given several times")
    parser.add_argument(
        "--seconds", type=command.positive, default=SECONDS, metavar="S", help=f"after which it ends; {SECONDS:g}"
    )
    parser.add_argument("--json", type=command.file_path, default=FILE, metavar="FILE", help=f"default: {FILE}")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else command.WIDTH)
    wanted = [name for name in plan() if name in (options.only or plan()) and name not in (options.skip or ())]
    lines: list[dict[str, Any]] = []
    for line in looked(groups(wanted), time.monotonic() + options.seconds):
        lines.append(line)
        command.write_json(options.json, {"lines": lines})
        say(line, console)
        if line["what"] == "machine" and line["backend"] != "CUDA":
            raise command.UserError(
                f"MLX runs on {line['backend']} here: {line['description']}; "
                "gpu-check is for an NVIDIA GPU: install MLX for it, `make gpu-check BACKEND=cuda13`"
            )
    found = findings.all(lines)
    command.write_json(options.json, {"lines": lines, "findings": [one._asdict() for one in found]})
    tables.show(lines, found, console)
    console.print(f"written: {options.json}", markup=False, highlight=False, soft_wrap=True)
    return int(any(one.holds is False for one in found))


def looked(groups: list[list[list[str]]], until: float) -> Iterator[dict[str, Any]]:
    """What every process finds, one group at once after the other.

    The next process is started ahead, so that it has imported when it is told to begin.
    """
    if importlib.util.find_spec("mlx") is None:
        raise command.UserError("this Python has no MLX; install it for CUDA 13: pip install 'mlx[cuda13]'")
    with tempfile.TemporaryDirectory(prefix="adamw-gpu-") as folder, contextlib.ExitStack() as stack:
        ahead: list[Part] = []
        for group, following in zip(groups, [*groups[1:], []], strict=True):
            current = ahead or [begun(words, folder, stack) for words in group]
            ahead = [begun(words, folder, stack) for words in following] if len(following) == 1 else []
            for part in current:
                if time.monotonic() < until:
                    part.begin()
            for part in current:
                if time.monotonic() >= until:
                    yield part.lost("no time was left: not begun")
                elif part.words == ["traffic"]:
                    yield from profiled(part, folder, until)
                else:
                    yield from part.lines(until - time.monotonic())
                part.close()


def begun(words: list[str], folder: str, stack: contextlib.ExitStack) -> Part:
    """The process of a part, which waits to be told to begin."""
    variables = {THREADS: str(os.cpu_count() or 1)}
    before = (ncu.command(f"{folder}/ncu.csv") or []) if words == ["traffic"] else []
    if words == ["traffic"]:
        variables |= {"MLX_USE_CUDA_GRAPHS": "0"}  # a kernel is profiled by itself
    part = Part(words, folder, before, **variables)
    stack.callback(part.close)
    return part


def profiled(part: Part, folder: str, until: float) -> Iterator[dict[str, Any]]:
    """The bytes that the kernels of every profiled case moved."""
    if ncu.command("") is None:
        yield part.lost("not available here: ncu, NVIDIA's profiler, is not installed")
        return
    names = []
    for line in part.lines(until - time.monotonic()):
        if line["what"] == "profiled":
            names.append(line["case"])
        else:
            yield line
    log = Path(folder, "ncu.csv")
    text = log.read_text(errors="replace") if log.exists() else ""
    if refused := ncu.refusal(text):
        yield part.lost(f"not available here: ncu says {refused}")
    yield from ncu.per_case(ncu.kernels(text), names, gpu_process.MARKER)


def say(line: dict[str, Any], console: Console) -> None:
    """One line of progress."""
    if text := tables.progress(line):
        console.print(f"[{time.strftime('%H:%M:%S')}] {text}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(command.run(main))
