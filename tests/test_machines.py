"""What a machine can be called: one rule, whoever takes the name."""

import json
import os
import re
import shlex
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import synthetic

from scripts import bench, calibrate, command, confirm, history, machines, measuring, releases, share, triage
from scripts.doctor import everywhere
from scripts.nightly import __main__ as nightly
from scripts.report import releases as report_releases

ROOT = Path(__file__).parent.parent

WORK = [
    "mac-mini", "Mac Studio", "Alice\u2019s Mac Studio", "The Lab's-Mac", "mac (2)", "mac.local", "büro", "実験室",
    "a&b; $(touch x) `id` ~", "{mac}", "50%", "#1", "é" * 50, "_", "results", "v1",
]  # fmt: skip

REFUSED = {
    "": "empty", " mac": "space", "mac ": "space", "Mac  Studio": "space", "Mac\xa0Studio": r"U\+00A0",
    "a/b": "'/'", "..": "begins", ".git": "begins", "-mac": "begins", "mac.": "ends", "a\\b": "'",
    "Unknown_00:11:22:33:44:55": "':'", "mac*": r"'\*'", "mac[1]": r"'\['", 'a"b': "'\"'", "a\nb": r"U\+000A",
    "a\x1b[31m": r"U\+001B", "a\u202eb": r"U\+202E", "a\udce4": r"U\+DCE4", "x" * 101: "longer", "é" * 51: "longer",
    unicodedata.normalize("NFD", "büro"): "accents", "mlx": "taken", "MLX": "taken", "version": "taken",
    "gpu": "taken", "benchmarks.json": "taken", "GIT~1": "taken",
}  # fmt: skip


@pytest.mark.parametrize("name", WORK)
def test_a_name_that_is_a_folder_everywhere_is_taken_as_it_is(name, tmp_path):
    assert machines.named(name) == name
    assert command.one_line(name) == name  # as every report shows it
    (tmp_path / name).mkdir()
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_any_other_is_refused_in_one_line_with_the_reason_and_a_name_that_would_do(name, reason):
    with pytest.raises(command.UserError, match=reason) as error:
        machines.named(name)
    told = str(error.value)
    assert told.isprintable() or "\xa0" in told
    assert told.encode()
    offered = told.rpartition("; '")[2].removesuffix("' would do")
    assert machines.named(offered) == offered


@pytest.mark.parametrize("lane", ["", "mlx"])
def test_nothing_that_comes_with_the_project_is_left_out(lane):
    folders, left_out = machines.folders(ROOT / "results" / lane)
    assert folders
    assert left_out == []


def test_a_machine_without_a_name_is_called_as_its_host_if_that_is_one(monkeypatch):
    monkeypatch.setattr(machines.platform, "node", lambda: "mac.local")
    assert (machines.this(), machines.this(""), machines.this("Mac Studio")) == ("mac.local", "mac.local", "Mac Studio")
    monkeypatch.setattr(machines.platform, "node", lambda: "00:11")
    with pytest.raises(command.UserError, match="no machine can be called '00:11'"):
        machines.this()


def test_folders_with_results_are_a_machines_or_are_told(tmp_path):
    for name, files in {
        "Mac Studio": ["machine.json"], "mac*": ["machine.json"], "lost": ["0123abcd-env.json"], "empty": [],
        "mlx": ["benchmarks.json"], "notes": ["read.txt"],
    }.items():  # fmt: skip
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("{}")
    (tmp_path / "benchmarks.json").write_text("{}")
    found, left_out = machines.folders(tmp_path)
    assert [folder.name for folder in found] == ["Mac Studio"]
    assert len(left_out) == 2
    assert f"{tmp_path / 'lost'}: it has results, but no machine.json" in left_out[0]
    assert "no machine can be called 'mac*'" in left_out[1]
    assert machines.folders(tmp_path / "none") == ([], [])


def asv_knows(monkeypatch, folder, text: str) -> None:
    monkeypatch.setenv("HOME", str(folder))
    (folder / ".asv-machine.json").write_text(text)


def test_a_machine_that_asv_calls_otherwise_is_no_folder_to_measure_into(tmp_path, monkeypatch):
    asv_knows(monkeypatch, tmp_path, json.dumps({"version": 1, "Ann's Mac": {"machine": "other"}}))
    with pytest.raises(command.UserError, match="another machine's folder") as error:
        measuring.check_machine("Ann's Mac")
    typed = str(error.value).partition("json, ")[2]
    words = shlex.split(typed.replace(".venv/bin/python", sys.executable))
    assert words[-1] == "Ann's Mac"
    subprocess.run(words, check=True, capture_output=True, cwd=ROOT)
    measuring.check_machine("Ann's Mac")


@pytest.mark.parametrize("name", ["mac*", "-mac", "Unknown_00:11"])
def test_whoever_measures_asks_the_rule_before_anything_is_done(name, monkeypatch, tmp_path):
    asv_knows(monkeypatch, tmp_path, "{")
    monkeypatch.chdir(ROOT)
    settings = tmp_path / "nightly.toml"
    settings.write_text(f'machine = "{name}"\n')
    given = f"--machine={name}"
    for main, arguments in (
        (bench.main, [given]), (calibrate.main, [given]), (confirm.main, [given]), (releases.main, [given]),
        (share.main, ["push", given]), (nightly.main, [given, "--dry-run"]),
        (nightly.main, ["--settings", str(settings), "--dry-run"]),
    ):  # fmt: skip
        with pytest.raises(command.UserError, match=f"no machine can be called '{re.escape(name)}'"):
            main(arguments)
    found = everywhere.asv_machine("{}", name)
    assert found.fit is False
    assert machines.allowed(name) in found.do


def test_only_a_file_that_is_no_json_is_to_be_mended(tmp_path, monkeypatch):
    asv_knows(monkeypatch, tmp_path, "{")
    with pytest.raises(command.UserError, match=r"JSON.*; mend ~/.asv-machine.json"):
        measuring.check_machine("mac")
    failed = subprocess.CompletedProcess([], 1, "", "the disk is full")
    monkeypatch.setattr(measuring.subprocess, "run", lambda *arguments, **more: failed)
    with pytest.raises(command.UserError, match=r"cannot describe this machine: the disk is full$"):
        measuring.check_machine("mac")


def test_whoever_reads_results_tells_which_folders_are_left_out(tmp_path):
    made = synthetic.History(tmp_path, 2)
    for number in range(2):
        made.add(number, {synthetic.SECONDS: {"compiled/float32/two_leaves": 1.0}}, "Ann's Mac Studio")
    for name in ("mac*", "lost", "mlx/a:b"):
        (made.results / name).mkdir(parents=True)
    for name in ("mac*/machine.json", "lost/0123abcd-env.json", "mlx/a:b/releases.jsonl"):
        (made.results / name).write_text("{}")
    known = history.read(history.configuration(made.config), made.results)
    assert set(known.runs["machine"]) == {"Ann's Mac Studio"}
    for problems in (known.problems, triage.remembered(made.results, None)[1]):
        told = "\n".join(problems)
        assert "no machine can be called 'mac*'" in told
        assert "lost: it has results, but no machine.json" in told
    with pytest.raises(command.UserError, match=f"no results below {made.results / 'lost'}; name another --results"):
        triage.remembered(made.results / "lost", None)
    (made.results / "deeper" / "mac:1").mkdir(parents=True)
    (made.results / "deeper" / "mac:1" / "machine.json").write_text("{}")
    with pytest.raises(command.UserError, match=r"no results below .*: no machine can be called 'mac:1'"):
        triage.remembered(made.results / "deeper", None)
    assert triage.remembered(made.results, "Ann's Mac Studio") == ([], [])
    assert "no machine can be called 'a:b'" in "\n".join(report_releases.left_out(made.results))
    assert report_releases.gather(made.results) == []
