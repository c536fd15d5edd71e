"""Energy and DRAM's bytes in a run that is asked for them, and where they are shown."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ledgers
import pytest
from ledgers import MACHINE, entry
from meters import LOG, Clock

from benchmarks.harness import cases, energy, extras, measure, ncu, run
from benchmarks.harness.host.meter import Meter
from benchmarks.harness.measurement import Energy, Measurement, Traffic
from scripts import ledger, table
from scripts.report import newest

UNTOLD = 'cat > "$1" <<"END"\n' + LOG.replace('"268,446,976"', '"n/a"') + "END"
"""What a stand-in for ncu does that is told no bytes."""


CASE = "compiled/float32/leaf_1024"


def meters(monkeypatch: pytest.MonkeyPatch, meter: Meter | None) -> None:
    """Have that for the machine's counter of energy."""
    for module in (extras, energy):
        monkeypatch.setattr(module, "HERE", SimpleNamespace(energy=lambda backend, bus: meter))


class TestExtras:
    @pytest.fixture
    def untold(self, monkeypatch) -> list[dict[str, Any]]:
        """What the run's ledger says of cases without a figure."""
        told: list[dict[str, Any]] = []
        monkeypatch.setattr(extras.ledger, "append", told.append)
        return told

    @pytest.fixture(autouse=True)
    def here(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        meters(monkeypatch, None)

    def test_nothing_is_measured_unless_it_is_asked_for(self, monkeypatch):
        monkeypatch.delenv(extras.VARIABLE, raising=False)
        assert extras.begin() == {}
        assert extras.energy_of(CASE, lambda: None) is None
        assert extras.traffic_of(CASE) is None

    def test_an_unknown_one_is_named(self, monkeypatch):
        monkeypatch.setenv(extras.VARIABLE, "energy, heat")
        with pytest.raises(cases.UnknownCase, match=r"unknown extra 'heat'; choose one of: energy, traffic"):
            extras.wanted()

    def test_where_nothing_counts_it_says_so(self, monkeypatch):
        monkeypatch.setenv(extras.VARIABLE, "energy,traffic")
        assert extras.begin() == {
            "energy": "not available here: nothing counts energy, or nothing that may be read",
            "traffic": "not available here: no counters of DRAM's bytes that can be read",
        }
        assert extras.energy_of(CASE, lambda: None) is None
        monkeypatch.setattr(extras.machine, "backend", lambda: "CUDA")
        monkeypatch.setattr(extras.ncu, "command", lambda log: None)
        assert extras.begin()["traffic"] == "not available here: ncu, NVIDIA's profiler, is not installed"
        assert extras.traffic_of(CASE) is None

    def test_energy_where_it_is_counted(self, monkeypatch, untold):
        clock = Clock()
        monkeypatch.setattr(energy.time, "perf_counter", lambda: clock.now)
        monkeypatch.setattr(energy.time, "sleep", clock.pass_by)
        meters(monkeypatch, Meter("a clock", clock.joules))
        monkeypatch.setenv(extras.VARIABLE, "energy")
        assert re.fullmatch(r"a clock, (99|100)\.\d W idle", extras.begin()["energy"])
        found = extras.energy_of(CASE, lambda: clock.pass_by(0.001, working=True))
        assert found
        assert found.joules == pytest.approx(0.3, rel=0.05)
        clock.own = 0.0
        clock.watts = 1.0
        assert extras.energy_of(CASE, lambda: clock.pass_by(0.001)) is None
        assert untold[0]["why"].endswith("idle: nothing that is the steps' own")

    @pytest.fixture
    def profiler(self, monkeypatch, tmp_path) -> Path:
        """A stand-in for ncu, which writes LOG and runs nothing."""
        script = tmp_path / "ncu"
        script.write_text(f'#!/bin/sh\ncat > "$1" <<"END"\n{LOG}END\n')
        script.chmod(0o755)
        monkeypatch.setenv(extras.VARIABLE, "traffic")
        monkeypatch.setattr(extras.machine, "backend", lambda: "CUDA")
        monkeypatch.setattr(extras.ncu, "command", lambda log: [str(script), log])
        return script

    def test_the_bytes_of_a_step(self, profiler):
        assert extras.begin() == {"traffic": ncu.SOURCE}
        assert extras.traffic_of(CASE) == Traffic(268_448_000, 199_881_472, ncu.SOURCE)

    @pytest.mark.parametrize("does", ["exit 1", 'echo \'"ID"\' > "$1"', UNTOLD, "sleep 60"])
    def test_a_profiler_that_fails_leaves_no_figure_but_a_word(self, profiler, monkeypatch, untold, does):
        profiler.write_text(f"#!/bin/sh\n{does}\n")
        monkeypatch.setattr(extras, "LONGEST", 0.5)
        extras.COUNTED.write_text("true")  # it was found to work when the run began
        assert extras.traffic_of(CASE) is None
        (line,) = untold
        assert (line["what"], line["case"], line["extra"]) == ("untold", CASE, "traffic")
        assert re.fullmatch(r"ncu (told no bytes \(exit code [01]\)|was not done within 0.5 s)", line["why"])
        assert extras.begin()["traffic"] == f"not available here: {line['why']}"

    def test_a_profiler_that_is_refused(self, profiler, untold):
        profiler.write_text('#!/bin/sh\necho "==ERROR== ERR_NVGPUCTRPERM - no permission"\nexit 1\n')
        assert extras.begin() == {"traffic": "not available here: ncu says ERR_NVGPUCTRPERM - no permission"}
        assert extras.traffic_of(CASE) is None
        assert untold == []  # once is enough

    def test_a_profiler_that_cannot_be_started(self, profiler, untold):
        profiler.chmod(0o644)
        extras.COUNTED.write_text("true")
        assert extras.traffic_of(CASE) is None
        assert untold[0]["why"] == "ncu cannot be started: Permission denied"


ENERGY = Energy(4.77, 126.8, 521.1, 2.09, 173, "NVML, the whole card")


def test_a_measurement_has_them_where_there_are_any_and_older_lines_are_read(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(extras, "energy_of", lambda case, step: ENERGY)
    monkeypatch.setattr(extras, "traffic_of", lambda case: Traffic(1.0, 2.0, "made up"))
    case = cases.case("compiled", "float32/leaf_1024")
    found = run.measured(case, tmp_path / "fresh.json")
    assert (found.energy, found.traffic) == (ENERGY, Traffic(1.0, 2.0, "made up"))
    plain = json.loads(json.dumps(found.to_dict()))
    assert Measurement.from_dict(plain) == found
    del plain["energy"], plain["traffic"]
    assert Measurement.from_dict(plain).energy is None
    monkeypatch.setattr(extras, "energy_of", lambda case, step: None)
    assert "energy" not in measure.measure(case).to_dict()


class TestWhereTheyAreShown:
    def report(self, folder: Path, *measured: dict[str, Any]) -> table.Report:
        entries = [entry(f"{variant}/float32/gpt2", 0.02) for variant in ("compiled", "eager")]
        for one, more in zip(entries, measured, strict=False):
            one["measurement"] |= more
        path = folder / "mac" / "01234567-env.jsonl"
        path.parent.mkdir()
        ledgers.add(path, ledger.with_ceiling([MACHINE, *entries]))
        return table.Report(path)

    def headings(self, report: table.Report) -> list[str]:
        return [str(column.header).replace("\n", " ").strip() for column in table.table(report).columns]

    def test_a_column_where_one_case_has_the_figure(self, tmp_path):
        half = cases.case("compiled", "float32/gpt2").ideal_bytes * 0.505
        moved = Traffic(half, half, ncu.SOURCE)._asdict()
        report = self.report(tmp_path, {"energy": ENERGY._asdict(), "traffic": moved})
        assert self.headings(report)[-3:] == ["J a step", "DRAM/ ideal", "note"]
        shown = [list(column.cells) for column in table.table(report).columns]
        assert shown[-3] == ["4.77", ""]
        assert shown[-2] == ["1.01", ""]

    def test_none_where_none_has(self, tmp_path):
        assert {"J a step", "DRAM/ ideal"}.isdisjoint(self.headings(self.report(tmp_path)))

    def test_the_reports_rows_have_them(self, tmp_path):
        report = self.report(tmp_path, {"energy": ENERGY._asdict()})
        _, rows, _, problems = newest.from_ledger(report.path)
        assert not problems
        assert {row["variant"]: row["joules"] for row in rows} == {"compiled": 4.77, "eager": None}
