"""Each operating system tells what it can, and nothing else asks which one it is. The Macs' answers are in macs.py."""

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import macs
import mlx.core as mx
import psutil
import pytest
from macs import EMPTY, FUTURE, GARBAGE, INTEL, MACS, MIB, VIRTUAL, answers

from benchmarks.harness import chips, host, machine
from benchmarks.harness.host import commands, macos
from benchmarks.harness.host.linux import Linux
from benchmarks.harness.host.macos import Mac
from scripts.nightly import preflight
from scripts.nightly.settings import Check

ROOT = Path(__file__).parent.parent
PROFILER = "system_profiler SPDisplaysDataType -json"
REGISTRY = "ioreg -rc AGXAccelerator -d1"


@pytest.fixture
def on(monkeypatch):
    """Makes this a Mac with MLX's Metal backend, for what asks machine.py."""

    def make(told: dict[str, str], device: str) -> machine.Machine:
        monkeypatch.setattr(machine, "HERE", Mac(answers(told)))
        monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
        monkeypatch.setattr(mx, "device_info", lambda device_=None: {"device_name": device})
        monkeypatch.setattr(mx, "metal", SimpleNamespace(is_available=lambda: True))
        return machine.identify.__wrapped__()

    return make


class TestMacs:
    @pytest.mark.parametrize("name", MACS)
    def test_every_chip_and_bin_has_its_ceiling(self, on, name):
        here = on(MACS[name], MACS[name]["sysctl -n machdep.cpu.brand_string"].strip())
        assert here.backend == "Metal"
        assert here.chip == Mac(answers(MACS[name])).cpu_name()
        assert here.spec is chips.find(here.chip, here.gpu_cores)
        assert here.spec
        assert here.system in ("macOS 14.7.6 (23H626)", "macOS 15.5 (24F74)", "macOS 26.1 (25B78)")
        if "," in name:
            assert f"{here.gpu_cores} cores" in name

    def test_no_chip_and_no_bin_is_left_out(self, on):
        told = {(here.chip, here.gpu_cores) for name in MACS if (here := on(MACS[name], name.split(",")[0]))}
        known = {(chip.name, cores) for chip in chips.CHIPS if "Apple" in chip.name for cores in chip.gpu_cores}
        assert {(f"Apple {name}", cores) for name, cores in told} == known

    @pytest.mark.parametrize("name", MACS)
    def test_where_the_registry_is_silent_the_profiler_tells(self, name):
        silent = Mac(answers(MACS[name] | {REGISTRY: ""}))
        assert silent.gpu_cores() == Mac(answers(MACS[name])).gpu_cores()

    def test_a_registry_that_names_other_cores_first(self):
        assert '"num_cores"=20' in MACS["M3 Max"][REGISTRY]
        assert Mac(answers(MACS["M3 Max"])).gpu_cores() == 40

    def test_a_virtual_mac_has_neither_cores_nor_a_ceiling(self, on):
        here = on(VIRTUAL, "Apple Paravirtual device")
        assert (here.gpu_cores, here.spec, here.cache_bytes) == (None, None, None)
        assert Mac(answers(VIRTUAL)).cpu_name() == "Apple M1 (Virtual)"
        assert Mac(answers(VIRTUAL)).conditions() == {
            "thermal_pressure": None, "on_battery": False, "low_power_mode": None
        }  # fmt: skip

    def test_a_chip_of_the_future_is_named_and_has_no_ceiling(self, on):
        here = on(FUTURE, "Apple M9 Extreme")
        assert (here.chip, here.gpu_cores, here.spec) == ("Apple M9 Extreme", 160, None)
        assert here.system == "macOS 31.0 (30A5000z)"
        assert "Apple M9 Extreme, 160 GPU cores" in str(here)

    def test_an_intel_mac(self):
        here = Mac(answers(INTEL))
        assert here.cpu_name() == "Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz"
        assert (here.gpu_cores(), here.cache_bytes()) == (None, 12 * MIB)

    def test_the_largest_cache_is_the_fast_cores(self):
        assert Mac(answers(MACS["M1"])).cache_bytes() == 12 * MIB
        assert Mac(answers(MACS["M4 Max"])).cache_bytes() == 16 * MIB

    def test_a_mac_that_answers_nothing(self, on, tmp_path):
        silent = Mac(answers(EMPTY), library=str(tmp_path / "none"))
        assert (silent.cpu_name(), silent.gpu_cores(), silent.cache_bytes()) == ("", None, None)
        assert silent.system() == "macOS unknown (build unknown)"
        assert set(silent.conditions().values()) == {None}
        assert silent.low_power() is None
        assert silent.footprint_bytes() == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
        assert silent.give_back() is None
        here = on(EMPTY, "Apple M2")
        assert (here.chip, here.gpu_cores, here.spec) == ("Apple M2", None, None)  # 8 and 10 cores are both sold

    @pytest.mark.parametrize("text", GARBAGE, ids=range(len(GARBAGE)))
    def test_garbage_tells_nothing(self, text):
        odd = Mac(lambda *command: text)
        assert odd.gpu_cores() is None
        assert odd.system() == "macOS unknown (build unknown)"
        assert set(odd.conditions().values()) == {None}
        assert odd.cache_bytes() is None
        assert len(odd.cpu_name()) <= 100
        assert "\n" not in odd.cpu_name()

    @pytest.mark.parametrize(
        "adapters",
        ["[]", "{}", "null", '[{"sppci_cores": "many"}]', '[{"sppci_cores": null}]', '[{"sppci_cores": []}]', "[1]"],
    )
    def test_a_profiler_of_another_shape(self, adapters):
        assert macos.profiler_gpu_cores(f'{{"SPDisplaysDataType": {adapters}}}') is None

    def test_the_display_beside_the_gpu_has_no_cores(self):
        adapters = [{"_name": "HDMI"}, {"sppci_model": "Apple M4", "sppci_cores": "10"}]
        assert macos.profiler_gpu_cores(json.dumps({"SPDisplaysDataType": adapters})) == 10

    def test_the_footprint_is_the_eighth_field_of_libproc(self, tmp_path):
        assert Mac(library=macs.library(tmp_path)).footprint_bytes() == 1007
        rss = psutil.Process().memory_info().rss
        assert Mac(library=macs.library(tmp_path, fails=True)).footprint_bytes() == pytest.approx(rss, rel=0.2)

    @pytest.mark.parametrize(
        ("line", "on"),
        [
            ("lowpowermode         1", True),
            ("lowpowermode         0", False),
            ("powermode            1", True),
            ("powermode            2", False),  # high power
            ("standby              1", None),
        ],
    )
    def test_low_power(self, line, on, monkeypatch):
        saving = Mac(answers({"pmset -g": macs.PMSET.format(line)}))
        assert saving.low_power() is saving.conditions()["low_power_mode"] is on
        monkeypatch.setattr(preflight, "HERE", saving)
        assert preflight.low_power(Check()).fit is (None if on is None else not on)

    def test_battery_and_heat(self):
        hot = {"pmset -g batt": macs.ON_BATTERY, f"notifyutil -g {macos.THERMAL_KEY}": f"{macos.THERMAL_KEY} 2\n"}
        assert Mac(answers(hot)).conditions() == {"thermal_pressure": 2, "on_battery": True, "low_power_mode": None}

    @pytest.mark.parametrize(("source", "on"), [("AC Power", False), ("Battery Power", True), ("UPS Power", False)])
    def test_power(self, source, on):
        assert macos.on_battery(f"Now drawing from '{source}'\n") is on

    def test_building_takes_a_metal_compiler(self):
        assert Mac(answers(MACS["M3"])).missing_build_tools() == ""
        assert Mac(answers(EMPTY)).missing_build_tools() == (
            "no Metal compiler; install Xcode, then: xcodebuild -downloadComponent MetalToolchain"
        )

    def test_it_runs_where_macos_wants_it(self):
        assert Mac().cores() == [None]
        with Mac().on_core(None):
            pass

    def test_it_is_kept_awake_for_this_process(self):
        assert Mac().keep_awake() == ("caffeinate", "-dims", "-w", str(os.getpid()))


class TestCommands:
    def test_programs_that_answer_as_a_mac_does(self, tmp_path, monkeypatch):
        macs.commands(tmp_path, MACS["M4 Max"])
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        real, recorded = Mac(), Mac(answers(MACS["M4 Max"]))
        for told in ("system", "cpu_name", "gpu_cores", "cache_bytes", "conditions", "missing_build_tools"):
            assert getattr(real, told)() == getattr(recorded, told)(), told
        assert real.gpu_cores() == 40

    def test_missing_failing_or_odd(self, tmp_path, monkeypatch):
        assert commands.output("no-such-command-here") == ""
        assert commands.output("false") == ""
        assert commands.output("printf", r"caf\351") == "caf\ufffd"
        assert len(commands.output("head", "-c", str(3 * commands.MOST), "/dev/zero")) == commands.MOST

    def test_nobody_is_waited_for_to_type(self):
        code = "from benchmarks.harness.host import commands; print(repr(commands.output('cat')))"
        with subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as asking:
            assert asking.stdout
            assert asking.wait(timeout=commands.SECONDS / 2) == 0  # its own standard input stays open
            assert asking.stdout.read() == b"''\n"

    def test_in_english_whatever_the_user_speaks(self, monkeypatch):
        monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
        monkeypatch.setenv("LANG", "de_DE.UTF-8")
        assert commands.output("sh", "-c", "echo $LC_ALL") == "C\n"

    def test_a_command_that_hangs_is_ended(self, monkeypatch):
        monkeypatch.setattr(commands, "SECONDS", 0.2)
        begun = time.monotonic()
        assert commands.output("sleep", "30") == ""
        assert time.monotonic() - begun < 25


class TestLinux:
    def test_the_largest_cache(self, tmp_path):
        folder = tmp_path / "sys/devices/system/cpu/cpu0/cache"
        for number, size in enumerate(["48K", "2048K", "480M", "garbage", "9" * 30 + "G"]):
            (folder / f"index{number}").mkdir(parents=True)
            (folder / f"index{number}" / "size").write_text(size + "\n")
        assert Linux(tmp_path).cache_bytes() == 480 * MIB
        assert Linux(tmp_path / "nowhere").cache_bytes() is None

    def test_the_processors_name(self, tmp_path, monkeypatch):
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc" / "cpuinfo").write_bytes(b"processor\t: 0\nmodel name\t: AMD EPYC \xff\n")
        assert Linux(tmp_path).cpu_name() == "AMD EPYC \ufffd"
        monkeypatch.setattr("platform.processor", lambda: "x86_64")
        assert Linux(tmp_path / "nowhere").cpu_name() == "x86_64"

    def test_low_power(self, tmp_path, monkeypatch):
        profile = tmp_path / "sys/firmware/acpi/platform_profile"
        profile.parent.mkdir(parents=True)
        assert Linux(tmp_path).low_power() is None
        for text, on in (("low-power\n", True), ("performance\n", False)):
            profile.write_text(text)
            monkeypatch.setattr(preflight, "HERE", Linux(tmp_path))
            assert preflight.low_power(Check()).fit is not on

    def test_building_takes_a_compiler(self, monkeypatch):
        there = {"g++"}
        monkeypatch.setattr("shutil.which", lambda name: name if name in there else None)
        assert Linux().missing_build_tools() == "no make, no cmake; install make, cmake"
        there |= {"make", "cmake"}
        assert Linux().missing_build_tools() == ""

    def test_its_cores(self):
        assert Linux().cores() in (
            sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None],
            [None],
        )

    def test_what_it_does_not_tell(self):
        assert (Linux().gpu_cores(), Linux().conditions(), Linux().keep_awake()) == (None, {}, ())


class TestChosenInOnePlace:
    @pytest.mark.parametrize(("system", "name"), [("darwin", "macOS"), ("linux", "Linux"), ("freebsd14", "Linux")])
    def test_by_the_system(self, system, name):
        code = (
            f"import psutil, sys; sys.platform = {system!r}; from benchmarks.harness.host import HERE; print(HERE.name)"
        )
        assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == name

    def test_nothing_else_asks_which_system_it_is(self):
        """But for the set-up, which runs before anything of ours can be imported."""
        listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", "*.py"], cwd=ROOT, text=True)
        sources = [name for name in listed.splitlines() if (ROOT / name).exists()]
        asking = {name for name in sources if asks(ast.parse((ROOT / name).read_text()))}
        assert {name for name in asking if not name.startswith(("benchmarks/harness/host/", "tests/"))} == {
            "scripts/setup.py"
        }

    @pytest.mark.parametrize(
        "code",
        [
            "import sys\nsys.platform",
            "import os\nos.name",
            "import platform\nplatform.system()",
            "os.uname().sysname",
            "from sys import platform",
            "from platform import system",
            "import sys as s\ns.platform",
            "hasattr(os, 'sched_getaffinity')",
            "import os\nos.sched_setaffinity",
        ],
    )
    def test_asking_is_seen(self, code):
        assert asks(ast.parse(code))

    def test_one_that_tells_as_much(self):
        asked = {name for name, one in vars(host.Host).items() if callable(one) and not name.startswith("_")}
        for one in host.BY_SYSTEM.values():
            assert asked <= {name for name in dir(one) if not name.startswith("_")}
            assert one().name
            assert one().backend_package
            assert one().resident_unit


ASKS = {"sys.platform", "os.name", "os.uname", "platform.system", "platform.uname", "platform.mac_ver"}


def asks(tree: ast.Module) -> bool:
    """Whether a program asks for its operating system; a release's own name, platform.release, is no question."""
    called = {
        one.asname or one.name: one.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for one in node.names
    }
    for node in ast.walk(tree):
        name = getattr(node, "attr", None) or getattr(node, "value", None)
        if isinstance(name, str) and name.startswith("sched_"):
            return True
        if isinstance(node, ast.ImportFrom) and any(f"{node.module}.{one.name}" in ASKS for one in node.names):
            return True
        named = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if named and f"{called.get(node.value.id, node.value.id)}.{node.attr}" in ASKS:
            return True
    return False
