"""Which machine this is: chip, GPU cores, memory, caches, backend.

Nothing here fails on an unknown machine: what cannot be told is None, and says so where it is printed.
"""

import os
import platform
import re
from functools import cache
from importlib.metadata import distributions, version
from typing import Any, NamedTuple

import psutil

from benchmarks.harness import chips
from benchmarks.harness.host import HERE

PACKAGE = re.compile(r"mlx(-metal|-cpu|-cuda\S*)?")
"""The packages that a release of MLX consists of."""


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


def bus() -> str:
    """The PCI bus of the card that MLX uses, as MLX writes it; empty if it tells none."""
    return str(gpu_info().get("pci_bus_id", ""))


def free_bytes() -> int:
    """Memory that a case can still take: of the device on CUDA, of the machine elsewhere.

    On Metal no more than its working set has room for: beyond it MLX empties its buffer cache, and allocating again
    would be part of a step; the system may have wired memory for others, too.
    """
    if identify().backend == "CUDA":
        return int(gpu_info().get("free_memory", 0))
    import mlx.core as mx

    available = psutil.virtual_memory().available
    limit = working_set_bytes()
    return available if limit is None else max(0, min(available, limit - mx.get_active_memory()))


def working_set_bytes() -> int | None:
    """What Metal recommends a process to use at most (`iogpu.wired_limit_mb` raises it); None on other backends."""
    limit = gpu_info().get("max_recommended_working_set_size")
    return int(limit) if backend() == "Metal" and limit else None


def buffer_cache_limit() -> int:
    """What MLX's buffer cache is allowed while measuring: in effect everything."""
    return psutil.virtual_memory().total


def settings() -> dict[str, object]:
    """What decides numbers and stays the same for a whole run: versions, MLX's variables and limits."""
    import mlx.core as mx

    return {
        "mlx": version("mlx"),
        "wheels": wheels(),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "device": str(mx.default_device()),
        "system": HERE.system(),
        "cpu_count": os.cpu_count(),
        "buffer_cache_limit": buffer_cache_limit(),
        "working_set": working_set_bytes(),
        "variables": {name: value for name, value in os.environ.items() if name.startswith("MLX_")},
    }


def wheels() -> dict[str, str]:
    """The platform that each of MLX's packages was built for: of one release macOS has several wheels, which differ."""
    told = {}
    for one in distributions():
        if PACKAGE.fullmatch(name := one.metadata["Name"] or ""):
            tags = re.findall(r"^Tag: (\S{1,200})$", one.read_text("WHEEL") or "", re.MULTILINE)
            told[name] = ", ".join(tags) or "unknown"
    return dict(sorted(told.items()))


def conditions() -> dict[str, object]:
    """What may change from case to case: load; and heat and power, as far as the operating system tells them."""
    return {"load": os.getloadavg()[0], **HERE.conditions()}
