"""When the machine changed: steps that the controls share, which no commit can explain.

The controls are looked at in the order in which they were measured, not in that of the commits: a night may measure old
commits as well.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from scripts import changes, command, ledger
from scripts.history import ABOUT, MALFORMED, Series
from scripts.search import Suspicion, logs

SHARED = 2
"""Controls that must step together; fewer only where fewer are measured."""

ALIKE = 1.5
"""How many times as far as the controls a series may step and still be taken to follow them."""


LEVEL = 0.05
"""The chance of a step of a control that takes none, in either direction."""


class Step(NamedTuple):
    """A step of a control.

    last, first  seconds since 1970 of a run surely before it and of one surely after
    size         its log
    runs         these two runs
    drift        whether it goes there little by little
    """

    last: float
    first: float
    size: float
    metric: str
    runs: tuple[int, int]
    drift: bool


class Shift(NamedTuple):
    """A change of a machine, between two runs.

    last, first  seconds since 1970 of the last run surely before it and of the first surely after it
    size         log of the largest step of a control
    metrics      the controls that step
    told         what is recorded of the machine and its software that changed at the same time
    drift        whether they go there little by little
    """

    machine: str
    last: float
    first: float
    size: float
    metrics: tuple[str, ...]
    told: tuple[str, ...]
    drift: bool = False

    def explains(self, one: Suspicion, runs: pd.DataFrame) -> bool:
        """Whether a step may be this one: at the same time, in the same direction, and not much larger."""
        change, taken = one.change, runs["measured"].to_numpy()[one.series.runs]
        before, after, size = taken[change.low - 1], taken[change.high], change.size
        if before > after:  # the older commits were measured later
            before, after, size = after, before, -size
        if one.series.machine != self.machine or one.exact or size * self.size <= 0 or change.drift != self.drift:
            return False
        if not (before < self.first and self.last < after):
            return False
        return abs(size) <= ALIKE * abs(self.size) + 2 * change.error


def shifts(controls: Sequence[Series], runs: pd.DataFrame) -> list[Shift]:
    """The changes of every machine that has controls, the oldest first."""
    found = []
    for machine in sorted({one.machine for one in controls}):
        ours = [one for one in controls if one.machine == machine]
        steps = [step for one in ours for step in in_time(one, runs)]
        needed = min(SHARED, len({one.metric for one in ours}))
        for shared in together(steps):
            metrics = tuple(sorted({step.metric for step in shared}))
            if len(metrics) >= needed:
                last, first = max(step.last for step in shared), min(step.first for step in shared)
                largest = max(shared, key=lambda step: abs(step.size))
                told = differences(*(runs.iloc[run] for run in largest.runs))
                found.append(Shift(machine, last, first, largest.size, metrics, told, largest.drift))
    return sorted(found, key=lambda shift: shift.first)


def in_time(one: Series, runs: pd.DataFrame) -> list[Step]:
    """The steps of a control, in the order in which it was measured."""
    taken = runs["measured"].to_numpy()[one.runs]
    order = np.argsort(taken, kind="stable")
    taken, numbers = taken[order], one.runs[order]
    found = []
    for step in changes.changes(logs(one.values[order]), LEVEL, LEVEL):
        last, first = step.low - 1, step.high
        pair = int(numbers[last]), int(numbers[first])
        found.append(Step(float(taken[last]), float(taken[first]), step.size, one.metric, pair, step.drift))
    return found


def together(steps: Sequence[Step]) -> list[list[Step]]:
    """The steps in groups that may be one: in the same direction, at a time that all of a group share."""
    groups: list[list[Step]] = []
    for step in sorted(steps, key=lambda step: (step.drift, step.size > 0, step.first)):
        last = groups[-1] if groups else []
        alike = last and last[0].size * step.size > 0 and last[0].drift == step.drift
        if alike and step.last < min(other.first for other in last):
            last.append(step)
        else:
            groups.append([step])
    return groups


def differences(last: pd.Series, first: pd.Series) -> tuple[str, ...]:
    """What is recorded otherwise of the first run after a step than of the last one before it, in words."""
    before, after = recorded(last), recorded(first)
    return tuple(
        command.one_line(f"{name}: {after.get(name, 'not recorded')}, was {before.get(name, 'not recorded')}")
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )


def recorded(run: pd.Series) -> dict[str, str]:
    """All that is known of what a run was measured on and with: asv's record, and the ledger beside it."""
    said = {str(name): str(run[name]) for name in run.index if name not in ABOUT and pd.notna(run[name])}
    try:
        return said | in_ledger(Path(run["path"]).with_suffix(".jsonl"))
    except MALFORMED:
        return said


def in_ledger(path: Path) -> dict[str, str]:
    """What a ledger says of the machine. Raises one of MALFORMED."""
    entries = ledger.read(path)
    host = ledger.machine(entries)
    said = {str(name): str(value) for name, value in host["settings"].items()} if host else {}
    if marks := ledger.marks(entries):
        said["measured although"] = marks
    states = [entry["after"] for entries in ledger.by_case(entries).values() for entry in entries if "after" in entry]
    for name in ("on_battery", "low_power_mode"):
        if any(name in state for state in states):
            said[name.replace("_", " ")] = "yes" if any(state.get(name) for state in states) else "no"
    return said
