"""The table shows what was measured, on what, against what; the commands answer mistakes in one line."""

import json
import subprocess
import sys
from pathlib import Path

import here
import ledgers
import numpy as np
import pytest
from ledgers import MACHINE, entry
from rich.console import Console

from benchmarks.harness import cases, files
from scripts import command, git, ledger, measuring, table


def written(folder: Path, *entries: ledger.Entry, machine: dict = MACHINE) -> Path:
    path = folder / "mac" / "01234567-env.jsonl"
    path.parent.mkdir(exist_ok=True)
    ledgers.add(path, ledger.with_ceiling([machine, *entries]))
    return path


def shown(report: table.Report) -> list[str]:
    console = Console(width=table.WIDTH, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    table.show(report, console)
    return console.export_text().splitlines()


def test_the_figures_of_a_row(tmp_path):
    report = table.Report(written(tmp_path, entry("compiled/float32/gpt2", 0.0205)))
    row = report.frame().iloc[0]
    assert row.gigabytes_per_second == pytest.approx(124_439_808 * 28 / 0.0205 / 1e9)
    assert row.ceiling_fraction == pytest.approx(row.gigabytes_per_second / 340)
    assert row.milliseconds == pytest.approx(20.5)
    assert row.notes == ""


def test_above_the_ceiling_is_cache_resident_never_fast(tmp_path):
    report = table.Report(written(tmp_path, entry("compiled/float32/gpt2", 0.005)))
    assert report.frame().iloc[0].ceiling_fraction > 1
    assert report.frame().iloc[0].notes == "cache"


def test_a_tree_that_fits_the_cache_is_marked(tmp_path):
    report = table.Report(written(tmp_path, entry("compiled/float32/llama_1b_lora", 0.1)))
    assert report.frame().iloc[0].notes == "cache"


def test_a_shared_core_is_marked_on_the_cpu_backend(tmp_path):
    on_cpu = MACHINE | {"machine": {"backend": "CPU", "cache_bytes": None}}
    report = table.Report(written(tmp_path, entry("compiled/float32/gpt2", 1.0, busy=0.6), machine=on_cpu))
    assert "busy 60%" in report.frame().iloc[0].notes


def test_machine_backend_version_and_ceiling_are_always_named_and_fit_the_screen(tmp_path):
    every = [entry(f"{v}/{w}", 9.999) for v in cases.variant_names() for w in cases.WORKLOADS]
    lines = shown(table.Report(written(tmp_path, *every)))
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 100
    for needed in ("Apple M1 Max", "Metal backend", "mlx 0.32.4", "340.0 GB/s measured here (MLX triad", "400 GB/s"):
        assert needed in text


def test_an_unknown_device_is_said_to_have_no_spec_ceiling(tmp_path):
    report = table.Report(written(tmp_path, entry("eager/float32/gpt2", 1.0), machine=MACHINE | {"spec": None}))
    assert "spec ceiling: none known for this device" in shown(report)


def test_text_from_files_is_not_taken_for_markup(tmp_path):
    failure = {"what": "failure", "case": "a/float32/gpt2", "message": "[bold]wrong[/bold] [/nonsense]"}
    assert "FAILED [bold]wrong[/bold] [/nonsense]" in shown(table.Report(written(tmp_path, failure)))


def test_every_case_keeps_the_ceiling_of_its_own_run(tmp_path):
    path = written(tmp_path, entry("compiled/float32/gpt2", 0.0205))
    faster = MACHINE | {"ceiling": MACHINE["ceiling"] | {"bytes_per_second": 400e9}}
    ledgers.add(path, ledger.with_ceiling([faster, entry("split/float32/gpt2", 0.0205)]))
    report = table.Report(path)
    fractions = report.frame().set_index("variant").ceiling_fraction
    assert fractions["compiled"] == pytest.approx(fractions["split"] * 400 / 340)
    assert any("340.0 GB/s" in line and "400.0 GB/s" in line for line in report.description)


def test_a_success_takes_back_an_earlier_failure(tmp_path):
    path = written(tmp_path, {"what": "failure", "case": "eager/float32/gpt2", "message": "x"})
    ledgers.add(path, ledger.with_ceiling([MACHINE, entry("eager/float32/gpt2", 1.0)]))
    report = table.Report(path)
    assert (list(report.cases), report.failures) == (["eager/float32/gpt2"], {})


def test_newer_measurements_replace_older_and_others_stay(tmp_path):
    path = written(tmp_path, entry("eager/float32/gpt2", 1.0), entry("split/float32/gpt2", 1.0))
    ledgers.add(path, ledger.with_ceiling([MACHINE, entry("eager/float32/gpt2", 2.0)]))
    rows = table.Report(path).frame().set_index("variant").milliseconds
    assert rows.to_dict() == {"eager": 2000.0, "split": 1000.0}


def test_the_command_writes_json_and_tells_failures_by_its_code(tmp_path, capsys):
    written(tmp_path, entry("compiled/float32/gpt2", 0.02))
    assert table.main(["--results", str(tmp_path), "--json", str(tmp_path / "out.json")]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())["cases"]
    assert rows[0]["workload"] == "float32/gpt2"
    written(tmp_path, {"what": "failure", "case": "eager/float32/gpt2", "message": "wrong result"})
    assert table.main(["--results", str(tmp_path)]) == 1
    assert "FAILED wrong result" in capsys.readouterr().out


def test_no_results_is_one_line_with_the_next_step(tmp_path, capsys):
    code = command.run(lambda: table.main(["--results", str(tmp_path)]))
    assert code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no results in")
    assert error.endswith("run `make bench` or `asv run` first\n")
    assert error.count("\n") == 1


def test_results_without_a_ledger_are_counted_and_who_reads_them_is_told(tmp_path):
    (tmp_path / "mac").mkdir()
    (tmp_path / "mac" / "0123abcd-env.json").write_text("{}")
    told = "1 result file, none of which says what it was measured on; scripts.detect and scripts.report read them"
    with pytest.raises(command.UserError, match=told):
        table.newest(tmp_path, "mac")
    with pytest.raises(command.UserError, match="run `make bench` or `asv run` first"):
        table.newest(tmp_path, "pc")


def test_a_json_file_that_cannot_be_written_is_one_line(tmp_path, capsys):
    written(tmp_path, entry("compiled/float32/gpt2", 0.02))
    (tmp_path / "file").write_text("")
    code = command.run(lambda: table.main(["--results", str(tmp_path), "--json", str(tmp_path / "file" / "x.json")]))
    assert code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["bench", "table", "nightly", "share"])
def test_help_has_two_examples(name):
    done = subprocess.run(
        [sys.executable, "-m", f"scripts.{name}", "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.count(f"  python -m scripts.{name}") >= 2


def test_the_quick_profile_selects_few_figures_of_its_cases_and_the_controls():
    import re

    def selected(name: str) -> bool:
        return any(re.search(expression, name) for expression in measuring.selection("quick"))

    assert selected("step.Step.track_seconds('eager/float32/resnet50')")
    assert selected("accuracy.Accuracy.track_error('eager/float32/resnet50')")
    assert selected("work.Work.track_peak_ratio('eager/float32/resnet50')")
    assert selected("controls.Controls.track_sgd")
    assert not selected("step.Step.track_seconds('eager/float32/gpt2')")
    assert not selected("step.Step.track_seconds('eager/float32/two_leaves/bias_correction')")
    assert not selected("work.Work.track_kernels('eager/float32/resnet50')")
    assert not selected("accuracy.LongRun.track_after_2000('compiled/bfloat16')")
    assert not selected("scaling.Scaling.track_seconds('eager/float32/leaf_1024')")
    assert any(re.search(expression, "scaling.Scaling.track_seconds('eager/float32/leaf_1024')")
               for expression in measuring.selection("default"))  # fmt: skip
    for name in (
        "work.Work.track_kernels('eager/float32/gpt2')",
        "accuracy.LongRun.track_v_decay('compiled/bfloat16')",
    ):
        assert any(re.search(expression, name) for expression in measuring.selection("default"))


def test_the_progress_bar_knows_how_many_cases_there_are():
    for profile in cases.PROFILES:
        names = [*cases.WORKLOADS, *cases.sweep()]
        precisions = [name.partition("/")[0] for name in names if cases.in_profile(name, profile)]
        assert measuring.expected(profile) == sum(
            precisions.count(one) for variant in here.VARIANTS for one in cases.precisions(variant)
        )


def test_outside_a_checkout_git_says_so_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    with pytest.raises(command.UserError, match="this folder is no clone of a repository; git clone it"):
        git.output("rev-parse", "HEAD")


def test_a_partial_text_is_never_seen(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        files.write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_samples_of_all_processes_of_a_run_count(tmp_path):
    rounds = [entry("split/float32/gpt2", seconds) for seconds in (0.1, 0.3)]
    row = table.Report(written(tmp_path, *rounds)).frame().iloc[0]
    assert (row.processes, row.samples) == (2, 14)
    assert row.milliseconds == pytest.approx(200)
    ledgers.add(tmp_path / "mac" / "01234567-env.jsonl", ledger.with_ceiling([MACHINE, rounds[0]]))
    assert table.Report(tmp_path / "mac" / "01234567-env.jsonl").frame().iloc[0].processes == 1


def test_a_case_whose_process_died_is_named(tmp_path):
    case = "split/float32/gpt2"
    started = {"what": "started", "case": case}
    report = table.Report(written(tmp_path, started))
    assert report.failures[case].startswith(f"{case}: the process that measured it died")
    report = table.Report(written(tmp_path, started, entry(case, 0.1)))
    assert report.failures == {}


def test_a_tree_that_is_no_more_is_still_shown(tmp_path):
    old = entry("split/float32/gpt2", 0.1) | {"case": "split/float32/old_tree"}
    assert any("float32/old_tree" in line for line in shown(table.Report(written(tmp_path, old))))


@pytest.mark.parametrize("machine", ["nobody", "/tmp", "../..", "*"])
def test_a_machine_that_is_not_there_is_one_line(machine, tmp_path, capsys):
    written(tmp_path, entry("split/float32/gpt2", 0.1))
    assert command.run(lambda: table.main(["--results", str(tmp_path), "--machine", machine])) == 2
    assert capsys.readouterr().err.startswith(f"error: no results in {tmp_path} of machine {machine}")


@pytest.mark.parametrize("path", [".", "/", ""])
def test_a_json_file_that_cannot_be_one_is_refused_before_the_work(path, capsys):
    with pytest.raises(SystemExit) as stopped:
        table.parser().parse_args(["--json", path])
    assert stopped.value.code == 2
    assert "is a folder; name a file" in capsys.readouterr().err


def test_a_commit_may_be_named_as_git_names_it(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent.parent)
    assert table.full_hash("HEAD") == git.output("rev-parse", "HEAD")
    assert table.full_hash("--help") == "--help"
    assert table.full_hash(None) is None


def test_of_asvs_output_the_reason_is_the_last_line_that_says_one():
    text = f"· Creating\n·· cannot install mlx: no network\n\n3 s of 4 s {command.OWN_WORK}, the rest\n"
    assert measuring.last_line(text) == "cannot install mlx: no network"
    assert measuring.last_line("") == "no reason given"


def test_the_long_run_is_shown_beside_the_speed_of_its_variant_and_precision(tmp_path):
    def long_run(case: str, error: float) -> ledger.Entry:
        return {"what": "accuracy", "case": case, "accuracy": {"after_2000": error}}

    names = ["eager/float32/two_leaves/bias_correction", "eager/bfloat16/two_leaves", "split/bfloat16/two_leaves"]
    path = written(tmp_path, *(entry(name, 1.0) for name in names), long_run("eager/bfloat16", 0.93))
    ledgers.add(path, [long_run("eager/float32", 3e-5), long_run("eager/float32", np.inf)])
    report = table.Report(path)
    errors = report.frame().set_index(["variant", "workload"]).long_run_error
    assert errors["eager", "bfloat16/two_leaves"] == 0.93
    assert errors["eager", "float32/two_leaves/bias_correction"] == np.inf
    rows = [line.split() for line in shown(report)]
    assert any(row[-1:] == ["inf"] for row in rows)
    assert any("9e-01" in row for row in rows)
