"""Which machine this is: chip, GPU cores, memory, caches, backend.

Nothing here fails on an unknown machine: what cannot be told is None, and says so where it is printed.
"""

import os
import platform
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

import psutil

from benchmarks.harness import chips
from benchmarks.harness.host import HERE


class Machine(NamedTuple):
    """The machine and the device that MLX uses on it.

    chip         as the vendor names it: "Apple M3 Max", "NVIDIA H200", "Intel(R) Xeon(R) Processor"
    backend      "Metal", "CUDA" or "CPU"
    gpu_cores    Apple GPUs only, else None
    memory_bytes of the machine; on CUDA of the device
    cache_bytes  last-level cache of the device that MLX uses, None if unknown
    system       operating system, release and build
    """

    chip: str
    backend: str
    gpu_cores: int | None
    memory_bytes: int
    cache_bytes: int | None
    system: str

    @property
    def spec(self) -> chips.Chip | None:
        """The vendor's entry for this chip. A CPU backend and a virtual GPU have none."""
        if self.backend == "CPU":
            return None
        return chips.find(self.chip, self.gpu_cores, round(self.memory_bytes / 2**30))

    def __str__(self) -> str:
        cores = f", {self.gpu_cores} GPU cores" if self.gpu_cores else ""
        return f"{self.chip}{cores}, {self.memory_bytes / 2**30:.0f} GiB, MLX's {self.backend} backend, {self.system}"


def backend() -> str:
    """What MLX runs on here: "Metal", "CUDA" or "CPU"."""
    import mlx.core as mx

    if mx.default_device() == mx.Device(mx.cpu):
        return "CPU"
    return "Metal" if mx.metal.is_available() else "CUDA"


@cache
def identify() -> Machine:
    """This machine, as MLX's default device sees it."""
    system, memory = HERE.system(), psutil.virtual_memory().total
    if backend() == "CPU":
        return Machine(HERE.cpu_name() or "unknown CPU", "CPU", None, memory, HERE.cache_bytes(), system)
    info = gpu_info()
    chip = str(info.get("device_name", "unknown GPU"))
    cores = HERE.gpu_cores()
    if backend() == "CUDA":
        memory = int(info.get("total_memory", 0))
    known = chips.find(chip, cores, round(memory / 2**30))
    cache_bytes = known.cache_mib * 2**20 if known and known.cache_mib else None
    return Machine(chip, backend(), cores, memory, cache_bytes, system)


def gpu_info() -> dict[str, Any]:
    """What MLX tells of the GPU; before 0.30.4 it told it of Metal only, elsewhere."""
    import mlx.core as mx

    if hasattr(mx, "device_info"):
        return dict(mx.device_info(mx.gpu))
    return dict(mx.metal.device_info()) if mx.metal.is_available() else {}


def free_bytes() -> int:
    """Memory that a case can still take: of the device on CUDA, of the machine elsewhere."""
    if identify().backend == "CUDA":
        return int(gpu_info().get("free_memory", 0))
    return psutil.virtual_memory().available


def buffer_cache_limit() -> int:
    """What MLX's buffer cache is allowed while measuring: in effect everything."""
    return psutil.virtual_memory().total


def settings() -> dict[str, object]:
    """What decides numbers and stays the same for a whole run: versions, MLX's variables and limits."""
    import mlx.core as mx

    return {
        "mlx": version("mlx"),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "device": str(mx.default_device()),
        "system": HERE.system(),
        "cpu_count": os.cpu_count(),
        "buffer_cache_limit": buffer_cache_limit(),
        "variables": {name: value for name, value in os.environ.items() if name.startswith("MLX_")},
    }


def conditions() -> dict[str, object]:
    """What may change from case to case: load; and heat and power, as far as the operating system tells them."""
    return {"load": os.getloadavg()[0], **HERE.conditions()}
