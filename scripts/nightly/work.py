"""The parts of a night, in order: the machine, what others did, each lane's commits, what they show, the report."""

import time
from pathlib import Path
from typing import NamedTuple

from asv.config import Config
from rich.console import Console

from scripts import alerts, branch, carried, command, history, lanes, measuring, share
from scripts.nightly import commit, counted, plan, preflight, record, steps
from scripts.nightly.night import Night
from scripts.nightly.plan import Planned
from scripts.nightly.settings import Settings


class Lane(NamedTuple):
    """A configuration of asv, and the file that it is in."""

    name: str
    config: Config

    @classmethod
    def of(cls, text: str) -> "Lane":
        """The lane that is called so, or is in the file of that name. Raises UserError."""
        path = lanes.lane(text)
        return cls(str(path), history.configuration(path))

    @property
    def results(self) -> Path:
        return Path(self.config.results_dir)

    def branch(self, wanted: str) -> str:
        """The results branch, which the settings name for the first lane."""
        return lanes.branch(self.results, wanted)


class Work(NamedTuple):
    """What all parts of a night share: what is wanted of it, what it has told, and where that is printed."""

    wanted: Settings
    told: Night
    console: Console

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False)


def whole(work: Work, wanted: list[Lane]) -> None:
    """All of a night; what each part tells is in `work.told`."""
    found = preflight.run(work.wanted.checks, work.say)
    work.told.checks, work.told.refused = found.said, found.refused
    if found.refused:
        return
    until = time.monotonic() + 3600 * work.wanted.hours
    for lane in wanted:
        try:
            one_lane(work, lane, until, found.marks)
        except Exception as error:
            if isinstance(error, command.UserError) and len(wanted) == 1:
                raise
            work.say(f"{lane.name}: {why(error)}")
            work.told.failed.append(f"{lane.name}: {why(error)}")


def one_lane(work: Work, lane: Lane, until: float, marks: list[str]) -> None:
    """All of a night that is a lane's. Raises UserError: another lane can be measured all the same."""
    pulled(work, lane)
    plan.fetch(lane.config)
    before = newest_measured(work, lane)
    measure(work, lane, until, marks)
    pushed(work, lane)
    if plan.to_look_at(lane.name, work.wanted.machine).exists():
        look(work, lane, before)
        pushed(work, lane)


def newest_measured(work: Work, lane: Lane) -> str | None:
    """The newest commit that was measured."""
    tried = record.read(lane.results, work.wanted.machine)
    done = {one.commit for one in tried if one.lane == lane.name and one.outcome in record.DONE}
    return next((one for one in reversed(plan.commits(lane.config)) if one in done), None)


def measure(work: Work, lane: Lane, until: float, marks: list[str]) -> None:
    """Measure one commit after the other, as long as there is time."""
    machine, profile = work.wanted.machine, work.wanted.profile
    planned = plan.plan(lane.config, lane.name, lane.results, machine, profile)
    if not planned:
        work.say(f"{lane.name}: nothing new")
        if gone := given_up(work, lane):
            work.told.newest = work.told.newest or gone
        else:
            work.told.quiet.append(lane.name)
        return
    measuring.check_machine(machine)
    plan.remove_old_logs()
    longest, not_run = 0.0, 0
    for number, one in enumerate(planned):
        if number and time.monotonic() + longest > until:
            work.told.left += len(planned) - number
            break
        work.say(f"{lane.name}: {one.commit[:8]}, {one.why}, {number + 1} of {len(planned)}")
        tried = measured(work, lane, one, marks)
        not_run += tried is None
        if not_run > 1:  # it is not the commit, then
            break
        longest = max(longest, tried.seconds if tried else 0.0)
        if number + 1 < len(planned):
            pushed(work, lane)


def given_up(work: Work, lane: Lane) -> str:
    """Why there are no results of the newest commit though nothing is left to do; empty if there are."""
    if plan.is_mlx(lane.config):
        return ""  # a tag without wheels: what there is was measured
    newest = plan.commits(lane.config)[-1]
    last = record.last(record.read(lane.results, work.wanted.machine), lane.name, newest)
    return f"{newest[:8]}: {last.outcome}: {last.reason}" if last and last.outcome not in record.DONE else ""


def measured(work: Work, lane: Lane, one: Planned, marks: list[str]) -> record.Tried | None:
    """What came of a commit; None if asv did not measure, and that is not the commit's fault."""
    wanted = work.wanted
    try:
        tried = commit.measure(
            one.commit, lane.name, wanted.machine, lane.results, wanted.profile, marks, wanted.memory_floor_gb,
            work.console,
        )  # fmt: skip
    except commit.NotRun as error:
        work.told.failed.append(f"{one.commit[:8]}: {error}")
        return None
    if tried.outcome in record.DONE:
        plan.to_look_at(lane.name, wanted.machine).touch()
    record.add(lane.results, wanted.machine, tried)
    commit.finish(one.commit, lane.name, wanted.machine, lane.results)  # last: until then it is an interrupted one
    work.told.tried.append(tried)
    work.say(f"{one.commit[:8]}: {tried.outcome}, {tried.cases} cases, {tried.seconds:.0f} s. {tried.reason}".rstrip())
    return tried


def look(work: Work, lane: Lane, before: str | None) -> None:
    """Say what changed in the work of a step, search the history, measure again what it makes one suspect, report.

    What is left to look at stays so until that is done: also if this night is killed meanwhile. What fails of it is
    told, and the rest is done all the same.
    """
    told, wanted = work.told, work.wanted
    with steps.going_on(told.failed, "what a step does"):
        newest = newest_measured(work, lane)
        if before and newest and before != newest:
            told.exact += counted.told(lane.results, wanted.machine, before, newest)
    work.say("searching the history")
    found = None
    with steps.going_on(told.failed, "detect"):
        found = steps.detect(lane.name, wanted.machine)
        told.history += found.lines
    with steps.going_on(told.failed, "alerts"):
        all_had_a_turn = judge(work, lane, found.suspected if found else [])
        if found and all_had_a_turn:  # else the rest is for the next night
            plan.to_look_at(lane.name, wanted.machine).unlink(missing_ok=True)
    if wanted.report:
        work.say("writing the report")
        with steps.going_on(told.failed, "report"):
            done = steps.run("scripts.report", "--lane", lane.name)
            if done.code:
                raise command.UserError(done.last)


def judge(work: Work, lane: Lane, suspected: list[str]) -> bool:
    """Measure again what is suspected, and look for the commit of what is confirmed. Whether all had a turn."""
    told, wanted, most = work.told, work.wanted, work.wanted.alerts_a_night
    known, _ = alerts.read(lane.results, wanted.machine)
    for name in alerts.in_turn(suspected, known)[:most] if wanted.confirm_seconds else []:
        work.say(f"measuring alert {name} again")
        with steps.going_on(told.failed, f"confirm {name}"):
            steps.confirm(lane.name, lane.results, wanted.machine, name, wanted)
    known, _ = alerts.read(lane.results, wanted.machine)
    confirmed = [one for one in known if one.state == alerts.CONFIRMED and one.worse and not one.culprit]
    unknown = confirmed if wanted.bisect_seconds else []
    with steps.going_on(told.failed, "bisect"):
        commits = history.branch_commits(lane.config)[0] if unknown else []
        for one in unknown[:most]:
            work.say(f"looking for the commit of alert {one.name}")
            with steps.going_on(told.failed, f"bisect {one.name}"):
                steps.search(lane.name, lane.results, wanted.machine, one, commits, wanted)
    known, _ = alerts.read(lane.results, wanted.machine)
    told.alerts += [one for one in known if one.name in suspected]
    return max(len(suspected), len(unknown)) <= most


def store(work: Work, lane: Lane) -> branch.Branch:
    return branch.checked(work.wanted.remote, lane.branch(work.wanted.branch))


def pulled(work: Work, lane: Lane) -> None:
    """Bring what the results branch has. Without a network the night goes on with what is here."""
    if work.wanted.remote:
        try:
            done = share.pull(store(work, lane), lane.results)
        except Exception as error:
            work.say(f"pull: {why(error)}")
        else:
            for line in carried.told(done.left_out):
                work.say(line)


def pushed(work: Work, lane: Lane) -> None:
    """Put all results that are here on the branch, those as well that an earlier night could not."""
    if work.wanted.remote and work.wanted.push:
        work.told.unpushed.pop(lane.name, None)
        try:
            done = share.push(store(work, lane), lane.results, None, f"{work.wanted.machine}: results")
        except Exception as error:
            work.say(f"push: {why(error)}")
            work.told.unpushed[lane.name] = why(error)
        else:
            stayed(work, lane, done.left_out)


def why(error: Exception) -> str:
    """What went wrong, in one line: of what nobody expected its kind as well."""
    return str(error) if isinstance(error, command.UserError) else command.one_line(f"{type(error).__name__}: {error}")


def stayed(work: Work, lane: Lane, left_out: dict[str, str]) -> None:
    """Say which files are not on the branch now; a result of this machine among them is one that was not pushed."""
    for line in carried.told(left_out):
        work.say(line)
    ours = f"{work.wanted.machine}/"
    results = {path: told for path, told in left_out.items() if told != carried.NO_RESULT and path.startswith(ours)}
    if results:
        path, told = next(iter(results.items()))
        more = f", and {len(results) - 1} more" if len(results) > 1 else ""
        work.told.unpushed[lane.name] = command.one_line(f"{path}{more}: {told}")
