"""What a night came to: what its parts told, the exit code that follows, and a summary in Markdown."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts import text
from scripts.alerts import CONFIRMED, Known
from scripts.nightly import record
from scripts.nightly.record import Tried

GREEN, SLOWER, ERROR, PARTLY, NOTHING, UNFIT, ANOTHER, NOT_PUSHED = range(8)
MEANINGS = {
    GREEN: "all is well: measured and saved, or nothing new",
    SLOWER: "a slowdown was confirmed",
    ERROR: "an error",
    PARTLY: "measured in part: a case, a commit or a step of the night failed",
    NOTHING: "nothing could be measured",
    UNFIT: "the machine is not fit to measure on",
    ANOTHER: "another night is under way",
    NOT_PUSHED: "saved here, but not pushed; the next night pushes",
    129: "interrupted; what was measured is kept, the next night goes on",
    130: "interrupted; what was measured is kept, the next night goes on",
    143: "interrupted; what was measured is kept, the next night goes on",
}
"""What the exit codes mean."""

LONGEST = 300
"""Characters of somebody's text."""

MOST = 20
"""Lines of a kind that the summary has; the rest is counted."""


@dataclass
class Night:
    """What is told of a night, filled in as it goes.

    checks   a line each     tried    the commits
    left     commits for which there was no time
    failed   steps of the night that failed, in words
    alerts   those that were measured again tonight, as they are now
    unpushed why the results of a lane are not on its branch
    quiet    lanes of which nothing was new
    newest   why the newest commit has no results, if it was given up
    error    what ended the night
    """

    machine: str
    checks: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)
    left: int = 0
    failed: list[str] = field(default_factory=list)
    alerts: list[Known] = field(default_factory=list)
    exact: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    unpushed: dict[str, str] = field(default_factory=dict)
    quiet: list[str] = field(default_factory=list)
    newest: str = ""
    error: str = ""
    seconds: float = 0.0
    interrupted: int = 0

    @property
    def not_pushed(self) -> str:
        return "; ".join(dict.fromkeys(self.unpushed.values()))

    @property
    def code(self) -> int:
        """The exit code: what is worst decides."""
        if self.interrupted:
            return self.interrupted
        if self.error:
            return ERROR
        if self.refused:
            return UNFIT
        measured = any(one.outcome in record.DONE for one in self.tried)
        nothing = self.newest or ((self.tried or self.failed) and not measured)
        if nothing and not self.quiet:
            return NOTHING
        if any(one.state == CONFIRMED and one.worse for one in self.alerts):
            return SLOWER
        if nothing or self.failed or any(one.outcome != record.MEASURED for one in self.tried):
            return PARTLY
        return NOT_PUSHED if self.not_pushed else GREEN

    @property
    def verdict(self) -> str:
        if self.code == GREEN and not self.tried:
            return "nothing new"
        return MEANINGS[self.code]

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "code": self.code,
            "verdict": self.verdict,
            "checks": self.checks,
            "refused": self.refused,
            "commits": [one._asdict() for one in self.tried],
            "left": self.left,
            "failed": self.failed,
            "alerts": [
                {name: getattr(one, name) for name in ("name", "state", "worse", "reason", "culprit")}
                for one in self.alerts
            ],
            "not_pushed": self.not_pushed,
            "newest": self.newest,
            "error": self.error,
            "seconds": self.seconds,
        }


def summary(night: Night) -> str:
    """The night for a job's page. All text is shown as it is."""
    parts = [
        [f"## AdamW on {code(night.machine)}: {night.verdict}"],
        bullets("Error", [night.error]),
        bullets("Refused", night.refused),
        bullets("Not measured", [night.newest]),
        commits(night),
        bullets("Failed case", [told for one in night.tried for told in missing(one)]),
        bullets("Failed", night.failed),
        bullets("Not pushed", [night.not_pushed]),
        found(night),
        block("What a step does, counted", night.exact),
        block("History", night.history),
        block("Machine", night.checks),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def commits(night: Night) -> list[str]:
    if not night.tried:
        return []
    rows = [
        f"| {one.commit[:8]} | {one.outcome} | {one.cases} | {len(one.missing)} | {one.seconds / 60:.1f} "
        f"| {code('; '.join(filter(None, (one.reason, one.marks))))} |"
        for one in night.tried
    ]
    left = ["", f"{night.left} more commits are left for another night"] if night.left else []
    return ["| commit | outcome | cases | failed | minutes | |", "|---|---|---|---|---|---|", *rows, *left]


def missing(one: Tried) -> list[str]:
    told = [f"{one.commit[:8]}, {why}" for why in one.missing.values()]
    return [*told[:MOST], *([f"{len(told) - MOST} more failed"] if len(told) > MOST else [])]


def found(night: Night) -> list[str]:
    rows = []
    for one in night.alerts:
        reason, culprit = code(one.reason), code(one.culprit)
        rows.append(f"| {one.name} | {one.state} | {reason} | {one.good[:8]}..{one.bad[:8]} | {culprit} |")
    return ["| alert | state | measured again | commits | the commit |", "|---|---|---|---|---|", *rows] if rows else []


def bullets(what: str, lines: Iterable[str | None]) -> list[str]:
    return [f"- {what}: {code(line)}" for line in lines if line]


def code(said: str) -> str:
    """Somebody's text, as text."""
    return text.code(said, LONGEST)


def block(heading: str, lines: list[str]) -> list[str]:
    """Lines as they were printed: indented, so that nothing in them is taken for Markdown."""
    shown = [*lines[:MOST], *([f"and {len(lines) - MOST} more lines"] if len(lines) > MOST else [])]
    return [f"### {heading}", "", *(f"    {line}" for line in shown)] if lines else []


def write_summary(path: Path, told: str) -> None:
    """Add the summary to `path`: a job's page may have text of other steps."""
    with path.open("a") as file:
        file.write(told)
