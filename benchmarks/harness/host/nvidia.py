"""An NVIDIA card, from NVML: what it is, how it is set, what energy it has used. Nothing here changes a setting.

NVML is asked through the package nvidia-ml-py; where that, a driver or a card is missing, nothing can be told. Serial
numbers and UUIDs are not asked for.
"""

import importlib
from collections.abc import Callable
from typing import Any

from benchmarks.harness.host.meter import Meter

FIGURES: dict[str, Callable[[Any, Any], Any]] = {
    "name": lambda nvml, card: nvml.nvmlDeviceGetName(card),
    "driver": lambda nvml, card: nvml.nvmlSystemGetDriverVersion(),
    "memory_bytes": lambda nvml, card: nvml.nvmlDeviceGetMemoryInfo(card).total,
    "used_bytes": lambda nvml, card: nvml.nvmlDeviceGetMemoryInfo(card).used,
    "pcie_generation": lambda nvml, card: nvml.nvmlDeviceGetCurrPcieLinkGeneration(card),
    "pcie_lanes": lambda nvml, card: nvml.nvmlDeviceGetCurrPcieLinkWidth(card),
    "memory_bus_bits": lambda nvml, card: nvml.nvmlDeviceGetMemoryBusWidth(card),
    "core_megahertz": lambda nvml, card: nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_SM),
    "memory_megahertz": lambda nvml, card: nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_MEM),
    "most_core_megahertz": lambda nvml, card: nvml.nvmlDeviceGetMaxClockInfo(card, nvml.NVML_CLOCK_SM),
    "most_memory_megahertz": lambda nvml, card: nvml.nvmlDeviceGetMaxClockInfo(card, nvml.NVML_CLOCK_MEM),
    "watts": lambda nvml, card: nvml.nvmlDeviceGetPowerUsage(card) / 1e3,
    "most_watts": lambda nvml, card: nvml.nvmlDeviceGetEnforcedPowerLimit(card) / 1e3,
    "celsius": lambda nvml, card: nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU),
    "throttled_by": lambda nvml, card: nvml.nvmlDeviceGetCurrentClocksEventReasons(card),
    "persistence": lambda nvml, card: bool(nvml.nvmlDeviceGetPersistenceMode(card)),
    "mig": lambda nvml, card: bool(nvml.nvmlDeviceGetMigMode(card)[0]),
}
"""What is told of a card, in the units of its name; `throttled_by` is NVML's bit mask, 0 or 1 (idle) for nothing."""


def card(nvml: Any = None, bus: str = "") -> tuple[Any, Any] | None:
    """(NVML, the card on that PCI bus, the first if none is named), None where either is missing."""
    try:
        nvml = nvml or importlib.import_module("pynvml")
        nvml.nvmlInit()
        return nvml, nvml.nvmlDeviceGetHandleByPciBusId(bus) if bus else nvml.nvmlDeviceGetHandleByIndex(0)
    except Exception:  # NVMLError, or whatever a library that is half there raises
        return None


def about(nvml: Any = None, bus: str = "") -> dict[str, Any]:
    """FIGURES of a card, None for each that it does not tell; empty where there is none."""
    found = card(nvml, bus)
    return {name: told(ask, *found) for name, ask in FIGURES.items()} if found else {}


def told(ask: Callable[[Any, Any], Any], nvml: Any, card: Any) -> Any:
    """What NVML answers, None if it does not."""
    try:
        answer = ask(nvml, card)
    except Exception:
        return None
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer


def meter(nvml: Any = None, bus: str = "") -> Meter | None:
    """The energy of a card (Volta and later): its counter moves every 10 to 100 ms, and counts the whole board."""
    found = card(nvml, bus)
    if not found:
        return None

    def joules() -> float:
        return found[0].nvmlDeviceGetTotalEnergyConsumption(found[1]) / 1e3

    try:
        joules()
    except Exception:
        return None
    return Meter("NVML, the whole card", joules)
