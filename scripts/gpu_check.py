"""Take the suite onto an NVIDIA GPU: six minutes, one file and one table.

What the card is and how fast it streams; whether the GPU kernels of this project are AdamW; what MLX donates to and
what a step does, beside its CPU backend; the seconds of every variant on six trees, PyTorch and optax in the same run;
the bytes that kernels really moved, where ncu may read them; joules a step. No setting of the card is changed.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.harness import ncu, numbers
from benchmarks.harness.files import append_line
from benchmarks.harness.gpu.chosen import OWN, TREES
from benchmarks.harness.gpu.lines import BUS
from benchmarks.harness.peer_process import THREADS
from scripts import command, git
from scripts.gpu import findings, tables
from scripts.gpu.process import NO_TIME, Part

FILE = Path("gpu-check.jsonl")
SECONDS = 360.0

EPILOG = """examples:
  make gpu-check                                        on a machine with an NVIDIA GPU: sets everything up first
  python -m scripts.gpu_check --seconds 200             in a Python that has MLX for CUDA; no network is needed
  python -m scripts.gpu_check --only machine --only right --json right.jsonl
  python -m scripts.gpu_check --show results/gpu/nvidia-h200/2026-11-27.jsonl
                                                        what was found once; no GPU is needed

exit codes: 0 nothing assumed was wrong, 1 something was, 2 error (no GPU that MLX runs on), 130 interrupted

The file has a line of JSON for everything that is found, as soon as it is: whatever ends the command, it is there. A
second run is added to it, and --show shows the last.
"""


def plan() -> dict[str, list[list[str]]]:
    """The parts by name, in the order in which they run: the words of each of their processes."""
    kernels = [
        ["right", variant, dtypes]
        for variant in OWN
        for dtypes in ("float32", "float16", "bfloat16", "mixed", "all_different")
        if (variant, dtypes) != ("kernel_inplace", "all_different")  # it leaves moments of two dtypes to upstream
    ]
    return {
        "machine": [["machine"], ["torch"]],
        "right": kernels,
        "counters": [["counters", "gpu"], ["counters", "cpu"]],
        "steps": [["steps", tree] for tree in TREES],
        "peers": [["peers", "torch_fused"], ["peers", "torch_foreach"]],
        "traffic": [["traffic"]],
        "energy": [["energy"], ["torch_energy"]],
        "optax": [["peers", "optax"]],
        "card": [["card"]],
    }


LONGEST = 90.0
"""Seconds that a process may take: one that hangs is to leave time for the others."""

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
    parser.add_argument("--show", type=Path, metavar="FILE", help="look at nothing; print what a file has")
    parser.add_argument("--json", type=command.file_path, default=FILE, metavar="FILE", help=f"default: {FILE}")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = command.console()
    if options.show:
        return told(read(options.show), console)
    wanted = [name for name in plan() if name in (options.only or plan()) and name not in (options.skip or ())]
    lines: list[dict[str, Any]] = []
    begin = {"what": "begun", "commit": git.here(), "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    os.environ.pop(BUS, None)
    for line in itertools.chain([begin], looked(groups(wanted), time.monotonic() + options.seconds)):
        lines.append(line)
        append_line(options.json, numbers.line(line))
        say(line, console)
        if why := no_gpu(line):
            raise command.UserError(why)
        if line["what"] == "settings":  # for the processes that are started from now on
            os.environ[BUS] = str(line["device_info"].get("pci_bus_id", ""))
    code = told(lines, console)
    console.print(f"written: {options.json}", markup=False, highlight=False, soft_wrap=True)
    return code


def no_gpu(line: dict[str, Any]) -> str | None:
    """Why nothing further can be found out, if `line` says that MLX runs on no NVIDIA GPU here; else None."""
    if line["what"] == "machine" and line["backend"] != "CUDA":
        return (
            f"MLX runs on {line['backend']} here: {line['description']}; "
            "gpu-check is for an NVIDIA GPU: install MLX for it, `make gpu-check BACKEND=cuda13`"
        )
    if line["what"] == "lost" and line["part"] == "machine" and not line["why"].startswith(NO_TIME):
        return f"MLX does not run here: {line['why']}"
    return None


def told(lines: list[dict[str, Any]], console: Console) -> int:
    """Print what was found; 1 if something was assumed that is wrong, else 0."""
    found = findings.judged(lines)
    tables.show(lines, found, console)
    return int(any(one.holds is False for one in found))


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of the last run in a file; one that was cut short is passed over. Raises UserError."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise command.UserError(f"{path} cannot be read: {command.one_line(str(error))}") from error
    lines = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    kept = [line for line in lines if isinstance(line, dict) and isinstance(line.get("what"), str)]
    if not kept:
        raise command.UserError(f"{path} has nothing that gpu-check found; name a file that it wrote")
    begun = [place for place, line in enumerate(kept) if line["what"] == "begun"]
    return kept[begun[-1] if begun else 0 :]


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
            if time.monotonic() >= until:
                yield from (part.lost(f"{NO_TIME}: not begun") for part in current)
            else:
                yield from at_once([partial(finding, part, folder, until) for part in current])
            for part in current:
                part.close()


def finding(part: Part, folder: str, until: float) -> Iterator[dict[str, Any]]:
    """What a part finds within its time."""
    seconds = min(until - time.monotonic(), LONGEST)
    return profiled(part, folder, seconds) if part.words == ["traffic"] else part.lines(seconds)


def at_once(looks: list[Callable[[], Iterator[dict[str, Any]]]]) -> Iterator[dict[str, Any]]:
    """What all `looks` find, each in a thread, as they find it."""
    found: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def gather(look: Callable[[], Iterator[dict[str, Any]]]) -> None:
        with contextlib.suppress(ValueError):  # of a process that was closed, since nobody looks any further
            for line in look():
                found.put(line)
        found.put(None)

    for look in looks:
        threading.Thread(target=gather, args=(look,), daemon=True).start()
    running = len(looks)
    while running:
        line = found.get()
        if line is None:
            running -= 1
        else:
            yield line


def begun(words: list[str], folder: str, stack: contextlib.ExitStack) -> Part:
    """The process of a part, which waits to be told to begin."""
    variables = {THREADS: str(os.cpu_count() or 1)}
    before = (ncu.command(f"{folder}/ncu.csv") or []) if words == ["traffic"] else []
    if words == ["traffic"]:
        variables |= ncu.SETTINGS
    part = Part(words, folder, before, **variables)
    stack.callback(part.close)
    return part


def profiled(part: Part, folder: str, seconds: float) -> Iterator[dict[str, Any]]:
    """The bytes that the kernels of every profiled case moved."""
    if ncu.command("") is None:
        yield part.lost("not available here: ncu, NVIDIA's profiler, is not installed")
        return
    names = []
    for line in part.lines(seconds):
        if line["what"] == "profiled":
            names.append(line["case"])
        else:
            yield line
    log = Path(folder, "ncu.csv")
    text = log.read_text(errors="replace") if log.exists() else ""
    if refused := ncu.refusal(text):
        yield part.lost(f"not available here: ncu says {refused}")
    yield from ncu.per_case(ncu.kernels(text), names)


def say(line: dict[str, Any], console: Console) -> None:
    """One line of progress."""
    if text := tables.progress(line):
        console.print(f"[{time.strftime('%H:%M:%S')}] {text}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(command.run(main))
