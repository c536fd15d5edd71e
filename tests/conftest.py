"""Shared by the tests: the counter of traces must be installed before any variant is imported."""

import benchmarks.harness.step  # noqa: F401
