"""The operating system: what each tells of a machine in a way of its own, and what each can be asked to do.

It is chosen here and nowhere else; a new one is a file beside these and a line in BY_SYSTEM.
"""

import sys
from contextlib import AbstractContextManager
from typing import Protocol

from benchmarks.harness.host.linux import Linux
from benchmarks.harness.host.macos import Mac
from benchmarks.harness.host.meter import Meter


class Host(Protocol):
    """What everything else asks of an operating system. What cannot be told is None, and nothing here raises."""

    name: str
    """"macOS" or "Linux"."""

    backend_package: str
    """The package of MLX's usual backend here."""

    resident_unit: int
    """Bytes in a unit of getrusage's ru_maxrss."""

    def system(self) -> str:
        """Operating system, release and build."""

    def cpu_name(self) -> str:
        """The processor as its vendor names it; empty if that is not told."""

    def gpu_cores(self) -> int | None:
        """Cores of an Apple GPU."""

    def cache_bytes(self) -> int | None:
        """The processor's largest cache; a virtual machine may be told its host's."""

    def footprint_bytes(self) -> int:
        """Memory that this process holds, of the GPU's as well where that is the same memory."""

    def give_back(self) -> None:
        """Have the allocator give what is free to the system, where it can be asked to."""

    def low_power(self) -> bool | None:
        """Whether the machine saves power."""

    def conditions(self) -> dict[str, object]:
        """What may change from case to case: heat and power, as far as they are told."""

    def cores(self) -> list[int | None]:
        """The cores that this process may use; [None] where they are not told."""

    def on_core(self, core: int | None) -> AbstractContextManager[object]:
        """Have the threads of this process run on one core for a while, where they can be told; anywhere if None."""

    def energy(self, backend: str, bus: str = "") -> Meter | None:
        """What counts the energy of MLX's `backend` ("Metal", "CUDA" or "CPU"), on CUDA of the card on the PCI `bus`.

        None if nothing does, or nothing that may be read.
        """

    def keep_awake(self) -> tuple[str, ...]:
        """The command that keeps the machine awake while this process lives; empty if there is none."""

    def missing_build_tools(self) -> str:
        """What building MLX from source lacks here, and how to get it; empty if nothing."""


BY_SYSTEM: dict[str, type[Host]] = {"darwin": Mac, "linux": Linux}

HERE: Host = BY_SYSTEM.get(sys.platform, Linux)()
