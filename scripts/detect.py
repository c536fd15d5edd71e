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
from rich.console import Console
from rich.table import Table
from rich.text import Text

from scripts import alerts, command, controls, history, search
from scripts.alerts import Known
from scripts.controls import Shift
from scripts.history import History
from scripts.search import Alert, Suspicion

NEW = "new"

FEW = 3
"""Members of an alert, and problems of the files, that are printed; the rest is counted."""

EPILOG = """examples:
  python -m scripts.detect                                  every machine below results/
  python -m scripts.detect --machine mac-studio --record    remember what is new: it is told once

exit codes: 0 nothing new, 1 something new, 2 error, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument("--machine", metavar="M", help="asv's name of a machine; default: all")
    parser.add_argument(
        "--config", type=Path, default=Path("asv.conf.json"), metavar="FILE", help="default: asv.conf.json"
    )
    parser.add_argument("--record", action="store_true", help="add what is new to results/MACHINE/alerts.jsonl")
    parser.add_argument("--all", action="store_true", help="list what is refuted, acknowledged or closed as well")
    parser.add_argument("--json", type=command.file_path, metavar="FILE", help="also write all of it as JSON")
    return parser


class Listed(NamedTuple):
    """An alert, and what was known of it before; None of a new one."""

    alert: Alert
    before: Known | None

    @property
    def state(self) -> str:
        return self.before.state if self.before else NEW

    def name(self, commits: Sequence[str]) -> str:
        return self.before.name if self.before else alerts.name(self.alert, commits)


class Seen(NamedTuple):
    """What the history shows.

    listed     every alert, the newest first
    shifts     of the machines, each with the steps that it explains
    gone       what was known and has gone away
    problems   what could not be read
    """

    known: History
    listed: list[Listed]
    shifts: list[tuple[Shift, list[Suspicion]]]
    gone: list[Known]
    problems: list[str]


def look(config: Path, results: Path, machine: str | None) -> Seen:
    """Read the history, search it, and put beside what is found what was known. Raises UserError."""
    known = history.read(config, results, machine)
    found, controlled = search.search(known)
    shifts: list[tuple[Shift, list[Suspicion]]] = [(shift, []) for shift in controls.shifts(controlled, known.runs)]
    rest: list[Suspicion] = []
    for one in found:
        followed = next((steps for shift, steps in shifts if shift.explains(one, known.runs)), rest)
        followed.append(one)
    remembered, problems = recalled(results, known)
    positions = {commit: position for position, commit in enumerate(known.commits)}
    listed = [
        Listed(alert, next((one for one in remembered if one.is_about(alert, positions)), None))
        for alert in search.grouped(rest)
    ]
    return Seen(known, listed, shifts, closed(remembered, known), [*known.problems, *problems])


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else command.WIDTH)
    with command.busy(f"reading and searching {options.results}"):
        seen = look(options.config, options.results, options.machine)
    open_ = [one for one in seen.listed if one.state in (NEW, *alerts.OPEN) and one.before not in seen.gone]
    shown = seen.listed if options.all else open_
    if shown:
        console.print(table(shown, seen.known.commits))
        console.print()
    for line in [
        *summary(shown, seen.known),
        *(told(shift, steps) for shift, steps in seen.shifts),
        *(f"alert {one.name} is closed: its step has gone away" for one in seen.gone),
        *shortened(seen.problems),
    ]:
        console.print(line, markup=False, highlight=False)
    if options.record:
        record(options.results, seen)
    if options.json:
        command.write_json(options.json, as_json(seen))
    return int(any(one.before is None for one in seen.listed))


def recalled(results: Path, known: History) -> tuple[list[Known], list[str]]:
    """What became of the alerts of every machine that has results."""
    remembered, problems = [], []
    for machine in sorted(known.runs["machine"].unique()):
        ours, wrong = alerts.read(results, machine)
        remembered += ours
        problems += wrong
    return remembered, problems


def closed(remembered: Sequence[Known], known: History) -> list[Known]:
    """The alerts whose step has gone away since."""
    wanted = [one for one in remembered if one.state not in (alerts.CLOSED, alerts.REFUTED)]
    watched = {(one.machine, key) for one in wanted for key in one.levels}
    current: dict[str, dict[alerts.Key, float]] = {}
    for one in history.series(known.points):
        if (one.machine, one.key) in watched:
            current.setdefault(one.machine, {})[one.key] = search.level(one)
    return [one for one in wanted if one.is_gone(current.get(one.machine, {}))]


def record(results: Path, seen: Seen) -> None:
    """Remember what is new, and what has gone away."""
    events: dict[str, list[dict[str, Any]]] = {}
    for one in seen.listed:
        if not one.before:
            events.setdefault(one.alert.machine, []).append(alerts.suspected(one.alert, seen.known.commits))
    for known in seen.gone:
        event = {"alert": known.name, "event": alerts.CLOSED, "reason": "its step has gone away"}
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
        state = Text(one.state, style="" if one.before else "bold").append(f"\n{one.name(commits)}", style="dim")
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
    return f", by chance 1 in {round(1 / max(one.change.chance, 1e-6)):,}"


def summary(shown: Sequence[Listed], known: History) -> list[str]:
    counts = Counter(one.state for one in shown)
    said = ", ".join(f"{counts[state]} {state}" for state in (NEW, *alerts.STATES) if counts[state])
    machines, commits = known.runs["machine"].nunique(), known.runs["commit"].nunique()
    where = f"{commits} commit{'s' * (commits > 1)} on {machines} machine{'s' * (machines > 1)}"
    lines = [said or "nothing changed", f"{len(known.points)} values of {where}"]
    return [*lines, "commits: the last before a change, the first after it"] if shown else lines


def told(shift: Shift, followed: Sequence[Suspicion]) -> str:
    """A change of the machine in a line."""
    when = datetime.fromtimestamp(shift.first, UTC).date().isoformat()
    what = "; ".join(shift.told) or "nothing that is recorded changed with it"
    return (
        f"{shift.machine}: the machine changed on {when}: its controls step by up to {np.expm1(shift.size):+.1%}, and "
        f"{len(followed)} series with them; {what}"
    )


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
                "alert": one.name(commits),
                "state": one.state,
                "machine": one.alert.machine,
                "worse": one.alert.worse,
                "good": commits[one.alert.good],
                "bad": commits[one.alert.bad],
                "members": [member(step, commits) for step in one.alert.members],
            }
            for one in seen.listed
        ],
        "shifts": [shift._asdict() | {"series": [one.series.name for one in steps]} for shift, steps in seen.shifts],
        "closed": [one.name for one in seen.gone],
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
        "low": low,
        "high": high,
        "chance": one.change.chance,
        "good": commits[one.good],
        "bad": commits[one.bad],
    }


if __name__ == "__main__":
    sys.exit(command.run(main))
