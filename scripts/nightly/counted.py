"""What a step does otherwise than on the night before: from what both runs counted, so that it costs nothing.

The counters are exact, whichever run they come from: see `scripts.compare --exact`, which counts them anew.
"""

import io
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from benchmarks.harness import cases
from benchmarks.harness.counters import Counters
from scripts import archive, command, exact, ledger
from scripts.history import MALFORMED
from scripts.matching import Match

NOTHING_TO_COMPARE = "what a step does cannot be compared: {} has no counters of these cases"


Told = dict[str, dict[str, Counters]]
"""What was counted of every case, by the environment."""


def told(results: Path, machine: str, before: str, after: str) -> list[str]:
    """What changed from one commit to the other, in lines as `scripts.compare --exact` prints them."""
    base, head = comparable(*(counters(results, machine, commit) for commit in (before, after)))
    names = [name for name in head if name in base]
    if not names:
        return [NOTHING_TO_COMPARE.format(after[:8] if base else before[:8])]
    found = []
    for name in names:
        case = cases.case(*name.split("/", 1))
        if change := exact.change(Match(name, case, case), base[name], head[name]):
            found.append(change)
    shown = io.StringIO()
    console = Console(file=shown, width=command.WIDTH, force_terminal=False)
    if found:
        console.print(exact.table(found))
    console.print(f"{before[:8]} to {after[:8]}: {exact.summary(found, len(names))}", markup=False, highlight=False)
    return [line.rstrip() for line in shown.getvalue().splitlines()]


def counters(results: Path, machine: str, commit: str) -> Told:
    """What was counted of every case of a commit, by its newest run; environment by environment, the newest last.

    What cannot be read is left out.
    """
    found: Told = {}
    told = list(archive.heads(archive.paths(results / machine, commit)))
    for path, head in sorted(told, key=lambda one: one[1].began):
        counted = found.pop(head.environment, {})
        found[head.environment] = counted
        with suppress(*MALFORMED):
            for name, entries in ledger.by_case(archive.entries(path)).items():
                with suppress(*MALFORMED, cases.UnknownCase):
                    cases.case(*name.split("/", 1))
                    counted[name] = Counters(**entries[-1]["measurement"]["work"])
    return {environment: of_cases for environment, of_cases in found.items() if of_cases}


def comparable(before: Told, after: Told) -> list[dict[str, Counters]]:
    """The counters of two commits in one environment, the newest that both have; else in each one's newest."""
    both = [name for name in after if name in before]
    return [told.get(both[-1] if both else next(reversed(told), ""), {}) for told in (before, after)]
