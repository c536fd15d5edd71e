"""What was measured last on every machine: a row a case, and what is missing."""

import itertools
import math
import statistics
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from benchmarks.harness import cases
from benchmarks.harness.ceiling import Ceiling
from benchmarks.harness.measurement import Measurement
from scripts import archive, command, history, ledger, table
from scripts.history import MALFORMED, History
from scripts.report import attribution, intensity
from scripts.runs import Odd, Run

SECONDS = ("step.Step.track_seconds", "scaling.Scaling.track_seconds")
"""The metrics that say which cases a run was to measure, and how long their steps took."""

LONG_RUN = "accuracy.LongRun.track_after_2000"
"""The metric that says which variants and precisions were to take the long run."""

LINES = ".jsonl"
"""Of a run, and of the ledger beside an older result."""

FAILED, SKIPPED = "failed", "skipped"

SHOWS = "asv run --show-stderr says why"

NO_LEDGER = "no ledger lies beside asv's results: no bandwidth, memory or error is known"
UNREADABLE = "what lies beside asv's results does not say what was measured on: only asv's own figures are shown"

TEXTS = ("case", "variant", "precision", "tree", "ceiling", "notes")
"""Of a row; the rest are figures."""

ERRORS = ("error", "long_run_error")
"""Figures that are infinite where half precision has overflowed."""


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
    host, rows, failures, problems = from_ledger(path)
    rows = rows or bare(known, run)
    about = {"machine": run["machine"], "commit": run["commit"], "file": run["path"]}
    measured = {one["case"] for one in rows}
    absent = [about | one for one in missing(path, failures, host) if one["case"] not in measured]
    problems += [f"{case}: failed in another process: {why}" for case, why in failures.items() if case in measured]
    return Newest(
        run["machine"], run, host, pd.DataFrame([about | one for one in rows]), pd.DataFrame(absent), problems
    )


def from_ledger(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, str], list[str]]:
    """The host, a row a case, the failures, and what could not be read, in lines. What is odd is named and left out."""
    if archive.moment(path) is None:
        return {}, [], {}, [NO_LEDGER]
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    try:
        report = table.Report(path)
        failures = {str(case): command.one_line(str(why)) for case, why in report.failures.items()}
        host = checked(report.host)
    except (command.UserError, *MALFORMED) as error:
        return (
            {},
            [],
            {},
            [command.one_line(f"{path.with_suffix(LINES)}: {str(error) or type(error).__name__}"), UNREADABLE],
        )
    for case, entries in report.cases.items():
        try:
            rows.append(figures(row(case, entries, report)))
        except MALFORMED as error:
            problems.append(command.one_line(f"{path.with_suffix(LINES)}: {case}: {type(error).__name__}: {error}"))
    return host, rows, failures, problems


def checked(host: dict[str, Any]) -> dict[str, Any]:
    """What a ledger says of the machine, if all that is shown of it is there. Raises one of MALFORMED."""
    spec, cache, settings = host["spec"], host["machine"]["cache_bytes"], host["settings"]
    rates = [host["ceiling"]["bytes_per_second"], *([spec["gigabytes_per_second"]] if spec else [])]
    if min(rates) <= 0 or min(host["launch"]["fixed"], host["launch"]["each"]) < 0 or (cache or 0) < 0:
        raise Odd("a ceiling, a launch or a cache that is less than nothing")
    Ceiling(**host["ceiling"])
    said = {name: str(settings[name]) for name in ("mlx", "python")}
    sold = spec and spec | {"source": str(spec["source"])}
    return host | {"description": str(host["description"]), "settings": settings | said, "spec": sold}


def figures(told: dict[str, Any]) -> dict[str, Any]:
    """A row whose figures are numbers, of which only errors may be infinite. Raises Odd."""
    for name, value in told.items():
        if name in TEXTS or value is None:
            continue
        if not is_number(value) or (math.isinf(value) and name not in ERRORS):
            raise Odd(f"{name} is no number")
    return told


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def named(case: str) -> dict[str, str]:
    """A case's name and its parts: the tree has its option with it."""
    variant, _, workload = command.one_line(case).partition("/")
    precision, _, tree = workload.partition("/")
    return {"case": f"{variant}/{workload}", "variant": variant, "precision": precision, "tree": tree}


def bare(known: History, run: dict[str, Any]) -> list[dict[str, Any]]:
    """What asv alone has of a run: the seconds."""
    points = known.points
    ours = points[(known.runs["path"].to_numpy()[points["run"]] == run["path"]) & (points["metric"].isin(SECONDS))]
    told = zip(ours["case"], ours["value"], strict=True)
    return [named(str(case)) | {"milliseconds": value * 1e3, "notes": "asv alone"} for case, value in told]


def row(case: str, entries: list[ledger.Entry], report: table.Report) -> dict[str, Any]:
    """The table's figures of a case, and those that the report shows besides. Times are medians."""
    last = entries[-1]
    measured = Measurement.from_dict(last["measurement"])
    told = table.row(case, entries, report.host["machine"])
    del told["variant"], told["workload"]
    long_run = report.long_run_errors.get("/".join(case.split("/")[:2]))
    told |= {
        "plus_minus": told["spread"] / 2,
        "long_run_error": long_run,
        "ideal_bytes": last["ideal_bytes"],
        "resident_bytes": last["resident_bytes"],
        "modelled_bytes": measured.work.modelled_bytes,
        **{f"{name}_bytes": value for name, value in measured.memory._asdict().items()},
        "kernels": measured.work.kernels + measured.work.scalar_kernels,
        "leaves": leaves(case),
        "host_milliseconds": statistics.median(measured.host) * 1e3,
        "operations_per_byte": intensity.intensity(last["parameters"], last["ideal_bytes"]),
        "gigaoperations_per_second": intensity.rate(last["parameters"], told["milliseconds"] / 1e3) / 1e9,
    }
    return named(case) | told | where_time_goes(told, last, report.host)


def where_time_goes(told: dict[str, Any], last: ledger.Entry, host: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of every part; none where the tree is not known or MLX tells no bytes."""
    if told["leaves"] is None or told["modelled_bytes"] is None:
        return {}
    launch = last.get("launch") or host["launch"]  # older ledgers have one for all
    model = attribution.Model(
        measured=told["milliseconds"],
        ideal_bytes=told["ideal_bytes"],
        modelled_bytes=told["modelled_bytes"],
        leaves=told["leaves"],
        kernels=told["kernels"],
        host=told["host_milliseconds"],
        fixed=launch["fixed"] * 1e3,
        each=launch["each"] * 1e3,
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
        states = unmeasured(archive.read(one) for one in archive.same(path)) | states
    memory = host.get("machine", {}).get("memory_bytes")
    told = {case: command.one_line(why.removeprefix(f"{case}: ")) for case, why in failures.items()}
    return [
        named(case) | {"state": state, "why": told.get(case) or reason(case, state, memory)}
        for case, state in sorted(states.items())
    ]


def unmeasured(of_commit: Iterable[Run]) -> dict[str, str]:
    """The cases without a figure in a commit's runs: null of one that failed, NaN of one that was skipped."""
    found: dict[str, str] = {}
    figures = [one for run in of_commit for one in run.figures if one.metric in (*SECONDS, LONG_RUN)]
    for figure in figures:
        names = ["/".join(map(history.plain, one)) for one in itertools.product(*figure.parameters)]
        for place, value in figure.values():
            found.pop(names[place], None)
            if value is None or math.isnan(value):
                found[names[place]] = FAILED if value is None else SKIPPED
    return found


def reason(case: str, state: str, memory: int | None) -> str:
    """Why a case has no figure, as far as its name and the machine tell."""
    if state == FAILED:
        return f"asv has no reason; {SHOWS}"
    variant, _, workload = case.partition("/")
    if "/" not in workload:
        return f"the long run of this variant cannot be taken there; {SHOWS}"
    try:
        about = cases.case(variant, workload, [variant])
    except ValueError:
        return "it is not in the catalogue any more"
    if not cases.in_profile(workload, "default"):
        return "only the profile full has it"
    if memory and about.needed_bytes > memory:
        return f"it needs {about.needed_bytes / 1e9:.1f} GB of memory, the machine has {memory / 1e9:.1f} GB"
    return f"not in the run's profile, or it did not fit, or cannot run there; {SHOWS}"
