"""MLX's releases, measured one after the other: what is kept, what is told, and what the report makes of it."""

import io
import json
import math
import os
import re
from pathlib import Path

import pytest
import releases as made_up
from releases import COMPILED, EAGER
from rich.console import Console

from benchmarks.harness import cases
from benchmarks.harness.counters import Counters
from scripts import command, counting, exact, releases, sides, upstream, upstream_history
from scripts.matching import Match
from scripts.report import releases as page


@pytest.fixture
def kept(tmp_path) -> Path:
    path = tmp_path / "results" / "mlx" / "mac" / upstream_history.FILE
    made_up.write(path)
    return path


class TestKept:
    def test_what_was_measured_is_read_back(self, kept):
        known = upstream_history.read(kept)
        assert known.releases == list(made_up.SECONDS)
        assert {release: tuple(upstream_history.medians(known, release, COMPILED)) for release in known.releases} == (
            made_up.SECONDS
        )
        assert known.long_run["0.32.4"] == {"compiled/float32": 3e-5}
        assert known.absent == {"0.30.2": "it was withdrawn <b>"}

    @pytest.mark.parametrize("written", ["null", "Infinity", "NaN", '"Infinity"'])
    def test_an_error_that_was_not_finite_is_infinite_however_old_the_line_is(self, kept, written):
        lines = [line.replace("3e-05", written) for line in kept.read_text().splitlines()]
        kept.write_text("\n".join(lines) + "\n")
        assert upstream_history.read(kept).long_run["0.32.4"] == {"compiled/float32": math.inf}
        (told,) = {
            one["value"] for one in page.figures(upstream_history.read(kept)) if one["figure"] == "long_run_error"
        }
        assert told == math.inf

    def test_an_infinite_error_is_kept(self, tmp_path):
        path = tmp_path / upstream_history.FILE
        accuracy = {"what": "accuracy", "case": "eager/float16", "accuracy": {"after_2000": math.inf}}
        upstream_history.add(path, "0.32.4", [accuracy])
        assert '"Infinity"' in path.read_text()

    def test_each_exact_change_has_its_release(self, kept):
        told = [
            (step.before, step.release, [(change.case, change.verdict, change.told) for change in step.changes])
            for step in upstream_history.steps(upstream_history.read(kept))
        ]
        assert told == [
            ("0.29.4", "0.30.1", [(COMPILED, "better", "peak up to 4N, was 7N")]),
            ("0.30.1", "0.32.4", [(EAGER, "worse", "5 more Python calls")]),
        ]

    def test_seconds_are_suspected_only_beyond_their_noise(self, kept):
        known = upstream_history.read(kept)
        assert upstream_history.suspects(known, COMPILED, 0.05) == [("0.29.4", "0.30.1")]
        assert upstream_history.suspects(known, COMPILED, 0.001) == [("0.29.4", "0.30.1")]  # 60.5 and 61 overlap
        assert upstream_history.suspects(known, COMPILED, 0.5) == []
        assert upstream_history.suspects(known, EAGER, 0.05) == []

    def test_confirmed_is_what_was_timed_in_turns(self, kept):
        found = upstream_history.confirmed(upstream_history.read(kept))
        assert [(one["base"], one["release"], one["ratio"]) for one in found] == [
            ("0.29.4", "0.30.1", 0.75),
            ("0.29.4", "0.32.4", 0.755),
        ]

    def test_what_is_none_of_ours_is_passed_over(self, kept):
        whole = upstream_history.read(kept)
        lines = [
            {"what": "counted", "release": "0.30.1", "case": "nothing/float32/two_leaves", "work": made_up.work()},
            {"what": "counted", "release": "no version", "case": EAGER, "work": made_up.work()},
            {"what": "counted", "release": "0.30.1", "case": EAGER, "work": {"unknown": 1}},
            {"what": "case", "release": "0.30.1", "case": COMPILED},
            {"what": "compared", "release": "0.30.1"},
            made_up.compared("0.29.4", 0.5, release="0.30.1", low=None),
            made_up.entry(COMPILED, float("nan")) | {"release": "0.30.1"},
            {"what": "counted"},
        ]
        with kept.open("a") as file:
            by = {"taken": upstream_history.taken()}
            file.write("".join(json.dumps(by | line) + "\n" for line in lines) + '[]\n{"what": "counted", "relea')
        known = upstream_history.read(kept)
        assert known._replace(problems=[]) == whole
        last = kept.read_text().count("\n") + 1  # without its end
        assert {line.partition(": ")[0] for line in known.problems} == {
            f"{kept}:{last - number}" for number in range(len(lines) + 2)
        }
        upstream_history.add(kept, "0.33.0", [{"what": "counted", "case": EAGER, "work": made_up.work()}])
        assert upstream_history.read(kept).releases[-1] == "0.33.0"  # after a line that a kill cut short

    def test_what_could_be_had_after_all_is_not_absent(self, kept):
        upstream_history.add(kept, "0.30.2", [{"what": "counted", "case": EAGER, "work": made_up.work()}])
        assert upstream_history.read(kept).absent == {}

    def test_another_suite_adamw_or_python_is_another_history(self, kept, monkeypatch):
        ours = upstream_history.taken()
        monkeypatch.setattr(upstream_history.platform, "python_version", lambda: "3.99.0")
        assert upstream_history.read(kept, upstream_history.taken()).releases == []
        upstream_history.add(kept, "0.33.0", [{"what": "counted", "case": EAGER, "work": made_up.work(calls=1)}])
        assert upstream_history.read(kept).releases == ["0.33.0"]  # the newest
        assert upstream_history.steps(upstream_history.read(kept)) == []
        assert upstream_history.read(kept, ours).releases == list(made_up.SECONDS)

    def test_a_case_that_could_not_be_counted_is_missing_until_it_can(self, kept):
        upstream_history.add(kept, "0.32.4", [{"what": "failure", "case": "flat/float32/two_leaves", "message": "no"}])
        assert upstream_history.read(kept).failed["0.32.4"] == {"flat/float32/two_leaves"}
        counted = {"what": "counted", "case": "flat/float32/two_leaves", "work": made_up.work()}
        upstream_history.add(kept, "0.32.4", [counted])
        assert not upstream_history.read(kept).failed["0.32.4"]

    def test_releases_are_in_their_own_order(self, kept):
        upstream_history.add(kept, "0.100.0", [{"what": "counted", "case": EAGER, "work": made_up.work()}])
        assert upstream_history.read(kept).releases[-1] == "0.100.0"


def test_kernels_are_not_compared_where_only_one_mlx_tells_the_sizes():
    """An array of unknown size is taken for a leaf's: an older MLX seems to have other kernels."""
    case = cases.case("compiled", "float32/two_leaves")
    guessed = Counters(4, 4, 1, None, temporaries=0, calls=10)
    known = Counters(5, 5, 0, 100, primitives=20, temporaries=2, calls=11)

    def told(base: Counters, head: Counters) -> str:
        change = exact.change(Match(str(case), case, case), base, head)
        return change.told if change else ""

    assert told(guessed, known) == told(known, guessed).replace("fewer", "more") == "1 more Python call"
    assert "2.5 kernels a leaf, was 2" in told(guessed, known._replace(primitives=None))
    assert "2.5 kernels a leaf, was 2" in told(guessed._replace(modelled_bytes=100), known)
    assert "2.5 kernels a leaf, was 2" in told(guessed._replace(primitives=20), known)
    assert "temporaries" not in told(guessed._replace(modelled_bytes=100, temporaries=None), known)


def test_a_row_of_words_has_the_verdict_of_its_words():
    """Fewer bytes and more calls are two rows, the better one no worse for the calls."""
    case = cases.case("compiled", "float32/two_leaves")
    base = Counters(2, 2, 2, 100, peak_bytes=7 * 2**26, calls=1)
    change = exact.change(Match(str(case), case, case), base, base._replace(peak_bytes=2**28, calls=2))
    assert change
    assert change.verdict == exact.WORSE
    assert [(one.verdict, one.words) for one in exact.grouped([change])] == [
        (exact.WORSE, "1 more Python call a step"),
        (exact.BETTER, "peak up to 4N, was 7N"),
    ]


class TestCommand:
    @pytest.fixture(autouse=True)
    def at_the_root(self, at_root):
        """For the releases that the project supports."""

    def test_chosen(self):
        there = ["0.29.0", "0.30.1", "0.31.0"]
        assert releases.chosen(there, None, None) == there
        assert releases.chosen(there, 2, None) == there[1:]
        assert releases.chosen(there, None, ["0.31", "0.29.0"]) == ["0.29.0", "0.31.0"]
        for arguments, told in (
            ((there, 0, None), "--last 0: name a number above zero"),
            ((there, None, ["0.30.2"]), r"mlx 0\.30\.2: the package index has no such release .* it has: 0\.29\.0, "),
            ((there, None, ["0.20.0"]), "too old"),
            ((there, None, ["latest"]), "is no version"),
            (([], None, None), "the package index has no release of MLX for this machine"),
        ):
            with pytest.raises(command.UserError, match=told):
                releases.chosen(*arguments)

    def test_what_was_counted_is_not_counted_again_and_what_cannot_be_had_is_remembered(self, tmp_path, monkeypatch):
        path, asked = tmp_path / "mac" / upstream_history.FILE, []

        def resolve(name: str) -> str:
            if name == "mlx==0.30.2":
                raise command.UserError("cannot install mlx: it was withdrawn")
            return name

        def counted(side: str) -> list:
            asked.append(side)
            if side == "mlx==0.31.0" and len(asked) < 3:
                raise KeyboardInterrupt
            return [{"what": "counted", "case": EAGER, "work": made_up.work()}]

        monkeypatch.setattr(sides, "resolve", resolve)
        monkeypatch.setattr(releases, "counted", counted)
        wanted = ["0.29.0", "0.30.2", "0.31.0"]
        console = releases.Console(file=open(os.devnull, "w"))  # noqa: SIM115
        with pytest.raises(KeyboardInterrupt):
            releases.count_all(wanted, path, console)
        assert upstream_history.read(path).releases == ["0.29.0"]
        assert releases.count_all(wanted, path, console) == ["mlx 0.30.2: cannot install mlx: it was withdrawn"]
        assert sorted(asked) == ["mlx==0.29.0", "mlx==0.31.0", "mlx==0.31.0"]
        known = upstream_history.read(path)
        assert (known.releases, list(known.absent)) == (["0.29.0", "0.31.0"], ["0.30.2"])

    def test_what_is_suspected_and_both_ends_are_timed_in_turns_once(self, kept, monkeypatch):
        asked = []

        def compared(base: str, head: str, names: list[str], seconds: float) -> list:
            asked.append((base, head, names))
            return [made_up.compared(base, 0.75) | {"case": name} for name in names]

        monkeypatch.setattr(releases, "compared", compared)
        monkeypatch.setattr(releases, "CASES", (COMPILED,))
        console = releases.Console(file=open(os.devnull, "w"))  # noqa: SIM115
        text = "".join(line for line in kept.open() if '"compared"' not in line)
        kept.write_text(text)
        for _ in range(2):
            assert releases.compare_all(list(made_up.SECONDS), kept, 60, console) == []
        assert asked == [("0.29.4", "0.30.1", [COMPILED]), ("0.29.4", "0.32.4", [COMPILED])]
        upstream_history.add(kept, "0.30.1", [made_up.compared("0.29.4", 0.75, verdict="undecided")])
        assert releases.compare_all(list(made_up.SECONDS), kept, 60, console) == []
        assert asked[2:] == [("0.29.4", "0.30.1", [COMPILED])]  # without an answer it is asked again

    def test_a_real_release_counted_measured_and_told(self, tmp_path, monkeypatch, capsys):
        """This one, so that no environment has to be made; a case that fails is named, and takes no other with it."""
        here = sides.pinned(Path())
        monkeypatch.setattr(upstream, "releases", lambda: [here])
        monkeypatch.setattr(releases, "CASES", ("nothing/float32/leaf_1024", "compiled/float32/leaf_1024"))
        monkeypatch.setattr(counting, "select", lambda *_: [cases.case("compiled", "float32/leaf_1024")])
        monkeypatch.setattr(releases.measuring, "check_machine", lambda name: None)
        monkeypatch.setattr(releases.Machine, "load", lambda **_: releases.Machine())
        monkeypatch.setattr(releases.Machine, "save", lambda self, folder: None)
        code = releases.main(["--results", str(tmp_path), "--machine", "here", "--rounds", "1", "--last", "1"])
        assert code == 1
        assert "unknown variant" in capsys.readouterr().out
        known = upstream_history.read(tmp_path / "here" / upstream_history.FILE)
        (told,) = known.measured[here]["compiled/float32/leaf_1024"]
        assert told["ceiling"]["bytes_per_second"] > 0
        assert known.machine[here]["settings"]["mlx"] == here
        assert Counters(**told["measurement"]["work"]) == known.counters[here]["compiled/float32/leaf_1024"]
        assert known.long_run[here]["compiled/float32"] < 1e-3


class TestPage:
    def test_rows(self, kept):
        (told,) = page.gather(kept.parents[2])
        assert [one["release"] for one in told["changes"]] == ["0.30.1", "0.32.4"]
        assert told["changes"][0]["what"] == "peak up to 4N, was 7N"
        seconds = {one["release"]: one["value"] for one in told["figures"] if one["figure"] == "milliseconds"}
        assert seconds == pytest.approx({"0.29.4": 80.5, "0.30.1": 60.5, "0.32.4": 61.0})
        assert [(one["before"], one["release"], one["slower"]) for one in told["timings"]] == [
            ("0.29.4", "0.30.1", pytest.approx(-0.25)), ("0.29.4", "0.32.4", pytest.approx(-0.245)),
        ]  # fmt: skip
        assert told["described"] == [made_up.MACHINE["description"]]
        assert page.gather(kept.parents[1]) == [told]  # in the report of MLX's own lane

    def test_a_change_is_explained_where_its_cause_is_known(self):
        explained = [
            page.Explanation("0.30.1", "peak up to", "c" * 40, "one"),
            page.Explanation("0.30.1", "4N", "d" * 40, "two"),
        ]
        assert page.because("0.30.1", "peak up to 4N, was 7N", explained) == {"because": "one; two", "commit": "c" * 40}
        assert page.because("0.31.0", "peak up to 4N, was 7N", explained) == {"because": "", "commit": ""}

    def test_what_is_written_by_hand_is_sound(self):
        for one in [*page.explanations(), *page.looked_for()]:
            assert upstream.of_tag(f"v{one.release}") == one.release
            assert re.fullmatch("[0-9a-f]{40}", one.commit)
            assert all(one)

    def test_nothing_measured(self, tmp_path):
        assert page.gather(tmp_path) == []


class TestTold:
    def told(self, kept: Path, wanted: list[str]) -> str:
        console = Console(file=io.StringIO(), width=200)
        releases.told(upstream_history.read(kept), wanted, console)
        return console.file.getvalue()

    def test_what_changed_and_what_was_found_in_turns(self, kept):
        text = self.told(kept, list(made_up.SECONDS))
        assert "mlx 0.30.1, as against 0.29.4:" in text
        assert f"mlx 0.30.1, as against 0.29.4, in turns: {COMPILED} faster, x 0.750 (" in text
        assert text.endswith("3 of 3 releases counted, 2 changed what a step does\n")

    def test_only_of_what_was_asked_for(self, kept):
        text = self.told(kept, ["0.29.4", "0.30.2"])
        assert text == "1 of 2 releases counted, 0 changed what a step does\n"
