"""Find what changed in the history of asv's results: which case, by how much, between which commits, how surely.

Nothing is measured. A step is suspected here and confirmed by `scripts.confirm`, which measures old and new again; what
is already known of an alert is kept in results/MACHINE/alerts.jsonl.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from asv.config import Config
from rich.table import Table
from rich.text import Text

from scripts import alerts, changes, command, controls, history, lanes, recall, search
from scripts.alerts import Known
from scripts.controls import Shift
from scripts.history import History
from scripts.recall import NEW, Listed, Recalled
from scripts.search import Suspicion

FEW = 3
"""Members of an alert, and problems of the files, that are printed; the rest is counted."""

RARELY = 1e-6
"""A chance that need not be told exactly."""

EPILOG = """examples:
  python -m scripts.detect                                  every machine below results/
  python -m scripts.detect --machine mac-studio --record    remember what is new: it is told once

exit codes: 0 nothing new, 1 something new, 2 error, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("--results", type=Path, metavar="DIR", help="default: those of the lane")
    parser.add_argument("--machine", metavar="M", help="asv's name of a machine; default: all")
    lanes.add_argument(parser)
    parser.add_argument("--record", action="store_true", help="add what is new to results/MACHINE/alerts.jsonl")
    parser.add_argument(
        "--all",
        action="store_true",
        help="list quiet alerts as well whose step is seen; triage lists all there are",
    )
    parser.add_argument("--json", type=command.file_path, metavar="FILE", help="also write all of it as JSON")
    return parser


class Seen(NamedTuple):
    """What the history shows.

    recalled   every alert, beside what was known of it
    shifts     of the machines, each with the steps that it explains
    problems   what could not be read
    """

    known: History
    recalled: Recalled
    shifts: list[tuple[Shift, list[Suspicion]]]
    problems: list[str]


def look(config: Config, results: Path, machine: str | None) -> Seen:
    """Read the history, search it, and put beside what is found what was known. Raises UserError."""
    known = history.read(config, results, machine)
    found = search.search(known)
    shifts: list[tuple[Shift, list[Suspicion]]] = [(shift, []) for shift in controls.shifts(found.controls, known.runs)]
    rest: list[Suspicion] = []
    for one in found.suspicions:
        followed = next((steps for shift, steps in shifts if shift.explains(one, known.runs)), rest)
        followed.append(one)
    remembered, problems = recalled(results, known)
    followed = [one for _, steps in shifts for one in steps]
    beside = recall.recall(remembered, rest, followed, found.levels, known.commits)
    return Seen(known, beside, shifts, [*known.problems, *problems])


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = command.console()
    config = history.configuration(options.lane)
    results = options.results or Path(config.results_dir)
    with command.busy(f"reading and searching {results}"):
        seen = look(config, results, options.machine)
    ended = {one.name for one, _ in seen.recalled.closed}
    shown = [one for one in seen.recalled.listed if options.all or (one.is_open and one.name not in ended)]
    if shown:
        console.print(table(shown, seen.known.commits))
        console.print()
    closes = "is closed" if options.record else "can be closed (--record)"
    for line in [
        *summary(shown, seen),
        *(told(shift, steps) for shift, steps in seen.shifts),
        *(f"alert {one.name} {closes}: {why}" for one, why in seen.recalled.closed),
        *(f"alert {one.name} is {one.state}, but {why}; acknowledge it?" for one, why in seen.recalled.unseen),
        *shortened(seen.problems),
    ]:
        console.print(line, markup=False, highlight=False)
    if options.record:
        record(results, seen)
    if options.json:
        command.write_json(options.json, as_json(seen))
    return int(any(one.before is None for one in seen.recalled.listed))


def recalled(results: Path, known: History) -> tuple[list[Known], list[str]]:
    """What became of the alerts of every machine that has results."""
    remembered, problems = [], []
    for machine in sorted(known.runs["machine"].unique()):
        ours, wrong = alerts.read(results, machine)
        remembered += ours
        problems += wrong
    return remembered, problems


def record(results: Path, seen: Seen) -> None:
    """Remember what is new, what has grown, and what has gone away; what is worse first, as it is measured again."""
    events: dict[str, list[dict[str, Any]]] = {}
    for one in sorted(seen.recalled.listed, key=lambda one: not one.alert.worse):
        if not one.before:
            event = alerts.suspected(one.name, one.alert, seen.known.commits)
        elif one.is_drift_now and one.is_open:
            event = alerts.suspected(one.name, one.alert, seen.known.commits, alerts.DRIFTS)
        elif one.joined:
            event = alerts.grown(one.name, one.joined)
        else:
            continue
        events.setdefault(one.alert.machine, []).append(event)
    for known, why in seen.recalled.closed:
        event = {"alert": known.name, "event": alerts.CLOSED, "reason": why}
        events.setdefault(known.machine, []).append(event)
    for machine, of_machine in events.items():
        alerts.add(results, machine, of_machine)


def table(shown: Sequence[Listed], commits: Sequence[str]) -> Table:
    """A row an alert: what is known of it, where it is, and its clearest members."""
    built = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    built.add_column("alert", no_wrap=True)
    built.add_column("commits", no_wrap=True)
    built.add_column("what", overflow="fold")
    for one in shown:
        state = Text(one.state, style="" if one.before else "bold").append(f"\n{one.name}", style="dim")
        where = f"{commits[one.alert.good][:8]}\n..{commits[one.alert.bad][:8]}"
        built.add_row(state, where, Text("\n".join(members(one))))
    return built


def members(listed: Listed) -> list[str]:
    """The clearest members of an alert in lines, how many more there are, and what was said of it."""
    alert = listed.alert
    lines = [
        f"{one.series.case or one.series.metric}: {one.words} {one.size}{sure(one)}" for one in alert.members[:FEW]
    ]
    lines.insert(0, alert.machine)
    if len(alert.members) > FEW:
        lines.append(f"and {len(alert.members) - FEW} more series")
    if listed.before and listed.before.reason:
        lines.append(f"{listed.state}: {listed.before.reason}")
    return lines


def sure(one: Suspicion) -> str:
    """How sure a step is, in words."""
    if one.exact:
        return ", exactly"
    if one.change.first > len(one.series.values) - changes.SHORTEST:
        return ", in the newest points alone"
    if one.change.chance < RARELY:
        return f", by chance less than 1 in {round(1 / RARELY):,}"
    return f", by chance 1 in {round(1 / one.change.chance):,}"


def summary(shown: Sequence[Listed], seen: Seen) -> list[str]:
    known, counts = seen.known, Counter(one.state for one in shown)
    quiet = len(seen.recalled.listed) - len(shown)
    said = ", ".join(f"{counts[state]} {state}" for state in (NEW, *alerts.STATES) if counts[state])
    machines, commits = known.runs["machine"].nunique(), known.runs["commit"].nunique()
    where = f"{commits} commit{'s' * (commits > 1)} on {machines} machine{'s' * (machines > 1)}"
    nothing = "nothing new" if quiet or seen.shifts else "nothing changed"
    hidden = f"; {quiet} quiet, see --all" * (quiet > 0)
    lines = [
        (said or nothing) + hidden,
        f"{len(known.points)} values of {where}",
    ]
    return [*lines, "commits: the last before a change, the first after it"] if shown else lines


def told(shift: Shift, followed: Sequence[Suspicion]) -> str:
    """A change of the machine in a line."""
    when = datetime.fromtimestamp(shift.first, UTC).date().isoformat()
    what = "; ".join(shift.told) or "nothing that is recorded changed with it"
    began = datetime.fromtimestamp(shift.last, UTC).date().isoformat()
    changed = (
        f"drifted from {began} to {when}: its controls" if shift.drift else f"changed on {when}: its controls step"
    )
    far = f"by up to {np.expm1(shift.size):+.1%}, and {len(followed)} series with them; {what}"
    return f"{shift.machine}: the machine {changed} {far}"


def shortened(problems: Sequence[str]) -> list[str]:
    more = len(problems) - FEW
    return [
        *(f"left out: {one}" for one in problems[:FEW]),
        *([f"left out: {more} more, see --json"] if more > 0 else []),
    ]


def as_json(seen: Seen) -> dict[str, Any]:
    commits = seen.known.commits
    return {
        "alerts": [
            {
                "alert": one.name,
                "state": one.state,
                "machine": one.alert.machine,
                "worse": one.alert.worse,
                "good": commits[one.alert.good],
                "bad": commits[one.alert.bad],
                "members": [member(step, commits) for step in one.alert.members],
            }
            for one in seen.recalled.listed
        ],
        "shifts": [shift._asdict() | {"series": [one.series.name for one in steps]} for shift, steps in seen.shifts],
        "closed": [{"alert": one.name, "reason": why} for one, why in seen.recalled.closed],
        "unseen": [{"alert": one.name, "state": one.state, "reason": why} for one, why in seen.recalled.unseen],
        "problems": seen.problems,
    }


def member(one: Suspicion, commits: Sequence[str]) -> dict[str, Any]:
    low, high = (float(np.exp(limit)) for limit in one.change.interval)
    return {
        "environment": one.series.environment,
        "metric": one.series.metric,
        "case": one.series.case,
        "unit": one.unit,
        "before": one.before,
        "after": one.after,
        "ratio": float(np.exp(one.change.size)),
        "per_100_commits": one.rate,
        "low": low,
        "high": high,
        "chance": one.change.chance,
        "good": commits[one.good],
        "bad": commits[one.bad],
    }


if __name__ == "__main__":
    sys.exit(command.run(main))
