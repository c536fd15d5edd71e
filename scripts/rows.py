"""The verdicts of a comparison as rows, a table, and an exit code."""

from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from scripts import verdict
from scripts.exact import Change
from scripts.matching import Match
from scripts.timing import Limits, Outcome

NEW, GONE, FAILED, BROKEN = "new", "gone", "failed", "broken"
ORDER = (BROKEN, FAILED, verdict.SLOWER, verdict.FASTER, verdict.UNDECIDED, verdict.SAME, NEW, GONE)

BUSY = 0.5
"""The share of disturbed rounds above which the machine is said to be too busy."""

HOPELESS = 3
"""The smallest detectable slowdown, in smallest effects that matter, above which more of the same would not help."""


class Row(NamedTuple):
    """The verdict on a match. Ratios are the head's seconds over the base's.

    verdict       one of ORDER; `broken` is what runs in the base and not in the head
    low, high     of the 95 % interval
    detectable    the smallest slowdown that the pairs taken would find about nine times in ten; 0.03 is 3 %
    milliseconds  of a step of either side: medians over the pairs
    disturbed     share of the rounds in which another process held a core
    why           what the counters differ in, or what went wrong
    logs          the pairs' log ratios
    """

    name: str
    verdict: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    detectable: float | None = None
    milliseconds: tuple[float, float] | None = None
    pairs: int = 0
    seconds: float = 0.0
    disturbed: float = 0.0
    why: str = ""
    logs: tuple[float, ...] = ()


def judge(wanted: list[Match], outcomes: dict[str, Outcome], changes: dict[str, Change], limits: Limits) -> list[Row]:
    """A row for every match, in the order of `wanted`."""
    estimates = {name: one.estimate for name, one in outcomes.items() if not one.failed}
    verdicts = verdict.judge(estimates, limits.min_effect)
    rows = []
    for match in wanted:
        change = changes.get(match.name)
        why = change.told if change else ""
        if match.name not in outcomes:
            rows.append(Row(match.name, GONE if match.base else NEW))
        elif outcomes[match.name].failed:
            rows.append(failure(match.name, outcomes[match.name]))
        else:
            rows.append(row(match.name, verdicts[match.name], outcomes[match.name], limits, len(estimates), why))
    return rows


def failure(name: str, outcome: Outcome) -> Row:
    base, head = outcome.reasons
    why = (
        base
        if base == head
        else "; ".join(f"{side}: {reason}" for side, reason in (("base", base), ("head", head)) if reason)
    )
    return Row(name, FAILED if base else BROKEN, pairs=len(outcome.pairs), seconds=outcome.spent, why=why)


def row(name: str, judgement: str, outcome: Outcome, limits: Limits, count: int, why: str) -> Row:
    found = outcome.estimate
    shared: dict[str, Any] = {
        "milliseconds": outcome.milliseconds,
        "pairs": len(outcome.pairs),
        "seconds": outcome.spent,
        "disturbed": outcome.disturbed,
        "why": why,
        "logs": tuple(pair.log for pair in outcome.pairs),
    }
    if not found:
        return Row(name, judgement, **shared)
    low, high = found.interval
    return Row(name, judgement, found.ratio, low, high, found.detectable(limits.min_effect, count), **shared)


def table(rows: list[Row]) -> Table:
    """A row a match, what matters first; beneath its name what it does differently."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    shown.add_column("case", overflow="fold", min_width=28)
    shown.add_column("verdict", no_wrap=True)
    for heading in ("head", "95 % interval", "ms, was", "pairs", "finds"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for one in sorted(rows, key=lambda one: ORDER.index(one.verdict)):
        told = ["", ""] if one.ratio is None else [percent(one.ratio), f"{percent(one.low)} to {percent(one.high)}"]
        seconds = "" if not one.milliseconds else f"{one.milliseconds[1]:.3g}, {one.milliseconds[0]:.3g}"
        finds = "" if one.detectable is None else f"{one.detectable:.1%}"
        name = Text(one.name).append(f"\n  {one.why}" if one.why else "", style="dim")
        shown.add_row(name, one.verdict, *told, seconds, str(one.pairs or ""), finds)
    return shown


def percent(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio - 1:+.1%}"


def summary(rows: list[Row], limits: Limits) -> list[str]:
    """How many of each verdict, and what the words mean, in lines."""
    verdicts = [one.verdict for one in rows]
    return [
        ", ".join(f"{verdicts.count(word)} {word}" for word in ORDER if word in verdicts),
        f"same: the interval is inside ±{limits.min_effect:.1%}; finds: the smallest slowdown that so many pairs find",
        "about nine times in ten",
    ]


def warnings(rows: list[Row], conditions: dict[str, dict[str, Any]], limits: Limits) -> list[str]:
    """What was wrong with the machine, in lines."""
    said = []
    busiest = max((one.disturbed for one in rows), default=0.0)
    if busiest > BUSY:
        said.append(
            f"this machine is too busy: another process held a core in {busiest:.0%} of a case's rounds; end it"
        )
    undecided = [one.detectable for one in rows if one.verdict == verdict.UNDECIDED and one.detectable]
    if undecided and min(undecided) > HOPELESS * limits.min_effect:
        said.append(
            f"too noisy: undecided cases find no slowdown below {min(undecided):.0%}; "
            "end other programs, or raise --budget"
        )
    before, after = conditions["before"], conditions["after"]
    if after.get("on_battery"):
        said.append("on battery: plug it in, the system may slow it down")
    if (after.get("thermal_pressure") or 0) > 0:
        said.append(
            f"thermal pressure {after['thermal_pressure']} (was {before.get('thermal_pressure')}): let it cool down"
        )
    return said


def exit_code(rows: list[Row]) -> int:
    """0 nothing slower, 1 something slower or broken, 2 nothing could be timed, 3 nothing but undecided."""
    verdicts = {one.verdict for one in rows} - {NEW, GONE}
    if verdicts & {verdict.SLOWER, BROKEN}:
        return 1
    if verdicts and verdicts <= {FAILED}:
        return 2
    return 3 if verdict.UNDECIDED in verdicts and not verdicts & {verdict.SAME, verdict.FASTER} else 0


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
