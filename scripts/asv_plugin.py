"""asv's plugin, named in asv.conf.json: environments with this machine's MLX backend, and what is measured kept.

It uses asv's own mechanism (an `Environment` subclass, chosen by `environment_type: mlx`) and wraps two of asv's
functions: `perform_setup`, with which a run begins, in whatever environment; and `ExistingEnvironment.run`, which would
not tell a process in which it is. What wraps others to keep what is measured is in `scripts.storing`.
"""

import atexit
import importlib.metadata
import os
import secrets
import tempfile
import time
from pathlib import Path
from typing import Any

from asv import util
from asv.commands.setup import Setup
from asv.environment import ExistingEnvironment
from asv.plugins.virtualenv import Virtualenv

from benchmarks.harness import cases
from scripts import asv_git, command, git_environment, ledger, scratch, storing  # noqa: F401
from scripts import setup as venv  # by another name: asv calls what a plugin has as `setup`

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
    """Give this process, and what it starts, a folder for temporary files, and in it a ledger of what is no run's."""
    mine = scratch.folder()
    if tempfile.tempdir == str(mine):
        return
    tempfile.tempdir = os.environ["TMPDIR"] = str(mine)
    os.environ.setdefault(ledger.VARIABLE, str(mine / "ledger.jsonl"))
    os.environ[ledger.SESSION] = secrets.token_hex(8)
    atexit.register(finish, time.perf_counter())
    command.end_with_parent()


def finish(start: float) -> None:
    """Say what share of the run was measuring."""
    paths = [*storing.BEGUN.values()] or [Path(os.environ[ledger.VARIABLE])]
    entries = [entry for path in paths for entry in ledger.read(path)]
    cases_done = ledger.by_case(entries)
    work = sum(entry.get("wall", 0.0) for entry in entries)
    wall = time.perf_counter() - start
    if work:
        print(f"{len(cases_done)} cases measured: {work:.0f} s of {wall:.0f} s ({work / wall:.0%}) {command.OWN_WORK}")


original_perform_setup = Setup.perform_setup
original_run = ExistingEnvironment.run


def perform_setup(environments: Any, parallel: int = -1) -> Any:
    """asv's own `perform_setup`, after the run's ledger has begun: whatever the environments, asv's or somebody's."""
    start_scratch()
    return original_perform_setup(environments, parallel=parallel)


def run_in_existing(self: ExistingEnvironment, args: list[str], **kwargs: Any) -> Any:
    """asv's own `run` in somebody's environment, but what it starts is told in which, as it is in any other."""
    kwargs["env"] = dict(kwargs.get("env") or os.environ) | self._global_env_vars
    return original_run(self, args, **kwargs)


Setup.perform_setup = perform_setup
ExistingEnvironment.run = run_in_existing
