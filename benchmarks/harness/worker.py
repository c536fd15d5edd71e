"""A process that counts cases for `scripts.compare`, with the `adamw` and the MLX that its interpreter finds.

It is asked a case a line; its first answer says what it is.
"""

import os
import platform
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from benchmarks.harness import conversation


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="adamw-kernels-", dir=os.getcwd()) as folder:
        os.environ["TMPDIR"] = folder  # MLX finds its compiled kernels by name, not by content
        conversation.hold(serve)


def serve(lines: TextIO) -> Iterator[dict[str, Any]]:
    """An answer that describes this process, then one to every line of `lines`."""
    import adamw
    from benchmarks.harness import cases, donation, machine, primitives
    from benchmarks.harness.count import count

    reasons = {name: why_not(name) for name in adamw.names()}
    yield {
        "mlx": version("mlx"),
        "python": platform.python_version(),
        "backend": machine.backend(),
        "adamw": str(Path(adamw.__file__).parent.parent),
        "variants": [name for name, reason in reasons.items() if not reason],
        "unavailable": {name: reason for name, reason in reasons.items() if reason},
        "tells_primitives": primitives.available(),
        "donation": donation.measure()._asdict(),
    }
    for line in lines:
        variant, _, workload = line.strip().partition("/")
        try:
            yield {"counters": count(cases.case(variant, workload, adamw.names()))._asdict()}
        except Exception as error:
            yield conversation.failure(error)


def why_not(variant: str) -> str | None:
    """Why `variant` cannot run here. None if it can, if its commit knows no such reasons, or if it does not import.

    Then each of its cases fails by name, and the other variants' go on.
    """
    import adamw

    try:
        return adamw.unavailable(variant) if hasattr(adamw, "unavailable") else None
    except (Exception, SystemExit):
        return None


if __name__ == "__main__":
    main()
