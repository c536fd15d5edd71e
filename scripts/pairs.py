"""The seconds of two sides' steps, taken in turns by two processes that live at the same time.

The order within a round is random: a machine that drifts drifts for both. A pair of fresh processes gives one log
ratio, because the memory layout that a process gets by chance stays with it: that of the faster half of either's turns,
because other programs only ever delay one.
"""

import hashlib
import json
import math
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from benchmarks.harness.host import HERE
from benchmarks.harness.sampling import Turn, calls
from scripts import command, scratch, workers
from scripts.sides import Side

MODULE = "benchmarks.harness.turns"
FEWEST_ROUNDS, MOST_ROUNDS = 5, 300
SEEN, LONGEST = 6, 4.0
"""From so many pairs on the time for rounds is chosen by what they show, at most so many times what starting takes."""

TIMEOUT = 120.0
"""Seconds within which a process must be ready, or have taken a turn."""

QUIET = 0.85
"""CPU time over wall time, as a part of what is usual, below which a turn on MLX's CPU backend was disturbed. Usual are
the whole cores that one turn in four keeps busy, and one at least."""

FULL = 0.8
"""How busy a core is that counts as one: two threads wait for one another now and then."""

FASTER = 0.5
"""The share of a pair's turns that say how fast a kind is: its fastest."""


class Contestant(NamedTuple):
    """A case of a side, and the folder where that side's processes find each other's compiled kernels."""

    side: Side
    case: str
    kernels: str

    @classmethod
    def of(cls, side: Side, case: str, number: int) -> "Contestant":
        """A contestant with a folder of its own: MLX finds kernels by name, so two sides must not share one."""
        what = hashlib.sha256(repr((side.commit, side.mlx, side.python, str(side.folder))).encode()).hexdigest()[:16]
        folder = scratch.folder() / f"kernels-{number}-{what}"
        folder.mkdir(exist_ok=True)
        return cls(side, case, str(folder))


class Kind(NamedTuple):
    """What takes a turn in every round: which process, and how much extra arithmetic after each step."""

    process: int
    extra: int = 0


BOTH = (Kind(0), Kind(1))


class Failed(Exception):
    """A contestant that cannot be timed: `reasons` has a line for each process, empty for one that could."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(filter(None, reasons)))
        self.reasons = reasons


class Session(NamedTuple):
    """What a set of processes did: for every round a turn of every kind.

    starting  seconds until all were ready
    running   seconds of the rounds
    cpu       whether a step is the process's own work, so that its CPU time says who had the core
    """

    rounds: list[list[Turn]]
    starting: float
    running: float
    cpu: bool


class Pair(NamedTuple):
    """What a pair of processes says of two kinds.

    log        of the second's seconds over the first's
    seconds    a step of either: geometric mean of the FASTER turns in the rounds that count
    taken      rounds
    disturbed  of them, in which another process held a core
    halves     half the difference between the logs of every second round and of the others: it varies as `log` does,
               but for the processes, which both halves have in common
    starting   seconds until both were ready
    running    seconds of the rounds
    """

    log: float
    seconds: tuple[float, float]
    taken: int
    disturbed: int
    halves: float = 0.0
    starting: float = 0.0
    running: float = 0.0


def run(
    contestants: Sequence[Contestant],
    kinds: Sequence[Kind] = BOTH,
    check: bool = False,
    timeout: float = TIMEOUT,
    seconds: float | None = None,
) -> Session:
    """Start a process for every contestant, and let the kinds take turns for about `seconds` per two of them.

    None is as long as starting took: that is within a factor of two of the best balance, whatever varies more,
    processes or rounds; `balance` knows better. With `check` the results are held against the reference first. Raises
    Failed; no process outlives the call.
    """
    begin = time.monotonic()
    running: list[workers.Worker] = []
    try:
        for one in contestants:
            running.append(workers.Worker(one.side, MODULE, {"TMPDIR": one.kernels}))
            running[-1].tell(json.dumps({"case": one.case, "check": check}))
        ready = answers(running, range(len(running)), timeout)
        steps = calls(min(answer["seconds"] for answer in ready))
        starting = time.monotonic() - begin
        cpu = all(answer["backend"] == "CPU" for answer in ready)
        rounds: list[list[Turn]] = []
        start = time.monotonic()
        while not enough(rounds, (time.monotonic() - start) * len(BOTH) / len(kinds), seconds or starting, cpu):
            turns: dict[int, Turn] = {}
            core = random.choice(HERE.cores())
            for number in random.sample(range(len(kinds)), len(kinds)):
                kind = kinds[number]
                running[kind.process].tell(json.dumps({"steps": steps, "extra": kind.extra, "core": core}))
                (answer,) = answers(running, [kind.process], timeout)
                turns[number] = Turn(**answer)
            rounds.append([turns[number] for number in range(len(kinds))])
        return Session(rounds, starting, time.monotonic() - start, cpu)
    finally:
        for worker in running:
            worker.end()


def answers(running: Sequence[workers.Worker], asked: Sequence[int], timeout: float) -> list[dict[str, Any]]:
    """The answers of those processes whose numbers are `asked`. Raises Failed if any has none."""
    found, reasons = [], [""] * len(running)
    until = time.monotonic() + timeout
    for number in asked:
        try:
            answer = running[number].answer(timeout, until - time.monotonic())
        except workers.Lost as lost:
            answer = {"failed": str(lost)}
        found.append(answer)
        reasons[number] = command.one_line(answer.get("failed", ""))
    if any(reasons):
        raise Failed(reasons)
    return found


def balance(found: Sequence[Pair]) -> float | None:
    """Seconds of rounds that make the most of the next pair; None, as long as starting takes, where too few are known.

    A pair costs s + t seconds, and its log has the variance P + R / t of processes and of rounds: (s + t)(P + R / t) is
    least at t = sqrt(s R / P). Robust, because pairs far off say nothing of the others.
    """
    if len(found) < SEEN:
        return None
    starting, running = (statistics.median(getattr(pair, name) for pair in found) for name in ("starting", "running"))
    both, rounds = (spread([getattr(pair, name) for pair in found]) ** 2 for name in ("log", "halves"))
    processes = max(both - rounds, 0)
    longest = LONGEST * starting
    if processes * longest**2 <= starting * rounds * running:
        return longest
    return max(starting, math.sqrt(starting * rounds * running / processes))


def spread(values: Sequence[float]) -> float:
    return float(stats.median_abs_deviation(values, scale="normal"))


def enough(rounds: list[list[Turn]], spent: float, wanted: float, cpu: bool) -> bool:
    """Whether `spent` seconds of rounds do; where they were disturbed, up to as many again are taken."""
    if len(rounds) < FEWEST_ROUNDS or len(rounds) >= MOST_ROUNDS:
        return len(rounds) >= MOST_ROUNDS
    good = len(rounds) - sum(disturbed(rounds, cpu))
    return spent >= 2 * wanted or (spent >= wanted and good >= max(FEWEST_ROUNDS, len(rounds) / 2))


def disturbed(rounds: list[list[Turn]], cpu: bool) -> list[bool]:
    """For every round, whether a turn in it had less of the cores than is usual for its kind."""
    if not cpu:
        return [False] * len(rounds)
    busy = np.array([[turn.busy for turn in turns] for turns in rounds])
    usual = np.maximum(1, np.floor(np.quantile(busy, 0.75, axis=0) + 1 - FULL))
    return (busy < QUIET * usual).any(axis=1).tolist()


def pair(session: Session, first: int = 0, second: int = 1) -> Pair:
    """What the session says of two of its kinds. Where too few rounds were undisturbed all of them count."""
    rounds = [[turns[first], turns[second]] for turns in session.rounds]
    marked = disturbed(rounds, session.cpu)
    kept = [turns for turns, bad in zip(rounds, marked, strict=True) if not bad]
    if len(kept) < FEWEST_ROUNDS:
        kept = rounds
    base, head = levels(kept)
    odd, even = (levels(kept[half::2]) for half in (0, 1))
    halves = ((odd[1] - odd[0]) - (even[1] - even[0])) / 2
    running = session.running * len(BOTH) / len(session.rounds[0])
    return Pair(
        head - base, (math.exp(base), math.exp(head)), len(rounds), sum(marked), halves, session.starting, running
    )


def levels(rounds: Sequence[Sequence[Turn]]) -> tuple[float, float]:
    """Of two kinds the logs of the seconds."""
    base, head = (fastest([turns[number].seconds for turns in rounds]) for number in (0, 1))
    return base, head


def fastest(seconds: Sequence[float]) -> float:
    """The mean log of the FASTER of `seconds`."""
    logs = sorted(map(math.log, seconds))
    return statistics.fmean(logs[: math.ceil(FASTER * len(logs))])
