"""What was measured of MLX's releases on a machine: results/mlx/MACHINE/releases.jsonl, only ever added to.

Its lines are those of a run's ledger, each with its release and with what it was `taken` by: a change of the suite, of
adamw or of Python must not look like one of MLX. Besides these, by `what`:

    counted   the counters of a case, nothing timed
    compared  two releases timed in turns, and the verdict
    absent    why a release could not be measured
"""

import itertools
import math
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from packaging.version import Version

from benchmarks.harness import cases, numbers, resume
from benchmarks.harness.counters import Counters
from scripts import exact, lines, upstream, verdict
from scripts.exact import Change
from scripts.lines import Entry
from scripts.matching import Match
from scripts.upstream_lines import (
    ELSEWHERE,
    KINDS,
    About,
    Absent,
    Compared,
    Counted,
    Failed,
    LongRun,
    Machine,
    Measured,
    counters,
)

FILE = "releases.jsonl"


class Known(NamedTuple):
    """What is known of the releases, the oldest first, of a machine.

    counters  by release and case
    measured  ledger entries of the cases, by release and case, the oldest first
    long_run  error after 2000 steps, by release and variant/precision
    machine   what it was measured on, by release
    compared  the newest entry for every pair of releases and case
    absent    why a release could not be measured
    failed    cases that could not be counted, by release
    problems  what could not be read, in lines
    """

    releases: list[str]
    counters: dict[str, dict[str, Counters]]
    measured: dict[str, dict[str, list[Entry]]]
    long_run: dict[str, dict[str, float]]
    machine: dict[str, Entry]
    compared: dict[tuple[str, str, str], Entry]
    absent: dict[str, str]
    failed: dict[str, set[str]]
    problems: list[str]


def taken() -> str:
    """What decides figures beside MLX and the machine: this suite and adamw, MLX's backend, Python."""
    return f"suite {resume.suite()}, {upstream.packages()[1]}, Python {platform.python_version()}"


def add(path: Path, release: str, entries: Sequence[Entry]) -> None:
    """Add what was measured of a release, in one piece."""
    about = {"release": release, "taken": taken()}
    lines.add(path, *(about | entry for entry in entries))


def read(path: Path, by: str | None = None) -> Known:
    """What was taken `by` one suite, adamw, backend and Python, the newest in `path` if None.

    A line that is none of ours is passed over, and named among the problems.
    """
    told, problems = lines.read(path, lambda place, entry: (place, entry, msgspec.convert(entry, About)))
    known = Known([], {}, {}, {}, {}, {}, {}, {}, problems)
    wanted = by or next((about.taken for _, _, about in reversed(told)), None)
    for place, entry, about in told:
        try:
            if about.taken == wanted and about.what not in ELSEWHERE:
                take(known, str(Version(about.release)), numbers.heard(entry))
        except lines.ODD as error:
            problems.append(lines.odd(place, error))
    known.releases.extend(sorted({*known.counters, *known.measured}, key=Version))
    for release in known.releases:
        known.absent.pop(release, None)  # it could be had after all
    return known


def take(known: Known, release: str, entry: Entry) -> None:
    """Put an entry where it belongs. Raises one of lines.ODD, and then has put it nowhere."""
    match msgspec.convert(entry, KINDS):
        case Measured(name, _, measured):
            count(known, release, name, measured.work)
            known.measured.setdefault(release, {}).setdefault(name, []).append(entry)
        case Counted(name, work):
            count(known, release, name, work)
        case LongRun(name, accuracy):
            error = accuracy.after_2000
            known.long_run.setdefault(release, {})[name] = math.inf if error is None else error
        case Machine():
            known.machine[release] = entry
        case Compared(base, name):
            known.compared[str(Version(base)), release, name] = entry
        case Failed(name):
            known.failed.setdefault(release, set()).add(name)
        case Absent(why):
            known.absent[release] = why


def count(known: Known, release: str, name: str, work: Entry) -> None:
    told = counters(work)
    cases.case(*name.split("/", 1))  # of the cases that there are
    known.counters.setdefault(release, {})[name] = told
    known.failed.get(release, set()).discard(name)


class Step(NamedTuple):
    """What one release changed in the work of a step, as against the release before it."""

    before: str
    release: str
    changes: list[Change]


def steps(known: Known) -> list[Step]:
    """Every exact change, the oldest first. A figure that only one of two releases tells is not compared."""
    counted = [release for release in known.releases if release in known.counters]
    found = []
    for before, release in itertools.pairwise(counted):
        old, new = known.counters[before], known.counters[release]
        changes = []
        for name in old:
            if name in new:
                case = cases.case(*name.split("/", 1))
                if change := exact.change(Match(name, case, case), old[name], new[name]):
                    changes.append(change)
        if changes:
            found.append(Step(before, release, changes))
    return found


def medians(known: Known, release: str, case: str) -> list[float]:
    """Seconds of a step of a case with a release: a median a process."""
    entries = known.measured.get(release, {}).get(case, [])
    return [statistics.median(entry["measurement"]["step"]["seconds"]) for entry in entries]


def suspects(known: Known, case: str, least: float) -> list[tuple[str, str]]:
    """The neighbouring releases whose seconds differ by at least `least`, as a share, and by more than their noise.

    They were not measured side by side: a machine that drifted differs as well. Only a comparison in turns tells.
    """
    timed = [release for release in known.releases if medians(known, release, case)]
    found = []
    for before, release in itertools.pairwise(timed):
        old, new = medians(known, before, case), medians(known, release, case)
        apart = max(min(new) / max(old), min(old) / max(new))
        if apart > 1 + least:
            found.append((before, release))
    return found


def undecided(known: Known, base: str, release: str, case: str) -> bool:
    """Whether two releases were not timed in turns yet, or without an answer."""
    entry = known.compared.get((base, release, case))
    return not entry or entry["verdict"] not in (verdict.SLOWER, verdict.FASTER, verdict.SAME)


def confirmed(known: Known) -> list[Entry]:
    """The comparisons in turns that found a difference, in the order of the releases."""
    found = [entry for entry in known.compared.values() if entry["verdict"] in (verdict.SLOWER, verdict.FASTER)]
    return sorted(found, key=lambda entry: (Version(entry["release"]), entry["case"]))
