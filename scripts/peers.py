"""Put every variant beside PyTorch, optax and bitsandbytes: the same trees and precisions, a process each."""

import argparse
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd
import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import adamw
from benchmarks.harness import cases, trees
from benchmarks.harness.cases import Case
from benchmarks.harness.ceiling import Ceiling
from benchmarks.harness.files import write_whole
from benchmarks.harness.peer_process import THREADS
from benchmarks.harness.peers import PEERS
from scripts import asv_plugin, command, scratch, table, text

WORKER = [sys.executable, "-m", "benchmarks.harness.peer_process"]
ROOT = Path(__file__).parent.parent
OUTCOMES = {"failed", "skipped"}

LONGEST = 1800
"""Seconds that a process may take."""

DEFAULT = "/(float32|bfloat16)(_8bit)?/(gpt2|resnet50|one_leaf|thousand_leaves)$"
YARDSTICK = "torch_fused"
SMALLEST = 4 * 2**20
"""Bytes of resident ideal below which a process's own size says nothing about the arrays in it."""

NOTES = [
    "bias correction is on everywhere: the peers always have it",
    "± %: half the interquartile range; GB/s: ideal bytes of the precision over the median",
    "error: largest relative error of w, m and v against float64 after three steps",
    "cores: CPU seconds over seconds; less than the threads that work: another process held a core",
    f"x torch: time over {YARDSTICK}'s, on the same tree with parameters of the same dtype",
]

PEAK_SOURCES = {
    "MLX": "by MLX's own counter",
    "VmHWM": "by the process's VmHWM from the second step on, above what was resident before the arrays",
    "ru_maxrss": "by the process's ru_maxrss since its start, above what was resident before the arrays",
    None: "not measured: a GPU, or arrays that are less than 4 MiB of a process",
}

EPILOG = """examples:
  python -m scripts.peers --json peers.json       four trees, float32 and bfloat16, all cores
  python -m scripts.peers --case 'float32/resnet50|float32_8bit/resnet50' --threads 1

A case is NAME/PRECISION/TREE: torch_fused/float32/gpt2, optax/bfloat16/leaf_1048576, windowed/mixed/resnet50.
The peers come with `pip install -e '.[peers]'`; on Linux install torch from its CPU wheels first.

exit codes: 0 every case that can run was measured, 1 a case failed (the table says which), 2 error, 130 interrupted
"""

Row = dict[str, Any]
"""A case's name, workload and threads, and its figures, or why there are none: `failed` or `skipped`."""

Key = TypeVar("Key")


class LeftOut(NamedTuple):
    """A variant or peer that was not measured somewhere, and why. `place`: a precision or workload; empty: nowhere."""

    name: str
    place: str
    reason: str


def title(case: Case) -> str:
    """The name of a case; bias correction goes without saying."""
    return f"{case.variant}/{workload(case)}"


def workload(case: Case) -> str:
    return f"{case.precision_name}/{case.tree_name}"


def chosen(pattern: str) -> list[Case]:
    """Every case whose name `pattern` finds, whether it can run or not, block by block. Raises UserError."""
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise command.UserError(f"--case {pattern!r} is no regular expression: {error}") from error
    every = [
        Case(name, precision, tree, bias_correction=True)
        for tree in [*trees.CATALOGUE, *(f"leaf_{size}" for size in trees.SWEEP)]
        for precision in sorted(cases.PRECISIONS)
        for name in [*adamw.names(), *PEERS]
    ]
    found = [case for case in every if wanted.search(title(case))]
    if not found:
        raise command.UserError(f"no case matches {pattern!r}; names are like torch_fused/float32/gpt2")
    return found


def why_not(case: Case, unavailable: dict[str, str]) -> LeftOut | None:
    """Why `case` is not to be measured; None if it can be."""
    name, precision = case.variant, case.precision_name
    peer = PEERS.get(name)
    if name in unavailable:
        return LeftOut(name, "", unavailable[name])
    if absent := [package for package in (peer.packages if peer else ()) if not importlib.util.find_spec(package)]:
        install = f"{sys.executable} -m pip install {' '.join(absent)}"
        return LeftOut(name, "", f"{' and '.join(absent)} not installed; install with: {install}")
    if precision not in (peer.precisions if peer else cases.precisions(name)):
        return LeftOut(name, precision, peer.limit if peer else "not among the precisions that it names")
    return None


def ask(arguments: Iterable[str], threads: int) -> dict[str, Any]:
    """What a process of the harness answers; `failed` with the reason if it dies. Nothing of it outlives this."""
    folder = scratch.folder()
    log = folder / "peer.log"
    settings = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(folder), THREADS: str(threads)}
    with log.open("w") as file:
        process = subprocess.Popen(
            [*WORKER, *arguments],
            cwd=folder,
            env=os.environ | settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            start_new_session=True,  # Ctrl-C is for the command, which ends this
        )
        try:
            answer, _ = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            return {"failed": f"took longer than {LONGEST} s"}
        finally:
            command.kill(process)
    if answer:
        return json.loads(answer)
    last = asv_plugin.last_line(log.read_text(errors="replace"))
    return {"failed": f"its process died (exit code {process.returncode}): {last}"}


def measured(case: Case, allowed: dict[str, Any], threads: int) -> Row:
    """The row of a case: its figures, or `failed` with the reason, or `skipped` if memory is short."""
    about = {"name": case.variant, "workload": workload(case), "tree": case.tree_name, "threads": threads}
    free = psutil.virtual_memory().available
    if case.needed_bytes > free:
        return about | {"skipped": f"needs {case.needed_bytes / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"}
    answer = ask([case.variant, case.precision_name, case.tree_name, allowed["backend"]], threads)
    if "failed" in answer:
        return about | {"failed": command.one_line(answer["failed"])}
    return about | figures(case, answer, allowed)


def figures(case: Case, answer: dict[str, Any], allowed: dict[str, Any]) -> Row:
    """What the samples and counters of a case come to, in the units of the table."""
    ceiling = Ceiling(**allowed["ceiling"])
    lower, median, upper = pd.Series(answer["seconds"]).quantile([0.25, 0.5, 0.75])
    rate = case.ideal_bytes / median
    measurable = answer["peak"] is not None and (case.resident_bytes >= SMALLEST or answer["memory_source"] == "MLX")
    in_cache = rate > ceiling.bytes_per_second or case.resident_bytes <= (allowed["cache_bytes"] or 0)
    return {
        "milliseconds": median * 1e3,
        "spread": (upper - lower) / median,
        "samples": len(answer["seconds"]),
        "gigabytes_per_second": rate / 1e9,
        "ceiling_fraction": rate / ceiling.bytes_per_second,
        "peak_bytes": answer["peak"] if measurable else None,
        "peak_ratio": answer["peak"] / case.resident_bytes if measurable else None,
        "memory_source": answer["memory_source"] if measurable else None,
        "error": answer["error"],
        "cores": answer["busy"],
        "notes": "cache" if in_cache else "",
        "environment": answer["environment"],
    }


def add_ratios(rows: list[Row]) -> None:
    """Give every row its time over the yardstick's on the same tree and dtype of parameters, None without it."""

    def key(row: Row) -> tuple[str, str]:
        return row["tree"], cases.PRECISIONS[row["workload"].split("/")[0]].parameter

    yardsticks = {key(row): row["milliseconds"] for row in rows if row["name"] == YARDSTICK and "milliseconds" in row}
    for row in rows:
        if "milliseconds" in row:
            row["ratio"] = row["milliseconds"] / yardsticks[key(row)] if key(row) in yardsticks else None


def measure_all(wanted: list[Case], allowed: dict[str, Any], threads: int, console: Console) -> Iterator[Row]:
    """The row of every case, one process after the other, with progress; without a terminal, a line a case."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_interactive) as progress:
        task = progress.add_task("measuring", total=len(wanted))
        for number, case in enumerate(wanted, start=1):
            progress.update(task, description=title(case))
            row = measured(case, allowed, threads)
            progress.update(task, advance=1)
            if not console.is_interactive:
                outcome = f"{row['milliseconds']:.3g} ms" if "milliseconds" in row else " ".join(row.keys() & OUTCOMES)
                done = f"[{time.strftime('%H:%M:%S')}] {number}/{len(wanted)} {title(case)}: {outcome}"
                console.print(done, markup=False, highlight=False, soft_wrap=True)
            yield row


def shown(rows: list[Row]) -> Table:
    """A block a workload, the fastest first, what failed last."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    drawn.add_column("\nworkload", no_wrap=True)
    headings = ("\nms", "\n± %", "\nGB/s", "% of\nceiling", "peak/\nideal", "\nerror", "\ncores", "x\ntorch")
    for heading in headings:
        drawn.add_column(heading, justify="right", no_wrap=True)
    drawn.add_column("\nnote", no_wrap=True)
    for number, name in enumerate(dict.fromkeys(row["workload"] for row in rows)):
        if number:
            drawn.add_row()
        drawn.add_row(name, style="bold")
        block = [row for row in rows if row["workload"] == name]
        for row in sorted(block, key=lambda row: row.get("milliseconds", float("inf"))):
            drawn.add_row(f"  {row['name']}", *(cells(row) if "milliseconds" in row else ["failed"]))
    return drawn


def cells(row: Row) -> list[str]:
    def ratio(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    return [
        f"{row['milliseconds']:.3g}" if row["milliseconds"] < 1000 else f"{row['milliseconds']:.0f}",
        f"{row['spread'] * 50:.0f}",
        f"{row['gigabytes_per_second']:.3g}",
        f"{row['ceiling_fraction']:.1%}".rstrip("%"),
        ratio(row["peak_ratio"]),
        f"{row['error']:.0e}",
        ratio(row["cores"]),
        ratio(row["ratio"]),
        row["notes"],
    ]


def grouped(pairs: Iterable[tuple[str, Key]]) -> dict[Key, str]:
    """For every second part of `pairs` the first parts that come with it, as a list to be read."""
    found: dict[Key, list[str]] = {}
    for first, second in pairs:
        found.setdefault(second, []).append(first)
    return {second: ", ".join(dict.fromkeys(firsts)) for second, firsts in found.items()}


def lines(left_out: list[LeftOut]) -> list[str]:
    """What was left out, in few lines: places of which the same is true together, then names."""
    places = grouped((left.place, (left.name, left.reason)) for left in left_out)
    names = grouped((name, (place, reason)) for (name, reason), place in places.items())
    return [f"{names[key]}{' on ' * bool(key[0])}{key[0]}: {key[1]}" for key in names]


def describe(rows: list[Row], allowed: dict[str, Any], threads: int) -> list[str]:
    """What ran where, on what, against what, and what the columns mean."""
    done = [row for row in rows if "milliseconds" in row]
    sources = grouped((row["name"], PEAK_SOURCES[row["memory_source"]]) for row in done)
    environments = grouped((row["name"], row["environment"]) for row in done)
    cache = [f"cache: {table.NOTES['cache']}"] if any(row["notes"] for row in done) else []
    return [
        f"{allowed['machine']}, Python {platform.python_version()}",
        f"% of ceiling: {Ceiling(**allowed['ceiling'])}",
        f"threads: {threads} for each{'; MLX itself uses one on a CPU' * (allowed['backend'] == 'CPU')}",
        *NOTES,
        *(f"peak/ideal of {names}: {source}" for source, names in sources.items()),
        *cache,
        *(f"{names}: {environment}" for environment, names in environments.items()),
    ]


def as_csv(rows: list[Row]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return text.csv(columns, (map(row.get, columns) for row in rows))


def thread_count(text: str) -> int:
    cores = os.cpu_count() or 1
    if not (text.isdecimal() and 1 <= int(text) <= cores):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads from 1 to {cores}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("--case", metavar="REGEX", default=DEFAULT, help=f"default: {DEFAULT}")
    parser.add_argument("--threads", metavar="N", type=thread_count, default=os.cpu_count() or 1, help="default: all")
    parser.add_argument("--json", type=command.file_path, metavar="FILE", help="also write the rows as JSON")
    parser.add_argument("--csv", type=command.file_path, metavar="FILE", help="also write the rows as CSV")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    candidates = chosen(options.case)
    progress = command.console(stderr=True)
    progress.print("measuring what this machine allows", highlight=False)
    allowed = ask(["machine"], options.threads)
    if "failed" in allowed:
        reason = command.one_line(allowed["failed"])
        hint = (
            "; try `make setup`"
            if reason.startswith(("ImportError", "ModuleNotFoundError")) and "mlx" in reason
            else ""
        )
        raise command.UserError(f"MLX does not run here: {reason}{hint}")
    reasons = {case: why_not(case, allowed["unavailable"]) for case in candidates}
    able = [case for case in candidates if not reasons[case]]
    rows = list(measure_all(able, allowed, options.threads, progress))
    left_out = [reason for reason in reasons.values() if reason]
    left_out += [LeftOut(row["name"], row["workload"], row["skipped"]) for row in rows if "skipped" in row]
    rows = [row for row in rows if "skipped" not in row]
    add_ratios(rows)
    show(rows, describe(rows, allowed, options.threads), lines(left_out))
    if options.json:
        command.write_json(options.json, {"machine": allowed, "rows": rows, "left_out": lines(left_out)})
    if options.csv:
        write_whole(options.csv, as_csv(rows))
    return 1 if any("failed" in row for row in rows) else 0


def show(rows: list[Row], description: list[str], left_out: list[str]) -> None:
    console = command.console(width=command.WIDTH)
    console.print(shown(rows))
    for line in ["", *description, "", *(f"left out: {line}" for line in left_out)]:
        console.print(line, markup=False, highlight=False)
    for row in rows:
        if "failed" in row:
            failure = f"FAILED {row['name']}/{row['workload']}: {row['failed']}"
            console.print(failure, markup=False, highlight=False, style="red")


if __name__ == "__main__":
    sys.exit(command.run(main))
