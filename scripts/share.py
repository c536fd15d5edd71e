"""Share results through a branch of their own: `pull` what it has, `push` or `pack` what was measured here.

The branch has one folder a machine, as results/ has. Runs and lines of events are only ever added, on either side: what
one lacks the other gives it, and nothing is replaced. What older versions put there comes as runs.
"""

import argparse
import random
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from benchmarks.harness.files import locked, write_whole
from benchmarks.harness.ledger import LONGEST_LINE
from scripts import branch, carried, command, derived, history, lanes, legacy, machines, runs, scratch, suite
from scripts.branch import File, Unreachable, blob_of
from scripts.carried import Place

TRIES = 30
LONGEST_PAUSE = 5.0
"""Seconds between two tries, at most: chance decides, so that two machines do not meet again."""

EPILOG = """examples:
  python -m scripts.share pull --remote origin                     what all machines measured, into results/
  python -m scripts.share push --remote origin --machine mac-mini  what this one did, onto the branch
  python -m scripts.share pull --lane mlx                          of MLX's own commits, into results/mlx/

exit codes: 0 done, 2 error: nothing is lost, say it again, 130 interrupted
"""


class Store(Protocol):
    """A branch, as `scripts.branch` has it."""

    def alone(self) -> AbstractContextManager[object]: ...

    def fetch(self) -> None: ...

    def files(self) -> dict[str, File]: ...

    def contents(self, files: Iterable[tuple[str, File]]) -> Iterator[tuple[str, bytes]]: ...

    def push(self, changed: Mapping[str, bytes], message: str) -> str: ...


class Shared(NamedTuple):
    """How many files changed, and what was not shared, by its path, and why."""

    changed: int
    left_out: dict[str, str]


def pull(store: Store, results: Path, machine: str | None = None) -> Shared:
    """Add to `results` what only the branch has, of a machine or of all. Raises UserError, Unreachable.

    What is odd of it is left there and named.
    """
    with store.alone():
        store.fetch()
        return brought(store, results, machine)


def brought(store: Store, results: Path, machine: str | None) -> Shared:
    """What of the branch, as it was fetched, was added to `results`."""
    there, left_out = taken(store, results, machine)
    older = {path: file for path, file in there.items() if Place.of(path).is_older}
    newer = {path: file for path, file in there.items() if path not in older and differs(results / path, file)}
    changed = {path for path, text in store.contents(newer.items()) if added(results, path, text, left_out)}
    with tempfile.TemporaryDirectory(dir=scratch.folder()) as folder:
        for path, text in store.contents(older.items()):
            with left_out_if_odd(path, left_out):
                write_whole(Path(folder, path), text)
        for old in sorted(Path(folder).iterdir()):
            changed |= converted(old, results, left_out)
    for ours in machines.folders(results)[0]:
        with left_out_if_odd(f"{ours.name}/", left_out):
            derived.of_machine(ours)
    return Shared(len(changed), left_out)


@contextmanager
def left_out_if_odd(path: str, left_out: dict[str, str]) -> Iterator[None]:
    """Go on without a file with which something is wrong, and name it."""
    try:
        yield
    except (runs.Odd, OSError) as error:
        told = error.strerror if isinstance(error, OSError) else str(error)
        left_out[path] = command.one_line(told or type(error).__name__)


def taken(store: Store, results: Path, machine: str | None) -> tuple[dict[str, File], dict[str, str]]:
    """The files of the branch that are carried, those of a machine or all; and of the others, why they are not."""
    wanted = None if machine is None else machines.named(machine)
    files = {path: file for path, file in store.files().items() if wanted in (None, Place.of(path).machine)}
    files.pop(suite.FILE, None)  # asv's descriptions are each suite's own
    left_out = {path: why for path, file in files.items() if (why := carried.why_not(path, file.size, file.plain))}
    there = {path: file for path, file in files.items() if path not in left_out}
    others = carried.same_folder(results, there)
    for path in [path for path in there if Place.of(path).machine in others]:
        left_out[path] = f"where case makes no difference it is {others[Place.of(path).machine]}'s folder"
        del there[path]
    return there, left_out


def differs(path: Path, file: File) -> bool:
    """Whether what is at `path` may lack something of the branch's file."""
    if path.name == machines.FILE:
        return not derived.is_machines(path)
    try:
        text = content(path)
    except (runs.Odd, OSError):
        return True
    return text is None or blob_of(text, file.blob) != file.blob


def content(path: Path) -> bytes | None:
    """What is in a file; None if there is none. Raises Odd if it is something else, OSError."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        raise runs.Odd("a link, or no file, is in its place here")
    return path.read_bytes()


def added(results: Path, path: str, text: bytes, left_out: dict[str, str]) -> bool:
    """Whether there was something to add of a file of the branch."""
    if why := carried.odd(path, text):
        left_out[path] = why
    else:
        with left_out_if_odd(path, left_out):
            return add(results, path, text)
    return False


def add(results: Path, path: str, theirs: bytes) -> bool:
    """Add to a file of results what only `theirs` has; whether there was anything. Raises Odd, OSError."""
    target = results / path
    if any(one.is_symlink() for one in target.parents[: path.count("/")]):
        raise runs.Odd("a link is in the place of its folder here")
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(results):
        ours = content(target) or b""
        new = carried.joined(ours, theirs) if Place.of(path).grows else theirs
        if Place.of(path).grows and set(carried.lines(new)) == set(carried.lines(ours)):
            return False
        if len(new) > runs.LARGEST_FILE:
            raise runs.Odd(f"with what is here it is over {runs.LARGEST_FILE >> 20} MiB")
        write_whole(target, new, durable=True)
    return True


def converted(old: Path, results: Path, left_out: dict[str, str]) -> set[str]:
    """Add the runs that results of older versions become, which are in the folder `old` of a machine; their paths."""
    found = set()
    for path in legacy.left(old):
        name = f"{old.name}/{runs.RUNS}/{legacy.run_path(path).name}"
        with left_out_if_odd(f"{old.name}/{path.name}", left_out):
            if not (results / name).exists() and add(results, name, legacy.as_lines(legacy.read(path), path).encode()):
                found.add(name)
    return found


def here(results: Path, machine: str | None) -> tuple[dict[str, Path], dict[str, str]]:
    """The files of results that are carried, those of a machine or all; and of the others, why they are not.

    What older versions left becomes runs.
    """
    folders = machines.folders(results)[0] if machine is None else [results / machines.named(machine)]
    ours: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    for folder in folders:
        if folder.is_symlink():
            left_out[f"{folder.name}/"] = "a link"
        elif folder.is_dir():
            for path in legacy.left(folder):
                with left_out_if_odd(f"{folder.name}/{path.name}", left_out):
                    legacy.convert(path)
            for path in files_of(folder):
                name = path.relative_to(results).as_posix()
                if why := why_not_shared(path, name):
                    left_out.setdefault(name, why)
                else:
                    ours[name] = path
    return ours, left_out


def files_of(folder: Path) -> list[Path]:
    """What is in a machine's folder and in that of its runs, but for what is made of runs."""
    inside = folder / runs.RUNS
    found = [path for path in folder.iterdir() if not is_derived(path)]
    if inside.is_dir() and not inside.is_symlink():
        found = [*(path for path in found if path != inside), *inside.iterdir()]
    return sorted(found)


def is_derived(path: Path) -> bool:
    """Whether that is a file that was made of runs."""
    try:
        return stat.S_ISREG(path.lstat().st_mode) and legacy.is_derived(path)
    except OSError:
        return False


def why_not_shared(path: Path, name: str) -> str:
    """Why a file of results is not shared; empty if it is."""
    place = Place.of(name)
    if place.name == runs.RUNS:
        return "a link, or no folder"
    try:
        about = path.lstat()
        if why := carried.why_not(name, about.st_size, stat.S_ISREG(about.st_mode)):
            return why
        if place.is_older:
            return "it cannot be read"
        with path.open("rb") as file:
            return carried.odd(name, file.readline(LONGEST_LINE) if place.grows else file.read(LONGEST_LINE))
    except OSError as error:
        return error.strerror or "it cannot be read"


def missing(store: Store, ours: Mapping[str, Path], left_out: dict[str, str]) -> dict[str, bytes]:
    """Of `ours` what the branch has not, or has less of: as it is with what the branch has."""
    there = store.files()
    new = {name: whole(name, path) for name, path in ours.items() if name not in there or not there[name].size}
    grow = [name for name in ours if name not in new and Place.of(name).grows]
    less = {name: there[name] for name in grow if differs(ours[name], there[name])}
    too_large = [name for name, file in less.items() if file.size > runs.LARGEST_FILE]
    for name, theirs in store.contents((name, file) for name, file in less.items() if name not in too_large):
        text = carried.joined(theirs, whole(name, ours[name]))
        if set(carried.lines(text)) != set(carried.lines(theirs)):
            new[name] = text
    too_large += [name for name, text in new.items() if len(text) > runs.LARGEST_FILE]
    left_out |= dict.fromkeys(too_large, f"with what the branch has it is over {runs.LARGEST_FILE >> 20} MiB")
    return {name: text for name, text in new.items() if text and name not in too_large}


def whole(name: str, path: Path) -> bytes:
    """A file as it is shared: without a line that is just being written."""
    text = path.read_bytes()
    return carried.joined(text, b"") if Place.of(name).grows else text


def push(store: Store, results: Path, machine: str | None, message: str) -> Shared:
    """Add to the branch what only `results` has, of a machine or of all. Raises UserError, Unreachable."""
    for number in range(TRIES):
        with store.alone():
            store.fetch()
            brought(store, results, machine)
            ours, left_out = here(results, machine)
            carried.refuse_another(ours, store.files())
            changed = missing(store, ours, left_out)
            reason = store.push(changed, message) if changed else ""
        if not reason:
            return Shared(len(changed), left_out)
        if number >= TRIES // 3 and not moved(store):  # nobody was faster, and it is no push under way either
            raise command.UserError(f"{store} takes no push: {reason}; results stay in {results}")
        time.sleep(random.uniform(0, min(LONGEST_PAUSE, 0.1 * 2**number)))
    raise command.UserError(f"{store}: others were faster {TRIES} times; results stay in {results}")


def moved(store: Store) -> bool:
    """Whether the branch is another than it was when it was fetched."""
    with store.alone():
        before = store.files()
        store.fetch()
        return store.files() != before


def pack(store: Store, results: Path, machine: str | None, into: Path) -> Shared:
    """Copy what the branch has not into the folder `into`, for who may push it: all if nobody knows what that is."""
    with store.alone():
        try:
            store.fetch()
            brought(store, results, machine)
            ours, left_out = here(results, machine)
            new = missing(store, ours, left_out)
        except Unreachable:
            ours, left_out = here(results, machine)
            new = {name: whole(name, path) for name, path in ours.items()}
    described = {f"{Place.of(name).machine}/{machines.FILE}" for name in new}  # without it a folder is no machine's
    new |= {name: whole(name, path) for name, path in ours.items() if name in described}
    for path, text in new.items():
        write_whole(into / path, text)
    return Shared(len(new), left_out)


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
    store = branch.checked(options.remote, options.branch or lanes.branch(of_lane))
    if options.what == "pack" and not options.into:
        raise command.UserError("pack into which folder? --into DIR")
    with command.busy(f"{options.what}ing results, {store}"):
        if options.what == "pull":
            done = pull(store, results, options.machine)
        elif options.what == "pack":
            done = pack(store, results, options.machine, options.into)
        else:
            names = ", ".join(with_files(results, options.machine))
            done = push(store, results, options.machine, f"results of {names}"[:200])
    print(f"{done.changed} files {DONE[options.what]}")
    folders = [] if options.machine else machines.folders(results)[1]
    for line in [*(f"left out: {line}" for line in folders), *carried.told(done.left_out)]:
        print(line)
    return 0


def with_files(results: Path, machine: str | None) -> list[str]:
    """The machines, or the one that is asked for, of which there are results here. Raises UserError for none."""
    found = sorted({Place.of(path).machine for path in here(results, machine)[0]})
    if found:
        return found
    there, others = machines.folders(results)
    if machine and there:
        names = ", ".join(folder.name for folder in there)
        raise command.UserError(f"no machine {machine!r} below {results}; there are: {names}")
    reason = f": {others[0]}" if others else "; run asv, or name another --results"
    raise command.UserError(f"no results below {results}{reason}")


DONE = {"pull": "brought", "push": "put on the branch", "pack": "packed"}


if __name__ == "__main__":
    sys.exit(command.run(main))
