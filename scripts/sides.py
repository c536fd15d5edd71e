"""What can be compared: a git revision, the working tree (`.`), and of the working tree an MLX release (`mlx==0.31.2`),
a commit of MLX (`mlx@v0.31.2`), a variant (`variant:windowed`), or another interpreter's packages
(`python:/path/to/python`).

A side is a folder with its `adamw` and an interpreter with its MLX. The harness is always the working tree's: whatever
measures must be the same for both.
"""

import ast
import hashlib
import importlib.metadata
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from asv import environment, util
from asv.config import Config
from packaging.version import InvalidVersion, Version

from benchmarks.harness import cases
from scripts import asv_mlx, asv_plugin, command, git, lanes, scratch, upstream  # noqa: F401

CONFIG = "asv.conf.json"
PATHS = ["adamw", CONFIG]
"""What of a commit decides what a side runs."""

RELEASE = "mlx=="
UPSTREAM = "mlx@"
VARIANT = "variant:"
PYTHON = "python:"

BUILT, MOST_BUILT = Path(".asv/env/mlx"), 8
"""Where the environments of commits of MLX are that were built, and how many are kept, each half a gigabyte."""


class Side(NamedTuple):
    """One side of a comparison.

    name    as the user gave it
    commit  full hash, None for the working tree
    folder  holds `adamw`
    mlx     the release it is measured with
    python  an interpreter that has it
    variant the only one that takes part, None for all
    """

    name: str
    commit: str | None
    folder: Path
    mlx: str
    python: str
    variant: str | None = None

    def __str__(self) -> str:
        what = self.commit[:8] if self.commit else "working tree"
        short = self.name == "." or (self.commit or "").startswith(self.name)
        return f"{what}, mlx {self.mlx}" if short else f"{self.name} ({what}), mlx {self.mlx}"


def resolve(name: str) -> Side:
    """The side called `name`, ready to run; its environment is made if there is none. Raises UserError."""
    if not Path(CONFIG).is_file():
        raise command.UserError(f"no {CONFIG} here; run it from the root of the repository")
    if name.startswith(RELEASE):
        return working_tree(name, release(name.removeprefix(RELEASE)))
    if name.startswith(UPSTREAM):
        return of_upstream(name.removeprefix(UPSTREAM))
    if name == ".":
        return working_tree(name, pinned(Path()))
    if name.startswith(VARIANT):
        return working_tree(name, pinned(Path()))._replace(variant=variant(name.removeprefix(VARIANT)))
    if name.startswith(PYTHON):
        return other_python(name, name.removeprefix(PYTHON))
    commit = git.find_commit(name)
    if not commit:
        git.output("rev-parse", "--git-dir")  # says so if this is no repository
        hint = (
            f"; for a release write {RELEASE}{name.lstrip('mlx=')}"
            if re.fullmatch(r"(mlx=?)?\d+(\.\d+)+", name)
            else ""
        )
        raise command.UserError(
            f"no commit {name[:80]!r}{git.shallow()}; name one git revision, . for the working tree, {RELEASE}VERSION, "
            f"{VARIANT}NAME or {PYTHON}PATH{hint}"
        )
    folder = scratch.folder() / commit
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        partial.mkdir(exist_ok=True)
        git.extract(commit, PATHS, partial)
        partial.rename(folder)  # what was interrupted is nobody's code
    if not (folder / "adamw").is_dir():
        raise command.UserError(f"{name}: commit {commit[:8]} has no adamw/; name a later one")
    mlx = pinned(folder if (folder / CONFIG).exists() else Path())
    return Side(name, commit, folder, mlx, interpreter(mlx))


def in_lane(lane: Path, name: str) -> str:
    """The name of a side that is called `name` in a lane: in MLX's own one, a revision is MLX's."""
    prefixed = name == "." or name.startswith((RELEASE, UPSTREAM, VARIANT, PYTHON))
    return name if prefixed or lane.name != lanes.MLX.name else UPSTREAM + name


def of_upstream(revision: str) -> Side:
    """The working tree with the MLX of one of its commits, which is built unless it is a release. Raises UserError."""
    config, repo, commit = upstream.find(revision)
    release_there = upstream.of_commit(repo._path, commit)
    if release_there and upstream.supported().contains(release_there):
        return working_tree(f"{RELEASE}{release_there}", release_there)
    config.env_dir = str(room_for(commit))
    (made,) = environment.get_environments(config, [])
    print(f"installing commit {commit[:8]} of MLX: minutes, if it is not in the cache", file=sys.stderr)
    try:
        with quiet():
            made.create()
            made.install_project(config, repo, commit)
    except util.ProcessError as error:
        raise command.UserError(command.one_line(str(error.stderr or error))) from error
    except (util.UserError, environment.EnvironmentUnavailable) as error:
        raise command.UserError(command.one_line(str(error))) from error
    python = made.find_executable("python")
    asked = [python, "-c", "import importlib.metadata; print(importlib.metadata.version('mlx'))"]
    version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return Side(f"{UPSTREAM}{commit}", None, Path.cwd(), version, python)


def room_for(commit: str) -> Path:
    """The folder for a built commit's environment; those that were used longest ago make room."""
    folder = BUILT / commit[:12]
    folder.mkdir(parents=True, exist_ok=True)
    folder.touch()
    for old in sorted(BUILT.iterdir(), key=lambda one: one.stat().st_mtime)[:-MOST_BUILT]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def variant(name: str) -> str:
    """`name`, if there is such a variant. Raises UserError."""
    try:
        cases.choose("variant", name, cases.variant_names())
    except cases.UnknownCase as error:
        raise command.UserError(str(error)) from error
    return name


def other_python(name: str, path: str) -> Side:
    """The working tree with what the interpreter at `path` has installed. Raises UserError."""
    python = shutil.which(path)
    if not python:
        raise command.UserError(f"no Python at {path[:200]!r}; write {PYTHON} and the path of an interpreter")
    asked = [python, "-c", "import importlib.metadata; print(importlib.metadata.version('mlx'))"]
    done = subprocess.run(asked, capture_output=True, text=True)
    if done.returncode:
        reason = asv_plugin.last_line(done.stderr)
        if "PackageNotFoundError" in done.stderr:
            raise command.UserError(f"{path[:200]} has no mlx: {reason}; install it there")
        raise command.UserError(f"{path[:200]} does not say which mlx it has: {reason}")
    return Side(name, None, Path.cwd(), done.stdout.strip(), str(Path(python).absolute()))


def working_tree(name: str, mlx: str) -> Side:
    return Side(name, None, Path.cwd(), mlx, interpreter(mlx))


def pinned(folder: Path) -> str:
    """The MLX release that the configuration in `folder` pins. Raises UserError."""
    try:
        return release(util.load_json(str(folder / CONFIG), js_comments=True)["matrix"]["req"]["mlx"][0])
    except (KeyError, IndexError, TypeError) as error:
        raise command.UserError(f"{folder / CONFIG} pins no mlx; add it to its matrix") from error
    except (util.UserError, OSError, ValueError) as error:
        raise command.UserError(command.one_line(f"{folder / CONFIG}: {error}")) from error


def release(text: str) -> str:
    """`text`, if it is a release that the variants run on. Raises UserError."""
    try:
        version = Version(text)
    except InvalidVersion as error:
        raise command.UserError(f"mlx=={text[:50]} is no version; write it like mlx==0.31.2") from error
    supported = upstream.supported()
    if not supported.contains(version, prereleases=True):
        raise command.UserError(f"mlx {version} is too old; the variants need mlx{supported}")
    return f"{version}.0" if re.fullmatch(r"\d+\.\d+", str(version)) else str(version)


def interpreter(mlx: str) -> str:
    """A Python with that MLX: this one, or that of asv's environment for it. Raises UserError."""
    if asv_plugin.installed("mlx") and importlib.metadata.version("mlx") == mlx:
        return sys.executable
    try:
        made = asv_environment(mlx)
        if not Path(made._path).is_dir():
            if mlx not in upstream.versions("mlx"):
                raise command.UserError(
                    f"mlx {mlx}: the package index has no such release for this machine, or has withdrawn it"
                )
            print(f"making asv's environment with mlx {mlx} (about 20 s)", file=sys.stderr)
        with quiet():
            made.create()
        return made.find_executable("python")
    except (util.UserError, environment.EnvironmentUnavailable) as error:
        raise command.UserError(str(error).strip()) from error


@contextmanager
def quiet() -> Iterator[None]:
    """What asv logs held back: what went wrong is in the error. Its log is Python's root, which prints by itself."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def asv_environment(mlx: str) -> Any:
    """The environment in which `asv run` measures commits that pin `mlx`."""
    config = Config.load(CONFIG)
    requirements = config.matrix["req"]
    requirements["mlx"] = [mlx]
    requirements[asv_plugin.CPU_PACKAGE] = [None, mlx]
    (made,) = environment.get_environments(config, [])
    return made


def same(base: Side, head: Side, variants: tuple[str, str]) -> bool:
    """Whether the sides run the same code for their two `variants`: then there is nothing that could differ."""
    return (base.mlx, base.python, code(base.folder, variants[0])) == (
        head.mlx,
        head.python,
        code(head.folder, variants[1]),
    )


def code(folder: Path, variant: str) -> str:
    """A digest of all that `variant` can run: every file of `adamw` but the variants that it does not import."""
    package = folder / "adamw"
    needed = {variant}.union(*map(imported, package.glob("*.py")))
    waiting = list(needed)
    while waiting:
        new = imported(package / "variants" / f"{waiting.pop()}.py") - needed
        needed |= new
        waiting += new
    digest = hashlib.sha256(variant.encode())
    for path in sorted(package.rglob("*")):
        other = path.parent.name == "variants" and path.suffix == ".py" and path.stem not in needed | {"__init__"}
        if path.is_file() and "__pycache__" not in path.parts and not other:
            digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def imported(path: Path) -> set[str]:
    """The names that the file imports, or imports from: the variants among them are part of what it runs."""
    try:
        tree = ast.parse(path.read_text())
    except cases.UNREADABLE:
        return set()
    names = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
    }
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.rpartition(".")[2] for name in names}
