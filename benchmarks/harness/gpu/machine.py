"""What the machine is, and how fast MLX streams on it."""

from collections.abc import Iterator

from benchmarks.harness import ceiling, roofline
from benchmarks.harness import machine as machines
from benchmarks.harness.gpu.lines import Line
from benchmarks.harness.host import nvidia


def machine() -> Iterator[Line]:
    """Yield the machine, MLX's settings, the card, and on a GPU its ceilings and what a launch costs."""
    here = machines.identify()
    told = {name: value for name, value in machines.gpu_info().items() if name != "uuid"}
    yield {"what": "machine", "description": str(here), "backend": here.backend, "cache_bytes": here.cache_bytes}
    yield {"what": "settings", **machines.settings(), "device_info": told}
    yield {"what": "card", "when": "before", **nvidia.about(bus=machines.bus())}
    if here.backend == "CPU":
        return
    yield {"what": "spec", **(here.spec._asdict() if here.spec else {"why": f"{here.chip} is not in chips.py"})}
    size, in_memory = ceiling.working_set(here.cache_bytes, machines.free_bytes())
    for name, rate in ceiling.mlx_kernels(size):
        yield {"what": "ceiling", "kernel": name, "bytes_per_second": rate, "bytes": size, "in_memory": in_memory}
    yield {"what": "launch", **roofline.measure_launch()._asdict()}
