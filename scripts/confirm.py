"""Measure again what the history makes one suspect: a few commits before a step against a few after it.

Both sides are fresh and take turns, by the rules of `scripts.compare`, and stay out of the history. What came of it is
added to results/MACHINE/alerts.jsonl: confirmed, refuted or undecided. Run it on the machine that saw the step.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts import (
    alerts,
    changes,
    command,
    detect,
    figures,
    history,
    lanes,
    machines,
    pairs,
    rows,
    sides,
    verdict,
    workers,
)
from scripts.recall import NEW, Listed
from scripts.search import Alert, Suspicion
from scripts.timing import Limits, Outcome

MOST_MEMBERS = 3
"""Of an alert, that are tried until one can be measured."""

EPILOG = """examples:
  python -m scripts.confirm                                 what detect lists of this machine, a few minutes each
  python -m scripts.confirm --machine mac-studio --alert 1f6a09c2 --budget 600

exit codes: 0 nothing confirmed, 1 something is, 2 error, 3 nothing but undecided, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("--results", type=Path, metavar="DIR", help="default: those of the lane")
    parser.add_argument("--machine", metavar="M", help="asv's name of this machine; default: its host name")
    lanes.add_argument(parser)
    parser.add_argument(
        "--alert", metavar="NAME", help="only this one, whatever is known of it; default: all suspected"
    )
    parser.add_argument(
        "--budget", type=command.positive, default=300.0, metavar="S", help="seconds an alert may take; default: 300"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    machine = machines.this(options.machine)
    console = command.console()
    config = history.configuration(options.lane)
    results = options.results or Path(config.results_dir)
    seen = detect.look(config, results, machine)
    commits = seen.known.commits
    wanted = [one for one in seen.recalled.listed if is_wanted(one, options.alert)]
    if options.alert and not wanted:
        raise command.UserError(
            f"no alert {options.alert[:20]!r} is seen on {machine} now; python -m scripts.detect --all lists them"
        )
    events = []
    for one in wanted:
        name = one.name
        with command.busy(f"{name}: {one.alert.members[0].series.case}, at most {rows.duration(options.budget)}"):
            event = confirmed(one.alert, [sides.in_lane(options.lane, commit) for commit in commits], options.budget)
        begun = [] if one.before else [alerts.suspected(name, one.alert, commits)]
        alerts.add(results, machine, [*begun, {"alert": name, **event}])
        events.append(event["event"])
        console.print(f"{name}: {event['event']}: {event['reason']}", markup=False, highlight=False)
    if not wanted:
        console.print("nothing is suspected that has not been measured again", markup=False, highlight=False)
    return exit_code(events)


def is_wanted(one: Listed, name: str | None) -> bool:
    """Whether it is the alert that was asked for; else whether it is new, suspected or undecided."""
    return one.name == name if name else one.state in (NEW, alerts.SUSPECTED, alerts.UNDECIDED)


def confirmed(alert: Alert, commits: Sequence[str], budget: float) -> dict[str, Any]:
    """The event that says what came of measuring an alert's clearest member again; of the next, if that fails."""
    reasons, until = [], time.monotonic() + budget
    for one in alert.members[:MOST_MEMBERS]:
        try:
            pair = sides.resolve(commits[one.around[0]]), sides.resolve(commits[one.around[1]])
            limits = Limits(until - time.monotonic(), changes.least(one.change.size))
            return judged(one, figures.measured(pair, one.series.metric, one.series.case, limits))
        except (command.UserError, pairs.Failed, workers.Lost) as error:
            reasons.append(f"{one.series.case}: {error}")
    return {"event": alerts.UNDECIDED, "reason": f"cannot be measured again: {reasons[0]}"}


def judged(one: Suspicion, outcome: Outcome) -> dict[str, Any]:
    """Confirmed: the same direction, and at least half as far. Refuted: no difference that large, or the other way."""
    if one.exact:
        (pair,) = outcome.pairs
        told = f"{one.series.case}: {one.series.metric} {pair.seconds[1]:g}, was {pair.seconds[0]:g}"
        same = pair.log != 0 and (pair.log > 0) == one.worse
        return {"event": alerts.CONFIRMED if same else alerts.REFUTED, "reason": told}
    known = outcome.estimate
    found = verdict.judge({"": known}, changes.least(one.change.size))[""]
    expected = verdict.SLOWER if one.worse else verdict.FASTER
    if not known:
        return {"event": alerts.UNDECIDED, "reason": "the budget ended first; raise --budget"}
    low, high = known.interval
    event = {expected: alerts.CONFIRMED, verdict.UNDECIDED: alerts.UNDECIDED}.get(found, alerts.REFUTED)
    reason = (
        f"{one.series.case}: {one.series.metric} {known.ratio - 1:+.1%} ({low - 1:+.1%} to {high - 1:+.1%}) in "
        f"{known.pairs} pairs, {rows.duration(outcome.spent)}"
    )
    return {"event": event, "reason": reason, "ratio": known.ratio, "low": low, "high": high, "pairs": known.pairs}


def exit_code(results: Sequence[str]) -> int:
    """0 nothing confirmed, 1 something is, 3 nothing but undecided."""
    if alerts.CONFIRMED in results:
        return 1
    return 3 if results and set(results) == {alerts.UNDECIDED} else 0


if __name__ == "__main__":
    sys.exit(command.run(main))
