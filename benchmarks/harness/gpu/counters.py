"""What a step does, counted, on the GPU or beside it on the CPU."""

from collections.abc import Iterator
from functools import partial

import mlx.core as mx

import adamw
from benchmarks.harness import cases, donation
from benchmarks.harness.cases import Case
from benchmarks.harness.count import count
from benchmarks.harness.gpu.lines import Line, guarded
from benchmarks.harness.measure import private_caches


def counters(device: str) -> Iterator[Line]:
    """Yield what MLX donates to, and the counters of every case of the quick profile, on "gpu" or "cpu"."""
    mx.set_default_device(getattr(mx, device))
    with private_caches():
        yield {"what": "donates", "device": device, **donation.measure()._asdict()}
        for case in cases.chosen([name for name in adamw.names() if not adamw.unavailable(name)], "quick"):
            about = {"what": "counters", "device": device, "case": str(case)}
            yield from guarded(about, partial(counted, case))


def counted(case: Case) -> Line:
    """The counters of a case."""
    return count(case)._asdict()
