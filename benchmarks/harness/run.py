"""One asv run: what it measured so far, kept in the directory that asv gives to all its benchmark processes.

asv starts a process for every metric of every case. The first one measures the case and leaves the measurement here;
the others read it. Only the seconds of a step are special: every reading of them uses a measurement up, so that each
of asv's rounds times the case anew, in a fresh process.
"""

import json
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from asv_runner.benchmarks.mark import SkipNotImplemented

import adamw
from benchmarks.harness import cases, ledger, machine, resume
from benchmarks.harness.cases import Case
from benchmarks.harness.ceiling import Ceiling
from benchmarks.harness.counters import Counters, Donation
from benchmarks.harness.files import write_whole
from benchmarks.harness.measurement import Measurement

if TYPE_CHECKING:
    # which need MLX: most processes only read a figure
    from benchmarks.harness.accuracy import Accuracy
    from benchmarks.harness.roofline import Roofline

COOL_DOWN, POLL = 120.0, 5.0
"""Seconds that a machine may take to cool down before a case is measured again, and from one look to the next."""

USABLE = 0.8
"""The share of a machine's memory that a case can have when nothing else wants it."""

DONATES = Path("donates.json")
"""What the run measured of donation, beside its measurements."""


def begin() -> dict[str, Any]:
    """Measure what this machine allows: asv's `setup_cache`, once a run. Plain data, so that reading it is cheap.

    A run that was interrupted is gone on with instead: what it measured lies ready then.
    """
    from benchmarks.harness import ceiling, donation, extras, roofline
    from benchmarks.harness.measure import private_caches

    check_installed()
    start = time.perf_counter()
    here = machine.identify()
    now = {"machine": here._asdict(), "settings": machine.settings(), "suite": resume.suite()}
    if earlier := resume.interrupted(now):
        begun = resume.restore(earlier)
        with private_caches():
            write_whole(DONATES, json.dumps(donation.measure()))
        marks = os.environ.get(ledger.MARKS, "")
        ledger.append({"what": "resumed", "wall": time.perf_counter() - start, "marks": marks})
        return begun
    measured = {"ceiling": ceiling.measure()._asdict(), "launch": roofline.measure_launch()._asdict()}
    with private_caches():  # a compiler's seconds, spent once a run and not in every case
        write_whole(DONATES, json.dumps(donation.measure()))
    ledger.append(
        {
            "what": "machine",
            "wall": time.perf_counter() - start,
            **now,
            "description": str(here),
            "spec": here.spec._asdict() if here.spec else None,
            "donates": donation.measure()._asdict(),
            "extras": extras.begin(),
            "marks": os.environ.get(ledger.MARKS, ""),
            **measured,
        }
    )
    return measured


def check_installed() -> None:
    """Raise RuntimeError unless `adamw` is the commit's, installed by asv, and not the working tree's."""
    environment = os.environ.get("ASV_ENV_DIR")
    if environment and not Path(adamw.__file__).is_relative_to(environment):
        raise RuntimeError(f"adamw comes from {adamw.__file__}, not from the commit under test in {environment}")


def roofline_of(begun: dict[str, Any]) -> "Roofline":
    from benchmarks.harness.roofline import Launch, Roofline

    return Roofline(Ceiling(**begun["ceiling"]), Launch(**begun["launch"]))


def skip(reason: str) -> NoReturn:
    """Skip this benchmark; asv shows the reason with --show-stderr."""
    print(reason)
    raise SkipNotImplemented(reason)


def donates() -> Donation | None:
    """What MLX donates to, as this run measured it; None if it did not."""
    try:
        return Donation(*json.loads(DONATES.read_text()))
    except FileNotFoundError:
        return None


def take(case: Case) -> Measurement:
    """A measurement of `case` that no call of `take` has returned before: a new one, unless one is left unused."""
    fresh, used = paths(case)
    measurement = load(fresh) or measured(case, fresh)
    os.replace(fresh, used)
    following = resume.queued(str(case), 1)
    if following.exists():  # of a run that was interrupted in its second round
        os.replace(following, fresh)
    return measurement


def look(case: Case) -> Measurement:
    """The newest measurement of `case`, used or not; a new one if there is none."""
    fresh, used = paths(case)
    return load(fresh) or load(used) or measured(case, fresh)


def counted(case: Case) -> Counters:
    """The counters of `case`, of a measurement if there is one; else counted, which takes a second or two."""
    fresh, used = paths(case)
    if measurement := load(fresh) or load(used):
        return measurement.work
    path = fresh.with_suffix(".work.json")
    try:
        return Counters(**json.loads(path.read_text()))
    except FileNotFoundError:
        check_can_run(case.variant)
    from benchmarks.harness.count import count
    from benchmarks.harness.measure import private_caches

    with private_caches():
        work = count(case, donates())
    write_whole(path, json.dumps(work._asdict()))
    return work


def accuracy(variant: str, precision: str) -> "Accuracy":
    """The long-run accuracy of `variant` in `precision`: measured once a run, which takes a second or two."""
    from benchmarks.harness import accuracy

    path = resume.accuracy_path(variant, precision)
    try:
        told = json.loads(path.read_text())
    except FileNotFoundError:
        check_can_run(variant)
    else:
        if "failed" in told:
            raise RuntimeError(told["failed"])
        return accuracy.Accuracy(**told)
    from benchmarks.harness.measure import private_caches

    name = f"{variant}/{precision}"
    ledger.append({"what": "started", "case": name})
    try:
        with private_caches():
            found = accuracy.measure(variant, precision)
    except Exception as error:
        ledger.append({"what": "failure", "case": name, "message": f"{name}: {error}"})
        raise
    write_whole(path, json.dumps(found._asdict()))
    ledger.append({"what": "accuracy", "case": name, "accuracy": found._asdict()})
    return found


def paths(case: Case) -> tuple[Path, Path]:
    fresh = resume.queued(str(case), 0)
    return fresh, fresh.with_suffix(".used.json")


def load(path: Path) -> Measurement | None:
    """The measurement in `path`, None if there is none. A failure that was recorded there is raised again."""
    try:
        plain = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    if "failed" in plain:
        raise RuntimeError(plain["failed"])
    return Measurement.from_dict(plain)


def measured(case: Case, path: Path) -> Measurement:
    """Measure `case` in this process and record the result, or the reason why there is none, in `path`."""
    check_can_run(case.variant)
    free = machine.free_bytes()
    if case.needed_bytes > free:
        reason = f"{case} needs {case.needed_bytes / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
        most = min(USABLE * machine.identify().memory_bytes, machine.working_set_bytes() or math.inf)
        if case.needed_bytes < most:  # it would fit, were nothing else there
            ledger.append({"what": "skipped", "case": str(case), "message": reason})
        skip(reason)
    import mlx.core as mx

    from benchmarks.harness import extras
    from benchmarks.harness.measure import measure

    before = machine.conditions()
    known = load(paths(case)[1])
    again = None
    write_whole(path, json.dumps({"failed": f"{case}: the process that measured it died"}))
    ledger.append({"what": "started", "case": str(case)})
    try:
        measurement = measure(case, known.work if known else None, donates())
        after = machine.conditions()
        if again := risen(before, after):
            before = cooled(before)
            second = measure(case, measurement.work, donates())
            measurement = second._replace(first_step=measurement.first_step)  # only the first had cold caches
            after = machine.conditions()
        if not known:  # the first round's: it does not depend on the process
            write_whole(path, json.dumps(measurement.to_dict()))  # whatever ends the profiler
            mx.clear_cache()
            measurement = measurement._replace(traffic=extras.traffic_of(str(case)))
    except Exception as error:
        write_whole(path, json.dumps({"failed": str(error)}))
        ledger.append({"what": "failure", "case": str(case), "message": str(error)})
        raise
    measurement = Measurement.from_dict(measurement.to_dict())  # rounded, as who goes on with this run will read it
    write_whole(path, json.dumps(measurement.to_dict()))
    ledger.append(
        {
            "what": "case",
            "case": str(case),
            "parameters": case.parameter_count,
            "ideal_bytes": case.ideal_bytes,
            "resident_bytes": case.resident_bytes,
            "wall": measurement.wall,
            "before": before,
            "after": after,
            "again": again,
            "measurement": measurement.to_dict(),
        }
    )
    return measurement


def risen(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    """In words, how much hotter the machine got from `before` to `after`; None if it did not, or does not tell."""
    old, new = before.get("thermal_pressure"), after.get("thermal_pressure")
    if old is None or new is None or new <= old:
        return None
    return f"thermal pressure rose from {old} to {new}"


def cooled(wanted: dict[str, Any]) -> dict[str, Any]:
    """The conditions as soon as the machine is as cool as `wanted`, or when it has had time enough."""
    deadline = time.monotonic() + COOL_DOWN
    while risen(wanted, now := machine.conditions()) and time.monotonic() < deadline:
        time.sleep(POLL)
    return now


def check_can_run(variant: str) -> None:
    """Skip what needs a variant that the commit under test does not have, or that cannot run on this machine."""
    if variant not in adamw.names():
        skip(f"{variant} is not in this commit")
    if reason := unavailable(variant):
        skip(reason)


def unavailable(variant: str) -> str | None:
    """Why `variant` cannot run here; None if it can, or if the commit under test knows of no such reasons."""
    return adamw.unavailable(variant) if hasattr(adamw, "unavailable") else None


def choose(name: str) -> Case:
    """The case called `name`, if this run is to measure it; skipped if it is not in the profile."""
    case = cases.case(*name.split("/", 1))
    if not cases.in_profile(case.workload, cases.profile()):
        skip(f"{case} is not in the profile {cases.profile()!r}")
    return case
