"""What keeps a machine from a green night is found in recorded output of its commands, and it is said what to type."""

import json
import os
import plistlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness import host, machine
from benchmarks.harness.host import HERE, commands
from benchmarks.harness.host.macos import low_power_mode
from scripts import command
from scripts.doctor import __main__ as main
from scripts.doctor import everywhere, finding, linux, macos, repository
from scripts.nightly import night, preflight
from scripts.nightly.settings import Check, Checks, Settings

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "NIGHTLY.md").read_text()
PLIST = ROOT / "scripts" / "nightly" / "adamw.nightly.plist"

CUSTOM_LAPTOP = """Battery Power:
 Sleep On Power Button 1
 lowpowermode         1
 powernap             1
 displaysleep         2
 womp                 0
 sleep                1
 disksleep            10
AC Power:
 Sleep On Power Button 1
 lowpowermode         0
 standby              1
 hibernatefile        /var/vm/sleepimage
 powernap             0
 displaysleep         10
 womp                 1
 networkoversleep     0
 sleep                0
 disksleep            10
"""
CUSTOM_MINI = """AC Power:
 Sleep On Power Button 1
 autorestart          1
 lowpowermode         0
 standby              0
 ttyskeepawake        1
 hibernatemode        0
 powernap             0
 hibernatefile        /var/vm/sleepimage
 displaysleep         0
 womp                 1
 networkoversleep     0
 sleep                0
 tcpkeepalive         1
 disksleep            0
"""
IN_USE = """System-wide power settings:
 SleepDisabled\t\t0
Currently in use:
 standby              1
 Sleep On Power Button 1
 autorestart          0
 powernap             1
 networkoversleep     0
 disksleep            10
 sleep                1 (sleep prevented by powerd, caffeinate)
 displaysleep         10
 lowpowermode         0
 womp                 0
"""
AGENTS = """PID\tStatus\tLabel
-\t0\tcom.apple.SafariHistoryServiceAgent
412\t0\tcom.apple.Finder
733\t0\tactions.runner.owner-repository.mini
-\t78\tadamw.nightly
"""
DOMAIN = """gui/502 = {
\ttype = login
\tsession = 100018
\tservices = {
\t\t       0      - \tcom.apple.mdworker.shared
\t\t     733      - \tactions.runner.owner-repository.mini
\t}
\tdisabled services = {
\t\t"adamw.nightly" => disabled
\t}
}
"""
BACKUPS = """====================================================
Name          : Backups
Kind          : Local
Mount Point   : /Volumes/Backups
ID            : 0394DD36-E843-40C4-84D6-56877D3052CD
"""
IDLE = """Backup session status:
{
    ClientID = "com.apple.backupd";
    Percent = "-1";
    Running = 0;
}
"""
DF = """Filesystem     512-blocks      Used Available Capacity  Mounted on
/dev/disk3s5    965595304 384105224 567895216    41%    /System/Volumes/Data
"""
NO_GOOD = ("", "zsh: command not found", "\x00\ufffd", "{}", "= 1 1 1 =")
"""What a command may answer that no check may trip over: nothing, and what tells nothing."""

APPLE = "/Library/Preferences/com.apple."
GOOD_MAC = {
    "git --version": "git version 2.39.5 (Apple Git-154)",
    "xcode-select -p": "/Library/Developer/CommandLineTools\n",
    "sysctl -n sysctl.proc_translated": "0\n",
    "pmset -g": CUSTOM_MINI.replace("AC Power:", "System-wide power settings:\nCurrently in use:"),
    "pmset -g custom": CUSTOM_MINI,
    "pmset -g cap": "Capabilities for AC Power:\n displaysleep\n sleep\n lowpowermode\n",
    "notifyutil -g com.apple.system.thermalpressurelevel": "com.apple.system.thermalpressurelevel 0",
    "df -P .": DF,
    "mdutil -s /": "/:\n\tIndexing disabled. \n",
    "mdutil -s /System/Volumes/Data": "/System/Volumes/Data:\n\tError: unknown indexing state.\n",
    f"defaults read {APPLE}TimeMachine AutoBackup": "0\n",
    "tmutil status": IDLE,
    f"defaults read {APPLE}SoftwareUpdate AutomaticallyInstallMacOSUpdates": "0\n",
    f"defaults read {APPLE}SoftwareUpdate AutomaticDownload": "0\n",
    "fdesetup status": "FileVault is Off.\n",
    f"defaults read {APPLE}loginwindow autoLoginUser": "bench\n",
    "id -Gn": "staff everyone localaccounts com.apple.access_screensharing\n",
    "launchctl list": AGENTS,
    "launchctl managername": "Aqua\n",
    f"launchctl print gui/{os.getuid()}": DOMAIN,
    "defaults -currentHost read com.apple.screensaver idleTime": "0\n",
}
BAD_MAC = {
    "git --version": "",
    "xcode-select -p": "",
    "pmset -g": IN_USE.replace("lowpowermode         0", "lowpowermode         1"),
    "pmset -g custom": "",
    "pmset -g cap": "Capabilities for AC Power:\n sleep\n lowpowermode\n highpowermode\n",
    "notifyutil -g com.apple.system.thermalpressurelevel": "com.apple.system.thermalpressurelevel 2",
    "df -P .": DF,
    "mdutil -s /": "/:\n\tIndexing enabled. \n",
    "tmutil destinationinfo": BACKUPS,
    f"defaults read {APPLE}TimeMachine AutoBackup": "1\n",
    "tmutil status": IDLE,
    f"defaults read {APPLE}SoftwareUpdate AutomaticallyInstallMacOSUpdates": "1\n",
    f"defaults read {APPLE}SoftwareUpdate AutomaticDownload": "1\n",
    "fdesetup status": "FileVault is On.\n",
    "id -Gn": "staff everyone localaccounts admin _appserverusr\n",
    "launchctl list": "PID\tStatus\tLabel\n412\t0\tcom.apple.Finder\n",
    "launchctl managername": "Background\n",
}


class Mac:
    """Its commands answer what was recorded; one that is not recorded answers nothing."""

    def __init__(self, monkeypatch):
        self.answers: dict[str, str] = dict(GOOD_MAC)
        self.architecture = "arm64"
        monkeypatch.setattr(commands, "output", lambda *words: self.answers.get(" ".join(words), ""))
        for module in (main, machine, preflight):
            monkeypatch.setattr(module, "HERE", host.Mac(lambda *words: commands.output(*words)))
        monkeypatch.setattr(everywhere.platform, "machine", lambda: self.architecture)
        monkeypatch.setattr(macos.shutil, "which", lambda name: f"/usr/bin/{name}")
        monkeypatch.setattr(macos.getpass, "getuser", lambda: "bench")
        monkeypatch.setattr(everywhere, "command_lines", list)
        monkeypatch.setattr(everywhere, "environment", lambda: finding.Finding(True, "made"))
        monkeypatch.setattr(repository, "clone", lambda: finding.Finding(True, "whole"))
        monkeypatch.setattr(repository, "commits", lambda night: finding.Finding(True, "some"))
        for name in ("power", "load", "disk", "memory", "device", "clock"):
            monkeypatch.setitem(preflight.CHECKS, name, lambda check: preflight.Finding(True, "well"))


@pytest.fixture
def mac(at_root, monkeypatch, tmp_path) -> Mac:
    (tmp_path / "machines.json").write_text('{"mini": {}, "version": 1}')
    monkeypatch.setattr(everywhere, "MACHINES", tmp_path / "machines.json")
    (tmp_path / "mac.toml").write_text('machine = "mini"\n')
    monkeypatch.setattr(main, "SETTINGS", tmp_path / "mac.toml")
    return Mac(monkeypatch)


def fit(found: finding.Finding) -> bool | None:
    """Whether it is fit; and what is not must say what to do, in words of its own."""
    assert found.says
    assert found.fit is not False or (found.do and found.do != found.says)
    return found.fit


# The parsers


def test_the_settings_on_mains_are_taken_whatever_is_in_use():
    power = macos.power_settings(CUSTOM_LAPTOP, IN_USE)
    assert (power["sleep"], power["disksleep"], power["womp"], power["lowpowermode"]) == (0, 10, 1, 0)
    assert power["SleepDisabled"] == 0
    assert "autorestart" not in power  # a laptop has none, in whatever is in use
    assert macos.power_settings(CUSTOM_MINI, "")["autorestart"] == 1
    assert macos.power_settings("", IN_USE)["sleep"] == 1  # the remark behind it is no part of it
    assert macos.power_settings(CUSTOM_LAPTOP.replace("AC Power:", "UPS Power:"), "") == {}
    assert all(macos.power_settings(text, text) == {} for text in NO_GOOD)


def test_never_sleeps():
    assert fit(macos.sleep({"sleep": 0})) is True
    slept = macos.sleep({"sleep": 1, "SleepDisabled": 0})
    assert fit(slept) is False
    assert slept.do == "sudo pmset -a sleep 0"
    assert fit(macos.sleep({"sleep": 1, "SleepDisabled": 1})) is True
    assert fit(macos.sleep({})) is None


def test_a_power_setting_that_is_only_advised_is_fine():
    assert macos.power_setting({"displaysleep": 10}, "displaysleep", 0, "why", needed=False) == (
        True,
        "displaysleep 10: why",
        "sudo pmset -a displaysleep 0",
    )
    assert fit(macos.power_setting({"autorestart": 0}, "autorestart", 1, "why")) is False
    assert fit(macos.power_setting({}, "autorestart", 1, "why")) is None


def test_high_power_is_advice_where_there_is_one():
    able = "Capabilities for AC Power:\n lowpowermode\n highpowermode\n"
    assert macos.high_power({"powermode": 0}, able).do
    assert macos.high_power({"powermode": 0}, able).fit is True
    assert not macos.high_power({"powermode": 2}, able).do
    assert not macos.high_power({"highpowermode": 1}, able).do
    assert macos.high_power({}, "Capabilities for AC Power:\n lowpowermode\n").says == "this Mac has none"
    assert all(fit(macos.high_power({}, text)) is None for text in NO_GOOD)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/:\n\tIndexing enabled. \n", False),
        ("/System/Volumes/Data:\n\tIndexing enabled. Scan in progress.\n", False),
        ("/:\n\tIndexing disabled. \n/System/Volumes/Data:\n\tIndexing enabled. \n", False),
        ("/:\n\tIndexing disabled. \n/System/Volumes/Data:\n\tError: unknown indexing state.\n", True),
        ("/:\n\tIndexing and searching disabled.\n", True),
        ("Spotlight server is disabled.\n", True),
        ("/System/Volumes/Data:\n\tError: unknown indexing state.\n", None),
        *((text, None) for text in NO_GOOD),
    ],
)
def test_spotlight(text, expected):
    assert fit(macos.spotlight(text)) is expected


def test_the_volume_of_the_checkout():
    assert macos.volume(DF) == "/System/Volumes/Data"
    assert macos.volume(DF.replace("/System/Volumes/Data", "/Volumes/My Disk")) == "/Volumes/My Disk"
    assert all(macos.volume(text) == "/" for text in NO_GOOD)


@pytest.mark.parametrize(
    ("automatic", "destinations", "status", "excluded", "expected"),
    [
        ("0", BACKUPS, IDLE, "[Included]    /Users/bench/adamw\n", True),
        ("1", BACKUPS, IDLE, "[Included]    /Users/bench/adamw\n", False),
        ("1", BACKUPS, IDLE, "[Excluded]    /Users/bench/adamw\n", True),
        ("1", BACKUPS, IDLE.replace("Running = 0", "Running = 1"), "[Excluded]    /Users/bench/adamw\n", False),
        ("1", "tmutil: No destinations configured.\n", IDLE, "", True),
        ("", BACKUPS, IDLE, "", None),  # its preferences need full disk access
        (None, "", "", "", None),
        *((text, text, text, text, None) for text in NO_GOOD),
    ],
)
def test_time_machine(automatic, destinations, status, excluded, expected):
    assert fit(macos.time_machine(automatic, destinations, status, excluded)) is expected


@pytest.mark.parametrize(
    ("install", "download", "expected"),
    [
        ("0", "0", True),
        ("1", "0", False),
        ("0", "1", False),
        ("true", "0", False),
        ("", "0", False),  # what is not set may be on
        (None, None, None),
        ("what", "0", None),
    ],
)
def test_updates(install, download, expected):
    assert fit(macos.updates(install, download)) is expected


@pytest.mark.parametrize(
    ("filevault", "automatic", "expected"),
    [
        ("FileVault is Off.\n", "bench", True),
        ("FileVault is Off.\n", "", False),
        ("FileVault is Off.\n", "somebody", False),
        ("FileVault is On.\n", "", False),
        ("FileVault is On.\n", "bench", False),
        ("FileVault is On.\nEncryption in progress: Percent completed = 12\n", None, False),
        ("", "bench", True),
        *((text, "", None) for text in NO_GOOD),
        ("FileVault is Off.\n", None, None),
    ],
)
def test_somebody_is_logged_in_after_a_restart(filevault, automatic, expected):
    assert fit(macos.login(filevault, automatic, "bench")) is expected


@pytest.mark.parametrize(
    ("listing", "expected", "says"),
    [
        (AGENTS, True, "actions.runner.owner-repository.mini and adamw.nightly"),
        (AGENTS.replace("733\t", "-\t"), False, "actions.runner.owner-repository.mini does not run"),
        (DOMAIN, True, "actions.runner.owner-repository.mini"),  # a service that is disabled is not loaded
        (DOMAIN.replace(" 733 ", " 0 "), False, "actions.runner.owner-repository.mini does not run"),
        ("PID\tStatus\tLabel\n-\t0\tadamw.nightly\n", True, "adamw.nightly"),
        ("PID\tStatus\tLabel\n412\t0\tcom.apple.Finder\n", False, "nothing starts the nights"),
        *((text, None, finding.NOT_TOLD.says) for text in NO_GOOD if "=" not in text),
    ],
)
def test_what_starts_the_nights(listing, expected, says):
    found = macos.agent(listing)
    assert fit(found) is expected
    assert found.says == says


@pytest.mark.parametrize(
    ("manager", "gui", "expected"),
    [
        ("Aqua\n", "", True),
        ("Background\n", DOMAIN, True),
        ("Background\n", "", False),
        ("System\n", "Could not find domain for\n", False),
        ("", "", None),
    ],
)
def test_the_session(manager, gui, expected):
    assert fit(macos.session(manager, gui)) is expected


@pytest.mark.parametrize(
    ("architecture", "translated", "expected"),
    [("arm64", "0\n", True), ("x86_64", "1\n", False), ("x86_64", "", False), ("", "", None), ("arm64", "", True)],
)
def test_python_is_native(architecture, translated, expected):
    assert fit(macos.native(architecture, translated)) is expected
    assert ("Rosetta" in macos.native(architecture, translated).says) is (translated == "1\n")


@pytest.mark.parametrize(
    ("idle", "expected"), [("0", True), ("1200", False), ("", False), (None, None), ("never", None)]
)
def test_the_screen_saver(idle, expected):
    assert fit(macos.screen_saver(idle)) is expected


def test_a_preference_that_is_not_set_is_not_one_that_cannot_be_read(monkeypatch):
    monkeypatch.setattr(commands, "output", lambda *words: "")
    monkeypatch.setattr(macos.shutil, "which", lambda name: "/usr/bin/defaults")
    assert macos.preference("read", "domain", "key") == ""
    monkeypatch.setattr(macos.shutil, "which", lambda name: None)
    assert macos.preference("read", "domain", "key") is None


def test_small_checks_of_a_mac():
    assert fit(macos.command_line_tools("/Applications/Xcode.app/Contents/Developer\n")) is True
    assert fit(macos.command_line_tools("")) is False
    assert fit(macos.command_line_tools("garbage")) is None
    assert fit(macos.account("staff everyone com.apple.sharepoint.group.1\n")) is True
    assert fit(macos.account("staff admin\n")) is False
    assert fit(macos.account("staff _lpadmin\n")) is True
    assert fit(macos.account("")) is None
    assert fit(macos.keeps_awake("/usr/bin/caffeinate")) is True
    assert fit(macos.keeps_awake(None)) is False
    assert macos.host_name(Settings()).do
    assert not macos.host_name(Settings(machine="mini")).do


def test_linux():
    assert fit(linux.tools([])) is True
    assert linux.tools(["g++"]).do == "sudo apt install g++"
    assert [fit(linux.governor(text)) for text in ("performance", "powersave", "")] == [True, False, None]
    assert [linux.turbo(*files).says for files in (("0", ""), ("1", ""), ("", "1"), ("", "0"))] == [
        "on",
        "off",
        "on",
        "off",
    ]
    assert "no_turbo" in linux.turbo("0", "").do
    assert "boost" in linux.turbo("", "1").do
    assert fit(linux.turbo("", "")) is None
    masked = "LoadState=masked\n\nLoadState=not-found\n"
    assert [fit(linux.sleep_targets(text)) for text in (masked, masked + "\nLoadState=loaded\n")] == [True, False]
    timers = "ActiveState=inactive\n\nActiveState={}\n"
    assert [fit(linux.upgrades(timers.format(state))) for state in ("inactive", "active")] == [True, False]
    assert all(fit(check(text)) is None for check in (linux.sleep_targets, linux.upgrades) for text in NO_GOOD)
    assert not linux.swap(0).do
    assert (linux.swap(2**31).fit, bool(linux.swap(2**31).do)) == (True, True)


def test_what_starts_the_nights_on_linux():
    runner = "actions.runner.owner-repository.box.service loaded active running GitHub Actions Runner\n"
    timer = "adamw-nightly.timer loaded active waiting A night\n"
    assert linux.scheduled(runner, timer, "", True).says.startswith("actions.runner.owner-repository.box.service, ")
    assert fit(linux.scheduled("", "", "# 30 1 * * * python -m scripts.nightly", True)) is False
    assert fit(linux.scheduled("", "", "", True)) is False
    assert fit(linux.scheduled("", "", "", False)) is None
    (line,) = (line for line in PAGE.splitlines() if line.strip().startswith("30 1 * * *"))
    assert linux.scheduled("", "", line.strip(), True) == (True, "crontab", "")


# Every system


def test_python():
    assert fit(everywhere.python((3, 10, 13))) is False
    assert fit(everywhere.python((3, 11, 0))) is True


def test_the_environment_is_made_and_current(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text("requirements")
    Path("requirements.lock").write_text("their versions")
    assert everywhere.environment().says == ".venv is not made"
    Path(".venv").mkdir()
    Path(".venv/ready").write_text(everywhere.setup.stamp("cpu"))
    assert fit(everywhere.environment()) is True
    Path("pyproject.toml").write_text("other requirements")
    assert everywhere.environment().do == "make setup"
    assert fit(everywhere.environment()) is False


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"other": {}}'])
def test_asv_knows_the_machine(text):
    assert fit(everywhere.asv_machine('{"mini": {}, "version": 1}', "mini")) is True
    found = everywhere.asv_machine(text, "mini")
    assert fit(found) is False
    assert ".venv/bin/python -m asv machine --yes --machine 'mini'" in found.do


def test_the_remote_answers_or_it_is_said_why(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "--quiet", "--bare", str(tmp_path / "there")], check=True)
    assert fit(repository.remote(Settings())) is True
    assert fit(repository.remote(Settings(remote=str(tmp_path / "there")))) is True  # an empty one answers as well
    gone = repository.remote(Settings(remote=str(tmp_path / "gone")))
    assert fit(gone) is False
    assert "gone" in gone.says
    assert fit(repository.remote(Settings(remote="--upload-pack=touch mark"))) is False

    def late(*arguments, timeout=None, **options):
        if timeout is None:
            return subprocess.CompletedProcess(arguments, 1, b"", b"")
        raise subprocess.TimeoutExpired("git", timeout)

    monkeypatch.setattr(subprocess, "run", late)
    assert "no answer in" in repository.remote(Settings(remote="https://user:secret@example.org/r")).says


def test_results_that_a_forced_checkout_would_put_back_are_told(at_root):
    found = repository.tracked(Settings(machine="linux-x86-2core"))  # which come with the project
    assert fit(found) is False
    assert "git rm -r --cached 'results/linux-x86-2core" in found.do
    assert fit(repository.tracked(Settings(machine="mac"))) is True


def test_no_password_is_printed():
    text = "fatal: unable to access 'https://user:ghp_secret@example.org/r/'"
    assert repository.nameless(text) == "fatal: unable to access 'https://example.org/r/'"
    assert (
        repository.nameless("ssh://git@example.org/r and git@example.org:r")
        == "ssh://example.org/r and git@example.org:r"
    )


def test_results_can_be_written(tmp_path, monkeypatch):
    assert fit(everywhere.results(tmp_path)) is True
    assert fit(everywhere.results(tmp_path / "none")) is False
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert fit(everywhere.results(tmp_path)) is False


def test_another_night_is_seen_in_whatever_checkout():
    assert fit(everywhere.one_night([["/bin/bash", "-c", "vi scripts.nightly"], []])) is True
    assert fit(everywhere.one_night([["/elsewhere/.venv/bin/python", "-m", "scripts.nightly"]])) is False
    assert any("pytest" in " ".join(words) for words in everywhere.command_lines())


@pytest.mark.parametrize(("then", "expected"), [("pass", True), ("wait", False), ("degrade", False), ("refuse", False)])
def test_a_check_of_the_night_is_to_do_unless_the_settings_let_it_pass(then, expected, monkeypatch):
    monkeypatch.setitem(preflight.CHECKS, "disk", lambda check: preflight.Finding(False, "1.0 GB of disk free"))
    found = everywhere.of_a_night("disk")(Settings(checks=Checks(disk=Check(then))))
    assert fit(found) is expected
    assert ("measure nothing" in found.says) is (then == "refuse")


def test_every_check_of_a_night_has_something_to_do_about_it():
    assert set(everywhere.MEND) == set(preflight.CHECKS)
    assert all(set(preflight.CHECKS) <= set(main.checks(host)) for host in ("macOS", "Linux"))


# The command


def rows(printed: str) -> dict[str, str]:
    """What the table says of every check."""
    lines = printed.split("\n\n")[0].splitlines()
    return {
        found[1]: found[2] for line in lines if (found := re.match(r"(.+?)\s{2,}(fine|to do|not told here)\b", line))
    }


def test_it_runs_here_with_a_row_for_every_check(at_root, capsys):
    code = main.main([])
    shown = rows(capsys.readouterr().out)
    assert list(shown) == ["settings", *main.checks(HERE.name)]
    assert code == (1 if "to do" in shown.values() else 0)


def test_a_good_mac_is_fine(mac, capsys):
    assert main.main(["--settings", str(main.SETTINGS)]) == 0
    printed = capsys.readouterr().out
    shown = rows(printed)
    assert list(shown) == ["settings", *main.checks("macOS")]
    assert set(shown.values()) == {"fine"}
    assert "to do:" not in printed


def test_a_bare_mac_has_something_to_do_everywhere(mac, capsys):
    mac.answers, mac.architecture = BAD_MAC, "x86_64"
    assert main.main(["--settings", str(main.SETTINGS)]) == 1
    printed = capsys.readouterr().out
    wanting = [name for name, state in rows(printed).items() if state == "to do"]
    advised = {"host name", "display sleep", "wake by network", "high power"}
    assert set(macos.MAC) - set(wanting) == advised | {"awake"}
    assert {"git", "low_power", "thermal"} <= set(wanting)
    todo = printed.split("to do:\n")[1].split("\n\n")[0].splitlines()
    assert [line.split(":")[0].strip() for line in todo] == wanting  # each in one line, however long
    assert "sudo pmset -a displaysleep 0" in printed.split("advice:\n")[1]


@pytest.mark.parametrize("text", NO_GOOD)
def test_no_answer_of_a_mac_trips_it(text, mac, monkeypatch, capsys):
    monkeypatch.setattr(commands, "output", lambda *words: text)
    mac.architecture = text
    assert main.main([]) in (0, 1)
    assert list(rows(capsys.readouterr().out)) == ["settings", *main.checks("macOS")]


def test_a_virtual_gpu_is_to_do(mac, monkeypatch):
    says = "Apple Paravirtual device is a virtual machine's GPU, not the chip's"
    monkeypatch.setitem(preflight.CHECKS, "device", lambda check: preflight.Finding(False, says))
    assert fit(main.examine(main.SETTINGS)["device"]) is False


def test_settings_that_cannot_be_read_are_to_do_and_the_rest_is_looked_at(mac, tmp_path):
    (tmp_path / "wrong.toml").write_text("hour = 6.0")
    for name in ("wrong.toml", "none.toml"):
        found = main.examine(tmp_path / name)
        assert fit(found["settings"]) is False
        assert list(found) == ["settings", *main.checks("macOS")]


def test_a_check_that_raises_is_to_do(mac, monkeypatch):
    def broken(check):
        raise command.UserError("git is not installed; install it")

    monkeypatch.setitem(preflight.CHECKS, "clock", broken)
    assert main.examine(main.SETTINGS)["clock"] == (False, "git is not installed", "install it")


def test_the_findings_as_json(mac, tmp_path):
    mac.answers = BAD_MAC
    main.main(["--json", str(tmp_path / "doctor.json")])
    written = json.loads((tmp_path / "doctor.json").read_text())
    assert [one["check"] for one in written] == ["settings", *main.checks("macOS")]
    assert all(one["do"] for one in written if one["fit"] is False)


def test_exit_codes(mac, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command.signal, "signal", lambda *arguments: None)
    wanted = ["--settings", str(main.SETTINGS)]
    codes = {command.run(lambda: main.main(wanted))}
    mac.answers = BAD_MAC
    codes.add(command.run(lambda: main.main(wanted)))
    assert codes == {0, 1}

    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "examine", interrupted)
    codes.add(command.run(lambda: main.main(wanted)))
    with pytest.raises(SystemExit) as refused:
        main.main(["--json", str(tmp_path / "no" / "file.json")])
    assert refused.value.code == 2
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    codes.add(command.run(lambda: main.main([])))
    assert capsys.readouterr().err == "error: there is no asv.conf.json here; run it in the root of the checkout\n"
    documented = re.search(r"exit codes: (.*)", main.EPILOG)[1]
    assert codes == {int(code) for code in re.findall(r"(?:^|, )(\d+) ", documented)} == {0, 1, 2, 130}


def test_the_module_runs():
    done = subprocess.run([sys.executable, "-m", "scripts.doctor", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "exit codes: 0 all is fine" in done.stdout


# The page and the LaunchAgent


def test_the_page_names_every_exit_code_of_a_night_once():
    table = [line.split("|")[1] for line in PAGE.splitlines() if re.match(r"\| [\d, ]+ \|", line)]
    assert [int(code) for cell in table for code in cell.split(",")] == list(night.MEANINGS)


def test_what_the_page_names_in_the_repository_is_there():
    modules = set(re.findall(r"-m (scripts\.\w+)", PAGE))
    assert {"scripts.doctor", "scripts.nightly", "scripts.triage"} <= modules
    for module in modules:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or path.is_dir(), module
    files = set(re.findall(r"(?<![\w/~.-])(?:[\w.-]+/)*[\w.-]+\.(?:toml|plist|py|md|json)\b(?!\.)", PAGE))
    assert {"nightly.toml", "scripts/nightly/adamw.nightly.plist"} <= files
    assert [name for name in files if not (ROOT / name).exists()] == []
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"make (?!g\+\+)(\w+)", PAGE)) <= set(targets)


def test_the_pages_keys_are_the_settings_own():
    fields = {*Settings.__struct_fields__, *Check.__struct_fields__}
    assert {"machine", "expect", "remote"} == set(re.findall(r"`(\w+) = \"", PAGE)) <= fields
    assert "wait_minutes" in fields


def test_a_mac_set_as_the_page_says_passes(monkeypatch):
    (typed,) = re.findall(r"sudo pmset -a ((?:\w+ \d+ ?){5,})", PAGE)
    written = "AC Power:\n" + re.sub(r"(\w+) (\d+) ?", r" \1   \2\n", typed)
    monkeypatch.setattr(commands, "output", lambda *words: written)
    checks = ("sleep", "disk sleep", "display sleep", "power nap", "power failure", "wake by network")
    found = [macos.MAC[name](Settings()) for name in checks]
    assert [(one.fit, one.do) for one in found] == [(True, "")] * len(checks)
    assert low_power_mode(written) is False
    for what in ("AutomaticallyInstallMacOSUpdates", "AutomaticDownload"):
        assert f"sudo defaults write {macos.UPDATE} {what} -bool false" in PAGE
        assert f"sudo defaults write {macos.UPDATE} {what} -bool false" in macos.updates("1", "1").do
    for do in (macos.screen_saver("").do, macos.spotlight("Indexing enabled").do, macos.command_line_tools("").do):
        assert do in PAGE


def test_the_page_says_that_it_was_not_run_on_a_mac():
    assert "has not run any of this on a Mac" in " ".join(PAGE.split())[:400]


def test_the_launch_agent():
    agent = plistlib.loads(PLIST.read_bytes())
    assert agent["Label"] == finding.LABEL == PLIST.stem
    assert agent["StartCalendarInterval"] == {"Hour": 1, "Minute": 30}
    shell, flag, script = agent["ProgramArguments"]
    assert (shell, flag) == ("/bin/bash", "-c")
    assert subprocess.run(["bash", "-n", "-c", script]).returncode == 0
    assert script.endswith("make setup && exec .venv/bin/python -m scripts.nightly")
    assert script in PAGE  # systemd's is the same
    assert (agent["ProcessType"], agent["LowPriorityIO"], agent["ExitTimeOut"]) == ("Interactive", False, 30)
    checkout = agent["WorkingDirectory"]
    assert checkout == "/Users/bench/adamw"
    assert agent["StandardOutPath"] == agent["StandardErrorPath"] == f"{checkout}/.asv/nightly.log"
    assert set(agent) == {
        "Label",
        "ProgramArguments",
        "WorkingDirectory",
        "StartCalendarInterval",
        "ProcessType",
        "LowPriorityIO",
        "StandardOutPath",
        "StandardErrorPath",
        "ExitTimeOut",
    }


def test_the_pages_command_puts_the_checkout_into_the_launch_agent():
    (sed,) = re.findall(r"sed -i '' \"(s\|\S+\|g)\"", PAGE)
    _, old, new, _ = sed.split("|")
    assert new == "$PWD"
    edited = str(plistlib.loads(PLIST.read_bytes().replace(old.encode(), b"/elsewhere")))
    assert edited.count("/elsewhere") == 3
    assert "bench" not in edited
