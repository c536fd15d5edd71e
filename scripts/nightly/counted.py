"""What a step does otherwise than on the night before: from what both runs counted, so that it costs nothing.

The counters are exact, whichever run they come from: see `scripts.compare --exact`, which counts them anew.
"""

import io
from pathlib import Path

from rich.console import Console

from benchmarks.harness import cases
from benchmarks.harness.counters import Counters
from scripts import command, exact, ledger
from scripts.history import MALFORMED
from scripts.matching import Match

NOTHING_TO_COMPARE = "what a step does cannot be compared: {} has no counters of these cases"


def told(results: Path, machine: str, before: str, after: str) -> list[str]:
    """What changed from one commit to the other, in lines as `scripts.compare --exact` prints them."""
    base, head = (counters(results, machine, commit) for commit in (before, after))
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


def counters(results: Path, machine: str, commit: str) -> dict[str, Counters]:
    """What was counted of every case of a commit, in its newest ledger; what cannot be read is left out."""
    paths = sorted((results / machine).glob(f"{commit[:8]}-*.jsonl"), key=lambda path: path.stat().st_mtime)
    found: dict[str, Counters] = {}
    for path in paths:
        for name, entries in ledger.by_case(ledger.read(path)).items():
            try:
                cases.case(*name.split("/", 1))
                found[name] = Counters(**entries[-1]["measurement"]["work"])
            except (*MALFORMED, cases.UnknownCase):
                continue
    return found
