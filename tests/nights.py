"""Nights as tests need them: a checkout with a tiny suite, a bare repository beside it, and what a night leaves."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import stub_asv

from scripts import ledger, runs
from scripts.nightly import record

ROOT = Path(__file__).parent.parent
MACHINE = "night"
VARIANTS = ("compiled", "eager")
WORKLOADS = ("float32/one_leaf", "float32/two_leaves")
CASES = [f"{variant}/{workload}" for variant in VARIANTS for workload in WORKLOADS]

PROFILE = 'PROFILES.index(WORKLOADS.get(workload, "default")) <= PROFILES.index(name)'
SMALLER = {
    "benchmarks/harness/cases.py": [(f"return {PROFILE}", f"return workload in {WORKLOADS}")],
    "benchmarks/harness/trees.py": [("shape(2**24)", "shape(2**10)"), ("shape(2**23)", "shape(2**9)")],
    "benchmarks/harness/sampling.py": [("BUDGET = 1.5", "BUDGET = 0.05"), ("WARM_UP = 0.1", "WARM_UP = 0.01")],
    "benchmarks/harness/ceiling.py": [("= 2**30", "= 2**20"), ("CACHE_MULTIPLE = 4", "CACHE_MULTIPLE = 0")],
    "benchmarks/controls.py": [("2**24", "2**10")],
    "scripts/nightly/preflight.py": [("LOAD_SECONDS = 2.0", "LOAD_SECONDS = 0.1")],
    "scripts/measuring.py": [
        (
            r"^(step|accuracy\.Accuracy|memory\.Memory\.track_memory_ratio|work\.Work\.track_(traffic|peak)_ratio)\b.*",
            r"^(step\.Step\.track_seconds|work\.Work\.track_traffic_ratio)\b.*",
        ),
        (r'[QUICK + of_workloads, r"^controls\."]', r'[QUICK + of_workloads, r"^controls\..*copy"]'),
    ],
}
"""What makes a night of a few seconds of it: two leaves, short samples."""

SETTINGS = f"""
machine = "{MACHINE}"
profile = "quick"
remote = "origin"
lanes = ["adamw"]
hours = 1
report = false
confirm_seconds = 0
[checks.load]
then = "pass"
[checks.memory]
then = "pass"
[checks.disk]
limit = 0.1
"""


class Night:
    """A checkout with a tiny suite that is cloned from a bare repository, and nights in it."""

    cases = CASES

    def __init__(
        self, folder: Path, environments: Path | None = None, origin: Path | None = None, machine: str = MACHINE
    ) -> None:
        self.folder, self.path, self.machine = folder, folder / "a checkout", machine
        home = folder / "home"
        home.mkdir(parents=True)
        cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        identity = {f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        self.environment = os.environ | identity | {"HOME": str(home), "XDG_CACHE_HOME": cache}
        self.environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        self.environment.pop(ledger.VARIABLE, None)
        self.origin = origin or self.made(folder / "origin")
        self.call("git", "clone", "-q", "-b", "main", str(self.origin), str(self.path), where=folder)
        if environments:
            take(environments, self.path)
        self.settings(SETTINGS.replace(MACHINE, machine))

    def install(self) -> None:
        """Have asv make its environment."""
        asv = [sys.executable, "-m", "asv"]
        self.call(*asv, "machine", "--yes", "--machine", self.machine)
        done = subprocess.run([*asv, "setup"], cwd=self.path, env=self.environment, capture_output=True, text=True)
        assert list((self.path / ".asv" / "env").glob("*/asv-env-info.json")), done.stdout + done.stderr

    def made(self, origin: Path) -> Path:
        """A bare repository with this working tree's files, made smaller, in two commits."""
        work = self.folder / "made"
        listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True)
        for name in listed.splitlines():
            variant = re.fullmatch(r"adamw/variants/(\w+)\.py", name)
            if name.startswith(("results/", "tests/")) or (variant and variant[1] not in (*VARIANTS, "__init__")):
                continue
            if (ROOT / name).is_file():
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, work / name)
        self.prepare(work)
        for arguments in (
            ["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "first"],
            ["commit", "-q", "--allow-empty", "-m", "second"], ["init", "-q", "--bare", "-b", "main", str(origin)],
            ["push", "-q", str(origin), "main"],
        ):  # fmt: skip
            self.call("git", *arguments, where=work)
        shutil.rmtree(work)
        return origin

    def prepare(self, work: Path) -> None:
        for name, edits in SMALLER.items():
            replace(work / name, edits)

    def call(self, *command: str, where: Path | None = None) -> str:
        done = subprocess.run(command, cwd=where or self.path, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def git(self, *arguments: str) -> str:
        return self.call("git", *arguments)

    def commit(self, message: str, name: str = "", text: str = "") -> str:
        """A new commit on main, pushed; of a file's new text if one is named."""
        if name:
            (self.path / name).write_text(text)
            self.git("add", name)
        self.git("commit", "-q", "--allow-empty", "-m", message)
        self.git("push", "-q", "origin", "main")
        return self.git("rev-parse", "HEAD")

    def settings(self, text: str) -> None:
        (self.folder / "nightly.toml").write_text(text)

    def start(self, *arguments: str, **more: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "scripts.nightly", "--settings", str(self.folder / "nightly.toml"), *arguments]
        return subprocess.Popen(
            command, cwd=self.path, env=self.environment | more, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, *arguments: str, **more: str) -> tuple[int, str]:
        """The exit code of a night, and what it printed."""
        process = self.start(*arguments, **more)
        out, _ = process.communicate()
        assert "Traceback" not in out, out
        return process.returncode, out

    def results(self, commit: str = "HEAD") -> dict:
        """asv's results of a commit, as plain data."""
        short = self.git("rev-parse", commit)[:8]
        (path,) = (self.path / "results" / self.machine).glob(f"{short}-*.json")
        return json.loads(path.read_text())

    def seconds(self, commit: str = "HEAD") -> dict[str, float]:
        """By case the seconds of a step that were measured of a commit."""
        told = self.results(commit)
        columns = dict(zip(told["result_columns"], told["results"]["step.Step.track_seconds"], strict=False))
        names = [name.strip("'") for name in columns["params"][0]]
        return {
            name: value
            for name, value in zip(names, columns["result"] or [], strict=False)
            if value is not None and value == value
        }

    def ledger(self, commit: str = "HEAD") -> list[ledger.Entry]:
        short = self.git("rev-parse", commit)[:8]
        (path,) = runs.paths(self.path / "results" / self.machine, short)
        return [one for one in ledger.read(path) if one["what"] not in runs.OURS]

    def tried(self) -> list[record.Tried]:
        return record.read(self.path / "results", self.machine)

    def branch(self) -> dict[str, str]:
        """The files on the results branch, with their text."""
        listed = subprocess.run(
            ["git", "ls-tree", "-r", "--name-only", "results"], cwd=self.origin, capture_output=True, text=True
        )
        return {
            name: subprocess.check_output(["git", "show", f"results:{name}"], cwd=self.origin, text=True)
            for name in listed.stdout.splitlines()
        }

    def processes(self) -> list[psutil.Process]:
        """What runs in the checkout."""
        found = []
        for process in psutil.process_iter():
            try:
                if Path(process.cwd()).is_relative_to(self.path) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def kill(self, process: subprocess.Popen) -> None:
        """Kill a night and everything that it started, at once, as a power cut does."""
        victims = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for victim in [*victims, *self.processes()]:
            try:
                victim.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue
        process.communicate()


class Quick(Night):
    """Nights in which a stub measures: two cases in a second."""

    cases = stub_asv.CASES

    def prepare(self, work: Path) -> None:
        super().prepare(work)
        replace(work / "scripts" / "measuring.py", [('"-m", "asv"]', '"-m", "scripts.stub_asv"]')])
        shutil.copy(ROOT / "tests" / "stub_asv.py", work / "scripts" / "stub_asv.py")


def take(environments: Path, checkout: Path) -> None:
    """asv's environments of another checkout, linked: installing one takes half a minute."""
    link(environments, checkout / ".asv" / "env")


def link(source: Path, target: Path) -> None:
    """A copy of asv's environments that shares its files."""
    without = shutil.ignore_patterns("project")  # which is another checkout's clone
    shutil.copytree(source, target, symlinks=True, copy_function=os.link, ignore=without)


def another_mlx(environments: Path, checkout: Path, release: str, environment: dict[str, str]) -> None:
    """asv's environment for a release in a checkout, made of the shared one: its other packages are there already."""
    code = f"from scripts import sides\nmade = sides.asv_environment({release!r})"
    made = derive(environments, checkout, environment, code)
    wanted = [f"mlx=={release}", f"mlx-cpu=={release}"]
    install = [made / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", *wanted]
    subprocess.run(install, check=True, env=environment)


def derive(environments: Path, checkout: Path, environment: dict[str, str], code: str) -> Path:
    """The folder of the environment of asv's that `code` calls `made`: of the shared one's files, and known to asv."""

    def run(last: str) -> str:
        asked = [sys.executable, "-c", f"{code}\n{last}"]
        return subprocess.check_output(asked, cwd=checkout, env=environment, text=True).strip()

    made = Path(run("print(made._path)"))
    (shared,) = [path.parent for path in environments.glob("*/asv-env-info.json")]
    link(shared, made)
    run("made.save_info_file(made._path)")
    return made


def replace(path: Path, edits: list[tuple[str, str]]) -> None:
    text = path.read_text()
    for old, new in edits:
        assert old in text, f"{path}: no {old!r}"
        text = text.replace(old, new)
    path.write_text(text)


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
