"""asv accepts a misspelt key without a word, so the configuration is held against what asv knows."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from asv import config, environment, util
from asv.plugin_manager import plugin_manager

ROOT = Path(__file__).parent.parent
PATH = ROOT / "asv.conf.json"
KEYS_READ_ELSEWHERE = {"version", "show_commit_url", "build_cache_size", "hash_length"}
"""Read by asv, but absent from its Config class (build_cache.py, repo.py, util.load_json)."""


@pytest.fixture(scope="module")
def written() -> dict:
    return util.load_json(str(PATH), js_comments=True)


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [line.partition(";")[0] for lines in project["optional-dependencies"].values() for line in lines]
    return dict(line.split("==") for line in listed if "==" in line)


def unknown_keys(written: dict) -> set[str]:
    return set(written) - set(vars(config.Config())) - KEYS_READ_ELSEWHERE


def test_every_key_is_one_that_asv_knows(written):
    assert unknown_keys(written) == set()


def test_a_misspelt_key_would_be_found(written):
    assert unknown_keys(written | {"regression_thresholds": {}}) == {"regression_thresholds"}


def test_what_decides_numbers_is_pinned_alike_for_asv_and_for_setup(written, pins):
    required = written["matrix"]["req"]
    for package in ("mlx", "numpy", "psutil", "mlx-cpu"):
        assert [pin for pin in required[package] if pin] == [pins[package]], package
    assert required["pip+asv_runner"] == [pins["asv_runner"]]
    assert {"asv", "asv_runner", "mlx", "mlx-cpu", "mlx-cuda-13"} <= set(pins)
    assert pins["mlx"] == pins["mlx-cpu"] == pins["mlx-cuda-13"]


def test_pins_are_plain_versions(pins):
    """asv parses requirements with a regular expression: `mlx[cpu]` loses its extra, `>=2` becomes `==2`."""
    assert all(re.fullmatch(r"[\d.]+", pin) for pin in pins.values())


@pytest.mark.parametrize(
    ("platform", "packages"),
    [
        ("linux", {"mlx", "mlx-cpu", "numba", "numpy", "psutil", "scikit-learn"}),
        ("darwin", {"mlx", "numba", "numpy", "psutil", "scikit-learn"}),
    ],
)
def test_one_environment_with_the_platforms_backend(platform, packages, monkeypatch):
    monkeypatch.setattr("sys.platform", platform)
    conf = config.Config.load(str(PATH))
    combinations = list(environment.iter_matrix(conf.environment_type, ["3.11"], conf))
    assert len(combinations) == 1
    names = {key for kind, key in combinations[0] if kind == "req" and not key.startswith("pip+")}
    assert names == packages


def test_wheels_are_built_and_installed_without_dependencies(written):
    for command in written["build_command"] + written["install_command"]:
        assert "--no-deps" in command


def test_mlxs_own_lane_is_the_same_but_for_mlx(written):
    lane = util.load_json(str(ROOT / "asv.mlx.conf.json"), js_comments=True)
    assert unknown_keys(lane) == set()
    ours = {name: pins for name, pins in written["matrix"]["req"].items() if name not in ("mlx", "mlx-cpu")}
    assert lane["matrix"]["req"] == ours
    for key in ("benchmark_dir", "launch_method", "default_benchmark_timeout", "env_dir", "branches"):
        assert lane[key] == written[key], key
    for key in ("results_dir", "html_dir"):
        assert lane[key] != written[key], key
    assert "--no-deps" in lane["build_command"][0]
    assert all(name in lane["uninstall_command"][0].split() for name in ("adamw", "mlx", "mlx-cpu", "mlx-metal"))


def test_processes_are_spawned(written):
    assert written["launch_method"] == "spawn"


def test_the_environment_type_is_the_plugins(written, monkeypatch):
    monkeypatch.chdir(ROOT)
    for plugin in written["plugins"]:
        plugin_manager.import_plugin(plugin)
    assert environment.get_environment_class_by_name(written["environment_type"]).__name__ == "MlxEnvironment"


def test_no_file_records_where_packages_are_downloaded():
    for name in ("pyproject.toml", "asv.conf.json", "Makefile", "README.md"):
        assert not re.search(r"https?://(files|registry|pypi)", (ROOT / name).read_text()), name


def test_plain_pytest_finds_the_suites_as_the_readme_says():
    done = subprocess.run(
        [Path(sys.executable).parent / "pytest", "--benchmark-only", "--collect-only", "-q"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if "XDIST" not in name},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_host_cost.py" in done.stdout
