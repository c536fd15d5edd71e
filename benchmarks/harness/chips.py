"""The vendors' memory bandwidth, chip by chip. A chip that is not here has no spec ceiling.

Every row names where its figure was read, on 2026-11-22. Chips with a single unconfirmed source (M5 Ultra, M6, A18 Pro)
are left out on purpose: an unknown ceiling is better than a wrong one.
"""

from typing import NamedTuple


class Chip(NamedTuple):
    """A chip as sold.

    gpu_cores   the core counts that have this bandwidth; empty if the name says enough
    memory_gib  the memory sizes that have this bandwidth; empty if every size has
    gigabytes_per_second  the vendor's figure, in 10^9 bytes a second
    cache_mib   last-level cache, None where no reliable source names it
    source      who states the bandwidth
    """

    name: str
    gpu_cores: tuple[int, ...]
    memory_gib: tuple[int, ...]
    gigabytes_per_second: float
    cache_mib: int | None
    source: str


TURNER = "github.com/philipturner/metal-benchmarks, README; applegpuinfo, bus width x memory clock"
ARS = "Apple's figures as tabled by Ars Technica, copied at goodnewsapodcast.com"
PATTI = "Apple's figures as tabled at blog.patti.tech"
HMC = "Apple's figures as tabled at hmc-tech.com; applegpuinfo, bus width"
CODE = "three public code tables that agree"
ROOFLINE = "michaelstinkerings.org, M5 roofline: 128 bit LPDDR5X-9600"
LOWYAT = "Apple's figures as reported by lowyat.net and mikeshouts"
NVIDIA = "NVIDIA's datasheet of the product"

CHIPS = (
    Chip("Apple M1", (7, 8), (), 68.25, 8, TURNER),
    Chip("Apple M1 Pro", (14, 16), (), 200, 24, TURNER),
    Chip("Apple M1 Max", (24, 32), (), 400, 48, TURNER),
    Chip("Apple M1 Ultra", (48, 64), (), 800, 96, TURNER),
    Chip("Apple M2", (8, 10), (), 100, 8, TURNER),
    Chip("Apple M2 Pro", (16, 19), (), 200, 24, TURNER),
    Chip("Apple M2 Max", (30, 38), (), 400, 48, TURNER),
    Chip("Apple M2 Ultra", (60, 76), (), 800, 96, PATTI),
    Chip("Apple M3", (8, 10), (), 100, None, HMC),
    Chip("Apple M3 Pro", (14, 18), (), 150, None, HMC),
    Chip("Apple M3 Max", (30,), (), 300, None, HMC),
    Chip("Apple M3 Max", (40,), (), 400, None, HMC),
    Chip("Apple M3 Ultra", (60, 80), (), 819, None, CODE),
    Chip("Apple M4", (8, 10), (), 120, None, ARS),
    Chip("Apple M4 Pro", (16, 20), (), 273, None, ARS),
    Chip("Apple M4 Max", (32,), (), 410, None, ARS),
    Chip("Apple M4 Max", (40,), (), 546, None, ARS),
    Chip("Apple M5", (8, 10), (), 153, None, ROOFLINE),
    Chip("Apple M5 Pro", (16, 20), (), 307, None, LOWYAT),
    Chip("Apple M5 Max", (32,), (), 460, None, LOWYAT),
    Chip("Apple M5 Max", (40,), (), 614, None, LOWYAT),
    Chip("NVIDIA A100-SXM4-40GB", (), (), 1555, 40, NVIDIA),
    Chip("NVIDIA A100-SXM4-80GB", (), (), 2039, 40, NVIDIA),
    Chip("NVIDIA H100 80GB HBM3", (), (), 3350, 50, NVIDIA),
    Chip("NVIDIA H200", (), (), 4800, 60, NVIDIA),
    Chip("NVIDIA B200", (), (), 8000, 126, NVIDIA),
)


def find(name: str, gpu_cores: int | None = None, memory_gib: int | None = None) -> Chip | None:
    """The chip of exactly that name, core count and memory; None unless exactly one entry fits.

    A binned chip whose core count is unknown or unheard of is unknown: its bandwidth would be a guess.
    """
    fitting = [
        chip
        for chip in CHIPS
        if chip.name == name
        and (not chip.gpu_cores or gpu_cores in chip.gpu_cores)
        and (not chip.memory_gib or memory_gib in chip.memory_gib)
    ]
    return fitting[0] if len(fitting) == 1 else None
