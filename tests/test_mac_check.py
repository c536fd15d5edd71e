"""What is wrong about a Mac is said, and what is right: with the answers that macs.py has, and with MLX's patched."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import macs
import mlx.core as mx
import pytest
from macs import EMPTY, MACS, MIB, answers

from benchmarks.harness import chips, machine
from benchmarks.harness.counters import Counters
from benchmarks.harness.host import Linux, Mac, commands
from scripts import assumptions, command, mac_check
from scripts.counting import Failure

ROOT = Path(__file__).parent.parent
M3 = MACS["M3 Max"]
RUN = assumptions.run


class Here:
    """This machine as a Mac: what its commands answer, and what MLX tells of its GPU, can be changed."""

    def __init__(self, monkeypatch) -> None:
        self.patch = monkeypatch
        self.told = dict(M3)
        self.device: dict[str, object] = {"device_name": "Apple M3 Max"}
        run = lambda *words: answers(self.told)(*words)  # noqa: E731
        mac = Mac(run)
        for module in (assumptions, machine, mac_check):
            monkeypatch.setattr(module, "HERE", mac)
        monkeypatch.setattr(commands, "output", run)
        monkeypatch.setattr(machine, "gpu_info", lambda: self.device)
        monkeypatch.setattr(machine, "backend", lambda: "Metal")
        monkeypatch.setattr(machine, "identify", machine.identify.__wrapped__)
        self.python_says("15.5")
        monkeypatch.setattr(assumptions.psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * 2**30))

    def python_says(self, release: str) -> None:
        self.patch.setattr(assumptions, "run", lambda words, seconds: (0, release))


@pytest.fixture
def here(monkeypatch, at_root) -> Here:
    return Here(monkeypatch)


def holds(name: str) -> bool | None:
    found, words = assumptions.ASSUMPTIONS[name][1]()
    assert words
    return found


class TestHost:
    NAMES = (
        "system",
        "Python's release",
        "chip",
        "GPU cores",
        "vendor's ceiling",
        "caches",
        "heat and power",
        "backend",
    )

    @pytest.mark.parametrize("name", NAMES)
    def test_a_mac_is_as_assumed(self, here, name):
        assert holds(name) is True

    @pytest.mark.parametrize("name", NAMES)
    def test_a_mac_that_tells_nothing_is_not(self, here, name):
        here.told = dict(EMPTY)
        here.patch.setattr(machine, "backend", lambda: "CPU")
        assert holds(name) is (None if name in ("vendor's ceiling", "heat and power") else False)

    def test_a_python_that_says_nothing(self, here):
        here.python_says("")
        assert holds("Python's release") is False

    def test_what_contradicts_is_wrong(self, here):
        here.told[macs_profiler] = macs.profiler("Apple M3 Max", 30)
        here.device = {"device_name": "Apple Paravirtual device"}
        here.python_says("16.0")
        for name in ("GPU cores", "chip", "Python's release"):
            assert holds(name) is False, name

    def test_an_unknown_chip_is_no_wrong_one(self, here):
        here.device = {"device_name": "Apple M9"}
        found, words = assumptions.known_chip()
        assert found is None
        assert words == "Apple M9 with 40 cores is not in chips.py, so it has no vendor's ceiling"

    def test_footprint(self, here):
        readings = iter([0, 64 * MIB, 0, 1 * MIB])
        here.patch.setattr(assumptions.HERE, "footprint_bytes", lambda: next(readings))
        assert holds("footprint") is True
        assert holds("footprint") is False

    @pytest.mark.parametrize(("asked", "expected"), [((), False), (("sleep", "60"), True), (("true",), False)])
    def test_kept_awake(self, here, asked, expected):
        here.patch.setattr(assumptions.HERE, "keep_awake", lambda: asked)
        assert holds("kept awake") is expected

    @pytest.mark.parametrize(
        ("tag", "release", "expected"),
        [
            ("py3-none-macosx_15_0_arm64", "15.5", True),
            ("py3-none-macosx_26_0_arm64", "26.1", True),
            ("py3-none-macosx_26_0_arm64", "27.0", True),
            ("py3-none-macosx_15_0_arm64", "26.1", False),
            ("py3-none-any", "15.5", None),
        ],
    )
    def test_wheel(self, here, tag, release, expected):
        here.told["sw_vers"] = macs.SW_VERS.format(release, "25A1")
        here.patch.setattr(machine, "wheels", lambda: {"mlx": "any", "mlx-metal": tag})
        assert holds("wheel") is expected


macs_profiler = "system_profiler SPDisplaysDataType -json"


class TestDevice:
    @pytest.mark.parametrize(("limit", "expected"), [(48, True), (64, True), (16, False), (128, False), (None, False)])
    def test_working_set(self, here, limit, expected):
        if limit:
            here.device["max_recommended_working_set_size"] = limit * 2**30
        assert holds("working set") is expected

    def test_peak_counter(self, here):
        assert holds("peak counter") is True
        here.patch.setattr(mx, "get_peak_memory", lambda: 5)
        assert holds("peak counter") is False

    def test_pages(self, here):
        here.patch.setattr(assumptions, "added", lambda size: size)
        assert holds("pages") is False
        here.patch.setattr(assumptions, "added", lambda size: size if size <= 16384 else -(-size // 16384) * 16384)
        assert holds("pages") is True

    def test_what_an_array_adds(self, monkeypatch):
        readings = iter([1000, 50_152])
        monkeypatch.setattr(mx, "get_active_memory", lambda: next(readings))
        assert assumptions.added(40_000) == 49_152

    def test_evaluation(self, here):
        assert holds("evaluation") is True
        here.patch.setattr(mx, "eval", lambda *arrays: None)
        here.patch.setattr(mx, "synchronize", lambda: time.sleep(0.01))
        assert holds("evaluation") is False

    def test_donation(self, here):
        assert holds("donation") is True
        here.patch.setattr(assumptions.donation, "measure", lambda: assumptions.Donation(True, False, False))
        assert holds("donation") is False

    def test_clock(self, here):
        assert holds("clock") is True
        here.patch.setattr(assumptions.time, "get_clock_info", lambda name: SimpleNamespace(resolution=0.01))
        assert holds("clock") is False

    def test_child_process(self, here):
        here.patch.setattr(assumptions, "run", RUN)
        assert holds("child process") is True
        here.patch.setattr(assumptions, "run", lambda words, seconds: (-11, ""))
        assert holds("child process") is False

    def test_kernel(self, here):
        here.patch.setattr(assumptions.cases, "precisions", lambda name: ("float32",))
        case = assumptions.cases.case
        here.patch.setattr(assumptions.cases, "case", lambda name, workload: case("eager", workload))
        assert holds("kernel") is True
        assert holds("kernel in place") is True
        here.patch.setattr(assumptions, "Step", lambda case: None)
        assert mac_check.looked(assumptions.kernel, "kernel")[0] is False
        assert mac_check.looked(assumptions.kernel_inplace, "kernel in place")[0] is False


class Counted:
    """What counts every case, and finds the same in each."""

    variants = ("eager",)
    finds: object = Counters(3, 0, 0, 0, kept_arrays=0, wrong_results=0, graph_growth=0, memory_growth=0)

    def __init__(self, side: object) -> None:
        pass

    def __enter__(self) -> "Counted":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def count(self, name: str) -> object:
        return self.finds


class TestWork:
    def test_counters(self, here, monkeypatch):
        monkeypatch.setattr(assumptions.releases, "Counter", Counted)
        assert holds("counters") is True
        for finds, words in (
            (Counted.finds._replace(kept_arrays=3), "wrong results 0, kept arrays 3, graph growth 0, memory growth 0"),
            (Counted.finds._replace(wrong_results=1), "wrong results 1, kept arrays 0"),
            (Failure("died"), "eager/float32/two_leaves: died"),
        ):
            monkeypatch.setattr(Counted, "finds", finds)
            found, told = assumptions.counters()
            assert found is False
            assert words in told

    @pytest.mark.parametrize(
        ("ceiling", "seconds", "spec", "expected"),
        [
            (380e9, 1.1, 400, True),
            (380e9, 1.1, None, True),
            (380e9, 0.9, 400, False),  # faster than the ceiling
            (500e9, 1.1, 400, False),  # more than the vendor says
            (100e9, 1.1, 400, False),
        ],
    )
    def test_timings(self, here, monkeypatch, ceiling, seconds, spec, expected):
        host = {"what": "machine", "ceiling": {"bytes_per_second": ceiling, "kernel": "MLX triad"}}
        host["spec"] = chips.find("Apple M3 Max", 40)._asdict() if spec else None
        steps = [
            {"what": "case", "case": name, "ideal_bytes": ceiling, "measurement": {"step": {"seconds": [9.0, seconds]}}}
            for name in assumptions.MEASURED
        ]
        monkeypatch.setattr(assumptions.releases, "measured", lambda *_, first: ([host, *steps], []))
        assert holds("timings") is expected
        monkeypatch.setattr(assumptions.releases, "measured", lambda *_, first: ([host, *steps[1:]], []))
        assert holds("timings") is False
        monkeypatch.setattr(assumptions.releases, "measured", lambda *_, first: ([], ["it died"]))
        assert assumptions.timings() == (False, "it died")

    @pytest.mark.parametrize(
        ("names", "expected"), [(["mlx", "mlx_metal"], True), (["mlx"], False), (["mlx_metal", "mlx_cpu"], False)]
    )
    def test_environment(self, here, monkeypatch, tmp_path, names, expected):
        monkeypatch.setattr(assumptions.sides, "asv_environment", lambda mlx: SimpleNamespace(_path=str(tmp_path)))
        for name in names:
            (tmp_path / f"lib/python3.13/site-packages/{name}-1.dist-info").mkdir(parents=True)
        answered = iter([(1, ""), (0, "Device(gpu, 0)"), (1, ""), (0, "Device(cpu, 0)")])
        monkeypatch.setattr(assumptions, "run", lambda words, seconds: next(answered))
        assert holds("asv's environment") is expected
        assert holds("asv's environment") is False  # on the CPU
        answered = iter([(1, "no network"), (127, "none: No such file or directory")])
        assert assumptions.environment() == (False, "no network; none: No such file or directory")

    def test_the_tests_are_there(self, here, monkeypatch):
        asked: list[list[str]] = []
        monkeypatch.setattr(assumptions, "run", lambda words, seconds: asked.append(words) or (0, "3 passed"))
        assert assumptions.tests() == (True, "3 passed")
        files = [word for word in asked[0] if word.endswith(".py")]
        assert files
        assert all((ROOT / name).is_file() for name in files)

    def test_a_command(self):
        assert assumptions.run(["sh", "-c", "echo one; echo two; exit 3"], 20) == (3, "two")
        assert assumptions.run(["true"], 20) == (0, "")
        assert assumptions.run(["no-such-command"], 20) == (127, "no-such-command: No such file or directory")
        assert assumptions.run(["sleep", "60"], 0.2) == (124, "not done within 0.2 s")


class TestCommand:
    @pytest.fixture
    def few(self, here, monkeypatch, tmp_path) -> Path:
        """Three assumptions: one holds, one is wrong, one fails; and one that cannot be told."""

        def fails() -> assumptions.Found:
            raise RuntimeError(f"no\nmetal in {Path.cwd()} of {Path.home()}")

        looks = {
            "one": ("it is so", lambda: (True, "so")),
            "two": ("it is not so", lambda: (False, f"\x1b[31m{ROOT}/x")),
            "three": ("it runs", fails),
            "four": ("it is told", lambda: (None, "no word")),
        }
        monkeypatch.setattr(mac_check, "ASSUMPTIONS", looks)
        return tmp_path / "mac.json"

    def test_a_row_and_an_entry_for_each(self, few, capsys):
        assert mac_check.main(["--json", str(few)]) == 1
        printed = capsys.readouterr().out.splitlines()
        assert printed[0] == "as assumed  one: so"
        assert printed[2].startswith("WRONG       three: RuntimeError: no metal in ")
        assert printed[-1] == f"4 assumptions, 2 wrong, 0 not looked at; please send back {few}"
        told = json.loads(few.read_text())
        assert [(one["name"], one["holds"]) for one in told["findings"]] == [
            ("one", True), ("two", False), ("three", False), ("four", None)
        ]  # fmt: skip
        assert told["machine"].startswith("Apple M3 Max, 40 GPU cores")
        assert "under way" not in told
        assert str(ROOT) not in few.read_text()
        assert str(Path.home()) not in few.read_text()

    def test_only_some(self, few, capsys):
        assert mac_check.main(["--json", str(few), "--only", "one", "--only", "four"]) == 0
        assert len(json.loads(few.read_text())["findings"]) == 2
        assert mac_check.main(["--json", str(few), "--skip", "two", "--skip", "three"]) == 0
        assert [one["name"] for one in json.loads(few.read_text())["findings"]] == ["one", "four"]
        for option in ("--only", "--skip"):
            with pytest.raises(command.UserError, match="names are: one, two, three, four"):
                mac_check.main([option, "five"])

    def test_what_is_left_when_the_time_is_over(self, few, monkeypatch, capsys):
        monkeypatch.setattr(mac_check, "SECONDS", -1.0)
        assert mac_check.main(["--json", str(few)]) == 1
        assert "0 wrong, 4 not looked at" in capsys.readouterr().out
        assert {one["found"] for one in json.loads(few.read_text())["findings"]} == {"no time was left"}

    def test_no_names_and_no_folders(self, monkeypatch):
        monkeypatch.setattr(mac_check.platform, "node", lambda: "Alices-MacBook-Pro.local")
        monkeypatch.setattr(mac_check.getpass, "getuser", lambda: "alice")
        monkeypatch.setattr(mac_check.tempfile, "gettempdir", lambda: "/private/var/folders/zz/T")
        monkeypatch.setenv("HOME", "/Users/alice")
        for text, expected in (
            ("/private/var/folders/zz/T/pytest-of-alice/x: Alices-MacBook-Pro:", "TMP/pytest-of-USER/x: HOST:"),
            (f"{Path.cwd()}/adamw and /Users/alice/x on Alices-MacBook-Pro.local", "./adamw and ~/x on HOST"),
            ("malice and alices are words, alice is a name", "malice and alices are words, USER is a name"),
        ):
            assert mac_check.nameless(text) == expected
        monkeypatch.setattr(mac_check.platform, "node", lambda: "")
        assert mac_check.nameless("as it is") == "as it is"

    def test_a_copy_without_git(self, few, monkeypatch):
        def none(*_: str) -> str:
            raise command.UserError("git is not installed")

        monkeypatch.setattr(mac_check.git, "output", none)
        mac_check.main(["--json", str(few)])
        assert json.loads(few.read_text())["commit"] is None

    def test_what_ended_it_can_be_seen(self, few, monkeypatch):
        def killed() -> assumptions.Found:
            raise KeyboardInterrupt

        monkeypatch.setitem(mac_check.ASSUMPTIONS, "three", ("it runs", killed))
        with pytest.raises(KeyboardInterrupt):
            mac_check.main(["--json", str(few)])
        told = json.loads(few.read_text())
        assert told["under way"] == "three"
        assert len(told["findings"]) == 2

    def test_elsewhere_it_says_so(self, monkeypatch):
        monkeypatch.setattr(mac_check, "HERE", Linux())
        with pytest.raises(command.UserError, match="this is Linux; mac-check is for a Mac"):
            mac_check.main([])

    def test_the_module_runs(self):
        done = subprocess.run([sys.executable, "-m", "scripts.mac_check", "--help"], cwd=ROOT, capture_output=True)
        assert done.returncode == 0
        assert done.stdout.count(b"python -m scripts.mac_check") >= 2


def test_every_assumption_has_a_name_words_and_a_look_of_its_own():
    looks = [look for _, look in assumptions.ASSUMPTIONS.values()]
    assert (
        len({look.__name__ for look in looks})
        == len(looks)
        == len({words for words, _ in assumptions.ASSUMPTIONS.values()})
    )


class TestPage:
    PAGE = (ROOT / "MAC.md").read_text()

    def test_it_has_a_row_for_every_assumption_in_its_order(self):
        rows = re.findall(r"^\| ([^|]+?) \| [^|]+ \| [^|]+ \|$", self.PAGE, re.MULTILINE)
        assert rows[1:] == list(assumptions.ASSUMPTIONS)
        assert rows[0].startswith("`make mac-check`")

    def test_what_it_names_is_there(self):
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {"mac-check", "coverage"} <= set(re.findall(r"make ([a-z-]+)\b(?! 3)", self.PAGE)) <= set(targets)
        for name in re.findall(r"`([\w/]+\.(?:py|md))`|\]\((\w+\.md)\)", self.PAGE):
            (named,) = filter(None, name)
            assert (ROOT / named).exists() or list(ROOT.rglob(named)), named
        (only,) = re.findall(r"--only (\w+)", self.PAGE)
        assert only in assumptions.ASSUMPTIONS

    def test_its_exit_codes_are_the_commands(self):
        written = re.findall(r"(\d+) (\w+)", mac_check.EPILOG.partition("exit codes:")[2])
        assert [(code, word) for code, word in written if f"{code} {word}" not in " ".join(self.PAGE.split())] == []

    def test_it_says_that_nothing_ran_on_a_mac(self):
        assert "No line of it has run on a Mac yet" in self.PAGE
        assert "[MAC.md](MAC.md)" in (ROOT / "README.md").read_text()
