"""asv's plugin, named in asv.conf.json: environments with this machine's MLX backend, results written in one piece.

It uses asv's own mechanism (an `Environment` subclass, chosen by `environment_type: mlx`) and wraps five of asv's
functions: `perform_setup`, with which a run begins, in whatever environment; `ExistingEnvironment.run`, which would not
tell a process in which it is; `write_json`, which would leave half a
file behind when the disk is full or the process is killed; `Results.save`, which would replace what an earlier run
measured, and beside whose file the run's ledger is kept; and `Results.load_data`, which would end the run at a file
that was damaged.
"""

import atexit
import importlib.metadata
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from asv import util
from asv.commands.setup import Setup
from asv.console import log
from asv.environment import ExistingEnvironment
from asv.plugins.virtualenv import Virtualenv
from asv.results import Results

from benchmarks.harness import cases
from scripts import asv_below, asv_git, command, earlier, git_environment, ledger, scratch  # noqa: F401
from scripts import setup as venv  # by another name: asv calls what a plugin has as `setup`

BEGAN = time.time()
"""When this run of asv was started."""

os.environ.setdefault("SYSTEM_VERSION_COMPAT", "0")
"""A Python that was built with an older SDK says 16.0 on macOS 26 otherwise (cpython#135675), and pip, which asks it,
takes the wheel for macOS 15. All that is installed is by processes that inherit this.
"""

git_environment.forget_repository()  # neither asv's git nor that of a build means the repository of a hook

CPU_PACKAGE, CUDA_PACKAGE = "mlx-cpu", "mlx-cuda-13"

PREFLIGHT = """
import shutil, sys
try:
    import mlx.core as mx
    mx.eval(mx.ones(4) + 1)
except Exception as error:
    install = "; on Linux install a backend: make setup BACKEND=cpu, or BACKEND=cuda13"
    sys.exit(f"MLX does not run here ({error})" + install * (isinstance(error, ImportError) and "mlx" in str(error)))
if mx.default_device() == mx.Device(mx.cpu) and not shutil.which("g++"):
    sys.exit("no g++ on PATH: MLX's CPU backend needs it to compile, and would silently run uncompiled; install g++")
"""


class MlxEnvironment(Virtualenv):
    """A virtualenv with the MLX backend that .venv has, checked before anything is measured in it."""

    tool_name = "mlx"
    checked: set[str] = set()

    def __init__(self, conf: Any, python: str, requirements: dict[str, str], tagged_env_vars: Any) -> None:
        super().__init__(conf, python, with_backend(requirements), tagged_env_vars)

    def create(self) -> None:
        try:
            cases.profile()
        except cases.UnknownCase as error:
            raise util.UserError(f"ADAMW_PROFILE: {error}") from error
        super().create()
        self.check()

    def check(self) -> None:
        """Raise UserError if MLX does not run, or does not compile, in this environment."""
        if self.name not in self.checked:
            out, err, code = self.run(
                ["-c", PREFLIGHT], valid_return_codes=None, return_stderr=True, display_error=False, dots=False
            )
            if code:
                raise util.UserError(last_line(err or out))
            self.checked.add(self.name)

    def _setup(self) -> None:
        try:
            super()._setup()
        except util.ProcessError as error:
            raise util.UserError(
                f"cannot install {', '.join(self._requirements)} into {self._path}: {last_line(error.stderr)}"
                + "; check the network, then run the same command again" * venv.unreachable(error.stderr)
            ) from error
        # It comes with asv_runner, and takes NumPy into every process for a kind of benchmark that is not used here.
        self.run(["-m", "pip", "uninstall", "--quiet", "--yes", "pympler"])


def with_backend(requirements: dict[str, str]) -> dict[str, str]:
    """The requirements with MLX's CUDA backend in place of its CPU one, if that is what .venv has installed."""
    if CPU_PACKAGE not in requirements or not installed(CUDA_PACKAGE):
        return requirements
    return {CUDA_PACKAGE if name == CPU_PACKAGE else name: pin for name, pin in requirements.items()}


def installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def last_line(text: str) -> str:
    lines = [
        line
        for line in command.ESCAPES.sub("", text).strip().splitlines()
        if line.strip() and not line.startswith("[notice]")
    ]
    errors = [line for line in lines if "ERROR" in line or "Error" in line]
    return (errors or lines or ["no reason given"])[-1].strip()


def start_scratch() -> None:
    """Give this process, and what it starts, a folder for temporary files, and the ledger in it."""
    mine = scratch.folder()
    if tempfile.tempdir == str(mine):
        return
    tempfile.tempdir = os.environ["TMPDIR"] = str(mine)
    os.environ.setdefault(ledger.VARIABLE, str(mine / "ledger.jsonl"))
    os.environ[ledger.BEGAN] = repr(BEGAN)
    atexit.register(finish, time.perf_counter())
    command.end_with_parent()


def finish(start: float) -> None:
    """Say what share of the run was measuring."""
    entries = ledger.read(Path(os.environ[ledger.VARIABLE]))
    cases_done = ledger.by_case(entries)
    work = sum(entry.get("wall", 0.0) for entry in entries)
    wall = time.perf_counter() - start
    if work:
        print(f"{len(cases_done)} cases measured: {work:.0f} s of {wall:.0f} s ({work / wall:.0%}) {command.OWN_WORK}")


DAMAGED = (util.UserError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading a result file that is none raises."""

original_perform_setup = Setup.perform_setup
original_run = ExistingEnvironment.run
original_write_json = util.write_json
original_save = Results.save
original_load_data = Results.load_data


def perform_setup(environments: Any, parallel: int = -1) -> Any:
    """asv's own `perform_setup`, after the run's ledger has begun: whatever the environments, asv's or somebody's."""
    start_scratch()
    return original_perform_setup(environments, parallel=parallel)


def run_in_existing(self: ExistingEnvironment, args: list[str], **kwargs: Any) -> Any:
    """asv's own `run` in somebody's environment, but what it starts is told in which, as it is in any other."""
    kwargs["env"] = dict(kwargs.get("env") or os.environ) | self._global_env_vars
    return original_run(self, args, **kwargs)


def write_json(path: str, data: Any, api_version: int | None = None, compact: bool = False) -> None:
    """asv's own `write_json`, but the file is complete or untouched."""
    partial = f"{path}.{os.getpid()}.partial"
    try:
        original_write_json(partial, data, api_version, compact)
        with open(partial, "rb") as file:
            os.fsync(file)
        os.replace(partial, path)
    except OSError as error:
        raise util.UserError(f"cannot write {path}: {error.strerror}; the old file is whole") from error
    finally:
        Path(partial).unlink(missing_ok=True)


def save(self: Results, result_dir: str) -> None:
    """asv's own `save`, but what it replaces of an earlier run is kept; and beside its file the ledger of this one."""
    path = Path(result_dir, self._filename)
    entries = ledger.read(Path(os.environ.get(ledger.VARIABLE, "")))
    mine = [entry | {"commit": self.commit_hash} for entry in entries if belongs(entry, self)]
    began = min([BEGAN, *(entry["time"] for entry in mine)])  # of a run that goes on with another: that one's beginning
    try:
        kept = earlier.replaced_in(path, self, began)
        if kept:
            original_save(kept, result_dir)
        original_save(self, result_dir)
        before = ledger.merge(path.with_suffix(".jsonl"), ledger.with_ceiling(mine))
        if kept:
            earlier.write_ledger(Path(result_dir, kept._filename), before)
    except OSError as error:
        raise util.UserError(f"cannot write {path}: {error.strerror}; the old file is whole") from error


def load_data(self: Results, result_dir: str) -> None:
    """asv's own `load_data`, but a file that cannot be read is put aside instead of ending the run."""
    path = Path(result_dir, self._filename)
    try:
        original_load_data(self, result_dir)
    except DAMAGED as error:
        os.replace(path, path.with_name(path.name + earlier.CORRUPT))
        log.warning(f"{path} cannot be read, and is now {path.name}{earlier.CORRUPT}: {command.one_line(str(error))}")


def belongs(entry: dict[str, Any], results: Results) -> bool:
    """Whether it was measured for these results; in an existing environment the commit is only known to asv."""
    return entry["commit"] in (results.commit_hash, None) and entry["environment"] == results.env_name


Setup.perform_setup = perform_setup
ExistingEnvironment.run = run_in_existing
util.write_json = write_json
Results.save = save
Results.load_data = load_data
