"""Recommend an AdamW for a model: measure every variant here, on the model's shapes and dtypes.

A model is its safetensors files, all of them: named, or followed to from their index or folder.
What is a part of a model, quantized, or of another format is refused.

Of a file only the header is read, and a few bytes of embeddings and heads. Every tensor of
floating-point numbers counts as trained but what its name tells is no weight: running statistics,
masks, positions, frequencies, an optimizer's state; a head that has its embedding's data again;
the model beside an adapter. What is left out is said by name, and what is counted although it may
not be trained; --without leaves that out too.
"""

import argparse
import contextlib
import json
import math
import os
import platform
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

import adamw
from benchmarks.harness import cases, header, machine, model
from benchmarks.harness.model import Model, ModelCase
from benchmarks.harness.trial import Request, Trial
from scripts import advice, asv_plugin, command, scratch
from scripts.advice import Row, Terms, Tried
from scripts.command import one_line
from scripts.table import NOTES, QUIET

WORKER = "benchmarks.harness.trial"
SAMPLED = 0.8
"""Of a case's share of the time, after which no more samples are taken than are needed."""

OVERRUN = 3
"""Shares that a case may take before it is ended: what one takes more, others leave."""

SHORTEST = 1.0
"""Seconds: in less no process does anything."""

EPILOG = """examples:
  python -m scripts.advise model.safetensors
  python -m scripts.advise model.safetensors.index.json --memory-limit 16 --seconds 300
  python -m scripts.advise path/of/a/downloaded/model --without 'lm_head|^vision_tower'
  python -m scripts.advise gpt2 --dtype bfloat16        a tree of benchmarks/harness/trees.py

exit codes: 0 recommended, 1 nothing can be recommended, 2 error, 130 interrupted
"""


def planned(loaded: Model, bias_correction: bool) -> tuple[list[ModelCase], list[Row]]:
    """The cases to try, and rows for the variants that cannot be tried, with the reason."""
    wanted, rows = [], []
    for variant in adamw.names():
        precisions = [name for name in loaded.precisions if name in cases.precisions(variant)]
        if not precisions:
            rows.append(Row(variant, "-", reason=f"not made for {next(iter(loaded.dtypes))}"))
        elif reason := unavailable(variant):
            rows.append(Row(variant, "-", reason=reason))
        else:
            wanted += [model.case(loaded, variant, name, bias_correction) for name in precisions]
    return wanted, rows


def unavailable(variant: str) -> str | None:
    """Why `variant` cannot run here."""
    try:
        return adamw.unavailable(variant)
    except ImportError as error:
        return one_line(str(error))


def measured(wanted: list[ModelCase], options: argparse.Namespace, console: Console) -> Iterator[Row]:
    """A row for every case, each tried in a process of its own, within `options.seconds` together; with progress."""
    if not console.is_interactive:
        print(f"trying {len(wanted)} cases, at most {options.seconds:g} s", file=sys.stderr)
    deadline = time.time() + options.seconds
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_interactive) as progress:
        task = progress.add_task("trying", total=len(wanted))
        for number, case in enumerate(wanted):
            progress.update(task, completed=number, description=f"{case.variant} in {case.precision_name}")
            left = max(0.0, deadline - time.time())
            outcome = attempt(case, options, left / (len(wanted) - number), left)
            row = Row(case.variant, case.precision_name, case.resident_bytes)
            yield row._replace(trial=outcome) if isinstance(outcome, Trial) else row._replace(reason=outcome)


def attempt(case: ModelCase, options: argparse.Namespace, share: float, left: float) -> Trial | str:
    """The trial of `case` in its `share` of the seconds that are `left`, or why there is none."""
    free = machine.free_bytes()
    if case.needed_bytes > free:
        return f"needs {decimal(case.needed_bytes)} of memory, {decimal(free)} are free"
    more = f"try --seconds {math.ceil(4 * options.seconds)}"
    if left < SHORTEST:
        return f"no time was left; {more}"
    request = Request(
        case.variant,
        case.precision_name,
        options.sources,
        options.dtype,
        options.without,
        case.bias_correction,
        time.time() + SAMPLED * share,
    )
    longest = min(left, OVERRUN * share)
    log = scratch.folder() / "trial.log"
    with log.open("w") as errors, process(errors) as worker:
        try:
            output, _ = worker.communicate(json.dumps(request._asdict()), timeout=longest)
        except subprocess.TimeoutExpired:
            return f"not finished in {longest:.0f} s; {more}"
    if worker.returncode or not output:
        last = asv_plugin.last_line(log.read_text(errors="replace"))
        return one_line(f"its process died (exit code {worker.returncode}): {last}")
    answer = json.loads(output)
    return one_line(answer["failed"]) if "failed" in answer else Trial.from_dict(answer["trial"])


@contextlib.contextmanager
def process(errors: Any) -> Iterator[subprocess.Popen]:
    """A process that tries one case; neither it nor the compilers it starts outlive this block."""
    with subprocess.Popen(
        [sys.executable, "-m", WORKER],
        env=os.environ | {"TMPDIR": str(scratch.folder())},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,  # Ctrl-C is for the command, which ends this
    ) as worker:
        try:
            yield worker
        finally:
            command.kill(worker)


def table(rows: list[Row], terms: Terms, chosen: Tried | None) -> Table:
    """A row a case, the fastest first; then those that were not measured."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("\nvariant", "\nprecision"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("\nms", "\n± %", "peak\nGB", "peak/\nideal", "\nerror", "2000\nsteps"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("\nnote", overflow="fold")
    for one in sorted((advice.tried(row) for row in rows if row.trial), key=lambda one: one.median):
        trial = one.row.trial
        assert trial
        is_chosen = chosen is not None and one.row is chosen.row
        notes = ["recommended" if is_chosen else advice.objection(trial, terms)]
        notes += [f"busy {trial.step.busy:.0%}"] * was_disturbed(trial)
        shown.add_row(
            one.row.variant,
            one.row.precision,
            f"{one.median * 1e3:.3g}" if one.median < 1 else f"{one.median * 1e3:.0f}",
            f"{(one.upper - one.lower) / one.median * 50:.0f}",
            f"{one.peak / 1e9:.3g}",
            f"{one.peak / one.row.resident:.2f}",
            f"{trial.error:.0e}",
            f"{trial.behaviour.long_run:.0e}",
            Text(", ".join(filter(None, notes))),
            style="bold" if is_chosen else "",
        )
    for row in rows:
        if not row.trial:
            shown.add_row(row.variant, row.precision, *["-"] * 6, Text(row.reason))
    return shown


def was_disturbed(trial: Trial) -> bool:
    return machine.backend() == "CPU" and trial.step.busy < QUIET


def remarks(rows: list[Row], terms: Terms) -> list[str]:
    """What the table's words mean here, in lines: the precisions, what is inexact, and what is not AdamW."""
    lines = []
    for name in dict.fromkeys(row.precision for row in rows if row.trial):
        precision = cases.PRECISIONS[name]
        if precision.state != precision.parameter:
            master = f", {precision.master} master weights" * bool(precision.master)
            lines.append(f"{name}: {precision.parameter} parameters and gradients, {precision.state} m and v{master}")
    faults: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for fault in row.trial.behaviour.faults if row.trial else []:
            faults.setdefault((row.precision, fault), []).append(row.variant)
    if any(row.trial and advice.objection(row.trial, terms) == advice.INEXACT for row in rows):
        lines.append(
            f"{advice.INEXACT}: the error is more than {advice.STOCHASTIC * terms.tolerance:.0e}, "
            "twice the tolerance of these dtypes"
        )
    if any(row.trial and was_disturbed(row.trial) for row in rows):
        lines.append(f"busy: {NOTES['busy']}; to be sure, run it again on a quiet machine")
    return lines + [
        f"{advice.NOT_ADAMW}: {', '.join(variants)} ({precision}): {fault}"
        for (precision, fault), variants in faults.items()
    ]


def description(loaded: Model, options: argparse.Namespace) -> list[str]:
    """What was measured where, in lines."""
    dtypes = ", ".join(f"{dtype} ({count})" for dtype, count in loaded.dtypes.items())
    return [
        f"{loaded.name}: {len(loaded.leaves)} leaves, {loaded.parameter_count:,} parameters, {dtypes}",
        *loaded.notes,
        f"{machine.identify()}",
        f"mlx {version('mlx')}, Python {platform.python_version()}, "
        f"bias correction {'on' if options.bias_correction else 'off'}",
        "peak: parameters, gradients and state in one step; activations come on top",
        "error: of w, m and v after three steps; 2000 steps: of w's way, 1 is as wrong as not to move",
    ]


def recommendation(chosen: Tried, reason: str, bias_correction: bool) -> list[str]:
    """The variant, why, what to know of it, and the code, in lines."""
    variant, trial = chosen.row.variant, chosen.row.trial
    assert trial
    kind = adamw.load(variant)
    lines = [f"Use {chosen.row}. {reason}", f"{variant}: {(kind.__doc__ or '').splitlines()[0]}"]
    if trial.behaviour.overwrites:
        lines.append("It writes over arrays: whoever else holds old parameters sees them change.")
    if not trial.behaviour.traceable:
        lines.append("A step cannot be part of a function that you compile with mx.compile.")
    if extra := extras(variant):
        lines.append(f"It needs: pip install {' '.join(repr(one) for one in extra)}")
    return [*lines, "", *(f"    {line}" for line in code(chosen.row, bias_correction))]


def code(row: Row, bias_correction: bool) -> list[str]:
    """The code that makes the optimizer, and its state where MLX would not make it of itself."""
    precision = cases.PRECISIONS[row.precision]
    lines = [
        f"from adamw.variants.{row.variant} import AdamW",
        f"optimizer = AdamW(learning_rate=1e-3{', bias_correction=True' * bias_correction})",
    ]
    if precision.state_is_the_variants:
        return [*lines, "optimizer.init(model.trainable_parameters())"]
    if precision.state == precision.parameter:
        return lines
    return [
        "import mlx.core as mx",
        "from mlx.utils import tree_map",
        *lines,
        f"zeros = tree_map(lambda w: mx.zeros(w.shape, mx.{precision.state}), model.trainable_parameters())",
        f"optimizer.init(zeros)  # m and v in {precision.state}",
    ]


def extras(variant: str) -> list[str]:
    """The requirements of the extra that is called like `variant`, if there is one."""
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
    return list(project["optional-dependencies"].get(variant, []))


def as_json(rows: list[Row], loaded: Model, terms: Terms, chosen: Tried | None) -> dict[str, Any]:
    def plain(row: Row) -> dict[str, Any]:
        trial = row.trial.to_dict() | {"objection": advice.objection(row.trial, terms)} if row.trial else None
        return row._asdict() | {"trial": trial}

    return {
        "machine": machine.identify()._asdict(),
        "settings": machine.settings(),
        "model": {
            "name": loaded.name,
            "leaves": len(loaded.leaves),
            "parameters": loaded.parameter_count,
            "dtypes": dict(loaded.dtypes),
            "notes": loaded.notes,
        },
        "terms": terms._asdict(),
        "rows": [plain(row) for row in rows],
        "recommended": {"variant": chosen.row.variant, "precision": chosen.row.precision} if chosen else None,
    }


def positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument(
        "sources",
        metavar="FILE|FOLDER|TREE",
        nargs="+",
        help="the safetensors files of one model, their index, or their folder; or the name of a tree",
    )
    parser.add_argument(
        "--dtype",
        choices=list(dict.fromkeys(precision.parameter for precision in cases.PRECISIONS.values())),
        help="of all parameters and gradients; default: the file's, float32 for a tree",
    )
    parser.add_argument("--without", metavar="REGEX", help="leave out the tensors whose name it finds")
    parser.add_argument(
        "--bias-correction", action="store_true", help="with bias correction; upstream's default is none"
    )
    parser.add_argument("--memory-limit", type=positive, metavar="GB", help="rule out what peaks above it")
    parser.add_argument("--seconds", type=positive, default=120.0, metavar="S", help="for all together; default: 120")
    parser.add_argument("--json", type=command.file_path, metavar="FILE", help="also write every figure as JSON")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = command.console()
    try:
        loaded = model.load(options.sources, options.dtype, options.without)
    except (model.BadModel, header.BadFile) as error:
        raise command.UserError(str(error)) from error
    for line in description(loaded, options):
        print(
            textwrap.fill(line, command.WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        )
    wanted, rows = planned(loaded, options.bias_correction)
    rows += measured(wanted, options, console)
    limit = options.memory_limit and options.memory_limit * 1e9
    terms = Terms(loaded.tolerance, limit)
    found = advice.candidates(rows, terms)
    chosen = advice.choose(found)
    console.print()
    console.print(table(rows, terms, chosen))
    console.print()
    for line in remarks(rows, terms):
        console.print(line, markup=False, highlight=False)
    unfinished = [row for row in rows if not row.trial and "--seconds" in row.reason]
    if unfinished:
        more = f"try --seconds {math.ceil(4 * options.seconds)}"
        print(f"note: {len(unfinished)} of {len(wanted)} cases were not measured for want of time; {more}")
    if chosen:
        lines = recommendation(chosen, advice.why(chosen, found), options.bias_correction)
    else:
        lines = [f"No recommendation: {advice.why_none(rows, terms)}"]
    for line in lines:
        console.print(line, markup=False, highlight=False)
    if options.json:
        command.write_json(options.json, as_json(rows, loaded, terms, chosen))
    return 0 if chosen else 1


if __name__ == "__main__":
    sys.exit(command.run(main))
