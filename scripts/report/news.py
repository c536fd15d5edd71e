"""What changed, in words: the alerts, the clearest of each first, and what the machines did themselves."""

from datetime import UTC, datetime
from typing import Any

from scripts import alerts, detect, recall
from scripts.detect import Seen
from scripts.recall import Listed

ORDER = (alerts.CONFIRMED, recall.NEW, alerts.SUSPECTED, alerts.UNDECIDED, alerts.ACKNOWLEDGED, alerts.REFUTED)
"""What is told first. What is closed is not there any more."""


def news(seen: Seen) -> list[dict[str, Any]]:
    """An entry an alert: what matters first, then the newest."""
    told = [entry(one, seen) for one in seen.recalled.listed]
    return sorted(told, key=lambda one: (place(one["state"]), not one["worse"], -one["position"]))


def place(state: str) -> int:
    return ORDER.index(state) if state in ORDER else len(ORDER)


def entry(one: Listed, seen: Seen) -> dict[str, Any]:
    alert, commits = one.alert, seen.known.commits
    machine, *lines = detect.members(one)
    return {
        "alert": one.name,
        "state": one.state,
        "open": one.is_open,
        "worse": alert.worse,
        "machine": machine,
        "good": commits[alert.good],
        "bad": commits[alert.bad],
        "position": alert.bad,
        "measured": first_seen(one, seen),
        "told": lines,
        "members": [detect.member(step, commits) for step in alert.members],
        "places": [int(step.series.positions[step.change.first]) for step in alert.members],
        "sizes": [f"{step.words} {step.size}" for step in alert.members],
    }


def first_seen(one: Listed, seen: Seen) -> str:
    """When the first run after the step was measured."""
    runs = seen.known.runs
    taken = runs[(runs["machine"] == one.alert.machine) & (runs["position"] >= one.alert.bad)]["measured"]
    return datetime.fromtimestamp(taken.min(), UTC).isoformat(timespec="seconds")


def shifts(seen: Seen) -> list[str]:
    """What the machines did, in lines."""
    return [detect.told(shift, steps) for shift, steps in seen.shifts]
