"""Counts the cases of a side: a worker process with that side's `adamw` and MLX, asked case by case."""

import os
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.harness import cases
from benchmarks.harness.cases import Case
from benchmarks.harness.counters import FIGURES, Counters
from scripts import command, workers
from scripts.sides import Side

ANSWER_SECONDS = 300
FEW = 20
"""Cases that are counted in no time worth announcing."""

WORKER = "benchmarks.harness.worker"


class Failure(NamedTuple):
    """Why a case could not be counted, in one line."""

    message: str


Counted = Counters | Failure


class Counter:
    """Counts cases of `side` in a process, one at a time. It ends with its `with` block, or when this process does.

    A case that kills the process fails, and the next one gets a new process.

    hello        what the process says it is
    unavailable  why which variants cannot run here
    """

    def __init__(self, side: Side) -> None:
        workers.check(side)
        self.side = side
        self.stopped = False
        try:
            self.hello = self._start()
        except workers.Lost as lost:
            raise command.UserError(f"{side}: {lost}") from lost
        if Path(self.hello["adamw"]).resolve() != side.folder.resolve():
            raise command.UserError(
                f"{side}: its adamw comes from {self.hello['adamw']}"
                + "; unset PYTHONPATH and try again" * ("PYTHONPATH" in os.environ)
            )
        self.unavailable = {name: reason for name in self.hello["variants"] if (reason := self._why_not(name))}

    @property
    def variants(self) -> list[str]:
        """The names of those that can run here."""
        return [name for name in self.hello["variants"] if name not in self.unavailable]

    def __enter__(self) -> "Counter":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def count(self, case: str) -> Counted:
        """The counters of `case`, or a failure that says why there are none."""
        if self.stopped:
            return Failure("stopped")
        try:
            answer = self._ask(case)
        except workers.Lost as lost:
            return Failure(str(lost))
        return Failure(command.one_line(answer["failed"])) if "failed" in answer else Counters(**answer["counters"])

    def stop(self) -> None:
        """Count no more, and end the process."""
        self.stopped = True
        self.worker.end()

    def _why_not(self, variant: str) -> str | None:
        """Why `variant` cannot run here. Of one that fails each case will fail by name, and the others' go on."""
        try:
            return self._ask(variant).get("unavailable")
        except workers.Lost:
            return None

    def _ask(self, question: str) -> dict[str, Any]:
        """The process's answer, or a new one's if it has died. Raises workers.Lost."""
        if not self.worker.alive:
            self._start()
        self.worker.tell(question)
        return self.worker.answer(ANSWER_SECONDS)

    def _start(self) -> dict[str, Any]:
        self.worker = workers.Worker(self.side, WORKER)
        return self.worker.answer(ANSWER_SECONDS)


def count(counters: list[Counter], names: list[list[str]], console: Console) -> list[dict[str, Counted]]:
    """For every counter the counters of the cases called `names`; all at once, with progress."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    total = sum(map(len, names))
    if not console.is_interactive and total > FEW:
        print(f"counting {total} cases, one to three minutes for two hundred", file=sys.stderr)
    with Progress(*columns, console=console, transient=True, disable=not console.is_interactive) as progress:
        task = progress.add_task("counting", total=total)

        def count_all(counter: Counter, chosen: list[str]) -> dict[str, Counted]:
            counted = {}
            for case in chosen:
                counted[case] = counter.count(case)
                progress.update(task, advance=1, description=case)
            return counted

        with ThreadPoolExecutor() as pool:
            try:
                return list(pool.map(count_all, counters, names))
            except BaseException:
                for counter in counters:
                    counter.stop()
                raise


def select(variants: list[str], profile: str, pattern: str | None) -> list[Case]:
    """The cases of `profile` and `variants` whose name `pattern` finds. Raises UserError if there is none."""
    finds = expression(pattern)
    found = [case for case in cases.chosen(variants, profile) if finds(str(case))]
    if not found:
        raise nothing_matches(profile, pattern)
    return found


def expression(pattern: str | None) -> Callable[[str], object]:
    """What says whether `pattern`, a regular expression, finds a name. Raises UserError if it is none."""
    try:
        return re.compile(pattern or "").search
    except re.error as error:
        raise command.UserError(f"--case {pattern!r} is no regular expression: {error}") from error


def nothing_matches(profile: str, pattern: str | None) -> command.UserError:
    return command.UserError(f"no case of profile {profile} matches {pattern!r}; names are like compiled/float32/gpt2")


def missing(counted: dict[str, Counted]) -> dict[str, list[str]]:
    """For every figure that was not told in some case the variants of those cases."""
    told = [(name.partition("/")[0], one) for name, one in counted.items() if isinstance(one, Counters)]
    absent = {
        figure.name: sorted({variant for variant, one in told if getattr(one, figure.name) is None})
        for figure in FIGURES
    }
    return {name: variants for name, variants in absent.items() if variants}


def describe(counter: Counter, counted: dict[str, Counted]) -> list[str]:
    """What was counted on what, and what it could not tell, in lines."""
    hello = counter.hello
    lines = [f"{counter.side}, {hello['backend']} backend, Python {hello['python']}, {len(counted)} cases"]
    lines += [f"  {command.one_line(reason)}" for reason in counter.unavailable.values()]
    for figure, variants in missing(counted).items():
        lines.append(f"  {figure.replace('_', ' ')}: not available in mlx {hello['mlx']} for {', '.join(variants)}")
    return lines


def as_json(counter: Counter, counted: dict[str, Counted]) -> dict[str, Any]:
    figures = {
        name: {"failed": one.message} if isinstance(one, Failure) else one._asdict() for name, one in counted.items()
    }
    said = counter.hello | {"variants": counter.variants, "unavailable": counter.unavailable}
    return {"name": counter.side.name, "commit": counter.side.commit, **said, "cases": figures}
