"""The machine is told right, or not at all."""

import ctypes
import json
import mmap
from types import SimpleNamespace

import mlx.core as mx
import psutil
import pytest

from benchmarks.harness import chips, machine

IOREG = """+-o AGXAcceleratorG14X  <class AGXAcceleratorG14X, id 0x1000005b2, registered, matched, active>
    {
      "IOClass" = "AGXAcceleratorG14X"
      "gpu-core-count" = 38
      "model" = "Apple M2 Max"
    }
"""
PROFILER = json.dumps({"SPDisplaysDataType": [{"_name": "HDMI"}, {"sppci_model": "Apple M4", "sppci_cores": "10"}]})


@pytest.mark.parametrize(
    ("name", "cores", "bandwidth"),
    [
        ("Apple M1", 8, 68.25),
        ("Apple M1", 7, 68.25),
        ("Apple M1 Ultra", 64, 800),
        ("Apple M3 Max", 30, 300),
        ("Apple M3 Max", 40, 400),
        ("Apple M4 Max", 32, 410),
        ("Apple M4 Max", 40, 546),
        ("Apple M5", 10, 153),
        ("NVIDIA H200", None, 4800),
    ],
)
def test_known_chips(name, cores, bandwidth):
    assert chips.find(name, cores, 64).gigabytes_per_second == bandwidth


@pytest.mark.parametrize(
    ("name", "cores"),
    [
        ("Apple M9", 10),
        ("Apple M3 Max", None),  # which bin is it?
        ("Apple M3 Max", 35),
        ("Apple Paravirtual device", None),
        ("Intel(R) Iris(TM) Plus Graphics", None),
        ("", None),
    ],
)
def test_unknown_stays_unknown(name, cores):
    assert chips.find(name, cores, 64) is None


def test_no_two_chips_answer_to_one_key():
    for chip in chips.CHIPS:
        for cores in chip.gpu_cores or (None,):
            assert chips.find(chip.name, cores, 64) is chip


def test_chips_with_one_unconfirmed_source_are_not_listed():
    names = {chip.name for chip in chips.CHIPS}
    assert not {name for name in names if "M6" in name or "M5 Ultra" in name or "A18" in name}
    assert all(chip.source for chip in chips.CHIPS)


def test_a_cpu_backend_has_no_spec_ceiling_even_on_a_known_chip():
    on_cpu = machine.Machine("Apple M3 Max", "CPU", 40, 64 * 2**30, None, "macOS")
    assert on_cpu.spec is None
    assert on_cpu._replace(backend="Metal").spec.gigabytes_per_second == 400


def test_gpu_cores_from_the_registry_or_the_profiler(monkeypatch):
    answers = {"ioreg": IOREG, "system_profiler": PROFILER}
    monkeypatch.setattr(machine, "output", lambda command, *_: answers[command])
    assert machine.apple_gpu_cores() == 38
    answers["ioreg"] = ""
    assert machine.apple_gpu_cores() == 10
    answers["system_profiler"] = ""
    assert machine.apple_gpu_cores() is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"SPDisplaysDataType": [{"sppci_cores": "many"}]}'])
def test_garbage_from_the_profiler_is_no_core_count(text):
    assert machine.profiler_gpu_cores(text) is None


def identified(monkeypatch, name: str, metal: bool, **info) -> machine.Machine:
    """The machine, if MLX's default device were this GPU."""
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    monkeypatch.setattr(mx, "device_info", lambda device=None: {"device_name": name, **info})
    monkeypatch.setattr(mx, "metal", SimpleNamespace(is_available=lambda: metal))
    monkeypatch.setattr(machine, "apple_gpu_cores", lambda: 40)
    return machine.identify.__wrapped__()


def test_an_apple_gpu(monkeypatch):
    here = identified(monkeypatch, "Apple M1 Max", True)
    assert (here.backend, here.gpu_cores, here.memory_bytes) == ("Metal", 40, psutil.virtual_memory().total)
    assert here.spec is None  # no M1 Max has 40 cores
    here = identified(monkeypatch, "Apple M3 Max", True)
    assert here.spec.gigabytes_per_second == 400


def test_a_virtual_apple_gpu_has_no_spec_ceiling(monkeypatch):
    assert identified(monkeypatch, "Apple Paravirtual device", True).spec is None


def test_an_nvidia_gpu(monkeypatch):
    here = identified(monkeypatch, "NVIDIA H200", False, total_memory=141 * 2**30)
    assert (here.backend, here.gpu_cores, here.memory_bytes) == ("CUDA", None, 141 * 2**30)
    assert here.cache_bytes == 60 * 2**20
    assert here.spec.gigabytes_per_second == 4800


def test_this_machine_says_what_it_is():
    here = machine.identify()
    assert here.backend == {"cpu": "CPU"}.get(str(mx.default_device()).split("(")[1][:3], here.backend)
    assert here.memory_bytes > 2**30
    told = machine.Machine("Apple M2", "Metal", 10, 24 * 2**30, None, "macOS 15.1 (24B83)")
    assert str(told) == "Apple M2, 10 GPU cores, 24 GiB, MLX's Metal backend, macOS 15.1 (24B83)"


class Library:
    """libproc as proc_pid_rusage answers: 16 bytes of uuid, then 64-bit fields."""

    def __init__(self, code: int) -> None:
        self.code = code

    def proc_pid_rusage(self, pid, flavour, pointer):
        fields = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_uint64))
        for number in range(8):
            fields[2 + number] = 1000 + number  # user, system, two wake-ups, page-ins, wired, resident, footprint
        return self.code


def test_the_macs_footprint_is_the_eighth_field():
    assert machine.mac_footprint(1, Library(0)) == 1007
    assert machine.mac_footprint(1, Library(-1)) is None


def test_the_footprint_of_this_process_holds_what_it_holds():
    before = machine.footprint_bytes()
    with mmap.mmap(-1, 64 * 2**20) as held:  # never memory that the process had before
        held.write(b"x" * len(held))
        assert machine.footprint_bytes() - before > 48 * 2**20


def test_a_missing_or_failing_command_prints_nothing():
    assert machine.output("no-such-command-here") == ""
    assert machine.output("false") == ""


def test_the_largest_cache_counts(tmp_path):
    for number, size in enumerate(["48K", "2048K", "480M", "garbage"]):
        (tmp_path / f"index{number}").mkdir()
        (tmp_path / f"index{number}" / "size").write_text(size + "\n")
    assert machine.cpu_cache_bytes(tmp_path) == 480 * 2**20
    assert machine.cpu_cache_bytes(tmp_path / "nowhere") is None


@pytest.mark.parametrize(("text", "level"), [(f"{machine.THERMAL_KEY} 2\n", 2), ("", None), ("error", None)])
def test_thermal_pressure(text, level):
    assert machine.thermal_pressure(text) == level


def test_settings_name_the_versions_and_mlx_variables(monkeypatch):
    monkeypatch.setenv("MLX_MAX_OPS_PER_BUFFER", "50")
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    settings = machine.settings()
    assert settings["variables"] == {"MLX_MAX_OPS_PER_BUFFER": "50"}
    assert settings["mlx"][0].isdigit()
    assert "hunter2" not in json.dumps(settings)
