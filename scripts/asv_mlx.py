"""asv's plugin for the lane of MLX's own commits, named in asv.mlx.conf.json: a commit's MLX, and our adamw held still.

A commit with a release's tag is installed from the package index, which takes seconds. Any other is built from source
where the tools for that are there, and is skipped where they are not. The wheels of both stay in asv's build cache.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any, NoReturn

import filelock
from asv import util
from asv.build_cache import BuildCache
from asv.console import log

from benchmarks.harness.host import HERE
from scripts import asv_git, command, scratch, upstream
from scripts.asv_plugin import CUDA_PACKAGE, PREFLIGHT, MlxEnvironment, last_line

NOT_MEASURED = "not measured: "
"""With what a line of asv's log begins that says why a commit is passed over."""

RELEASES_ONLY = "ADAMW_BENCH_RELEASES_ONLY"
"""The environment variable that forbids building from source: asv builds the newest commit if it finds no other way to
read the suite.
"""

WHEELS = Path(".asv/mlx-wheels")
"""The build cache of all environments: built once, whoever wants it."""

CAUSES = ("Could NOT find", "fatal error:", "CMake Error", ": error:")
"""What names the cause of a failed build, the clearest first: pip's own last line only says that there was one."""

PROJECT = ("adamw", "pyproject.toml", "README.md")
"""What of the working tree is installed beside MLX."""


class MlxHistory(MlxEnvironment):
    """A virtualenv whose MLX is that of the commit under test, and whose adamw is the working tree's."""

    tool_name = "mlx-history"

    def __init__(self, conf: Any, python: str, requirements: dict[str, str], tagged_env_vars: Any) -> None:
        self.root = Path(conf.benchmark_dir).absolute().parent
        self.digest = digest(self.root)
        super().__init__(conf, python, requirements, tagged_env_vars)
        self._cache = BuildCache(conf, str(WHEELS.absolute()))

    def install_project(self, conf: Any, repo: Any, commit_hash: str) -> None:
        """asv's own, alone: its cache removes what another process has not finished."""
        WHEELS.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(WHEELS / "lock"):
            super().install_project(conf, repo, commit_hash)

    def check(self) -> None:
        """Nothing yet: MLX comes with the commit."""

    def _get_install_checksum(self) -> list[Any]:
        """What was installed with another adamw is installed anew."""
        return [*super()._get_install_checksum(), self.digest]

    def checkout_project(self, repo: Any, commit_hash: str) -> None:
        """Check out what is to be built. A release is not."""
        asv_git.warn_of_changes(repo._path)
        self.release = upstream.of_commit(repo._path, commit_hash)
        self._set_commit_hash(commit_hash)
        if not self.release:
            if missing := missing_tools():
                skip(f"{commit_hash[:8]} is no release of MLX and cannot be built here: {missing}")
            super().checkout_project(repo, commit_hash)

    def _build_project(self, repo: Any, commit_hash: str, build_dir: str) -> None:
        """Bring the wheels into the build cache."""
        try:
            if not self.release:
                super()._build_project(repo, commit_hash, build_dir)
                return
            log.info(f"Downloading mlx {self.release} for {self.name}")
            upstream.download(self.find_executable("python"), self.release, self.cached)
        except upstream.NotThere as error:
            skip(str(error))
        except util.ProcessError as error:
            skip(f"{commit_hash[:8]} cannot be built: {cause(error.stderr or error.stdout)}")

    def _install_project(self, repo: Any, commit_hash: str, build_dir: str) -> None:
        """Install the commit's wheels and the working tree's adamw, and see whether MLX runs."""
        log.info(f"Installing {repo.get_decorated_hash(commit_hash, 8)} into {self.name}")
        install = ["-m", "pip", "install", "--quiet", "--no-build-isolation", "--force-reinstall"]
        wheels = [str(path) for path in sorted(self.cached.glob("*.whl"))]
        needy = [path for path in wheels if Path(path).name.startswith(CUDA_PACKAGE.replace("-", "_"))]
        for asked in (
            *([[*install, *needy]] if needy else []),  # with NVIDIA's libraries, which are packages of their own
            [*install, "--no-deps", *wheels, str(copied(self.root))],
            ["-c", PREFLIGHT],
        ):
            out, err, code = self.run(
                asked, cwd=self._path, valid_return_codes=None, return_stderr=True, display_error=False, dots=False
            )
            if code:
                skip(f"{commit_hash[:8]} does not run here: {last_line(err or out)}")

    @property
    def cached(self) -> Path:
        """Where the commit's wheels are kept."""
        return Path(self._global_env_vars["ASV_BUILD_CACHE_DIR"])


def cause(text: str) -> str:
    """Why a build failed, in one line."""
    told = (line for sign in CAUSES for line in text.splitlines() if sign in line)
    return command.one_line(next(told, last_line(text)))


def skip(reason: str) -> NoReturn:
    """Have asv pass over a commit, and say why: it keeps to itself what ends an installation."""
    log.error(f"{NOT_MEASURED}{reason}")
    raise util.ProcessError([reason], 1, "", reason)


def missing_tools() -> str:
    """What is not there of what building MLX from source takes, and how to get it; empty if all is."""
    if RELEASES_ONLY in os.environ:
        return "a night measures releases only"
    if upstream.packages()[1] == CUDA_PACKAGE:
        return "what is built from source has no CUDA backend; compare releases"
    return HERE.missing_build_tools()


def digest(root: Path) -> str:
    """A digest of what is installed of the working tree."""
    told = hashlib.sha256()
    for path in files(root):
        told.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return told.hexdigest()


def files(root: Path) -> list[Path]:
    """The files of PROJECT."""
    found = (path for name in PROJECT for path in (root / name, *(root / name).rglob("*")))
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)


def copied(root: Path) -> Path:
    """A copy of PROJECT: a build leaves files where it runs."""
    folder = scratch.folder() / "adamw"
    shutil.rmtree(folder, ignore_errors=True)
    for path in files(root):
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return folder
