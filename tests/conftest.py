"""Shared by the tests: the counter of traces must be installed before any variant is imported."""

from pathlib import Path

import pytest

import benchmarks.harness.step  # noqa: F401


@pytest.fixture
def at_root(monkeypatch):
    """The test runs in the root of the repository."""
    monkeypatch.chdir(Path(__file__).parent.parent)
