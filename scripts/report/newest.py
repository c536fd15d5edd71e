"""What was measured last on every machine: a row a case, and what is missing."""

import itertools
import statistics
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from asv.results import Results

from benchmarks.harness import cases
from benchmarks.harness.measurement import Measurement
from scripts import command, history, ledger, table
from scripts.history import MALFORMED, History
from scripts.report import attribution, intensity

SECONDS = "step.Step.track_seconds"
"""The metric that says which cases a run was to measure, and how long their steps took."""

FAILED, SKIPPED = "failed", "skipped"

NO_LEDGER = "no ledger lies beside asv's results: no bandwidth, memory or error is known"


class Newest(NamedTuple):
    """The newest commit's last run on a machine.

    host      what the ledger says of the machine: description, settings, spec, ceiling, launch costs; empty without one
    cases     a row a case that was measured
    missing   a row a case that was not: its name, whether it failed or was skipped, and why
    problems  what could not be read, in lines
    """

    machine: str
    run: dict[str, Any]
    host: dict[str, Any]
    cases: pd.DataFrame
    missing: pd.DataFrame
    problems: list[str]


def newest(known: History) -> list[Newest]:
    """Of every machine, the run of its newest commit that was measured last."""
    order = known.runs.sort_values(["position", "measured"]).groupby("machine").tail(1)
    return [of_run(one.to_dict(), known) for _, one in order.sort_values("machine").iterrows()]


def of_run(run: dict[str, Any], known: History) -> Newest:
    path = Path(run["path"])
    problems: list[str] = []
    host: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    try:
        report = table.Report(path.with_suffix(".jsonl"))
        failures = report.failures
        rows = [row(case, entries, report) for case, entries in report.cases.items()]
        host = report.host
    except (command.UserError, *MALFORMED) as error:
        problems.append(command.one_line(f"{path.with_suffix('.jsonl')}: {str(error) or type(error).__name__}"))
    if not rows:
        rows = bare(known, run)
        problems += [NO_LEDGER] * bool(rows)
    about = {"machine": run["machine"], "commit": run["commit"], "file": run["path"]}
    absent = [about | one for one in missing(path, failures, host)]
    return Newest(
        run["machine"], run, host, pd.DataFrame([about | one for one in rows]), pd.DataFrame(absent), problems
    )


def named(case: str) -> dict[str, str]:
    """A case's name and its parts: the tree has its option with it."""
    variant, _, workload = command.one_line(case).partition("/")
    precision, _, tree = workload.partition("/")
    return {"case": f"{variant}/{workload}", "variant": variant, "precision": precision, "tree": tree}


def bare(known: History, run: dict[str, Any]) -> list[dict[str, Any]]:
    """What asv alone has of a run: the seconds."""
    points = known.points
    ours = points[(known.runs["path"].to_numpy()[points["run"]] == run["path"]) & (points["metric"] == SECONDS)]
    told = zip(ours["case"], ours["value"], strict=True)
    return [named(str(case)) | {"milliseconds": value * 1e3, "notes": "no ledger"} for case, value in told]


def row(case: str, entries: list[ledger.Entry], report: table.Report) -> dict[str, Any]:
    """The table's figures of a case, and those that the report shows besides. Times are medians."""
    last = entries[-1]
    measured = Measurement.from_dict(last["measurement"])
    figures = table.row(case, entries, report.host["machine"])
    del figures["variant"], figures["workload"]
    long_run = report.long_run_errors.get("/".join(case.split("/")[:2]))
    figures |= {
        "long_run_error": long_run,
        "ideal_bytes": last["ideal_bytes"],
        "resident_bytes": last["resident_bytes"],
        "modelled_bytes": measured.work.modelled_bytes,
        **{f"{name}_bytes": value for name, value in measured.memory._asdict().items()},
        "kernels": measured.work.kernels + measured.work.scalar_kernels,
        "leaves": leaves(case),
        "host_milliseconds": statistics.median(measured.host) * 1e3,
        "operations_per_byte": intensity.intensity(last["parameters"], last["ideal_bytes"]),
        "gigaoperations_per_second": intensity.rate(last["parameters"], figures["milliseconds"] / 1e3) / 1e9,
    }
    return named(case) | figures | where_time_goes(figures, last, report.host)


def where_time_goes(figures: dict[str, Any], last: ledger.Entry, host: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of every part; none where the tree is not known or MLX tells no bytes."""
    if figures["leaves"] is None or figures["modelled_bytes"] is None:
        return {}
    model = attribution.Model(
        measured=figures["milliseconds"],
        ideal_bytes=figures["ideal_bytes"],
        modelled_bytes=figures["modelled_bytes"],
        leaves=figures["leaves"],
        kernels=figures["kernels"],
        host=figures["host_milliseconds"],
        fixed=host["launch"]["fixed"] * 1e3,
        each=host["launch"]["each"] * 1e3,
        ceiling=last["ceiling"]["bytes_per_second"] / 1e3,
    )
    return {f"{name.replace(' ', '_')}_milliseconds": value for name, value in attribution.parts(model).items()}


def leaves(case: str) -> int | None:
    """Leaves of a case's tree; None of a tree that is not in the catalogue."""
    variant, _, workload = case.partition("/")
    try:
        return cases.case(variant, workload, [variant]).leaf_count
    except ValueError:
        return None


def missing(path: Path, failures: dict[str, str], host: dict[str, Any]) -> list[dict[str, Any]]:
    """The cases that a run did not measure."""
    states = dict.fromkeys(failures, FAILED)
    with suppress(*MALFORMED):  # it was read before; what happened to it since, the next report tells
        states = unmeasured(history.load(path)) | states
    memory = host.get("machine", {}).get("memory_bytes")
    told = {case: command.one_line(why.removeprefix(f"{case}: ")) for case, why in failures.items()}
    return [
        named(case) | {"state": state, "why": told.get(case) or reason(case, state, memory)}
        for case, state in sorted(states.items())
    ]


def unmeasured(result: Results) -> dict[str, str]:
    """The cases without seconds in asv's results: null of one that failed, NaN of one that was skipped."""
    if SECONDS not in result._results:
        return {}
    told, parameters = result._results[SECONDS], result.get_result_params(SECONDS)
    names = ["/".join(map(history.plain, one)) for one in itertools.product(*parameters)]
    values = [None] * len(names) if told is None else told
    return {
        name: FAILED if value is None else SKIPPED
        for name, value in zip(names, values, strict=True)
        if history.number(value) is None
    }


def reason(case: str, state: str, memory: int | None) -> str:
    """Why a case has no figure, as far as its name and the machine tell."""
    if state == FAILED:
        return "asv has no reason; asv run --show-stderr prints it"
    variant, _, workload = case.partition("/")
    try:
        about = cases.case(variant, workload, [variant])
    except ValueError:
        return "it is not in the catalogue any more"
    if not cases.in_profile(workload, "default"):
        return "only the profile full has it"
    if memory and about.needed_bytes > memory:
        return f"it needs {about.needed_bytes / 1e9:.1f} GB of memory, the machine has {memory / 1e9:.1f} GB"
    return "not in the run's profile, or it did not fit, or cannot run there; asv run --show-stderr says which"
