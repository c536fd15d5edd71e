"""Colours and what moves: only where somebody looks. What is read by a program or kept in a file is plain text."""

import ast
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import command
from scripts.nightly import steps

ROOT = Path(__file__).parent.parent
CURSOR = ("\x1b[?25l", "\x1b[2K", "\x1b[1A", "\x1b[?25h")

SHOWS = """
from rich.progress import track
from rich.table import Table
from scripts import command
console = command.console()
shown = Table("bold heading")
shown.add_row("a cell")
console.print(shown)
with command.busy("it takes a while"):
    list(track(range(3), "working", console=console, disable=not console.is_interactive))
"""

LOUD = [{name: "1"} for name in command.COLOURS] + [dict.fromkeys(command.COLOURS, "1")]


def shown(setting: dict[str, str], **where) -> subprocess.CompletedProcess:
    environment = command.uncoloured() | setting
    del environment["NO_COLOR"]
    return subprocess.run([sys.executable, "-c", SHOWS], cwd=ROOT, env=environment, **where)


@pytest.mark.parametrize("setting", LOUD, ids=lambda setting: " ".join(setting))
def test_in_a_pipe_nothing_moves_whatever_the_environment_asks_for(setting):
    done = shown(setting, capture_output=True, text=True, check=True)
    assert "a cell" in done.stdout
    assert "it takes a while" in done.stderr
    assert not [code for code in CURSOR if code in done.stdout + done.stderr]


def test_a_pipe_has_the_colours_that_were_asked_for():
    assert "\x1b[1m" in shown({"FORCE_COLOR": "1"}, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("setting", LOUD, ids=lambda setting: " ".join(setting))
def test_a_file_has_no_escape_codes_whatever_the_environment_asks_for(setting, tmp_path):
    with (tmp_path / "out").open("w") as out, (tmp_path / "errors").open("w") as errors:
        shown(setting, stdout=out, stderr=errors, check=True)
    assert "a cell" in (tmp_path / "out").read_text()
    assert "\x1b" not in (tmp_path / "out").read_text() + (tmp_path / "errors").read_text()


def test_on_a_terminal_it_moves():
    ours, theirs = pty.openpty()
    shown({"TERM": "xterm"}, stdout=theirs, stderr=theirs, check=True)
    os.close(theirs)
    said = b""
    try:
        while more := os.read(ours, 65536):
            said += more
    except OSError:  # Linux's end of a terminal
        pass
    os.close(ours)
    assert b"\x1b[?25l" in said


def test_every_command_takes_its_console_from_one_place():
    own = ("scripts/command.py", "scripts/nightly/counted.py")  # the latter's is in memory
    made = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / "scripts").rglob("*.py")
        if str(path.relative_to(ROOT)) not in own
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "Console"
    ]
    assert not made


@pytest.mark.parametrize("setting", LOUD, ids=lambda setting: " ".join(setting))
def test_what_a_step_of_a_night_printed_is_plain_text(setting, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    done = steps.run("scripts.triage", "--results", "results")
    assert done.code == 0
    assert done.lines
    assert "\x1b" not in "".join(done.lines + done.errors)


@pytest.mark.parametrize(
    "text", ["\x1b[1;31mred\x1b[0m", "\x1b]0;title\x07red", "\x1b[38;5;9mred\x1b[K", "\x1b[2K\x1b[1Ared", "\x1b(Bred"]
)
def test_of_anothers_coloured_line_the_words_are_left(text):
    assert command.one_line(text) == "red"
