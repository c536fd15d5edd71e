"""A process that measures as asv's do, and leaves what it measured in the run's ledger: for who measures without asv.

It is asked with a line of JSON: {} begins a run in the current folder, {"case": NAME} measures a case of it, and
{"accuracy": [VARIANT, PRECISION]} takes the long run. The answer says that it is done, or why not.
"""

import json
from collections.abc import Iterator
from typing import Any, TextIO

from benchmarks.harness import cases, conversation, run


def serve(lines: TextIO) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record(json.loads(line))
            yield {"done": True}
        except (Exception, SystemExit) as error:
            yield conversation.failure(error)


def record(asked: dict[str, Any]) -> None:
    """Raises what measuring does."""
    if "case" in asked:
        run.take(cases.case(*asked["case"].split("/", 1)))
    elif "accuracy" in asked:
        run.accuracy(*asked["accuracy"])
    else:
        run.begin()


if __name__ == "__main__":
    conversation.hold(serve)
