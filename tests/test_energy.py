"""Joules a step, DRAM's bytes: who counts them where, and when there is no figure rather than a wrong one."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ledgers import MACHINE, entry

from benchmarks.harness import cases, energy, extras, measure, ncu, run
from benchmarks.harness.host import macos, nvidia
from benchmarks.harness.host.linux import Linux
from benchmarks.harness.host.macos import Mac
from benchmarks.harness.host.meter import Meter
from benchmarks.harness.measurement import Energy, Measurement, Traffic
from scripts import ledger, table
from scripts.report import newest


class Clock:
    """Time that only passes when somebody works or sleeps, and a counter of energy that moves in steps of time."""

    def __init__(self, tick: float = 0.02, watts: float = 100.0, own: float = 300.0) -> None:
        self.now, self.work = 0.0, 0.0
        self.tick, self.watts, self.own = tick, watts, own

    def pass_by(self, seconds: float, working: bool = False) -> None:
        self.now += seconds
        self.work += seconds * working

    def joules(self) -> float:
        moved = self.now // self.tick * self.tick
        return self.watts * moved + self.own * self.work * (moved / self.now if self.now else 0)


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


LOG = """==PROF== Connected to process 77 (/opt/python3)
==PROF== Profiling "Sin": 0%....50%....100% - 1 pass
"ID","Process ID","Kernel Name","Block Size","Metric Name","Metric Unit","Metric Value"
"0","77","void mlx::core::cu::unary_v<mlx::core::cu::Sin, float, float, unsigned int, 4>(T2)","(32, 1, 1)",\
"dram__bytes_read.sum","byte","128"
"1","77","custom_kernel_adamw_1(const float *, T)","(256, 1, 1)","dram__bytes_read.sum","byte","268,446,976"
"1","77","custom_kernel_adamw_1(const float *, T)","(256, 1, 1)","dram__bytes_write.sum","byte","199,881,472"
"1","77","custom_kernel_adamw_1(const float *, T)","(256, 1, 1)","gpu__time_duration.sum","ns","125,344"
"1","77","custom_kernel_adamw_1(const float *, T)","(256, 1, 1)","launch__registers_per_thread","register/thread","56"
"1","77","custom_kernel_adamw_1(const float *, T)","(256, 1, 1)","sm__some_other_metric","x","1"
"2","77","void copy_v(const T1 *)","(32, 1, 1)","dram__bytes_read.sum","byte","1,024"
"2","77","void copy_v(const T1 *)","(32, 1, 1)","dram__bytes_write.sum","byte","0"
"2","77","void copy_v(const T1 *)","(32, 1, 1)","gpu__time_duration.sum","ns","4,000"
"""


UNTOLD = 'cat > "$1" <<"END"\n' + LOG.replace('"268,446,976"', '"n/a"') + "END"
"""What a stand-in for ncu does that is told no bytes."""


class TestNcu:
    def test_the_kernels_of_a_step_are_summed(self):
        (found,) = ncu.per_case(ncu.kernels(LOG), ["kernel/float32/one_leaf"])
        assert found["case"] == "kernel/float32/one_leaf"
        assert (found["read"], found["written"]) == (268_446_976 + 1024, 199_881_472)
        assert found["nanoseconds"] == 129_344
        assert (found["kernels"], found["registers"], found["occupancy"]) == (2, 56, None)

    def test_what_a_card_does_not_tell_is_no_zero(self):
        (found,) = ncu.per_case(ncu.kernels(LOG.replace('"268,446,976"', '"n/a"')), ["a"])
        assert found["read"] is None
        assert found["written"] == 199_881_472

    def test_cases_follow_each_other_and_a_log_that_was_cut_short_has_fewer(self):
        again = LOG.splitlines()
        twice = "\n".join(again + [line.replace('"0",', '"3",').replace('"1",', '"4",') for line in again[3:8]])
        found = list(ncu.per_case(ncu.kernels(twice), ["a", "b", "c"]))
        assert [one["case"] for one in found] == ["a", "b"]
        assert found[1]["kernels"] == 1
        assert list(ncu.per_case([], ["a"])) == []
        assert list(ncu.per_case([{"name": "before any case"}], ["a"])) == []
        (empty,) = ncu.per_case(ncu.kernels("\n".join(again[:4])), ["a"])
        assert (empty["kernels"], empty["read"], empty["registers"]) == (0, None, None)

    @pytest.mark.parametrize("text", ["", "==PROF== nothing", '"ID","Kernel Name"\n"0","x"\n', '"a', '"x"\n"1"'])
    def test_logs_of_any_kind(self, text):
        assert all(one["read"] is None for one in ncu.kernels(text))

    def test_a_refusal_is_its_own_word(self):
        text = (
            "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters"
        )
        assert ncu.refusal(text) == text.removeprefix("==ERROR== ")
        assert ncu.refusal(LOG) is None

    def test_its_command_leaves_clocks_and_caches_alone(self, monkeypatch):
        monkeypatch.setattr(ncu.shutil, "which", lambda name: None)
        assert ncu.command("x") is None
        monkeypatch.setattr(ncu.shutil, "which", lambda name: f"/bin/{name}")
        words = ncu.command("x")
        assert words
        assert words[words.index("--clock-control") + 1] == words[words.index("--cache-control") + 1] == "none"


CASE = "compiled/float32/leaf_1024"


class TestExtras:
    @pytest.fixture
    def untold(self, monkeypatch) -> list[dict[str, Any]]:
        """What the run's ledger says of cases without a figure."""
        told: list[dict[str, Any]] = []
        monkeypatch.setattr(extras.ledger, "append", told.append)
        return told

    @pytest.fixture(autouse=True)
    def here(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(extras, "HERE", SimpleNamespace(energy=lambda backend, bus: None))

    def test_nothing_is_measured_unless_it_is_asked_for(self, monkeypatch):
        monkeypatch.delenv(extras.VARIABLE, raising=False)
        assert extras.begin() == {}
        assert extras.energy_of(CASE, lambda: None) is None
        assert extras.traffic_of(CASE) is None

    def test_an_unknown_one_is_named(self, monkeypatch):
        monkeypatch.setenv(extras.VARIABLE, "energy, heat")
        with pytest.raises(cases.UnknownCase, match=r"unknown extra 'heat'; choose one of: energy, traffic"):
            extras.wanted()

    def test_where_nothing_counts_it_says_so(self, monkeypatch):
        monkeypatch.setenv(extras.VARIABLE, "energy,traffic")
        assert extras.begin() == {
            "energy": "not available here: nothing counts energy, or nothing that may be read",
            "traffic": "not available here: no counters of DRAM's bytes that can be read",
        }
        assert extras.energy_of(CASE, lambda: None) is None
        monkeypatch.setattr(extras.machine, "backend", lambda: "CUDA")
        monkeypatch.setattr(extras.ncu, "command", lambda log: None)
        assert extras.begin()["traffic"] == "not available here: ncu, NVIDIA's profiler, is not installed"
        assert extras.traffic_of(CASE) is None

    def test_energy_where_it_is_counted(self, monkeypatch, untold):
        clock = Clock()
        monkeypatch.setattr(energy.time, "perf_counter", lambda: clock.now)
        monkeypatch.setattr(energy.time, "sleep", clock.pass_by)
        monkeypatch.setattr(extras, "HERE", SimpleNamespace(energy=lambda backend, bus: Meter("a clock", clock.joules)))
        monkeypatch.setenv(extras.VARIABLE, "energy")
        assert re.fullmatch(r"a clock, (99|100)\.\d W idle", extras.begin()["energy"])
        found = extras.energy_of(CASE, lambda: clock.pass_by(0.001, working=True))
        assert found
        assert found.joules == pytest.approx(0.3, rel=0.05)
        clock.own = 0.0
        clock.watts = 1.0
        assert extras.energy_of(CASE, lambda: clock.pass_by(0.001)) is None
        assert untold[0]["why"].endswith("idle: nothing that is the steps' own")

    @pytest.fixture
    def profiler(self, monkeypatch, tmp_path) -> Path:
        """A stand-in for ncu, which writes LOG and runs nothing."""
        script = tmp_path / "ncu"
        script.write_text(f'#!/bin/sh\ncat > "$1" <<"END"\n{LOG}END\n')
        script.chmod(0o755)
        monkeypatch.setenv(extras.VARIABLE, "traffic")
        monkeypatch.setattr(extras.machine, "backend", lambda: "CUDA")
        monkeypatch.setattr(extras.ncu, "command", lambda log: [str(script), log])
        return script

    def test_the_bytes_of_a_step(self, profiler):
        assert extras.begin() == {"traffic": ncu.SOURCE}
        assert extras.traffic_of(CASE) == Traffic(268_448_000, 199_881_472, ncu.SOURCE)

    @pytest.mark.parametrize("does", ["exit 1", 'echo \'"ID"\' > "$1"', UNTOLD, "sleep 60"])
    def test_a_profiler_that_fails_leaves_no_figure_but_a_word(self, profiler, monkeypatch, untold, does):
        profiler.write_text(f"#!/bin/sh\n{does}\n")
        monkeypatch.setattr(extras, "LONGEST", 0.5)
        extras.COUNTED.write_text("true")  # it was found to work when the run began
        assert extras.traffic_of(CASE) is None
        (line,) = untold
        assert (line["what"], line["case"], line["extra"]) == ("untold", CASE, "traffic")
        assert re.fullmatch(r"ncu (told no bytes \(exit code [01]\)|was not done within 0.5 s)", line["why"])
        assert extras.begin()["traffic"] == f"not available here: {line['why']}"

    def test_a_profiler_that_is_refused(self, profiler, untold):
        profiler.write_text('#!/bin/sh\necho "==ERROR== ERR_NVGPUCTRPERM - no permission"\nexit 1\n')
        assert extras.begin() == {"traffic": "not available here: ncu says ERR_NVGPUCTRPERM - no permission"}
        assert extras.traffic_of(CASE) is None
        assert untold == []  # once is enough

    def test_a_profiler_that_cannot_be_started(self, profiler, untold):
        profiler.chmod(0o644)
        extras.COUNTED.write_text("true")
        assert extras.traffic_of(CASE) is None
        assert untold[0]["why"] == "ncu cannot be started: Permission denied"


ENERGY = Energy(4.77, 126.8, 521.1, 2.09, 173, "NVML, the whole card")


def test_a_measurement_has_them_where_there_are_any_and_older_lines_are_read(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(extras, "energy_of", lambda case, step: ENERGY)
    monkeypatch.setattr(extras, "traffic_of", lambda case: Traffic(1.0, 2.0, "made up"))
    case = cases.case("compiled", "float32/leaf_1024")
    found = run.measured(case, tmp_path / "fresh.json")
    assert (found.energy, found.traffic) == (ENERGY, Traffic(1.0, 2.0, "made up"))
    plain = json.loads(json.dumps(found.to_dict()))
    assert Measurement.from_dict(plain) == found
    del plain["energy"], plain["traffic"]
    assert Measurement.from_dict(plain).energy is None
    monkeypatch.setattr(extras, "energy_of", lambda case, step: None)
    assert "energy" not in measure.measure(case).to_dict()


class TestWhereTheyAreShown:
    def report(self, folder: Path, *measured: dict[str, Any]) -> table.Report:
        entries = [entry(f"{variant}/float32/gpt2", 0.02) for variant in ("compiled", "eager")]
        for one, more in zip(entries, measured, strict=False):
            one["measurement"] |= more
        path = folder / "mac" / "01234567-env.jsonl"
        path.parent.mkdir()
        ledger.merge(path, ledger.with_ceiling([MACHINE, *entries]))
        return table.Report(path)

    def headings(self, report: table.Report) -> list[str]:
        return [str(column.header).replace("\n", " ").strip() for column in table.table(report).columns]

    def test_a_column_where_one_case_has_the_figure(self, tmp_path):
        half = cases.case("compiled", "float32/gpt2").ideal_bytes * 0.505
        moved = Traffic(half, half, ncu.SOURCE)._asdict()
        report = self.report(tmp_path, {"energy": ENERGY._asdict(), "traffic": moved})
        assert self.headings(report)[-3:] == ["J a step", "DRAM/ ideal", "note"]
        shown = [list(column.cells) for column in table.table(report).columns]
        assert shown[-3] == ["4.77", ""]
        assert shown[-2] == ["1.01", ""]

    def test_none_where_none_has(self, tmp_path):
        assert {"J a step", "DRAM/ ideal"}.isdisjoint(self.headings(self.report(tmp_path)))

    def test_the_reports_rows_have_them(self, tmp_path):
        report = self.report(tmp_path, {"energy": ENERGY._asdict()})
        _, rows, _, problems = newest.from_ledger(report.path)
        assert not problems
        assert {row["variant"]: row["joules"] for row in rows} == {"compiled": 4.77, "eager": None}
