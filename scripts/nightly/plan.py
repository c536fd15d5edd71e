"""Which commits a night measures: the newest, those that were interrupted, then what was missed, the oldest first."""

import math
import re
from collections.abc import Sequence, Set
from pathlib import Path
from typing import NamedTuple

from asv.config import Config
from asv.plugins.git import Git

from scripts import archive, asv_git, asv_mlx, history, upstream
from scripts.history import MALFORMED
from scripts.nightly import record
from scripts.search import CONTROLS

FOLDER = Path(".asv/night")
"""Where a night keeps what it needs if it is interrupted."""

LOGS = 30
"""Of asv's runs that are kept."""

STEP = "step.Step.track_seconds"
NEWEST, INTERRUPTED, MISSED = "newest", "interrupted", "missed"


class Planned(NamedTuple):
    """A commit to measure, and why."""

    commit: str
    why: str


def plan(config: Config, lane: str, results: Path, machine: str, profile: str) -> list[Planned]:
    """The commits of a lane that this machine has not measured, in the order of measuring. Raises UserError."""
    candidates = commits(config)
    tries = record.TRIES_OF_A_RELEASE if is_mlx(config) else record.TRIES
    known = record.done(record.read(results, machine), lane, profile, tries)
    older = set(candidates[:-1])  # who measured the newest may have wanted less
    known |= with_results(results, machine, known) & older
    begun = interrupted(lane, machine, candidates)
    return order(candidates, known - begun, begun)


def is_mlx(config: Config) -> bool:
    """Whether the lane is MLX's own."""
    return bool(config.environment_type == asv_mlx.MlxHistory.tool_name)


def is_here(config: Config) -> bool:
    """Whether a lane's repository can be read without cloning it first."""
    return bool(Git.is_local_repo(config.repo)) or (asv_git.MIRRORS / f"{config.project}.git").exists()


def fetch(config: Config) -> None:
    """Bring what is new into the mirror of a repository that is elsewhere; a clone is taken as it is."""
    upstream.repository(config).pull()


def commits(config: Config) -> list[str]:
    """The commits of a lane that nights measure, the oldest first: of MLX's own only the releases. Raises UserError."""
    searched = history.branch_commits(config)[0]
    if not is_mlx(config):
        return searched
    releases = upstream.release_commits(config)
    return [commit for commit in searched if commit in releases]


def order(commits: Sequence[str], known: Set[str], begun: Set[str]) -> list[Planned]:
    """Of `commits`, the oldest first: the newest, those `begun`, those not `known` that are newer than any known."""
    newest = commits[-1]
    places = [place for place, commit in enumerate(commits) if commit in known]
    since = min(places, default=len(commits))
    missed = [commit for commit in commits[since:-1] if commit not in known and commit not in begun]
    told = [Planned(newest, INTERRUPTED if newest in begun else NEWEST)] if newest not in known else []
    told += [Planned(commit, INTERRUPTED) for commit in commits[:-1] if commit in begun]
    return told + [Planned(commit, MISSED) for commit in missed]


def with_results(results: Path, machine: str, known: Set[str]) -> set[str]:
    """The commits for which there are seconds and controls, though no night measured them; not those `known`."""
    short = {commit[:8] for commit in known}
    metrics: dict[str, set[str]] = {}
    for path in archive.paths(results / machine):
        if path.name[:8] in short:
            continue
        try:
            run = archive.read(path)
        except MALFORMED:
            continue
        measured = {one.metric for one in run.figures if any(is_figure(value) for _, value in one.values())}
        metrics.setdefault(run.head.commit, set()).update(measured)
    return {
        commit
        for commit, found in metrics.items()
        if STEP in found and any(metric.startswith(CONTROLS) for metric in found)
    }


def is_figure(value: float | None) -> bool:
    """Whether something was measured: a case that failed has none, one that was skipped NaN."""
    return value is not None and not math.isnan(value)


def pointer(lane: str, machine: str, commit: str) -> Path:
    """Where the path of a commit's run is kept until its line is in the machine's nights: who finds it goes on."""
    return FOLDER / f"{named(lane, machine)}-{commit}.run"


def to_look_at(lane: str, machine: str) -> Path:
    """What is there as long as a commit was measured and nobody looked yet at what that shows."""
    return FOLDER / f"{named(lane, machine)}.look"


def named(lane: str, machine: str) -> str:
    """A lane and a machine as part of a file's name."""
    return f"{machine}-{re.sub(r'[^A-Za-z0-9_.-]', '-', lane)}"


def interrupted(lane: str, machine: str, commits: Sequence[str]) -> set[str]:
    """The commits whose run was begun and whose line is not in the machine's nights."""
    return {commit for commit in commits if pointer(lane, machine, commit).exists()}


def remove_old_logs() -> None:
    """Leave the newest LOGS of asv's logs."""
    logs = sorted(FOLDER.glob("*.log"), key=lambda path: path.stat().st_mtime)
    for path in logs[:-LOGS]:
        path.unlink(missing_ok=True)
