"""Whether this machine is ready for its nights, and for all that is not ready what to type.

Nothing is changed and nothing needs root. What cannot be told on a system says so and counts as fine. How to get from a
bare machine to a green night is in NIGHTLY.md.
"""

import argparse
import getpass
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.harness import machine
from scripts import command, setup
from scripts.nightly import preflight, settings
from scripts.nightly.settings import Settings

EPILOG = """examples:
  python -m scripts.doctor                                  what is not ready, and what to do about it
  python -m scripts.doctor --settings mac.toml --json doctor.json

exit codes: 0 all is fine, 1 something is to do, 2 error, 130 interrupted
"""

SETTINGS = Path("nightly.toml")
MACHINES = Path.home() / ".asv-machine.json"
"""Where asv keeps what it knows of machines."""

RUNNER, LABEL = "actions.runner.", "adamw.nightly"
"""What begins the name of a GitHub runner's service, and the name of scripts/nightly/adamw.nightly.plist."""

START = (
    "./svc.sh install && ./svc.sh start, in a runner's folder; or cp scripts/nightly/adamw.nightly.plist "
    "~/Library/LaunchAgents/, edit it, launchctl bootstrap gui/$(id -u) ~/Library/LaunchAgents/adamw.nightly.plist"
)
"""What makes a Mac start its nights."""

UPDATE = "/Library/Preferences/com.apple.SoftwareUpdate"
CPU = Path("/sys/devices/system/cpu")
APT = ("apt-daily.timer", "apt-daily-upgrade.timer")
SLEEP = ("sleep.target", "suspend.target", "hibernate.target", "hybrid-sleep.target")


class Finding(NamedTuple):
    """What a check found.

    fit   whether it is as it should be; None: it cannot be told here
    says  the finding in words
    do    what to type; of a check that is fine it is advice
    """

    fit: bool | None
    says: str
    do: str = ""


Look = Callable[[Settings], Finding]
NOT_TOLD = Finding(None, "no answer that tells")

MEND = {
    "power": "plug it in",
    "low_power": "sudo pmset -a lowpowermode 0 (a Mac), powerprofilesctl set balanced (Linux)",
    "thermal": "let it cool: give it air, end what else runs",
    "load": "end what else runs; `top` names it",
    "disk": "make room: rm -r .asv/env frees what asv makes again",
    "memory": "end what else holds memory; `top` names it",
    "device": "name checks.device.expect in nightly.toml rightly, or: rm -r .venv && make setup",
    "clock": "sudo sntp -sS time.apple.com (a Mac), sudo timedatectl set-ntp true (Linux)",
    "awake": "start it by `python -m scripts.nightly`, which keeps the Mac awake",
}
"""What to do about each check of a night, by its name in preflight.CHECKS."""


def failed(error: command.UserError) -> Finding:
    """A UserError's message: the cause and, behind the semicolon, the next step."""
    cause, _, step = str(error).partition("; ")
    return Finding(False, cause, step or cause)


def text_of(path: Path) -> str:
    """What is in a file; empty if it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


# Every system


def python(version: tuple[int, ...]) -> Finding:
    says = f"Python {'.'.join(map(str, version))}"
    oldest = ".".join(map(str, setup.OLDEST))
    if version < setup.OLDEST:
        return Finding(False, f"{says}, {oldest} is needed", "rm -r .venv && make setup PYTHON=python3.12")
    return Finding(True, says)


def repository(git: str, shallow: str) -> Finding:
    """From `git --version` and `git rev-parse --is-shallow-repository`."""
    if not git.startswith("git version"):
        return Finding(False, "git does not run", "xcode-select --install (a Mac), sudo apt install git (Linux)")
    if shallow.strip() == "true":
        return Finding(False, "the clone has not all commits", "git fetch --unshallow")
    if shallow.strip() != "false":
        return Finding(False, "this folder is no clone", "git clone the repository and run this in its root")
    return Finding(True, git.strip())


def environment() -> Finding:
    """By the stamp that `make setup` leaves."""
    backend = setup.backend_before()
    if backend is None:
        return Finding(False, ".venv is not made", "make setup")
    if not setup.is_ready(backend):
        return Finding(False, ".venv was made for another Python or other requirements", "make setup")
    return Finding(True, f".venv is current, for {backend}")


def asv_machine(text: str, name: str) -> Finding:
    """Whether `name` is in the text of ~/.asv-machine.json."""
    try:
        known = json.loads(text or "{}")
    except ValueError:
        return Finding(False, f"{MACHINES} is no JSON", f"rm {MACHINES} && {named_for_asv(name)}")
    if not isinstance(known, dict) or name not in known:
        return Finding(False, f"asv does not know the machine {name}", named_for_asv(name))
    return Finding(True, f"asv knows the machine {name}")


def named_for_asv(name: str) -> str:
    return f".venv/bin/python -m asv machine --yes --machine '{name}'"


def remote(night: Settings) -> Finding:
    if not night.remote:
        return Finding(True, "no remote is set: results stay here")
    reason = unreachable(night.remote)
    if reason:
        do = f"git ls-remote '{night.remote}' must answer without a question; mend `remote` in nightly.toml or the key"
        return Finding(False, nameless(f"the remote cannot be read: {reason}"), nameless(do))
    return Finding(True, nameless(f"the remote {night.remote} answers"))


def unreachable(repository: str) -> str:
    """Why it cannot be read; empty if it can. Nothing is asked for: at night nobody is there to type a password."""
    quiet = os.environ | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    quiet.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    asked = ["git", "ls-remote", "--", repository, "HEAD"]
    try:
        done = subprocess.run(
            asked, stdin=subprocess.DEVNULL, capture_output=True, timeout=machine.COMMAND_SECONDS, env=quiet
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {machine.COMMAND_SECONDS} s"
    except OSError as error:
        return f"git does not run: {error.strerror}"
    if done.returncode == 0:
        return ""
    return command.one_line(done.stderr.decode(errors="replace")) or "no reason given"


def nameless(text: str) -> str:
    """`text` without the user names and tokens of its addresses."""
    return re.sub(r"//[^/@\s']+@", "//", command.one_line(text))


def results(folder: Path) -> Finding:
    if not folder.is_dir():
        return Finding(False, f"there is no folder {folder}", f"mkdir {folder}")
    if not os.access(folder, os.W_OK):
        return Finding(False, f"{folder} cannot be written", f"sudo chown -R {getpass.getuser()} {folder}")
    return Finding(True, f"{folder} can be written")


def one_night(commands: list[list[str]]) -> Finding:
    """From the command lines of all processes: whatever checkout a night runs in, the machine is the same."""
    under_way = any("scripts.nightly" in words for words in commands)
    if under_way:
        return Finding(False, "a night is under way on this machine", "wait until it ends, then look again")
    return Finding(True, "no night is under way")


def command_lines() -> list[list[str]]:
    return [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]


def of_a_night(name: str) -> Look:
    """The check of that name, as a night makes it, but looked at once and not waited for."""

    def look(night: Settings) -> Finding:
        check = getattr(night.checks, name)
        found = preflight.CHECKS[name](check)
        if found.fit is not False:
            return Finding(found.fit, found.says)
        if check.then == "pass":
            return Finding(True, f"{found.says} (the settings let it pass)")
        follows = "a night would measure nothing" if check.then == "refuse" else "its results would be marked"
        return Finding(False, f"{found.says}: {follows}", MEND[name])

    return look


# A Mac


def preference(*words: str) -> str | None:
    """What `defaults` reads; empty if it is not set, None if there is no `defaults`."""
    return machine.output("defaults", *words).strip() if shutil.which("defaults") else None


def switched(text: str | None) -> bool | None:
    return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get((text or "").lower())


def command_line_tools(path: str) -> Finding:
    """From `xcode-select -p`, which fails where there are none."""
    if not path.strip():
        return Finding(False, "no command line tools", "xcode-select --install")
    return Finding(True, path.strip()) if path.startswith("/") else NOT_TOLD


def native(architecture: str, translated: str) -> Finding:
    """From Python's own architecture and `sysctl -n sysctl.proc_translated`, which an Intel Mac does not know."""
    if architecture == "arm64":
        return Finding(True, "Python is native, arm64")
    if translated.strip() == "1":
        install = "install an arm64 Python (python.org or Homebrew), then: rm -r .venv && make setup PYTHON=PATH"
        return Finding(False, "Python runs under Rosetta", install)
    if architecture == "x86_64":
        return Finding(False, "an Intel Mac: MLX has no GPU here", "take a Mac with Apple silicon")
    return NOT_TOLD


def power_settings(custom: str, in_use: str) -> dict[str, int]:
    """What holds on mains: of `pmset -g custom`, or of `pmset -g` where that has no mains; SleepDisabled of the latter.

    A line is a name and a number, and may end with a remark: `sleep 1 (sleep prevented by powerd)`.
    """
    mains = re.search(r"^AC Power:[^\n]*\n(.*?)(?=^\S|\Z)", custom, re.MULTILINE | re.DOTALL)
    now = numbers(in_use)
    if not mains:
        return now
    return numbers(mains[1]) | {name: now[name] for name in ("SleepDisabled",) if name in now}


def numbers(text: str) -> dict[str, int]:
    return {name: int(number) for name, number in re.findall(r"^[ \t]*(\w+)[ \t]+(\d+)\b", text, re.MULTILINE)}


def power_now() -> dict[str, int]:
    return power_settings(machine.output("pmset", "-g", "custom"), machine.output("pmset", "-g"))


def power_setting(power: Mapping[str, int], name: str, wanted: int, why: str, needed: bool = True) -> Finding:
    """One of pmset's settings; what is not needed is advice only."""
    if name not in power:
        return Finding(None, f"pmset has no {name}")
    if power[name] == wanted:
        return Finding(True, f"{name} {wanted}")
    return Finding(not needed, f"{name} {power[name]}: {why}", f"sudo pmset -a {name} {wanted}")


def sleep(power: Mapping[str, int]) -> Finding:
    if power.get("SleepDisabled") == 1:
        return Finding(True, "SleepDisabled 1")
    return power_setting(power, "sleep", 0, "it sleeps after so many minutes")


def high_power(power: Mapping[str, int], capabilities: str) -> Finding:
    """From `pmset -g cap`, which names highpowermode; what is on is powermode 2, or highpowermode 1."""
    if "Capabilities" not in capabilities:
        return NOT_TOLD
    if "highpowermode" not in capabilities.split():
        return Finding(True, "this Mac has none")
    if power.get("powermode") == 2 or power.get("highpowermode") == 1:
        return Finding(True, "on")
    return Finding(True, "off: the fans wait longer", "sudo pmset -a powermode 2 (System Settings, Energy: High Power)")


def spotlight(text: str) -> Finding:
    """From `mdutil -s` of / and of the checkout's volume: either may answer `unknown indexing state` and be well."""
    if re.search(r"indexing enabled", text, re.IGNORECASE):
        return Finding(False, "Spotlight indexes", "sudo mdutil -a -i off")
    if re.search(r"(indexing|searching|server is) disabled", text, re.IGNORECASE):
        return Finding(True, "Spotlight does not index")
    return NOT_TOLD


def volume(text: str) -> str:
    """Where the volume is mounted, from `df -P PATH`; / if that is not told."""
    lines = text.strip().splitlines()
    found = re.search(r"\d+%\s+(/.*)$", lines[-1]) if lines else None
    return found[1] if found else "/"


def time_machine(automatic: str | None, destinations: str, status: str, excluded: str) -> Finding:
    """From the preference AutoBackup, which needs full disk access, and from tmutil's three answers."""
    if re.search(r"Running = 1\b", status):
        return Finding(False, "a backup runs now", "tmutil stopbackup; sudo tmutil disable")
    if excluded.startswith("[Excluded]"):
        return Finding(True, "the checkout is excluded")
    if switched(automatic) is False:
        return Finding(True, "no automatic backups")
    if "No destinations configured" in destinations:
        return Finding(True, "no backup disk")
    stop = f"sudo tmutil disable, or to keep backups: sudo tmutil addexclusion -p '{Path.cwd()}'"
    if switched(automatic):
        return Finding(False, "backs up by itself", stop)
    if re.search(r"^(Name|ID)\s*:", destinations, re.MULTILINE):
        return Finding(None, "there is a backup disk, perhaps it is used by itself", stop)
    return NOT_TOLD


def updates(install: str | None, download: str | None) -> Finding:
    """From the preferences; what is not set is on in recent versions of macOS."""
    if switched(install) is False and switched(download) is False:
        return Finding(True, "macOS does not update by itself")
    do = f"sudo defaults write {UPDATE} AutomaticallyInstallMacOSUpdates -bool false && "
    do += f"sudo defaults write {UPDATE} AutomaticDownload -bool false"
    if switched(install) or switched(download):
        return Finding(False, "macOS updates by itself, and starts again", do)
    if "" in (install, download):
        return Finding(False, "not set: macOS may update by itself", do)
    return NOT_TOLD


def login(filevault: str, automatic: str | None, user: str) -> Finding:
    """From `fdesetup status` and autoLoginUser: what launchd starts for a user waits until that user is logged in."""
    by_hand = "or log in at the screen after every restart"
    if "FileVault is On" in filevault:
        return Finding(
            False,
            "FileVault is on: after a restart nobody is logged in, and nothing is measured",
            f"sudo fdesetup disable, then System Settings, Users & Groups, Automatically log in as {user}; {by_hand}",
        )
    if automatic == user:
        return Finding(True, f"{user} is logged in after a restart")
    if automatic is None or (not automatic and "FileVault is Off" not in filevault):
        return NOT_TOLD
    says = (
        f"{automatic} is logged in after a restart, not {user}" if automatic else "nobody is logged in after a restart"
    )
    return Finding(False, says, f"System Settings, Users & Groups, Automatically log in as {user}; {by_hand}")


def account(groups: str) -> Finding:
    """From `id -Gn`."""
    if not groups.strip():
        return NOT_TOLD
    if "admin" in groups.split():
        new = "sudo sysadminctl -addUser bench -fullName Benchmarks -password - (and go on as that user)"
        return Finding(False, "this user is an administrator", new)
    return Finding(True, "a standard user")


def agent(listing: str) -> Finding:
    """From `launchctl list` or `launchctl print gui/ID`: lines of a process's number, a status and a label.

    A runner always has a process; the other has one while a night is under way.
    """
    ours = rf"^[ \t]*(\S+)[ \t]+\S+[ \t]+((?:{re.escape(RUNNER)}|{re.escape(LABEL)})\S*)[ \t]*$"
    processes = {label: number for number, label in sorted(re.findall(ours, listing, re.MULTILINE))}
    if not processes:
        known = "PID" in listing or listing.startswith("gui/")
        return Finding(False, "nothing starts the nights", START) if known else NOT_TOLD
    stopped = [label for label, number in processes.items() if label != LABEL and number in ("-", "0")]
    if stopped:
        do = f"./svc.sh start in the runner's folder; its log is in ~/Library/Logs/{stopped[0]}"
        return Finding(False, f"{stopped[0]} does not run", do)
    once = f"launchctl bootout gui/$(id -u)/{LABEL}, if the runner measures as well"
    return Finding(True, " and ".join(sorted(processes)), once if len(processes) > 1 and LABEL in processes else "")


def session(manager: str, gui: str) -> Finding:
    """From `launchctl managername` and `launchctl print gui/ID`, which only answers where that user is logged in."""
    if manager.strip() == "Aqua":
        return Finding(True, "a GUI session")
    if not manager.strip():
        return NOT_TOLD
    if gui.startswith("gui/"):
        return Finding(True, f"{manager.strip()} here, but the user is logged in at the screen as well")
    says = f"{manager.strip()}: this user is not logged in at the screen"
    return Finding(False, says, "log in at the screen, or by Screen Sharing; ssh alone starts no LaunchAgent")


def screen_saver(idle: str | None) -> Finding:
    """From the preference idleTime, in seconds; where it is not set, macOS has a delay of its own."""
    do = "defaults -currentHost write com.apple.screensaver idleTime -int 0"
    if idle == "0":
        return Finding(True, "off")
    if idle == "":
        return Finding(False, "not set: it may start", do)
    if idle and idle.isdecimal():
        return Finding(False, f"starts after {int(idle) / 60:g} min", do)
    return NOT_TOLD


def host_name(night: Settings) -> Finding:
    if night.machine:
        return Finding(True, f"the settings name it {night.machine}")
    advice = 'machine = "NAME" in nightly.toml: a Mac\'s host name can change with the network'
    return Finding(True, f"not named; the host name is {platform.node()}", advice)


def keeps_awake(path: str | None) -> Finding:
    if path:
        return Finding(True, "a night is kept awake by caffeinate")
    return Finding(False, "there is no caffeinate", "put /usr/bin on PATH")


def gui() -> str:
    return machine.output("launchctl", "print", f"gui/{os.getuid()}")


# Linux


def tools(missing: list[str]) -> Finding:
    if missing:
        return Finding(False, f"not on PATH: {', '.join(missing)}", f"sudo apt install {' '.join(missing)}")
    return Finding(True, "g++ and make are there")


def governor(text: str) -> Finding:
    if not text:
        return NOT_TOLD
    if text == "performance":
        return Finding(True, text)
    return Finding(False, f"{text}: the clock follows the load", "sudo cpupower frequency-set -g performance")


def turbo(no_turbo: str, boost: str) -> Finding:
    """From intel_pstate/no_turbo, or cpufreq/boost of other drivers: noted only, either way is a machine's own."""
    on = {"0": True, "1": False}.get(no_turbo, {"1": True, "0": False}.get(boost))
    if on is None:
        return NOT_TOLD
    file = "intel_pstate/no_turbo" if no_turbo else "cpufreq/boost"
    steady = f"steadier without: echo {1 if no_turbo else 0} | sudo tee {CPU / file}"
    return Finding(True, "on", steady) if on else Finding(True, "off")


def sleep_targets(text: str) -> Finding:
    """From `systemctl show --property=LoadState` of several units; is-enabled fails for a masked one."""
    states = re.findall(r"^LoadState=(.+)$", text, re.MULTILINE)
    if not states:
        return NOT_TOLD
    if set(states) <= {"masked", "not-found"}:
        return Finding(True, "masked")
    return Finding(False, "this machine may sleep", f"sudo systemctl mask {' '.join(SLEEP)}")


def upgrades(text: str) -> Finding:
    """From `systemctl show --property=ActiveState` of apt's timers."""
    states = re.findall(r"^ActiveState=(.+)$", text, re.MULTILINE)
    if not states:
        return NOT_TOLD
    if "active" in states:
        return Finding(False, "apt upgrades by itself", f"sudo systemctl disable --now {' '.join(APT)}")
    return Finding(True, "apt does nothing by itself")


def scheduled(units: str, timers: str, table: str, told: bool) -> Finding:
    """From systemctl's units, the user's timers and `crontab -l`; `told` is whether any of them can answer."""
    found = re.findall(rf"^\W*({re.escape(RUNNER)}\S+|adamw-nightly\.timer)", units, re.MULTILINE)
    found += ["adamw-nightly.timer"] if "adamw-nightly.timer" in timers else []
    entries = [line for line in table.splitlines() if not line.lstrip().startswith("#")]
    found += ["crontab"] if any("scripts.nightly" in line for line in entries) else []
    if found:
        return Finding(True, ", ".join(dict.fromkeys(found)))
    if not told:
        return NOT_TOLD
    return Finding(False, "nothing starts the nights", "crontab -e, with the line of NIGHTLY.md, or install a runner")


def swap(total: int) -> Finding:
    """`total` in bytes; noted only."""
    if not total:
        return Finding(True, "no swap")
    advice = "steadier without: sudo swapoff -a; a night then ends what takes too much memory"
    return Finding(True, f"{total / 1e9:.1f} GB of swap", advice)


def shown(field: str, units: tuple[str, ...]) -> str:
    return machine.output("systemctl", "show", f"--property={field}", *units)


def schedule_now() -> Finding:
    listed = ("--all", "--plain", "--no-legend")
    return scheduled(
        machine.output("systemctl", "list-units", *listed, f"{RUNNER}*", "adamw-nightly.timer"),
        machine.output("systemctl", "--user", "list-units", *listed, "adamw-nightly.timer"),
        machine.output("crontab", "-l"),
        Path("/run/systemd/system").is_dir() or bool(shutil.which("crontab")),
    )


EVERYWHERE: Mapping[str, Look] = {
    "python": lambda night: python(sys.version_info[:3]),
    "git": lambda night: repository(
        machine.output("git", "--version"), machine.output("git", "rev-parse", "--is-shallow-repository")
    ),
    "environment": lambda night: environment(),
    "asv's machine": lambda night: asv_machine(text_of(MACHINES), night.machine or platform.node()),
    **{name: of_a_night(name) for name in preflight.CHECKS},
    "remote": remote,
    "results": lambda night: results(Path("results")),
    "one night": lambda night: one_night(command_lines()),
}

MAC: Mapping[str, Look] = {
    "awake": lambda night: keeps_awake(shutil.which("caffeinate")),
    "command line tools": lambda night: command_line_tools(machine.output("xcode-select", "-p")),
    "native": lambda night: native(platform.machine(), machine.output("sysctl", "-n", "sysctl.proc_translated")),
    "host name": host_name,
    "sleep": lambda night: sleep(power_now()),
    "disk sleep": lambda night: power_setting(power_now(), "disksleep", 0, "the disk is stopped"),
    "display sleep": lambda night: power_setting(
        power_now(), "displaysleep", 0, "the display is put out", needed=False
    ),
    "power nap": lambda night: power_setting(power_now(), "powernap", 0, "it works by itself while it sleeps"),
    "power failure": lambda night: power_setting(power_now(), "autorestart", 1, "it stays off after a power failure"),
    "wake by network": lambda night: power_setting(
        power_now(), "womp", 1, "it cannot be woken from afar", needed=False
    ),
    "high power": lambda night: high_power(power_now(), machine.output("pmset", "-g", "cap")),
    "spotlight": lambda night: spotlight(
        "".join(machine.output("mdutil", "-s", each) for each in {"/", volume(machine.output("df", "-P", "."))})
    ),
    "time machine": lambda night: time_machine(
        preference("read", "/Library/Preferences/com.apple.TimeMachine", "AutoBackup"),
        machine.output("tmutil", "destinationinfo"),
        machine.output("tmutil", "status"),
        machine.output("tmutil", "isexcluded", str(Path.cwd())),
    ),
    "updates": lambda night: updates(
        preference("read", UPDATE, "AutomaticallyInstallMacOSUpdates"), preference("read", UPDATE, "AutomaticDownload")
    ),
    "login": lambda night: login(
        machine.output("fdesetup", "status"),
        preference("read", "/Library/Preferences/com.apple.loginwindow", "autoLoginUser"),
        getpass.getuser(),
    ),
    "account": lambda night: account(machine.output("id", "-Gn")),
    "agent": lambda night: agent(machine.output("launchctl", "list") + gui()),
    "session": lambda night: session(machine.output("launchctl", "managername"), gui()),
    "screen saver": lambda night: screen_saver(preference("-currentHost", "read", "com.apple.screensaver", "idleTime")),
}

LINUX: Mapping[str, Look] = {
    "tools": lambda night: tools([name for name in ("g++", "make") if not shutil.which(name)]),
    "governor": lambda night: governor(text_of(CPU / "cpu0/cpufreq/scaling_governor")),
    "turbo": lambda night: turbo(text_of(CPU / "intel_pstate/no_turbo"), text_of(CPU / "cpufreq/boost")),
    "sleep": lambda night: sleep_targets(shown("LoadState", SLEEP)),
    "upgrades": lambda night: upgrades(shown("ActiveState", APT)),
    "schedule": lambda night: schedule_now(),
    "swap": lambda night: swap(psutil.swap_memory().total),
}


def checks(system: str) -> dict[str, Look]:
    """What is looked at on `system`, one of sys.platform's names."""
    return {**EVERYWHERE, **{"darwin": MAC, "linux": LINUX}.get(system, {})}


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("--settings", type=Path, default=SETTINGS, metavar="FILE", help=f"default: {SETTINGS}")
    parser.add_argument("--json", type=command.file_path, metavar="FILE", help="write the findings there as well")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else command.WIDTH)
    if not Path("asv.conf.json").is_file():
        raise command.UserError("there is no asv.conf.json here; run it in the root of the checkout")
    with command.busy("looking at this machine"):
        found = examine(options.settings)
    if options.json:
        command.write_json(options.json, [{"check": name, **one._asdict()} for name, one in found.items()])
    console.print(table(found))
    for heading, wanted in (("to do", False), ("advice", True)):
        steps = [(name, one.do) for name, one in found.items() if one.do and (one.fit is not False) == wanted]
        for line in [f"\n{heading}:", *(f"  {name}: {do}" for name, do in steps)] if steps else []:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 1 if any(one.fit is False for one in found.values()) else 0


def examine(path: Path) -> dict[str, Finding]:
    """What every check found, by its name; with the settings in `path`, or the usual ones if those cannot be read."""
    try:
        night, readable = settings.read(path), Finding(True, f"{path} can be read")
    except command.UserError as error:
        night, readable = Settings(), failed(error)
    found = {"settings": readable}
    for name, look in checks(sys.platform).items():
        try:
            found[name] = look(night)
        except command.UserError as error:
            found[name] = failed(error)
    return found


def table(found: Mapping[str, Finding]) -> Table:
    """A row a check: its name, whether it is as it should be, and what was found."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("check", "is"):
        shown.add_column(heading, no_wrap=True)
    shown.add_column("finding", overflow="fold")
    for name, one in found.items():
        state, style = {True: ("fine", ""), None: ("not told here", "dim"), False: ("to do", "bold")}[one.fit]
        shown.add_row(Text(name), Text(state, style), Text(one.says))
    return shown


if __name__ == "__main__":
    sys.exit(command.run(main))
