"""What tests of paired timing share: cases, turns and outcomes that nobody measured."""

import math

from benchmarks.harness import cases
from benchmarks.harness.sampling import Turn
from scripts.matching import Match
from scripts.pairs import Pair
from scripts.timing import Limits, Outcome

SMALL = "compiled/float32/leaf_1024"
LIMITS = Limits(60.0, 0.02)


def match(name: str = SMALL) -> Match:
    case = cases.case(*name.split("/", 1))
    return Match(name, case, case)


def rounds(*seconds: tuple[float, float], busy: float = 1.0) -> list[list[Turn]]:
    return [[Turn(one, busy) for one in pair] for pair in seconds]


def outcome(logs: list[float], spent: float = 1.0, **changes) -> Outcome:
    made = Outcome()
    made.pairs = [Pair(log, (0.01, 0.01 * math.exp(log)), 10, changes.get("disturbed", 0)) for log in logs]
    made.spent = spent
    made.reasons = changes.get("reasons", ["", ""])
    return made


SAME, SLOWER, FASTER = [0.001, -0.001] * 10, [0.1, 0.102] * 10, [-0.1, -0.102] * 10
UNSURE = [0.3, -0.3] * 10
