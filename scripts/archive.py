"""What was measured on a machine, whoever wrote it: runs, and what older versions left."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.harness.ledger import Entry
from scripts import ledger, legacy, runs
from scripts.runs import Head, Odd, Run


def paths(folder: Path, commit: str = "") -> list[Path]:
    """Every run, and older result, of a machine, or those of a commit."""
    return [*legacy.paths(folder, commit), *runs.paths(folder, commit)]


def is_run(path: Path) -> bool:
    return path.parent.name == runs.RUNS


def folder(path: Path) -> Path:
    """The machine's folder that a run or an older result is in."""
    return path.parents[1] if is_run(path) else path.parent


def read(path: Path) -> Run:
    """What was measured. Raises Odd, OSError."""
    return runs.read(path) if is_run(path) else legacy.read(path)


def head(path: Path) -> Head:
    """What it was measured of. Raises Odd, OSError."""
    return runs.head(path) if is_run(path) else legacy.read(path).head


def entries(path: Path) -> list[Entry]:
    """What the harness told, each case with the ceiling it is held against. Raises Odd, OSError."""
    return ledger.with_ceiling(runs.entries(path) if is_run(path) else legacy.entries(path))


def heads(found: Iterable[Path]) -> Iterator[tuple[Path, Head]]:
    """Every run and what it was of; those that do not say so are left out."""
    for path in found:
        try:
            yield path, head(path)
        except (Odd, OSError):
            continue


def same(path: Path) -> list[Path]:
    """Every run of a run's commit in its environment, itself too, the newest last. Raises Odd, OSError."""
    of = head(path)
    told = heads(paths(folder(path), of.commit))
    others = [other for other, its in told if (its.commit, its.environment) == (of.commit, of.environment)]
    return sorted(others, key=lambda other: (moment(other) or 0.0, other))


def together(path: Path) -> list[Entry]:
    """What the harness told of a run's commit in its environment, whatever run it was told in.

    Of a case that was measured in several runs it is what the newest has. Raises Odd, OSError.
    """
    everything: list[Entry] = []
    for one in same(path):
        everything = ledger.joined(everything, entries(one))
    return everything


def began(told: list[Entry]) -> float:
    """When the newest of some entries was told, seconds since 1970."""
    return max((one["time"] for one in told if isinstance(one.get("time"), int | float)), default=0.0)


def moment(path: Path) -> float | None:
    """When the newest entry was told that says what was measured on, seconds since 1970; None if there is none."""
    try:
        told = runs.entries(path) if is_run(path) else legacy.entries(path)
    except (Odd, OSError):
        return None
    begins = [one for one in told if one["what"] in ledger.BEGINS]
    return began(begins) if begins else None
