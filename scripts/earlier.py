"""Earlier results of a commit: kept when it is measured again, beside asv's file, which has only the newest.

asv replaces what it had. Every value that a run replaces goes to a file of its own, NAME-TIME.earlier, in asv's format:
asv's own commands pass over it, `scripts.history` reads it like any other.
"""

import copy
import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asv import util
from asv.results import Results

from benchmarks.harness.files import write_whole
from scripts import ledger

SUFFIX = ".earlier"
CORRUPT = ".corrupt"


def replaced(old: Results, new: Results) -> Results | None:
    """What `old` has and `new` has otherwise or not at all, of the same commit and environment; None if nothing."""
    kept = copy.deepcopy(old)
    for metric in list(old.get_all_result_keys()):
        if not keep_replaced(kept, new, metric):
            kept.remove_result(metric)
    return kept if kept.get_all_result_keys() else None


def keep_replaced(kept: Results, new: Results, metric: str) -> bool:
    """Leave of a metric what `new` replaces; whether that is anything."""
    values = kept._results[metric]
    if values is None or metric not in new._results:
        return False
    if kept.started_at.get(metric) == new.started_at.get(metric):
        return False  # it is the same measurement
    cases = list(itertools.product(*kept._benchmark_params[metric] or []))
    if kept.benchmark_version.get(metric) != new.benchmark_version.get(metric):
        now = [None] * len(values)
    else:
        now = new.get_result_value(metric, kept._benchmark_params[metric] or [])
    for place in range(min(len(values), len(cases))):
        if values[place] == now[place] or util.is_na(values[place]):
            for column in (kept._results, kept._samples, kept._stats):
                if column[metric] is not None:
                    column[metric][place] = None
    return any(not util.is_na(value) for value in values)


def replaced_in(path: Path, new: Results, began: float) -> Results | None:
    """What writing `new` to `path` replaces of before `began` (seconds since 1970), under a name of its own."""
    if not path.exists():
        return None
    old = Results.load(str(path))
    for metric in [name for name in old.get_all_result_keys() if (old.started_at.get(name) or 0) / 1000 >= began]:
        old.remove_result(metric)  # of this very run: asv writes after every round
    kept = replaced(old, new)
    if kept:
        kept._filename = name_beside(path, kept)
    return kept


def join(path: Path, theirs: str) -> int:
    """Make `path` the newer of two results of a commit, its own and `theirs`; keep what that replaces of the other.

    Whether anything changed. A ledger is taken from the newer as it comes: it is another file.
    """
    other = path.with_name(f"{path.name}.theirs")
    try:
        write_whole(other, theirs)
        ours, found = Results.load(str(path)), Results.load(str(other))
    except (util.UserError, LookupError, TypeError, ValueError, AttributeError):
        return 0  # theirs is damaged
    finally:
        other.unlink(missing_ok=True)
    old, new = sorted((ours, found), key=newest)
    kept = replaced(old, new)
    if kept:
        kept._filename = name_beside(path, kept)
        if (path.parents[1] / kept._filename).exists() and new is ours:
            return 0
        kept.save(str(path.parents[1]))
    if new is found:
        write_whole(path, theirs, durable=True)
    return int(bool(kept) or new is found)


def newest(result: Results) -> float:
    """When the newest figure of a result was measured, milliseconds since 1970."""
    return max((moment for moment in result.started_at.values() if moment), default=result.date)


def name_beside(path: Path, kept: Results) -> str:
    """What `kept` is called beside the result in `path`: MACHINE/FILE, as asv has it."""
    moment = min(kept.started_at.get(metric) or kept.date for metric in kept.get_all_result_keys())
    return str(Path(path.parent.name, f"{path.stem}-{stamp(moment)}{SUFFIX}"))


def stamp(moment: float) -> str:
    """Milliseconds since 1970 as a part of a file's name: so exact that the same name is the same measurement."""
    return datetime.fromtimestamp(moment / 1000, UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3]


def write_ledger(path: Path, entries: list[dict[str, Any]]) -> None:
    """The ledger entries that belong to the earlier results in `path`, and the machine's."""
    if any(entry["what"] in ("case", "accuracy") for entry in entries):
        ledger.merge(path.with_suffix(".jsonl"), entries)
