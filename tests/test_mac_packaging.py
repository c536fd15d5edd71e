"""What a Mac installs, compiles against and runs in its shell, found out from its wheels and from what macOS ships."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import bashlex
import pytest
from asv import config, environment
from packaging.version import Version
from ruamel.yaml import YAML
from test_lock import installed

import adamw
from scripts import setup

ROOT = Path(__file__).parent.parent
PACKAGES = tuple(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["packages"])
MACOS = ("14.0", "15.0", "26.0")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
WITH_ENERGY = PYTHONS[:-1]
"""For which zeus-apple-silicon has wheels."""

MAC = "aarch64-apple-darwin"
PINS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
(MLX,) = [line for line in PINS["bench"] if line.startswith("mlx==")]


def run(*command: object, **more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(word) for word in command], cwd=ROOT, env=os.environ | more, capture_output=True, text=True
    )


class TestRequirements:
    """The lock's part for a Mac is all wheels: there is nothing that a Mac would have to compile."""

    @pytest.mark.slow
    @pytest.mark.parametrize("python", PYTHONS)
    @pytest.mark.parametrize("macos", MACOS)
    def test_they_can_all_be_had(self, macos, python, tmp_path, monkeypatch):
        monkeypatch.chdir(ROOT)
        extras = ["bench", "test", "metal", *(["energy"] if python in WITH_ENERGY else [])]
        found = installed(extras, tmp_path, MAC, python, MACOSX_DEPLOYMENT_TARGET=macos)
        assert {MLX, MLX.replace("mlx", "mlx-metal")} <= found
        assert ("zeus-apple-silicon" in " ".join(found)) == (python in WITH_ENERGY)
        assert not [line for line in found if line.startswith(("mlx-cpu", "mlx-cuda"))]
        pinned = {line for lines in (PINS["bench"], PINS["metal"]) for line in lines if "==" in line}
        assert {line.replace("_", "-") for line in pinned} <= found

    @pytest.mark.slow
    def test_what_has_no_wheel_for_a_mac_is_found(self, tmp_path, monkeypatch):
        monkeypatch.chdir(ROOT)
        with pytest.raises(AssertionError, match=r"mlx-cpu.* no wheels with a matching platform tag"):
            installed(["cpu"], tmp_path, MAC, PYTHONS[0], MACOSX_DEPLOYMENT_TARGET=MACOS[0])

    @pytest.mark.parametrize("name", ["asv.conf.json", "asv.mlx.conf.json"])
    def test_asvs_environment_on_a_mac_has_no_other_backend(self, name, monkeypatch):
        monkeypatch.setattr("sys.platform", "darwin")
        conf = config.Config.load(str(ROOT / name))
        (one,) = environment.iter_matrix(conf.environment_type, ["3.13"], conf)
        required = {key: pin for (kind, key), pin in one.items() if kind == "req"}
        assert not [key for key in required if key.startswith("mlx-")]
        assert required["numpy"] == "2.4.6"


class TestPythonsRelease:
    """Without SYSTEM_VERSION_COMPAT a Python may take macOS 26 for 16, and pip installs MLX's wheel for macOS 15."""

    CODE = "import os, scripts.asv_plugin; print(os.environ['SYSTEM_VERSION_COMPAT'])"

    @pytest.mark.parametrize(("before", "after"), [({}, "0"), ({"SYSTEM_VERSION_COMPAT": "1"}, "1")])
    def test_asv_starts_pip_with_it(self, before, after):
        environment = {name: value for name, value in os.environ.items() if name != "SYSTEM_VERSION_COMPAT"} | before
        told = subprocess.check_output([sys.executable, "-c", self.CODE], cwd=ROOT, env=environment, text=True)
        assert told.strip() == after

    def test_so_does_the_set_up(self, monkeypatch, tmp_path):
        monkeypatch.delenv("SYSTEM_VERSION_COMPAT", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / ".asv-machine.json").write_text("{}")
        monkeypatch.setattr(sys, "argv", ["setup.py"])
        started: list[str] = []
        monkeypatch.setattr(setup, "is_ready", lambda kind: False)
        monkeypatch.setattr(setup, "install", lambda *_: started.append(os.environ["SYSTEM_VERSION_COMPAT"]))
        setup.main()
        assert started == ["0"]


@pytest.mark.slow
@pytest.mark.skipif(
    Version(importlib.metadata.version("setuptools")) < Version("77"), reason="set-up brings a newer setuptools"
)
def test_a_wheel_of_adamw_installs_and_is_whole(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    source = tmp_path / "source"
    for name in ("adamw", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        source.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    built = run(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    installed = run(*pip, "install", "--quiet", "--no-deps", "--target", tmp_path / "there", wheel)
    assert installed.returncode == 0, installed.stderr
    asked = "import adamw; print(adamw.__file__, *adamw.names())"
    told = subprocess.check_output(
        [sys.executable, "-c", asked], cwd=tmp_path, text=True, env=os.environ | {"PYTHONPATH": str(tmp_path / "there")}
    ).split()
    assert Path(told[0]).is_relative_to(tmp_path / "there")
    assert told[1:] == adamw.names()


class TestTypes:
    """The platform set to darwin, against the stubs of MLX's own wheels for macOS."""

    @pytest.fixture(scope="class")
    @classmethod
    def stubs(cls, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp("stubs")
        platform = [f"macosx_{release.replace('.', '_')}_arm64" for release in MACOS]
        for one in platform:
            done = run(
                sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
                "--platform", one, "--python-version", "3.11", "--dest", folder / one, MLX,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            (wheel,) = (folder / one).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(
                    folder / one, [name for name in archive.namelist() if name.endswith((".py", ".pyi"))]
                )
        return folder / platform[0]

    def check(self, stubs: Path, *what: str) -> subprocess.CompletedProcess:
        written = stubs.parent / "pyproject.toml"  # MLX's own errors are none of ours
        more = '[[tool.mypy.overrides]]\nmodule = ["mlx.*"]\nignore_errors = true\n'
        ours = (ROOT / "pyproject.toml").read_text().replace(f"packages = {list(PACKAGES)}".replace("'", '"'), "", 1)
        written.write_text(f"{ours}\n{more}")
        settings = ["--config-file", written, "--cache-dir", stubs.parent / "mypy"]
        mypy = [sys.executable, "-m", "mypy", "--platform", "darwin", *settings]
        return run(*mypy, *what, MYPYPATH=str(stubs))

    @pytest.mark.slow
    def test_the_project_passes_and_what_is_not_there_does_not(self, stubs, tmp_path):
        done = self.check(stubs, *(word for name in PACKAGES for word in ("-p", name)))
        assert done.returncode == 0, done.stdout
        assert re.fullmatch(r"Success: no issues found in \d{3} source files\n", done.stdout)
        code = "import mlx.core as mx\nimport sys\nif sys.platform == 'darwin':\n    mx.no_such_thing(1)\n"
        wrong = self.check(stubs, "-c", code)
        assert 'Module has no attribute "no_such_thing"' in wrong.stdout
        assert str(stubs) in self.check(stubs, "-v", "-c", "import mlx.core").stderr  # and not the ones installed here

    @pytest.mark.slow
    def test_all_of_a_releases_wheels_have_the_same_stubs(self, stubs):
        texts = [
            {path.name: path.read_text() for path in (one / "mlx" / "core").glob("*.pyi")}
            for one in sorted(stubs.parent.glob("macosx_*"))
        ]
        assert len(texts) == len(MACOS)
        assert texts[0]
        assert all(text == texts[0] for text in texts)


def test_no_two_names_differ_in_case_only():
    """On a Mac they would be one file."""
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True).splitlines()
    paths = {str(parent) for name in listed for parent in (Path(name), *Path(name).parents)}
    assert len({path.casefold() for path in paths}) == len(paths)


# The shell


SHIPPED = {
    # What macOS ships and our scripts may use, and the options that its own version knows.
    "[": {"-d", "-f", "-n", "-z"},
    "cd": set(),
    "echo": set(),
    "exec": set(),
    "exit": set(),
    "mkdir": {"-p"},
    "rm": {"-r", "-f", "-rf"},
    "sed": {"-e", "-n", "-E"},
    "set": {"-e", "-u", "-o"},
    "test": {"-f", "-d", "-n", "-z"},
}
BROUGHT = {
    "git",
    "make",
    "python3",
    ".venv/bin/python",
    ".venv/bin/ruff",
    ".venv/bin/mypy",
    ".venv/bin/uv",
    "$(PYTHON)",
}
"""What the command line tools and `make setup` bring; their options are the same everywhere."""

TOO_NEW = {
    "bash 4": re.compile(
        r"declare -A|\bmapfile\b|\breadarray\b|&>>|\|&|\bcoproc\b|;;?&|\$\{\w+(\^\^?|,,?|@\w)\}|\[-\d+\]"
        r"|EPOCH(REAL)?SECONDS|wait -n|globstar|\[\[ -v "
    ),
    "GNU make after 3.81": re.compile(
        r"^\.(ONESHELL|RECIPEPREFIX)|^\w+\s*(!=|::?:=)|\$\((file|guile) |^undefine |^define \w+ =", re.MULTILINE
    ),
}


def recipes() -> Iterator[tuple[str, str]]:
    """Every target of the Makefile, and the shell's lines for it, as make expands them."""
    for target in re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE):
        settings = ["BASE=HEAD~1", "CASE=gpt2|resnet", "PYTHON=python3", "BACKEND=metal"]
        alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        asked = ["make", "--dry-run", "--always-make", "--no-print-directory", target, *settings]
        text = subprocess.check_output(asked, cwd=ROOT, text=True, env=alone)
        yield f"make {target}", text


def mac_steps() -> Iterator[tuple[str, str]]:
    """The workflows' steps that a self-hosted Mac runs."""
    for name in ("ci.yml", "machine.yml"):
        jobs = YAML(typ="safe").load(ROOT / ".github" / "workflows" / name)["jobs"]
        for key, job in jobs.items():
            where = f"{job['runs-on']} {job.get('strategy', '')}"
            if "self-hosted" in where or "mac" in where.lower():
                for step in job["steps"]:
                    if "run" in step:
                        yield f"{name} {key}", re.sub(r"\$\{\{.*?\}\}", "x", step["run"])


def agent() -> tuple[str, str]:
    """What launchd runs."""
    text = (ROOT / "scripts" / "nightly" / "adamw.nightly.plist").read_text()
    (script,) = re.findall(r"<string>-c</string>\s*<string>(.*?)</string>", text, re.DOTALL)
    return "launchd", script.replace("&amp;", "&")


SCRIPTS = [*recipes(), *mac_steps(), agent()]


def commands(text: str) -> Iterator[list[str]]:
    """The words of every simple command."""

    def walk(node: bashlex.ast.node) -> Iterator[list[str]]:
        if node.kind == "command":
            yield [part.word for part in node.parts if part.kind == "word"]
        for name in ("parts", "list", "command"):
            children = getattr(node, name, None) or []
            for child in children if isinstance(children, list) else [children]:
                yield from walk(child)

    for tree in bashlex.parse(text):
        yield from walk(tree)


def foreign(text: str) -> list[str]:
    """What a Mac's own shell and tools do not have."""
    found = [name for name, pattern in TOO_NEW.items() if pattern.search(text)]
    for words in commands(text):
        words = [word for word in words if not re.fullmatch(r"\w+=.*", word)]
        if words and words[0] == "exec":
            words = words[1:]
        if not words or words[0] in BROUGHT:
            continue
        name, *arguments = words
        options = {word for word in arguments if re.fullmatch(r"--?[A-Za-z][\w-]*", word)}
        if name not in SHIPPED:
            found.append(name)
        elif options - SHIPPED[name]:
            found.append(f"{name} {' '.join(sorted(options - SHIPPED[name]))}")
    return found


class TestShell:
    def test_there_is_something_to_look_at(self):
        names = [name for name, _ in SCRIPTS]
        assert {"make setup", "make test", "make bench", "machine.yml measure", "launchd"} <= set(names), names

    @pytest.mark.parametrize(("name", "text"), SCRIPTS, ids=[name for name, _ in SCRIPTS])
    def test_only_what_macos_ships(self, name, text):
        assert foreign(text) == []

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("sed -i s/a/b/ file", ["sed -i"]),
            ("sed -r s/a/b/ file", ["sed -r"]),
            ("readlink -f .", ["readlink"]),
            ("if nproc; then timeout 3 true; fi", ["nproc", "timeout"]),
            ("echo $(date -d now)", ["date"]),
            ("declare -A names", ["bash 4", "declare"]),
            ("echo ${name^^}", ["bash 4"]),
            ("rm --recursive x && cd y", ["rm --recursive"]),
        ],
    )
    def test_what_macos_lacks_is_found(self, text, told):
        if "^^" in text:
            assert TOO_NEW["bash 4"].search(text)
        else:
            assert foreign(text) == told

    def test_the_makefile_is_one_for_make_3_81(self):
        assert not TOO_NEW["GNU make after 3.81"].search((ROOT / "Makefile").read_text())
        for text in (".ONESHELL:", "A != ls", "A ::= b", "undefine A"):
            assert TOO_NEW["GNU make after 3.81"].search(text)

    @pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck")
    @pytest.mark.parametrize(("name", "text"), SCRIPTS, ids=[name for name, _ in SCRIPTS])
    def test_shellcheck_finds_nothing(self, name, text):
        shell = "sh" if name.startswith("make ") else "bash"
        done = subprocess.run(["shellcheck", f"--shell={shell}", "-"], input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", ["lint", "setup"])
def test_makes_lines_run_in_a_plain_shell(target):
    """Which is dash here: it knows less than the bash 3.2 that is a Mac's sh."""
    for line in dict(recipes())[f"make {target}"].splitlines():
        assert subprocess.run(["sh", "-n", "-c", line]).returncode == 0, line
