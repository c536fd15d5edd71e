"""What is told of the card without MLX: how fast PyTorch streams on it, and what it is at the end."""

import os
from collections.abc import Callable, Iterator

from benchmarks.harness import ceiling
from benchmarks.harness.gpu.lines import BUS, Line
from benchmarks.harness.host import nvidia

STREAMED = 2**30
"""Bytes of each array that PyTorch's streaming kernels go through."""


def torch() -> Iterator[Line]:
    """Yield how fast PyTorch streams."""
    import torch

    a, b, c = (torch.ones(STREAMED // 4, device="cuda") for _ in range(3))

    def waiting(call: Callable[[], object]) -> Callable[[], None]:
        def wait() -> None:
            call()
            torch.cuda.synchronize()

        return wait

    for name, call, streams in (
        ("copy", lambda: b.copy_(a), 2),
        ("triad", lambda: torch.add(a, b, alpha=0.5, out=c), 3),
        ("scale in place", lambda: a.mul_(0.5), 2),
    ):
        rate = ceiling.best_rate(waiting(call), streams * STREAMED)
        told = {"bytes_per_second": rate, "bytes": streams * STREAMED, "in_memory": True}
        yield {"what": "ceiling", "kernel": f"torch {torch.__version__} {name}", **told}


def card() -> Iterator[Line]:
    """Yield the card once more, at the end: hotter, perhaps slower."""
    yield {"what": "card", "when": "after", **nvidia.about(bus=os.environ.get(BUS, ""))}
