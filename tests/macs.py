"""What Macs answer, command by command, in the formats that Apple's commands have; no answer is one that failed.

The formats were read in public reports and in programs that parse them; none was recorded by this project on a Mac.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness.host.macos import THERMAL_KEY

MIB = 2**20
SW_VERS = "ProductName:\t\tmacOS\nProductVersion:\t\t{}\nBuildVersion:\t\t{}\n"
RAPID = "ProductName:\t\tmacOS\nProductVersion:\t\t{}\nProductVersionExtra:\t(a)\nBuildVersion:\t\t{}\n"
PMSET = """System-wide power settings:
Currently in use:
 standby              1
 Sleep On Power Button 1
 hibernatefile        /var/vm/sleepimage
 powernap             1
 networkoversleep     0
 disksleep            10
 sleep                1 (sleep prevented by powerd, caffeinate)
 hibernatemode        3
 displaysleep         2
 tcpkeepalive         1
 {}
"""
MAINS = "Now drawing from 'AC Power'\n"
ON_BATTERY = (
    "Now drawing from 'Battery Power'\n"
    " -InternalBattery-0 (id=23068771)\t83%; discharging; 6:12 remaining present: true\n"
)


def registry(cores: int, family: str) -> str:
    """Of the IO registry the GPU's entry, which is one line a property."""
    return (
        f"+-o AGXAccelerator{family}  <class AGXAccelerator{family}, id 0x100000442, registered, matched, active, "
        'busy 0 (49 ms), retain 69>\n    {\n      "IOClass" = "AGXAccelerator"\n'
        '      "GPUConfigurationVariable" = {"num_gps"=4,"gpu_gen"=15,"num_cores"=20,"num_mgpus"=1}\n'
        f'      "gpu-core-count" = {cores}\n      "IOPowerManagement" = {{"DevicePowerState"=2}}\n    }}\n\n'
    )


def profiler(name: str, cores: int | None) -> str:
    """Of system_profiler the displays: the GPU's name and, as text, its cores."""
    adapter = {
        "_name": name,
        "spdisplays_mtlgpufamilysupport": "spdisplays_metal4",
        "spdisplays_ndrvs": [{"_name": "Color LCD", "_spdisplays_pixels": "3456 x 2234"}],
        "spdisplays_vendor": "sppci_vendor_Apple",
        "sppci_bus": "spdisplays_builtin",
        "sppci_device_type": "spdisplays_gpu",
        "sppci_model": name,
    }
    return json.dumps({"SPDisplaysDataType": [adapter | ({"sppci_cores": str(cores)} if cores else {})]}, indent=2)


def mac(
    chip: str, cores: int | None, level_two: int, *, family: str = "", release: str = "15.5", build: str = "24F74"
) -> dict[str, str]:
    """The answers of a Mac with Apple silicon on mains, cool, and not saving power."""
    return {
        "sw_vers": SW_VERS.format(release, build),
        "sysctl -n machdep.cpu.brand_string": f"{chip}\n",
        "sysctl -n hw.perflevel0.l2cachesize": f"{level_two * MIB}\n",
        "sysctl -n hw.l2cachesize": f"{4 * MIB}\n",  # the slow cores'
        "ioreg -rc AGXAccelerator -d1": registry(cores, family) if family and cores else "",
        "system_profiler SPDisplaysDataType -json": profiler(chip, cores),
        f"notifyutil -g {THERMAL_KEY}": f"{THERMAL_KEY} 0\n",
        "pmset -g batt": MAINS,
        "pmset -g": PMSET.format("lowpowermode         0"),
        "xcrun --sdk macosx metal --version": "Apple metal version 32023.620 (metalfe-32023.620)\n",
    }


MACS = {
    "M1, 7 cores": mac("Apple M1", 7, 12, family="G13G", release="14.7.6", build="23H626"),
    "M1": mac("Apple M1", 8, 12, family="G13G"),
    "M1 Pro, 14 cores": mac("Apple M1 Pro", 14, 12, family="G13X"),
    "M1 Pro": mac("Apple M1 Pro", 16, 12, family="G13X"),
    "M1 Max, 24 cores": mac("Apple M1 Max", 24, 12, family="G13X"),
    "M1 Max": mac("Apple M1 Max", 32, 12, family="G13X"),
    "M1 Ultra, 48 cores": mac("Apple M1 Ultra", 48, 12, family="G13X"),
    "M1 Ultra": mac("Apple M1 Ultra", 64, 12, family="G13X"),
    "M2, 8 cores": mac("Apple M2", 8, 16, family="G14G"),
    "M2": mac("Apple M2", 10, 16, family="G14G"),
    "M2 Pro, 16 cores": mac("Apple M2 Pro", 16, 16, family="G14X"),
    "M2 Pro": mac("Apple M2 Pro", 19, 16, family="G14X"),
    "M2 Max, 30 cores": mac("Apple M2 Max", 30, 16, family="G14X"),
    "M2 Max": mac("Apple M2 Max", 38, 16, family="G14X"),
    "M2 Ultra, 60 cores": mac("Apple M2 Ultra", 60, 16, family="G14X"),
    "M2 Ultra": mac("Apple M2 Ultra", 76, 16, family="G14X"),
    "M3, 8 cores": mac("Apple M3", 8, 16, family="G15G"),
    "M3": mac("Apple M3", 10, 16, family="G15G"),
    "M3 Pro, 14 cores": mac("Apple M3 Pro", 14, 16, family="G15X"),
    "M3 Pro": mac("Apple M3 Pro", 18, 16, family="G15X"),
    "M3 Max, 30 cores": mac("Apple M3 Max", 30, 16, family="G15X"),
    "M3 Max": mac("Apple M3 Max", 40, 16, family="G15X"),
    "M3 Ultra, 60 cores": mac("Apple M3 Ultra", 60, 16, family="G15X"),
    "M3 Ultra": mac("Apple M3 Ultra", 80, 16, family="G15X"),
    "M4, 8 cores": mac("Apple M4", 8, 16, family="G16G"),
    "M4": mac("Apple M4", 10, 16, family="G16G"),
    "M4 Pro, 16 cores": mac("Apple M4 Pro", 16, 16, family="G16X"),
    "M4 Pro": mac("Apple M4 Pro", 20, 16, family="G16X"),
    "M4 Max, 32 cores": mac("Apple M4 Max", 32, 16, family="G16X"),
    "M4 Max": mac("Apple M4 Max", 40, 16, family="G16X"),
    "M5, 8 cores": mac("Apple M5", 8, 16, family="G17G", release="26.1", build="25B78"),
    "M5": mac("Apple M5", 10, 16, family="G17G", release="26.1", build="25B78"),
    "M5 Pro, 16 cores": mac("Apple M5 Pro", 16, 16, family="G17X", release="26.1", build="25B78"),
    "M5 Pro": mac("Apple M5 Pro", 20, 16, family="G17X", release="26.1", build="25B78"),
    "M5 Max, 32 cores": mac("Apple M5 Max", 32, 16, family="G17X", release="26.1", build="25B78"),
    "M5 Max": mac("Apple M5 Max", 40, 16, family="G17X", release="26.1", build="25B78"),
}
"""Every chip and bin that chips.py knows, by a name of ours."""

VIRTUAL = mac("Apple M1 (Virtual)", None, 12) | {
    "system_profiler SPDisplaysDataType -json": profiler("Apple Paravirtual device", None),
    f"notifyutil -g {THERMAL_KEY}": "",
    "pmset -g": "System-wide power settings:\nCurrently in use:\n standby              1\n",
}
FUTURE = mac("Apple M9 Extreme", 160, 64, release="31.0", build="30A5000z", family="G21Z")
INTEL = mac("Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz", None, 0) | {
    "sysctl -n hw.perflevel0.l2cachesize": "",
    "sysctl -n hw.l2cachesize": "262144\n",
    "sysctl -n hw.l3cachesize": f"{12 * MIB}\n",
    "system_profiler SPDisplaysDataType -json": profiler("Intel UHD Graphics 630", None),
}
EMPTY: dict[str, str] = {}
"""A Mac of which no command answers: missing, failed or too late, which commands.output makes one."""

GARBAGE = (
    "zsh: command not found",
    "\x00\ufffd",
    "{}",
    "[]",
    "null",
    "= 1 1 1 =",
    "8.192,5",
    "\N{FULLWIDTH DIGIT EIGHT}",
    "-1",
    "9" * 40,
    "[" * 10**5,
)
"""What tells nothing: other programs' words, no text, JSON of another shape, numbers that are none of ours."""


def answers(told: dict[str, str]) -> Callable[..., str]:
    """What runs commands on the Mac that has `told` all that."""
    return lambda *command: told.get(" ".join(command), "")


LIBPROC = """
#include <stdint.h>
#include <string.h>
int proc_pid_rusage(int process, int flavour, void *pointer) {
    uint64_t fields[64] = {0};
    for (int number = 0; number < 8; number++) fields[2 + number] = 1000 + number;
    if (FAILS || flavour != 0) return -1;
    memcpy(pointer, fields, 16 + 10 * 8);
    return 0;
}
"""
"""libproc as it answers for struct rusage_info_v0: 16 bytes of uuid, then user and system time, two wake-ups, page-ins,
wired size, resident size, footprint, and the times of the process's beginning and end.
"""


def library(folder: Path, fails: bool = False) -> str:
    """The path of LIBPROC, compiled."""
    path = folder / f"libproc{int(fails)}.so"
    compile = ["g++", "-x", "c++", "-shared", "-fPIC", f"-DFAILS={int(fails)}", "-o", str(path), "-"]
    subprocess.run(compile, input=LIBPROC.replace("int proc_pid", 'extern "C" int proc_pid'), text=True, check=True)
    return str(path)


def commands(folder: Path, told: dict[str, str]) -> None:
    """Put programs into `folder` that answer as that Mac does, and fail where it does not."""
    names: dict[str, list[tuple[str, str]]] = {}
    for command, answer in told.items():
        name, _, arguments = command.partition(" ")
        names.setdefault(name, []).append((arguments, answer))
    for name, answered in names.items():
        for number, (_, answer) in enumerate(answered):
            (folder / f"{name}.{number}").write_text(answer)
        cases = "".join(
            f"'{arguments}') exec cat '{folder}/{name}.{number}' ;;\n"
            for number, (arguments, answer) in enumerate(answered)
            if answer
        )
        (folder / name).write_text(f'#!/bin/sh\ncase "$*" in\n{cases}*) echo unknown >&2; exit 1 ;;\nesac\n')
        (folder / name).chmod(0o755)
