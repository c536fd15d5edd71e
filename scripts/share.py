"""Share results through a branch of their own: `pull` what it has, `push` or `pack` what this machine measured.

The branch has one folder a machine, as results/ has, and asv's benchmarks.json. Nothing is checked out: a commit is
made of what is on the branch and of this machine's files, and made anew on top of another machine's if that was faster.
Files that are only ever added to (alerts, calibrations, nights) are joined line by line.
"""

import argparse
import json
import os
import random
import re
import stat
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness.files import write_whole
from scripts import carried, command, earlier, git, history, lanes, machines, scratch
from scripts.carried import Entry, machine_of, same_folder
from scripts.history import BENCHMARKS, MACHINE

TIP = "refs/adamw"
"""Below which this clone keeps what it saw of the branch, so that it is not fetched whole again."""

ADDED_TO = ("alerts.jsonl", "calibration.jsonl", "nights.jsonl", "releases.jsonl")
TIME = re.compile(r'"time": (\d{1,12}(?:\.\d{1,9})?)')
TRIES = 30
LONGEST_PAUSE = 5.0
"""Seconds between two tries, at most: chance decides, so that two machines do not meet again."""

NETWORK_SECONDS = 120

PLAIN = ["-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "protocol.ext.allow=never"]
"""What git must not do beside what it is asked for."""

IDENTITY = {
    f"GIT_{who}_{what}": told
    for who in ("AUTHOR", "COMMITTER")
    for what, told in (("NAME", "AdamW nightly"), ("EMAIL", "nightly@localhost"))
}

EPILOG = """examples:
  python -m scripts.share pull --remote origin                     what all machines measured, into results/
  python -m scripts.share push --remote origin --machine mac-mini  what this one did, onto the branch
  python -m scripts.share pull --lane mlx                          of MLX's own commits, into results/mlx/

exit codes: 0 done, 2 error: nothing is lost, say it again, 130 interrupted
"""


class Unreachable(command.UserError):
    """The remote does not answer."""


class Where(NamedTuple):
    """A branch of a remote, the clone it is seen from, and the folder that it is a copy of."""

    remote: str
    branch: str
    results: Path

    @property
    def seen(self) -> str:
        """The newest commit of the branch that this clone has seen."""
        return f"{TIP}/{self.branch}"

    @property
    def base(self) -> str:
        """The newest one whose files `results` has."""
        return f"{TIP}/base/{self.branch}"


def call(*arguments: str, given: bytes = b"", index: Path | None = None, seconds: float | None = None) -> bytes:
    """What git prints. Raises UserError; Unreachable if it takes longer than `seconds`."""
    more = IDENTITY | {"GIT_TERMINAL_PROMPT": "0"} | ({"GIT_INDEX_FILE": str(index)} if index else {})
    try:
        done = git.start(*PLAIN, *arguments, given=given, seconds=seconds, more=more)
    except git.NoAnswer as error:
        raise Unreachable(f"git {arguments[0]}: no answer in {seconds:g} s; check the network") from error
    if done.returncode:
        told = done.stderr.decode(errors="replace")
        raise command.UserError(git.known_cause(told) or f"git {arguments[0]}: {git.reason(told)}")
    return done.stdout


def tip(where: Where) -> str | None:
    """The newest commit of the branch, fetched; None if there is no such branch. Raises Unreachable."""
    name = f"refs/heads/{where.branch}"
    try:
        listed = call("ls-remote", "--", where.remote, name, seconds=NETWORK_SECONDS).decode().split()
        if not listed:
            forget(where)
            return None
        lock = Path(call("rev-parse", "--git-path", where.seen).decode().strip() + ".lock")
        lock.unlink(missing_ok=True)  # of a git that was killed: only one of ours runs at a time
        call(
            "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--refmap=", "--", where.remote,
            f"+{name}:{where.seen}", seconds=NETWORK_SECONDS,
        )  # fmt: skip
    except Unreachable:
        raise
    except command.UserError as error:
        raise Unreachable(f"{where.remote} cannot be reached: {error}; results stay in {where.results}") from error
    return call("rev-parse", where.seen).decode().strip()


def known(name: str) -> str | None:
    """The commit of a name, None if there is none."""
    try:
        return call("rev-parse", "--verify", "--quiet", name).decode().strip()
    except command.UserError:
        return None


def forget(where: Where) -> None:
    """There is no such branch any more: what was seen of it is no version to compare with."""
    for name in (where.seen, where.base):
        call("update-ref", "-d", name)


def entries(commit: str | None) -> list[Entry]:
    """Every file of the branch."""
    if not commit:
        return []
    found = []
    for line in os.fsdecode(call("ls-tree", "-r", "-l", "-z", "--full-tree", commit)).split("\0")[:-1]:
        about, _, path = line.partition("\t")
        mode, _, blob, size = about.split()
        plain = mode == "100644"
        found.append(Entry(path, blob, carried.why_not(path, int(size) if plain else 0, plain)))
    return found


def listing(commit: str | None) -> dict[str, str]:
    """The blob of every file of the branch that is carried."""
    return {one.path: one.blob for one in entries(commit) if not one.why_not}


def content(blob: str) -> str:
    return call("cat-file", "blob", blob).decode(errors="replace")


def local_entries(where: Where, machine: str | None) -> list[Entry]:
    """Every file in the folder of a machine, or of all. Raises UserError for a name that no machine has."""
    folders = [where.results / machines.named(machine)] if machine else machines.folders(where.results)[0]
    found = []
    for path in (path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())):
        about, name = path.lstat(), f"{path.parent.name}/{path.name}"
        plain = stat.S_ISREG(about.st_mode)
        whose = "" if (path.parent / MACHINE).exists() else f"no {MACHINE} beside it says of which machine"
        found.append(Entry(name, "", carried.why_not(name, about.st_size, plain) or whose))
    return found


def local_files(where: Where, machine: str | None) -> dict[str, Path]:
    """The files of results here that are carried, by their path on the branch."""
    return {one.path: where.results / one.path for one in local_entries(where, machine) if not one.why_not}


def not_here(where: Where) -> dict[str, str]:
    """What the branch has and this clone does not take, and why."""
    every = entries(known(where.seen))
    others = same_folder(where.results, (one.path for one in every if not one.why_not))
    told = {one.path: one.why_not for one in every}
    told |= {
        path: f"where case makes no difference it is {others[machine_of(path)]}'s folder"
        for path in told
        if machine_of(path) in others
    }
    return {path: why for path, why in told.items() if why}


def not_there(where: Where, machine: str | None) -> dict[str, str]:
    """What is here and not on the branch as it was last seen, and why it stays here."""
    there, every = listing(known(where.seen)), local_entries(where, machine)
    paths = [one.path for one in every if not one.why_not]
    blobs = blobs_of([where.results / path for path in paths])
    damaged = [
        path
        for path, blob in zip(paths, blobs, strict=True)
        if there.get(path) != blob and not readable(where.results / path)
    ]
    return {one.path: one.why_not for one in every if one.why_not} | dict.fromkeys(damaged, "it cannot be read")


def blobs_of(paths: list[Path], write: bool = False) -> list[str]:
    """git's names of the contents of files."""
    if not paths:
        return []
    given = os.fsencode("".join(f"{path.absolute()}\n" for path in paths))
    return (
        call("hash-object", *(["-w"] if write else []), "--no-filters", "--stdin-paths", given=given).decode().split()
    )


def pull(where: Where, machine: str | None = None) -> int:
    """Bring what the branch has, and `where.results` has not, there. How many files changed. Raises UserError.

    Of a file that both have the one is kept that was changed since both were the same; if both were, the newer result,
    and beside it what that replaces of the other.
    """
    newest = tip(where)
    there, base = listing(newest), listing(known(where.base))
    ours = local_files(where, machine)
    here = dict(zip(ours, blobs_of(list(ours.values())), strict=True))
    others = same_folder(where.results, there)
    changed = 0
    for path, blob in there.items():
        if path == BENCHMARKS or machine not in (None, machine_of(path)) or here.get(path) == blob:
            continue
        if machine_of(path) in others:
            continue
        changed += reconcile(where.results / path, content(blob), here.get(path), base.get(path), blob)
    merged, described_here = merged_benchmarks(where, there), where.results / BENCHMARKS
    if BENCHMARKS in there and not same_descriptions(described_here, merged):
        write_whole(described_here, merged)
        changed += 1
    if newest and machine is None:
        call("update-ref", where.base, newest)
    return changed


def reconcile(path: Path, theirs: str, here: str | None, base: str | None, blob: str) -> int:
    """Make one file of two, of which the blobs are `here` and `blob`, and once were `base`. Whether it changed."""
    if path.name in ADDED_TO:
        ours = path.read_text(errors="replace") if here else ""
        text = joined(ours, theirs)
        if text != ours:
            write_whole(path, text)
        return int(text != ours)
    if here is None or here == base or not readable(path):
        write_whole(path, theirs)
        return 1
    if base != blob and path.suffix == ".jsonl" and latest(theirs) > latest(path.read_text(errors="replace")):
        write_whole(path, theirs)
        return 1
    if base != blob and path.suffix == ".json" and path.name != MACHINE:
        return earlier.join(path, theirs)
    return 0


def latest(text: str) -> float:
    """When the newest entry of a ledger was made, seconds since 1970."""
    times = [float(found) for found in TIME.findall(text)]
    return max(times, default=0.0)


def readable(path: Path) -> bool:
    """Whether a file of results is JSON; of a ledger each line is looked at where it is read."""
    if path.suffix == ".jsonl":
        return path.stat().st_size > 0
    try:
        json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return True


def same_descriptions(path: Path, text: str) -> bool:
    return path.exists() and described(path.read_text(errors="replace")) == described(text)


def pack(where: Where, machine: str | None, into: Path) -> int:
    """Copy what the branch has not, or not so, into the folder `into`, for who may push it. How many files."""
    try:
        pull(where, machine)
        there = listing(known(where.seen))
    except Unreachable:
        there = {}  # all of it then
    ours = local_files(where, machine)
    blobs = blobs_of(list(ours.values()))
    new = {
        name
        for (name, path), blob in zip(ours.items(), blobs, strict=True)
        if there.get(name) != blob and readable(path)
    }
    folders = {machine_of(name) for name in new}
    packed = new | ({f"{folder}/{MACHINE}" for folder in folders} & set(ours))  # without it a folder is no machine's
    for name in sorted(packed):
        write_whole(into / name, ours[name].read_text(errors="replace"))
    if packed and (where.results / BENCHMARKS).exists():
        write_whole(into / BENCHMARKS, (where.results / BENCHMARKS).read_text(errors="replace"))
    return len(packed)


def push(where: Where, machine: str | None, message: str) -> int:
    """Put this machine's files on the branch. How many changed. Raises UserError, Unreachable without a network."""
    for number in range(TRIES):
        pull(where, machine)  # so that nothing that is there is written over
        before = known(where.seen)
        changed, commit = committed(where, machine, before, message)
        if not changed:
            return 0
        try:
            call(
                "push", "--quiet", "--porcelain", "--", where.remote, f"{commit}:refs/heads/{where.branch}",
                seconds=NETWORK_SECONDS,
            )  # fmt: skip
            call("update-ref", where.seen, commit)
            return changed
        except command.UserError as error:
            reason = str(error)
        after = tip(where)  # Unreachable ends it here
        if after == before and number >= TRIES // 3:  # nobody was faster, and it is no push under way either
            raise command.UserError(f"{where.remote} takes no push: {reason}; results stay in {where.results}")
        time.sleep(random.uniform(0, min(LONGEST_PAUSE, 0.1 * 2**number)))
    raise command.UserError(f"{where.remote}: others were faster {TRIES} times; results stay in {where.results}")


def committed(where: Where, machine: str | None, parent: str | None, message: str) -> tuple[int, str]:
    """How many files differ from those of `parent`, and a commit that has them. Nothing is checked out."""
    there = listing(parent)
    ours = local_files(where, machine)
    carried.refuse_another(ours, there)
    changed: dict[str, str] = {}
    for (name, path), blob in zip(ours.items(), blobs_of(list(ours.values())), strict=True):
        if there.get(name) == blob or not (path.name in ADDED_TO or readable(path)):
            continue
        if name in there and path.name in ADDED_TO:
            text = joined(content(there[name]), path.read_text(errors="replace"))
            blob = written(text)
            if blob == there[name]:
                continue
        else:
            (blob,) = blobs_of([path], write=True)
        changed[name] = blob
    if (where.results / BENCHMARKS).exists():
        blob = written(merged_benchmarks(where, there))
        if there.get(BENCHMARKS) != blob:
            changed[BENCHMARKS] = blob
    if not changed:
        return 0, ""
    index = scratch.folder() / "results.index"
    index.unlink(missing_ok=True)
    if parent:
        call("read-tree", parent, index=index)
    lines = "".join(f"100644 {blob}\t{name}\0" for name, blob in changed.items())
    call("update-index", "--add", "-z", "--index-info", given=lines.encode(), index=index)
    tree = call("write-tree", index=index).decode().strip()
    parents = ["-p", parent] if parent else []
    return len(changed), call("commit-tree", *parents, "-m", message, tree).decode().strip()


def written(text: str) -> str:
    return call("hash-object", "-w", "--stdin", given=text.encode()).decode().strip()


def joined(one: str, other: str) -> str:
    """The lines of both: those of `one`, and after them those that only `other` has."""
    known = set(one.splitlines())
    more = [line for line in other.splitlines() if line not in known]
    return "".join(f"{line}\n" for line in [*one.splitlines(), *more])


def merged_benchmarks(where: Where, there: Mapping[str, str]) -> str:
    """asv's descriptions of here and of the branch: of every benchmark the newer one, else this machine's."""
    path = where.results / BENCHMARKS
    here = described(path.read_text(errors="replace")) if path.exists() else {}
    others = described(content(there[BENCHMARKS])) if BENCHMARKS in there else {}
    merged = others | {name: one for name, one in here.items() if version(one) >= version(others.get(name))}
    return json.dumps(dict(sorted(merged.items())), indent=4) + "\n"


def described(text: str) -> dict[str, Any]:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def version(one: Any) -> tuple[int, int]:
    """What tells the newer description of a benchmark: its version, set by hand, and then how many cases it has."""
    if not isinstance(one, dict):
        return -1, -1
    told = str(one.get("version", ""))
    params = one.get("params")
    count = sum(len(values) for values in params if isinstance(values, list)) if isinstance(params, list) else 0
    return (int(told) if told.isdecimal() and len(told) < 9 else 0), count


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("what", choices=("pull", "push", "pack"))
    parser.add_argument("--remote", default="origin", metavar="R", help="a git remote or its URL; default: origin")
    lanes.add_argument(parser)
    parser.add_argument("--branch", metavar="B", help="default: that of the lane, results or results-mlx")
    parser.add_argument("--results", type=Path, metavar="DIR", help="default: those of the lane")
    parser.add_argument("--machine", metavar="M", help="only this machine's folder; default: every one")
    parser.add_argument("--into", type=Path, metavar="DIR", help="the folder in which `pack` puts what it brings")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    of_lane = Path(history.configuration(options.lane).results_dir)
    results = options.results or of_lane
    where = checked(Where(options.remote, options.branch or lanes.branch(of_lane), results))
    if options.what == "pack" and not options.into:
        raise command.UserError("pack into which folder? --into DIR")
    with command.busy(f"{options.what}ing results, branch {where.branch} of {where.remote}"):
        if options.what == "pull":
            count = pull(where, options.machine)
            left_out = not_here(where)
        elif options.what == "pack":
            count = pack(where, options.machine, options.into)
            left_out = not_there(where, options.machine)
        else:
            count = push(where, options.machine, f"results of {', '.join(with_files(where, options.machine))}"[:200])
            left_out = not_there(where, options.machine)
    print(f"{count} files {DONE[options.what]}")
    folders = [] if options.machine else machines.folders(results)[1]
    for line in [*(f"left out: {line}" for line in folders), *carried.told(left_out)]:
        print(line)
    return 0


def with_files(where: Where, machine: str | None) -> list[str]:
    """The machines, or the one that is asked for, of which there are results here. Raises UserError for none."""
    found = sorted({machine_of(path) for path in local_files(where, machine)})
    if found:
        return found
    there, others = machines.folders(where.results)
    if machine and there:
        names = ", ".join(folder.name for folder in there)
        raise command.UserError(f"no machine {machine!r} below {where.results}; there are: {names}")
    reason = f": {others[0]}" if others else "; run asv, or name another --results"
    raise command.UserError(f"no results below {where.results}{reason}")


DONE = {"pull": "brought", "push": "put on the branch", "pack": "packed"}


def checked(where: Where) -> Where:
    """`where`, if its names are ones. Raises UserError."""
    git.output("rev-parse", "--git-dir")
    if where.remote.startswith("-") or not where.remote:
        raise command.UserError(f"no remote {where.remote[:20]!r}; git remote lists them")
    try:
        call("check-ref-format", f"refs/heads/{where.branch}")
    except command.UserError as error:
        raise command.UserError(f"{where.branch[:20]!r} cannot be a branch's name") from error
    return where


if __name__ == "__main__":
    sys.exit(command.run(main))
