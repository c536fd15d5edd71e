"""Nothing is ever lost: whatever people, kills, clocks and servers do, what was measured only becomes more, everywhere.

Two checkouts share a branch. What is measured has a number of its own, so that every value, sample and event can be
told from every other; a random sequence of all that happens to results is held against four promises:

    what is done to measure, to share and to read takes nothing away from any place, killed at any write or not
    whoever pulls has all that the branch has, and all that he had; whoever pushes leaves the branch with all of both
    what a checkout, a backup or a server put back is there again after the next pull, if it is anywhere
    nothing counts twice, and what asv reads is made of what there is

`PYTHONPATH=. python tests/test_conservation.py 50000` runs so many sequences.
"""

import itertools
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import asv_runs
from asv.results import Results
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from ledgers import MACHINE
from synthetic import COLUMNS

from benchmarks.harness import files, ledger
from scripts import archive, branch, derived, history, legacy, lines, machines, runs, share, storing
from scripts.nightly import record

COMMITS = ["a" * 40, "b" * 40]
METRICS = ["step.Step.track_seconds", "memory.Memory.track_peak_bytes", "work.Work.track_kernels"]
STEPS = 9
SEQUENCES = 2000
"""In every run of the tests."""


class Killed(BaseException):
    """As a process is killed: nothing of it goes on."""


class Server:
    """A branch of a remote: its files, and all that it ever had."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.past: list[dict[str, bytes]] = [{}]


class Store:
    """The branch as `scripts.branch` has it, without git."""

    def __init__(self, server: Server) -> None:
        self.server, self.seen = server, dict(server.files)
        self.meanwhile: Callable[[], None] | None = None

    def alone(self):
        return nullcontext()

    def fetch(self) -> None:
        self.seen = dict(self.server.files)

    def files(self) -> dict[str, branch.File]:
        return {path: branch.File(branch.blob_of(text, "0" * 40), len(text), True) for path, text in self.seen.items()}

    def contents(self, wanted: Iterable[tuple[str, branch.File]]) -> Iterator[tuple[str, bytes]]:
        return ((path, self.seen[path]) for path, _ in wanted)

    def push(self, changed: Mapping[str, bytes], message: str) -> str:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()
        if self.server.files != self.seen:
            return "others were faster"
        self.server.files = self.seen | dict(changed)
        self.server.past.append(dict(self.server.files))
        return ""


def told(texts: Mapping[str, bytes]) -> set[str]:
    """Every value, sample and event in files, read without the code that is tested."""
    found: set[str] = set()
    for path, text in texts.items():
        if text.startswith(legacy.DERIVED) or path.endswith(machines.FILE):
            continue
        for line in [text] if path.endswith((".json", legacy.EARLIER)) else text.split(b"\n"):
            try:
                said = json.loads(line)
            except ValueError:
                continue
            for row in said.get("results", {}).values():
                found |= {f"value {value}" for value in row[0]}
            if said.get("what") == "figure":
                found |= {f"value {value}" for value in said["result"]}
            if said.get("what") == "case":
                found.add(f"sample {said['n']}")
            if "id" in said:
                found.add(f"event {said['id']}")
    return found


def texts(results: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(results)): path.read_bytes()
        for path in results.rglob("*")
        if path.is_file() and path.suffix in (".json", ".jsonl", legacy.EARLIER)
    }


class World:
    """Two checkouts of a machine, and the branch that they share."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.chance, self.folder = chance, folder
        self.server = Server()
        self.checkouts = [folder / "one" / "results", folder / "two" / "results"]
        for results in self.checkouts:
            results.mkdir(parents=True)
        self.names = ["mac", "mac"]
        self.numbers = itertools.count(1)
        self.clock = 1_800_000_000
        self.backups: list[tuple[int, dict[str, bytes]]] = []

    def next(self) -> int:
        return next(self.numbers)

    # What happens.

    def measure(self, which: int) -> None:
        metrics = self.chance.sample(METRICS, self.chance.randint(1, 3))
        chosen = self.chance.choice([None, {0}, {1}])
        sample = {"what": "case", "case": asv_runs.CASES[0], "n": self.next()}
        self.clock += self.chance.choice([1000, 1000, 86_400, -86_400, -900_000_000])
        asv_runs.run(
            self.checkouts[which],
            {metric: [float(self.next()), float(self.next())] for metric in metrics},
            chosen=chosen,
            version=self.chance.choice("112"),
            entries=[MACHINE, sample],
            when=self.clock,
            machine=self.names[which],
            commit=self.chance.choice(COMMITS),
        )

    def go_on(self, which: int) -> None:
        """Somebody goes on with a run that was interrupted."""
        folder = self.checkouts[which] / self.names[which]
        found = [path for path, _ in archive.heads(runs.paths(folder)) if not runs.is_complete(path)]
        if not found:
            return self.measure(which)
        with mock.patch.object(storing, "GIVEN", str(found[0])):
            asv_runs.run(
                self.checkouts[which],
                {METRICS[0]: [float(self.next()), float(self.next())]},
                machine=self.names[which],
                commit=runs.head(found[0]).commit,
            )
        runs.complete(found[0])

    def tell(self, which: int) -> None:
        """A night, or an alert."""
        folder = self.checkouts[which] / self.names[which]
        one = record.Tried("c" * 40, "l", "quick", record.MEASURED, 1.0, 1.0, 1, {}, "", "", f"night{self.next()}")
        record.add(self.checkouts[which], self.names[which], one)
        record.add(self.checkouts[which], self.names[which], one)  # as after a kill
        lines.add(folder / "alerts.jsonl", {"alert": "x", "event": "confirmed"})

    def measured_by_an_older_version(self, which: int) -> None:
        """asv's own files, in a checkout or on the branch."""
        commit, name = self.chance.choice(COMMITS), self.names[which]
        values = [float(self.next()), float(self.next())]
        row = [values, [list(map(repr, asv_runs.CASES))], "1", 1000.0 * self.clock]
        of = {
            "commit_hash": commit, "env_name": asv_runs.ENVIRONMENT, "date": 1, "python": "3.11", "requirements": {},
            "env_vars": {}, "params": {"machine": name}, "result_columns": COLUMNS, "results": {METRICS[0]: row},
            "durations": {}, "version": 2,
        }  # fmt: skip
        stem = f"{name}/{commit[:8]}-{asv_runs.ENVIRONMENT}"
        sample = {"what": "case", "case": asv_runs.CASES[0], "n": self.next(), "commit": commit, "environment": "e"}
        made = {
            f"{stem}{self.chance.choice(['.json', f'-{self.next()}.earlier'])}": json.dumps(of),
            f"{stem}.jsonl": json.dumps(sample) + "\n",
            f"{name}/machine.json": json.dumps({"machine": name, "version": 1}),
        }
        if self.chance.random() < 0.5 and not set(made) & set(self.server.files):
            self.server.files = self.server.files | {path: text.encode() for path, text in made.items()}
            self.server.past.append(dict(self.server.files))
        elif not any((self.checkouts[which] / path).exists() for path in made if not path.endswith("machine.json")):
            for path, text in made.items():
                (self.checkouts[which] / path).parent.mkdir(exist_ok=True)
                (self.checkouts[which] / path).write_text(text)

    def pull(self, which: int) -> None:
        share.pull(Store(self.server), self.checkouts[which])
        self.has_all(self.checkouts[which])

    def push(self, which: int) -> None:
        share.push(Store(self.server), self.checkouts[which], None, "results")
        self.has_all(self.checkouts[which])
        lacks = told(texts(self.checkouts[which])) - told(self.server.files)
        assert not lacks, f"a push did not bring {lacks}"

    def two_at_once(self, which: int) -> None:
        store = Store(self.server)
        store.meanwhile = lambda: self.push(1 - which)
        share.push(store, self.checkouts[which], None, "results")
        pushed = [which] if store.meanwhile else [0, 1]  # who has nothing new waits for nobody
        assert all(told(self.server.files) >= told(texts(self.checkouts[one])) for one in pushed)

    def read(self, which: int) -> None:
        derived.rebuild(self.checkouts[which])

    def rename(self, which: int) -> None:
        self.names[which] = self.chance.choice(["mac", "mac-studio", "Ann's Mac"])

    def back_up(self, which: int) -> None:
        self.backups.append((which, texts(self.checkouts[which])))

    # What takes away: of it all is there again that is anywhere else.

    def restore(self, which: int) -> None:
        """Put results/ back as it was when it was backed up."""
        ours = [one for of, one in self.backups if of == which]
        if ours:
            shutil.rmtree(self.checkouts[which])
            self.put(which, self.chance.choice(ours))

    def check_out(self, which: int) -> None:
        """`git checkout --force`, where somebody has committed results."""
        ours = [one for of, one in self.backups if of == which]
        if ours:
            self.put(which, self.chance.choice(ours))

    def put(self, which: int, those: Mapping[str, bytes]) -> None:
        self.checkouts[which].mkdir(exist_ok=True)
        for path, text in those.items():
            target = self.checkouts[which] / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text)

    def rewrite(self, which: int) -> None:
        """The branch is put back, or begins anew."""
        self.server.files = dict(self.chance.choice(self.server.past))

    # What is promised.

    def has_all(self, results: Path) -> None:
        lacks = told(self.server.files) - told(texts(results))
        assert not lacks, f"a pull did not bring {lacks}"

    def counts_once(self, results: Path) -> None:
        counted: set = set()
        found = []
        for folder in machines.folders(results)[0]:
            for path in archive.paths(folder):
                try:
                    run = archive.read(path)
                except runs.Odd:  # killed while it said what it is of
                    continue
                found += [one.value for one in history.once(history.values(run, {})[0], run.head, counted)]
            for name in (record.FILE, "alerts.jsonl"):
                ids, _ = lines.read(folder / name, lambda _, one: one["id"])
                assert len(ids) == len(set(ids))
        assert len(found) == len(set(found))

    def asv_reads_what_there_is(self, results: Path) -> None:
        for path in derived.rebuild(results):
            known = Results.load(str(path))
            assert {value for values in known._results.values() for value in values or [] if value is not None} <= {
                float(one.split()[1]) for one in told(texts(results)) if one.startswith("value")
            }


KEEPS = ["measure", "go_on", "tell", "measured_by_an_older_version", "pull", "push", "two_at_once", "read", "rename"]
KEEPS += ["back_up", "measure", "pull", "push"]
TAKES = ["restore", "check_out", "rewrite"]


@contextmanager
def killed_at(number: int, chance: random.Random) -> Iterator[None]:
    """Let the write of that number be the last: not begun, half done, or done."""
    counter = itertools.count(1)
    replace, append, unlink = os.replace, files.append_line, Path.unlink

    def struck() -> bool:
        return next(counter) == number

    def replaced(source: Path, target: Path) -> None:
        if struck():
            if chance.random() < 0.5:
                replace(source, target)
            raise Killed
        replace(source, target)

    def appended(path: Path, line: str, durable: bool = False) -> None:
        if struck():
            before = path.read_bytes() if path.exists() else b""
            append(path, line)
            written = len(path.read_bytes()) - len(before) - 1
            os.truncate(path, len(before) + int(chance.choice([0, 0.1, 0.5, 1]) * written))
            raise Killed
        append(path, line)

    def unlinked(self: Path, missing_ok: bool = False) -> None:
        if self.suffix != ".partial" and struck():
            raise Killed
        unlink(self, missing_ok)

    with (
        mock.patch.object(files.os, "replace", replaced),
        mock.patch.object(Path, "unlink", unlinked),
        mock.patch.multiple("scripts.runs", append_line=appended),
        mock.patch.multiple("scripts.lines", append_line=appended),
        mock.patch.multiple("benchmarks.harness.ledger", append_line=appended),
    ):
        yield


def play(chance: random.Random, folder: Path) -> None:
    """One sequence of what happens, and the promises after each step."""
    world = World(folder, chance)
    for _ in range(STEPS):
        takes = chance.random() < 0.2
        what, which = chance.choice(TAKES if takes else KEEPS), chance.randint(0, 1)
        before = [told(texts(results)) for results in world.checkouts]
        on_branch = told(world.server.files)
        kill = chance.randint(1, 12) if chance.random() < 0.3 else 0
        note(f"{what} in {world.checkouts[which].parent.name}" + (f", killed at write {kill}" if kill else ""))
        try:
            with killed_at(kill, chance) if kill else nullcontext():
                getattr(world, what)(which)
        except Killed:
            pass
        if takes:
            continue
        for results, had in zip(world.checkouts, before, strict=True):
            assert told(texts(results)) >= had, f"{what} took {had - told(texts(results))}"
            world.counts_once(results)
        assert told(world.server.files) >= on_branch, f"{what} took {on_branch - told(world.server.files)}"
    everything = told(world.server.files).union(*(told(texts(results)) for results in world.checkouts))
    for which in (0, 1, 0):
        world.push(which)
    for results in world.checkouts:
        assert told(texts(results)) == everything == told(world.server.files)
        world.counts_once(results)
        world.asv_reads_what_there_is(results)


@contextmanager
def quickly() -> Iterator[None]:
    """Without waiting for a disk, or for others; and with nothing left of asv's hooks."""
    names = (ledger.VARIABLE, ledger.SESSION, "ASV_COMMIT", "ASV_ENV_NAME")
    with (
        mock.patch.object(files.os, "fsync"),
        mock.patch.object(share.time, "sleep"),
        mock.patch.dict(os.environ, dict.fromkeys(names, "")),
        mock.patch.object(storing, "GIVEN", None),
    ):
        yield
    storing.BEGUN.clear()


def play_all(count: int, within: Path) -> None:
    """So many sequences; of one in which something is lost the shortest that hypothesis finds."""

    @settings(max_examples=count, deadline=None, database=None, derandomize=True, suppress_health_check=HealthCheck)
    @given(st.randoms(use_true_random=False))
    def sequence(chance: random.Random) -> None:
        folder = Path(tempfile.mkdtemp(dir=within))
        try:
            play(chance, folder)
        finally:
            shutil.rmtree(folder)

    with quickly():
        sequence()


def test_what_was_measured_only_becomes_more(tmp_path):
    play_all(SEQUENCES, tmp_path)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as within:
        play_all(int(sys.argv[1]), Path(within))
    print(f"{sys.argv[1]} sequences of {STEPS} steps: nothing was lost, nothing counted twice")
