"""What the counters of two sides differ in, in words: exact, so any change is a fact."""

from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from benchmarks.harness.counters import FIGURES, Counters, Figure
from scripts.counting import Counted, Failure
from scripts.matching import Match

WORSE, BETTER, OTHER = "worse", "better", "changed"
GONE = "gone"
SHOWN_WORKLOADS = 4


class Change(NamedTuple):
    """What changed in one case.

    words    for every changed figure but the Python calls
    calls    Python calls a step more than before
    figures  every changed figure's two values
    """

    case: str
    verdict: str
    words: str
    calls: int
    figures: dict[str, tuple[Any, Any]]

    @property
    def told(self) -> str:
        """All of it in one line."""
        plural = "s" * (abs(self.calls) > 1)
        calls = f"{abs(self.calls)} {'more' if self.calls > 0 else 'fewer'} Python call{plural}" if self.calls else ""
        return "; ".join(filter(None, [self.words, calls]))


def change(match: Match, base: Counted | None, head: Counted | None) -> Change | None:
    """What is different in `head`, None if nothing is. A figure that one side does not tell is not compared."""
    name, case = match.name, match.case
    if base is None or head is None:
        return Change(name, OTHER, "new" if base is None else GONE, 0, {})
    if isinstance(head, Failure):
        return Change(name, OTHER if isinstance(base, Failure) else WORSE, f"failed: {head.message}", 0, {})
    if isinstance(base, Failure):
        return Change(name, BETTER, "can be counted, could not before", 0, {})
    changed = {
        figure: (getattr(base, figure.name), getattr(head, figure.name))
        for figure in FIGURES
        if differs(figure, base, head)
    }
    if not changed:
        return None
    worse = {figure for figure, (old, new) in changed.items() if is_worse(old, new)}
    names = {figure.name for figure in changed}
    told = [figure for figure in changed if figure.name != "calls" and not names.intersection(figure.unless)]
    parts = [
        [figure.change(base, head, case) for figure in told if (figure in worse) == part] for part in (True, False)
    ]
    words = "; but better: ".join("; ".join(part) for part in parts if part)
    old_calls, new_calls = next((pair for figure, pair in changed.items() if figure.name == "calls"), (0, 0))
    values = {figure.name: pair for figure, pair in changed.items()}
    return Change(name, WORSE if worse else BETTER, words, new_calls - old_calls, values)


def differs(figure: Figure, base: Counters, head: Counters) -> bool:
    old, new = getattr(base, figure.name), getattr(head, figure.name)
    guessed = figure.sized and (base.primitives is None) != (head.primitives is None)
    if guessed and None in (base.modelled_bytes, head.modelled_bytes):  # one MLX guesses sizes
        return False
    return None not in (old, new) and old != new


def is_worse(old: Any, new: Any) -> bool:
    """Whether a figure that changed got worse: it is more, or another dtype."""
    return isinstance(new, str) or new > old


def of_words(one: Change) -> str:
    """The verdict on what the words tell: the Python calls are told apart."""
    told = [pair for name, pair in one.figures.items() if name != "calls"]
    if not told:
        return one.verdict
    return WORSE if any(is_worse(*pair) for pair in told) else BETTER


class Group(NamedTuple):
    """The same change in several workloads of a variant."""

    verdict: str
    variant: str
    workloads: list[str]
    words: str


def grouped(changes: list[Change]) -> list[Group]:
    """A group for what changed, what is worse first; the Python calls in groups of their own."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    calls: dict[tuple[str, str], dict[str, int]] = {}
    for one in changes:
        variant, _, workload = one.case.partition("/")
        if one.words:
            groups.setdefault((of_words(one), variant, one.words), []).append(workload)
        if one.calls:
            calls.setdefault((WORSE if one.calls > 0 else BETTER, variant), {})[workload] = abs(one.calls)
    for (verdict, variant), counts in calls.items():
        lowest, highest = min(counts.values()), max(counts.values())
        number = str(lowest) if lowest == highest else f"{lowest} to {highest}"
        words = f"{number} {'more' if verdict == WORSE else 'fewer'} Python call{'s' * (highest > 1)} a step"
        groups[verdict, variant, words] = list(counts)
    found = [Group(verdict, variant, workloads, words) for (verdict, variant, words), workloads in groups.items()]
    return sorted(found, key=lambda group: (WORSE, OTHER, BETTER).index(group.verdict))


def table(changes: list[Change]) -> Table:
    """A row a group."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "variant", "workloads", "now, and before"):
        shown.add_column(heading, overflow="fold")
    for one in grouped(changes):
        more = f" and {len(one.workloads) - SHOWN_WORKLOADS} more" * (len(one.workloads) > SHOWN_WORKLOADS)
        workloads = ", ".join(one.workloads[:SHOWN_WORKLOADS]) + more
        shown.add_row(*map(Text, (one.verdict, one.variant, workloads, one.words)))
    return shown


def summary(changes: list[Change], count: int) -> str:
    """How many cases got worse, and so on, of the `count` that the head has."""
    verdicts = [one.verdict for one in changes]
    told = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in (WORSE, OTHER, BETTER))
    same = count - sum(one.words != GONE for one in changes)
    return f"{told}, {same} the same in all figures that both sides tell"
