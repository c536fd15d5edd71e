"""The results branch of a remote, in a store of its own: nothing of it is put into the clone of the code.

So nothing that the branch has becomes a revision of the code. The store is a copy of the branch's newest commit,
without its history, and is made anew when it is lost or damaged. Nothing is ever checked out.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import filelock

from scripts import command, git

STORE = Path(".asv/results.git")
SEEN, NEXT = "refs/adamw/seen", "refs/adamw/next"

ANSWER_SECONDS = 120
"""That a remote may take to say what it has."""

TRANSFER_SECONDS = 1200
"""That it may take to give or to get it."""

WAIT_SECONDS = 1800
"""That another process may use the store."""

AT_ONCE = 64 * 2**20
"""Bytes of files that are read at once."""

MOST_PACKS = 100
"""Each fetch and each push adds one: a store of more is made anew, which tidies it up."""

PLAIN = {
    "core.hooksPath": os.devnull,
    "fastimport.unpackLimit": "1",
    "fetch.unpackLimit": "1",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.ext.allow": "never",
}
"""So that git does nothing beside what it is asked for."""

IDENTITY = "AdamW nightly <nightly@localhost>"

Told = TypeVar("Told")


class Unreachable(command.UserError):
    """The remote does not answer."""


class Failed(command.UserError):
    """A git failed; `told` is all that it said."""

    def __init__(self, text: str, told: str = "") -> None:
        super().__init__(text)
        self.told = told


class File(NamedTuple):
    """A file of the branch: git's name of its content, how many bytes, and whether it is no link and no program."""

    blob: str
    size: int
    plain: bool


class Branch:
    """A branch of a remote, as it was when it was fetched."""

    def __init__(self, remote: str, name: str, store: Path = STORE) -> None:
        self.remote, self.name = remote, name
        self.store = store.with_name(f"{store.stem}-{name.replace('/', '-')}{store.suffix}")
        self.tip = ""
        self.there: dict[str, File] = {}

    def __str__(self) -> str:
        return f"branch {self.name} of {self.remote}"

    @property
    def ref(self) -> str:
        return f"refs/heads/{self.name}"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other process use the store. Raises UserError if one does not end."""
        self.store.parent.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(f"{self.store}.lock", timeout=WAIT_SECONDS):
                yield
        except filelock.Timeout as error:
            raise command.UserError(f"another process has had {self.store} for {WAIT_SECONDS} s; end it") from error

    def call(self, *arguments: str, given: bytes = b"") -> bytes:
        """What git prints of the store. Raises Failed."""
        return said(*arguments, options=[f"--git-dir={self.store}"], given=given)

    def reach(self, *arguments: str) -> None:
        """Have git fetch or push with the clone's own settings of remotes. Raises Failed, Unreachable."""
        settings = Path(git.output("rev-parse", "--git-path", "config")).absolute()
        options = [f"--git-dir={self.store}", "-c", f"include.path={settings}"]
        said(*arguments, options=options, seconds=TRANSFER_SECONDS)

    def fetch(self) -> None:
        """See what the branch has now, or that it is not there. Raises Unreachable."""
        self.tip, self.there = self.newest(), {}
        if len(list((self.store / "objects" / "pack").glob("*.pack"))) > MOST_PACKS:
            shutil.rmtree(self.store, ignore_errors=True)
        if self.tip:
            try:
                self.there = self.listing()  # fails if it is not in the store
            except Failed:
                self.get()

    def newest(self) -> str:
        """The commit of the branch that the remote has; empty if it has no such branch. Raises Unreachable."""
        try:
            told = said("ls-remote", "--", self.remote, self.ref, seconds=ANSWER_SECONDS).decode(errors="replace")
        except Failed as error:
            raise self.unreachable(error) from error
        found = [line.split("\t") for line in told.splitlines()]  # every name that ends so
        return next((commit for commit, name in found if name == self.ref), "")

    def unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(f"{self.remote} cannot be reached: {error}; results stay here")

    def listing(self) -> dict[str, File]:
        """Every file of the branch, by its path. Raises Failed if not all of them are in the store."""
        found = {}
        for line in os.fsdecode(self.call("ls-tree", "-r", "-l", "-z", "--full-tree", self.tip)).split("\0")[:-1]:
            about, _, path = line.partition("\t")
            mode, kind, blob, size = about.split()
            if kind == "blob" and not size.isdecimal():
                raise Failed(f"{self.store} is damaged")
            found[path] = File(blob, int(size) if kind == "blob" else 0, mode == "100644")
        return found

    def get(self, anew: bool = False) -> None:
        """Have what the branch has now in the store, which is made anew if it is damaged. Raises Unreachable."""
        self.prepare(anew)
        if not self.tip:
            return
        try:
            self.reach(
                "fetch", "--quiet", "--no-tags", "--depth=1", "--no-filter", "--refmap=", "--", self.remote,
                f"+{self.ref}:{SEEN}",
            )  # fmt: skip
            self.tip = (self.store / "FETCH_HEAD").read_text().partition("\t")[0]
            self.there = self.listing()
        except (Failed, OSError) as error:
            if anew:
                raise self.unreachable(error) from error
            self.get(anew=True)

    def prepare(self, anew: bool) -> None:
        """Have a store there."""
        if anew:
            shutil.rmtree(self.store, ignore_errors=True)
        if not self.store.exists():
            forget_older()
            kind = git.output("rev-parse", "--show-object-format")
            git.run("init", "--quiet", "--bare", "--template=", f"--object-format={kind}", str(self.store))

    def mended(self, work: Callable[[], Told]) -> Told:
        """What comes of `work` with the store, which is made anew if it is damaged. Raises UserError."""
        tip = self.tip
        try:
            return work()
        except Failed:
            self.get(anew=True)
            if self.tip != tip:  # what was read before is not what is there now
                raise command.UserError(f"{self.store} was damaged and is whole again; say it again") from None
            return work()

    def files(self) -> dict[str, File]:
        """Every file of the branch, by its path."""
        return self.there

    def contents(self, files: Iterable[tuple[str, File]]) -> Iterator[tuple[str, bytes]]:
        """What is in files of the branch, by their path."""
        waiting: list[tuple[str, File]] = []
        size = 0
        for path, file in files:
            if waiting and size + file.size > AT_ONCE:
                yield from self.read(waiting)
                waiting, size = [], 0
            waiting.append((path, file))
            size += file.size
        if waiting:
            yield from self.read(waiting)

    def read(self, files: Sequence[tuple[str, File]]) -> list[tuple[str, bytes]]:
        return self.mended(lambda: list(self.batch(files)))

    def batch(self, files: Sequence[tuple[str, File]]) -> Iterator[tuple[str, bytes]]:
        """What is in files of the branch, by their path. Raises Failed if they are not in the store."""
        told = self.call("cat-file", "--batch", given="".join(f"{file.blob}\n" for _, file in files).encode())
        place = 0
        for path, file in files:
            head = f"{file.blob} blob {file.size}\n".encode()
            if not told.startswith(head, place):
                raise Failed(f"{self.store} is damaged")
            place += len(head)
            yield path, told[place : place + file.size]
            place += file.size + 1

    def push(self, changed: Mapping[str, bytes], message: str) -> str:
        """Put files on the branch, on top of what was fetched; why it was not taken, if it was not.

        Somebody else may have been faster. Raises Unreachable.
        """
        commit = self.mended(lambda: self.commit(changed, message))
        try:
            self.reach("push", "--quiet", "--no-recurse-submodules", "--", self.remote, f"{commit}:{self.ref}")
        except Failed as error:
            told = [line for line in error.told.splitlines() if line.startswith(("remote:", " ! "))]
            return command.one_line(" ".join(told)) or str(error)
        return ""

    def commit(self, changed: Mapping[str, bytes], message: str) -> str:
        """A commit that has `changed` besides what was fetched. Raises Failed."""
        why = message.encode()
        stream = [f"commit {NEXT}\nmark :1\ncommitter {IDENTITY} now\ndata {len(why)}\n".encode(), why, b"\n"]
        stream += [f"from {self.tip}\n".encode()] if self.tip else []
        for path, text in changed.items():
            stream += [b"M 100644 inline " + os.fsencode(path) + f"\ndata {len(text)}\n".encode(), text, b"\n"]
        given = b"".join([*stream, b"get-mark :1\ndone\n"])
        told = self.call("fast-import", "--quiet", "--force", "--done", "--date-format=now", given=given)
        return told.decode().strip()


def said(*arguments: str, options: Sequence[str] = (), given: bytes = b"", seconds: float | None = None) -> bytes:
    """What git prints. Raises Failed; Unreachable if it takes longer than `seconds`."""
    plain = [word for name, value in PLAIN.items() for word in ("-c", f"{name}={value}")]
    try:
        done = git.start(*options, *plain, *arguments, given=given, seconds=seconds, more={"GIT_TERMINAL_PROMPT": "0"})
    except git.NoAnswer as error:
        raise Unreachable(f"git {arguments[0]}: no answer in {seconds:g} s; check the network") from error
    if done.returncode:
        told = done.stderr.decode(errors="replace")
        raise Failed(git.known_cause(told) or f"git {arguments[0]}: {git.reason(told)}", told)
    return done.stdout


def blob_of(text: bytes, like: str) -> str:
    """git's name of a content, of the kind that `like` is one."""
    kind = hashlib.sha1 if len(like) == 40 else hashlib.sha256
    return kind(b"blob %d\0" % len(text) + text).hexdigest()


def forget_older() -> None:
    """Have the clone of the code let go of the results branch, which older versions kept in it."""
    for left in Path(git.output("rev-parse", "--git-path", "refs/adamw")).rglob("*.lock"):  # by a git that was killed
        left.unlink(missing_ok=True)
    for name in git.output("for-each-ref", "--format=%(refname)", "refs/adamw").split():
        git.run("update-ref", "-d", name)


def checked(remote: str, name: str) -> Branch:
    """The branch, if its names are ones. Raises UserError."""
    git.output("rev-parse", "--git-dir")
    if remote.startswith("-") or not remote:
        raise command.UserError(f"no remote {remote[:20]!r}; git remote lists them")
    try:
        git.output("check-ref-format", f"refs/heads/{name}")
    except command.UserError as error:
        raise command.UserError(f"{name[:20]!r} cannot be a branch's name") from error
    return Branch(remote, name)
