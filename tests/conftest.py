"""Shared by the tests: the counter of traces must be installed before any variant is imported.

No test may meet another repository than its own, nor what the user has git do otherwise: both are out of the
environment before anything else.
"""

import os
from pathlib import Path

import pytest
from filelock import FileLock

import benchmarks.harness.step  # noqa: F401
from scripts import git_environment

git_environment.forget_repository()
os.environ |= {"GIT_CONFIG_GLOBAL": str(Path(__file__).with_name("gitconfig")), "GIT_CONFIG_NOSYSTEM": "1"}


@pytest.fixture
def at_root(monkeypatch):
    """The test runs in the root of the repository."""
    monkeypatch.chdir(Path(__file__).parent.parent)


@pytest.fixture(scope="session")
def environments(tmp_path_factory) -> Path:
    """asv's environment of this working tree, made once for all tests that run asv, whichever process they are in."""
    from nights import Night  # after the counter of traces is installed

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made = shared / "environments" / "a checkout" / ".asv" / "env"
    with FileLock(shared / "environments.lock"):
        if not made.exists():
            Night(shared / "environments").install()
    return made


@pytest.fixture(params=["metal", "cuda"])
def backend(request) -> str:
    """What a stand-in for a GPU is of."""
    return request.param


@pytest.fixture
def launches(backend):
    """Every launch on a stand-in for a GPU, which is there meanwhile."""
    import shim  # after the counter of traces is installed

    with shim.gpu(backend) as launches:
        yield launches


@pytest.fixture(scope="module")
def browser():
    from browsers import chromium

    with chromium() as running:
        yield running
