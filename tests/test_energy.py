"""Joules a step: who counts them where, and when there is no figure rather than a wrong one."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from meters import Clock

from benchmarks.harness import energy
from benchmarks.harness.host import macos, nvidia
from benchmarks.harness.host.linux import Linux
from benchmarks.harness.host.macos import Mac
from benchmarks.harness.host.meter import Meter


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(energy.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(energy.time, "sleep", clock.pass_by)
    return clock


def test_the_energy_of_a_step_is_what_it_adds_to_idle(clock):
    meter = Meter("a clock", clock.joules)
    idle = energy.idle_watts(meter)
    assert idle == pytest.approx(100, rel=0.02)
    found = energy.measure(lambda: clock.pass_by(0.003, working=True), meter, idle)
    assert found.joules == pytest.approx(0.003 * 300, rel=0.05)
    assert found.watts == pytest.approx(400, rel=0.05)
    assert found.seconds >= energy.SHORTEST
    assert found.steps == pytest.approx(found.seconds / 0.003, rel=0.05)
    assert found.source == "a clock"


def test_a_short_window_is_refused_in_words(clock):
    with pytest.raises(energy.NotMeasured, match=r"a window of 0.5 s is too short .*; at least 2 s"):
        energy.measure(lambda: clock.pass_by(0.001), Meter("a clock", clock.joules), 0.0, seconds=0.5)


def test_a_counter_that_stands_still(clock):
    with pytest.raises(energy.NotMeasured, match="a stone: the counter stands still"):
        energy.measure(lambda: clock.pass_by(0.01), Meter("a stone", lambda: 7.0), 0.0)
    with pytest.raises(energy.NotMeasured, match="stands still"):
        energy.idle_watts(Meter("a stone", lambda: 7.0))


def test_no_more_than_idle_is_no_figure(clock):
    clock.own = 0.0
    with pytest.raises(energy.NotMeasured, match=r"100\.0 W while steps ran, 120\.0 W idle"):
        energy.measure(lambda: clock.pass_by(0.001, working=True), Meter("a clock", clock.joules), 120.0)


class Nvml:
    """NVML as the package nvidia-ml-py has it, with what an H200 answered on 2026-11-27."""

    ANSWERS: dict[str, Any] = {
        "nvmlInit": None,
        "nvmlDeviceGetHandleByIndex": "card 0",
        "nvmlDeviceGetHandleByPciBusId": "another card",
        "nvmlDeviceGetName": b"NVIDIA H200",
        "nvmlSystemGetDriverVersion": "580.159.04",
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=150754820096, used=644939776),
        "nvmlDeviceGetCurrPcieLinkGeneration": 5,
        "nvmlDeviceGetCurrPcieLinkWidth": 16,
        "nvmlDeviceGetMemoryBusWidth": 6016,
        "nvmlDeviceGetClockInfo": 1980,
        "nvmlDeviceGetMaxClockInfo": 1980,
        "nvmlDeviceGetPowerUsage": 120528,
        "nvmlDeviceGetEnforcedPowerLimit": 700000,
        "nvmlDeviceGetTemperature": 34,
        "nvmlDeviceGetCurrentClocksEventReasons": 0,
        "nvmlDeviceGetPersistenceMode": 1,
        "nvmlDeviceGetTotalEnergyConsumption": 123456,
    }
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, missing: str = "") -> None:
        self.missing, self.asked = missing, []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def answer(*arguments: Any) -> Any:
            self.asked.append(name)
            if name == self.missing or name not in self.ANSWERS:
                raise RuntimeError("Not Supported")
            return self.ANSWERS[name]

        return answer


class TestNvidia:
    def test_what_a_card_tells(self):
        nvml = Nvml()
        told = nvidia.about(nvml)
        assert told["name"] == "NVIDIA H200"
        assert told["watts"] == 120.528
        assert told["mig"] is None  # not told
        assert told.keys() == nvidia.FIGURES.keys()
        assert not [name for name in nvml.asked if "Set" in name or "Serial" in name or "UUID" in name]

    def test_the_card_on_a_bus(self):
        nvml = Nvml()
        assert nvidia.about(nvml, "0000:00:06.0")["name"] == "NVIDIA H200"
        assert "nvmlDeviceGetHandleByPciBusId" in nvml.asked
        assert "nvmlDeviceGetHandleByIndex" not in nvml.asked

    @pytest.mark.parametrize("missing", ["nvmlInit", "nvmlDeviceGetHandleByIndex"])
    def test_no_driver_and_no_card(self, missing):
        assert nvidia.about(Nvml(missing)) == {}
        assert nvidia.meter(Nvml(missing)) is None

    def test_no_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pynvml", None)
        assert nvidia.card() is None

    def test_its_counter_of_energy(self):
        meter = nvidia.meter(Nvml())
        assert meter
        assert meter.joules() == 123.456
        assert nvidia.meter(Nvml("nvmlDeviceGetTotalEnergyConsumption")) is None  # before Volta

    def test_linux_asks_it_for_cuda(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pynvml", Nvml())
        meter = Linux().energy("CUDA")
        assert meter
        assert meter.source == "NVML, the whole card"


class TestRapl:
    @pytest.fixture
    def root(self, tmp_path) -> Path:
        """A server with two processors, as Documentation/power/powercap has them."""
        for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:1", "package-1"), ("intel-rapl:0:0", "core")):
            folder = tmp_path / "sys/class/powercap" / zone
            folder.mkdir(parents=True)
            (folder / "name").write_text(f"{name}\n")
            (folder / "energy_uj").write_text("1000000\n")
            (folder / "max_energy_range_uj").write_text("262143328850\n")
        return tmp_path

    def test_the_packages_are_summed_and_their_parts_are_not(self, root):
        meter = Linux(root).energy("CPU")
        assert meter
        assert (meter.source, meter.joules()) == ("RAPL, 2 package(s)", 2.0)

    def test_a_counter_that_begins_anew_goes_on(self, root):
        meter = Linux(root).energy("CPU")
        assert meter
        (root / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("262143000000")
        assert meter.joules() == pytest.approx(262143 + 1)
        (root / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("671150")
        assert meter.joules() == pytest.approx(262143.328850 + 0.67115 + 1)

    def test_where_it_is_absent_or_may_not_be_read(self, root, tmp_path):
        for zone in ("intel-rapl:0", "intel-rapl:1"):
            (root / "sys/class/powercap" / zone / "energy_uj").unlink()
        assert Linux(root).energy("CPU") is None
        assert Linux(tmp_path / "nothing").energy("CPU") is None


class TestAppleSilicon:
    def monitor(self, *told: dict[str, int | None]) -> Any:
        """zeus-apple-silicon's, with fields in mJ of which a chip may not tell some."""
        answers = iter(told)
        fields = dict.fromkeys([*macos.RAILS, "ane_mj"])
        return SimpleNamespace(get_cumulative_energy=lambda: SimpleNamespace(**(fields | next(answers))))

    def test_the_rails_of_the_chip_are_summed(self):
        first = {"cpu_total_mj": 1000, "gpu_mj": 2000, "dram_mj": 500, "ane_mj": 9}
        meter = macos.chip_meter(self.monitor(first, first, first | {"gpu_mj": 5000}))
        assert meter
        assert meter.source == "IOReport's estimate, CPU, GPU, DRAM"  # an M5 tells no SRAM
        assert meter.joules() == 3.5
        assert meter.joules() == 6.5

    def test_a_chip_that_tells_nothing(self):
        assert macos.chip_meter(self.monitor({})) is None

    def test_with_and_without_the_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "zeus_apple_silicon", None)
        assert Mac().energy("Metal") is None
        package = ModuleType("zeus_apple_silicon")
        package.AppleEnergyMonitor = lambda: self.monitor({"gpu_mj": 1}, {"gpu_mj": 2})  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "zeus_apple_silicon", package)
        meter = Mac().energy("Metal")
        assert meter
        assert meter.joules() == 0.002

        def refused() -> None:
            raise RuntimeError("IOReport has no Energy Model channels")

        package.AppleEnergyMonitor = refused  # type: ignore[attr-defined]
        assert Mac().energy("Metal") is None
