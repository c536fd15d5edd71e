"""What is looked at on a Mac: pure functions of what its commands print."""

import getpass
import os
import platform
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness.host import commands
from scripts.doctor.finding import LABEL, NOT_TOLD, RUNNER, Finding, Look
from scripts.nightly.settings import Settings

START = (
    "./svc.sh install && ./svc.sh start, in a runner's folder; or cp scripts/nightly/adamw.nightly.plist "
    "~/Library/LaunchAgents/, edit it, launchctl bootstrap gui/$(id -u) ~/Library/LaunchAgents/adamw.nightly.plist"
)
"""What makes a Mac start its nights."""

UPDATE = "/Library/Preferences/com.apple.SoftwareUpdate"


def preference(*words: str) -> str | None:
    """What `defaults` reads; empty if it is not set, None if there is no `defaults`."""
    return commands.output("defaults", *words).strip() if shutil.which("defaults") else None


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
    return power_settings(commands.output("pmset", "-g", "custom"), commands.output("pmset", "-g"))


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
    return commands.output("launchctl", "print", f"gui/{os.getuid()}")


MAC: Mapping[str, Look] = {
    "awake": lambda night: keeps_awake(shutil.which("caffeinate")),
    "command line tools": lambda night: command_line_tools(commands.output("xcode-select", "-p")),
    "native": lambda night: native(platform.machine(), commands.output("sysctl", "-n", "sysctl.proc_translated")),
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
    "high power": lambda night: high_power(power_now(), commands.output("pmset", "-g", "cap")),
    "spotlight": lambda night: spotlight(
        "".join(commands.output("mdutil", "-s", each) for each in {"/", volume(commands.output("df", "-P", "."))})
    ),
    "time machine": lambda night: time_machine(
        preference("read", "/Library/Preferences/com.apple.TimeMachine", "AutoBackup"),
        commands.output("tmutil", "destinationinfo"),
        commands.output("tmutil", "status"),
        commands.output("tmutil", "isexcluded", str(Path.cwd())),
    ),
    "updates": lambda night: updates(
        preference("read", UPDATE, "AutomaticallyInstallMacOSUpdates"), preference("read", UPDATE, "AutomaticDownload")
    ),
    "login": lambda night: login(
        commands.output("fdesetup", "status"),
        preference("read", "/Library/Preferences/com.apple.loginwindow", "autoLoginUser"),
        getpass.getuser(),
    ),
    "account": lambda night: account(commands.output("id", "-Gn")),
    "agent": lambda night: agent(commands.output("launchctl", "list") + gui()),
    "session": lambda night: session(commands.output("launchctl", "managername"), gui()),
    "screen saver": lambda night: screen_saver(preference("-currentHost", "read", "com.apple.screensaver", "idleTime")),
}
