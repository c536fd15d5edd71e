"""A process that counts cases for `scripts.compare`, with the `adamw` and the MLX that its interpreter finds.

Its first answer says what it is. Then every line asks for something: a case is counted, and for a variant's name the
answer is why it cannot run here.
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
    """An answer that describes this process and imports no variant, then one to every line of `lines`."""
    import adamw
    from benchmarks.harness import cases, donation, machine, primitives
    from benchmarks.harness.count import count

    yield {
        "mlx": version("mlx"),
        "python": platform.python_version(),
        "backend": machine.backend(),
        "adamw": str(Path(adamw.__file__).parent.parent),
        "variants": adamw.names(),
        "tells_primitives": primitives.available(),
        "donation": donation.measure()._asdict(),
    }
    for line in lines:
        variant, _, workload = line.strip().partition("/")
        try:
            if workload:
                yield {"counters": count(cases.case(variant, workload, adamw.names()))._asdict()}
            else:
                yield {"unavailable": why_not(variant)}
        except (Exception, SystemExit) as error:
            yield conversation.failure(error)


def why_not(variant: str) -> str | None:
    """Why `variant` cannot run here. None if it can, or if its commit knows no such reasons."""
    import adamw

    return adamw.unavailable(variant) if hasattr(adamw, "unavailable") else None


if __name__ == "__main__":
    main()
