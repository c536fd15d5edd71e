"""A process that measures one figure of one case, as asv would: for whoever wants to see it again.

It is asked with a line of JSON, the name of asv's benchmark and the case's, and works in its current folder.
"""

import importlib
import json
import statistics
from collections.abc import Iterator
from typing import Any, TextIO

from benchmarks.harness import conversation


def serve(lines: TextIO) -> Iterator[dict[str, Any]]:
    """The answer: {"value": the figure, of several samples their median}, or why there is none."""
    try:
        asked = json.loads(next(lines))
        yield {"value": figure(asked["metric"], asked["case"])}
    except (Exception, SystemExit) as error:
        yield conversation.failure(error)


def figure(metric: str, case: str) -> float:
    """What the benchmark called `metric`, as in `memory.Memory.track_peak_bytes`, returns of `case`.

    Raises what the suite does, and AttributeError or ModuleNotFoundError if there is no such benchmark.
    """
    module, suite_name, method = metric.split(".")
    suite = getattr(importlib.import_module(f"benchmarks.{module}"), suite_name)()
    suite.setup({}, case)
    found = getattr(suite, method)({}, case)
    return float(statistics.median(found["samples"]) if isinstance(found, dict) else found)


if __name__ == "__main__":
    conversation.hold(serve)
