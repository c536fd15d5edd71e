"""What changed, in words: the alerts, the clearest of each first, and what the machines did themselves."""

from datetime import UTC, datetime
from typing import Any

from benchmarks.harness import numbers
from scripts import alerts, detect, recall
from scripts.detect import Seen
from scripts.recall import Listed
from scripts.search import Suspicion

ORDER = (alerts.CONFIRMED, recall.NEW, alerts.SUSPECTED, alerts.UNDECIDED, alerts.ACKNOWLEDGED, alerts.REFUTED)
"""What is told first. What is closed is not there any more."""

FEW = 3
"""Members of an alert that are told; the rest is counted."""

SCALES = {"seconds": (1e3, "ms"), "bytes": (1e-6, "MB")}
"""What a unit is shown in."""


def news(seen: Seen) -> list[dict[str, Any]]:
    """An entry an alert: what matters first, then the newest."""
    told = [entry(one, seen) for one in seen.recalled.listed]
    return sorted(told, key=lambda one: (place(one["state"]), not one["worse"], -one["position"]))


def place(state: str) -> int:
    return ORDER.index(state) if state in ORDER else len(ORDER)


def entry(one: Listed, seen: Seen) -> dict[str, Any]:
    alert, commits = one.alert, seen.known.commits
    return {
        "alert": one.name,
        "state": one.state,
        "open": one.is_open,
        "worse": alert.worse,
        "machine": alert.machine,
        "good": commits[alert.good],
        "bad": commits[alert.bad],
        "position": alert.bad,
        "measured": first_seen(one, seen),
        "told": lines(one),
        "members": [detect.member(step, commits) for step in alert.members],
        "places": [int(step.series.positions[step.change.first]) for step in alert.members],
        "sizes": [f"{step.words} {step.size}" for step in alert.members],
    }


def lines(one: Listed) -> list[str]:
    """The clearest members of an alert in words, how many more there are, and what was said of it."""
    members = one.alert.members
    told = [line(step) for step in members[:FEW]]
    if len(members) > FEW:
        told.append(f"and {len(members) - FEW} more series")
    if one.before and one.before.reason:
        told.append(f"{one.state}: {one.before.reason}")
    return told


def line(step: Suspicion) -> str:
    levels = "" if step.exact else f", {written(step.before, step.unit)} to {written(step.after, step.unit)}"
    name = step.series.case or "all"
    return f"{name}: {step.words} {step.size}{levels} ({step.series.metric}{detect.sure(step)})"


def written(value: float, unit: str) -> str:
    """A level as people read it."""
    scale, name = SCALES.get(unit, (1.0, unit))
    return f"{numbers.in_words(value * scale, '.4g')} {name}".strip()


def first_seen(one: Listed, seen: Seen) -> str:
    """When the first run after the step was measured."""
    runs = seen.known.runs
    taken = runs[(runs["machine"] == one.alert.machine) & (runs["position"] >= one.alert.bad)]["measured"]
    return datetime.fromtimestamp(taken.min(), UTC).isoformat(timespec="seconds")


def shifts(seen: Seen) -> list[str]:
    """What the machines did, in lines."""
    return [detect.told(shift, steps) for shift, steps in seen.shifts]
