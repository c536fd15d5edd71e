"""The machine is told right, or not at all."""

import json
import mmap
from types import SimpleNamespace

import mlx.core as mx
import psutil
import pytest

from benchmarks.harness import chips, machine
from benchmarks.harness.host import HERE


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


def identified(monkeypatch, name: str, metal: bool, **info) -> machine.Machine:
    """The machine, if MLX's default device were this GPU."""
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    monkeypatch.setattr(mx, "device_info", lambda device=None: {"device_name": name, **info})
    monkeypatch.setattr(mx, "metal", SimpleNamespace(is_available=lambda: metal))
    monkeypatch.setattr(machine.HERE, "gpu_cores", lambda: 40 if metal else None)
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


def test_the_footprint_of_this_process_holds_what_it_holds():
    before = HERE.footprint_bytes()
    with mmap.mmap(-1, 64 * 2**20) as held:  # never memory that the process had before
        held.write(b"x" * len(held))
        assert HERE.footprint_bytes() - before > 48 * 2**20


def test_settings_name_the_versions_and_mlx_variables(monkeypatch):
    monkeypatch.setenv("MLX_MAX_OPS_PER_BUFFER", "50")
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    settings = machine.settings()
    assert settings["variables"] == {"MLX_MAX_OPS_PER_BUFFER": "50"}
    assert settings["mlx"][0].isdigit()
    assert "hunter2" not in json.dumps(settings)
