"""Lines of files that are only ever added to: each counts once, and an odd one harms no other."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import releases as made_up

from benchmarks.harness import files
from scripts import calibrate, lines, upstream_history
from scripts.report import releases, site, trust

OLDER = Path(__file__).with_name("older")
"""Lines as older versions wrote them, one of each kind: they are readable for ever."""

ODD = [[], {}, "", None, 1e300, -1, 0, True, "x" * 301, "\ud800", "a\nb", 10**400, float("nan")]


def everything(path: Path) -> list[Any]:
    found, problems = lines.read(path, lambda place, entry: entry)
    assert problems == []
    return found


class TestOnce:
    def test_a_line_counts_once_however_often_a_merge_brings_it(self, tmp_path):
        path = tmp_path / "mac" / "x.jsonl"
        lines.add(path, {"a": 1}, {"a": 1})
        lines.add(path, {"a": 1})
        assert [one["a"] for one in everything(path)] == [1, 1, 1]  # three that say the same
        path.write_text(path.read_text() * 2)
        assert len(everything(path)) == 3

    def test_of_lines_without_an_id_the_same_text_is_the_same_line(self, tmp_path):
        path = tmp_path / "x.jsonl"
        path.write_text('{"a": 1}\n{"a": 2}\n{"a": 1} \n{"a": 2, "id": "one"}\n{"a": 3, "id": "one"}')
        assert everything(path) == [{"a": 1}, {"a": 2}, {"a": 2, "id": "one"}]

    def test_what_is_added_survives_when_the_power_goes(self, tmp_path, monkeypatch):
        asked: list[int] = []
        monkeypatch.setattr(files, "synced", asked.append)
        lines.add(tmp_path / "x.jsonl", {"a": 1}, {"a": 2})
        assert len(asked) == 2  # the file, once, and its folder

    def test_nothing_to_add_is_no_line(self, tmp_path):
        lines.add(tmp_path / "x.jsonl")
        assert lines.read(tmp_path / "x.jsonl", dict) == ([], [])

    def test_releases_and_calibrations_that_a_merge_doubled(self, tmp_path):
        path = tmp_path / "x.jsonl"
        made_up.write(path)
        whole = upstream_history.read(path)
        path.write_text(path.read_text() + path.read_text())
        assert upstream_history.read(path) == whole
        path.write_text((OLDER / "calibration.jsonl").read_text() * 2)
        assert len(calibrate.read(path)[0]) == 2


class TestOdd:
    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("[]", "Expected `object`, got `array`"),
            ('{"a": ', "Expecting value"),
            ("[" * 100_000, "recursion"),
            ('{"a": "' + "x" * lines.LONGEST_LINE + '"}', "over 1 MiB"),
            ('{"id": []}', "Expected `str | null`"),
            ('{"id": ""}', "length >= 1"),
            ('{"a": 1' + "0" * 5000 + "}", "Exceeds the limit"),
            ("\x00\ufffd", "Expecting value"),
        ],
    )
    def test_it_is_named_in_one_line_and_all_others_are_read(self, tmp_path, text, told):
        path = tmp_path / "x.jsonl"
        path.write_text(f'{{"a": 1}}\n{text}\n\n{{"a": 2}}\n')
        found, problems = lines.read(path, lambda place, entry: (place, entry["a"]))
        assert found == [(f"{path}:1", 1), (f"{path}:4", 2)]
        (problem,) = problems
        assert problem.startswith(f"{path}:2: it is passed over: ")
        assert told in problem
        assert len(problem) <= 300

    def test_a_file_that_cannot_be_read_is_named(self, tmp_path, monkeypatch):
        assert lines.read(tmp_path, dict) == ([], [f"{tmp_path}: Is a directory"])
        monkeypatch.setattr(lines, "LARGEST_FILE", 2**20 - 1)
        (tmp_path / "x").write_text(" " * 2**20)
        assert lines.read(tmp_path / "x", dict) == ([], [f"{tmp_path / 'x'}: over 0 MiB; shorten it"])

    def test_of_many_the_first_is_named_and_the_rest_counted(self):
        assert lines.few([]) == []
        assert [lines.few(["a", "b", "c"][:count]) for count in (1, 2, 3)] == [
            ["a"], ["a (and 1 more line)"], ["a (and 2 more lines)"],
        ]  # fmt: skip


def changed(data: Any, odd: Any) -> Iterator[Any]:
    """`data` again and again, each time with another of its values replaced."""
    places = list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else []
    for place in places:
        for inside in [odd, *changed(data[place], odd)]:
            made = copy.copy(data)
            made[place] = inside
            yield made


def older(name: str) -> list[Any]:
    return [json.loads(line) for line in (OLDER / name).read_text().splitlines()]


class TestReleases:
    def test_older_lines_are_read(self):
        known = upstream_history.read(OLDER / "releases.jsonl")
        assert known.problems == []
        assert (known.releases, list(known.machine), list(known.compared)) == (
            ["0.26.5", "0.29.4"], ["0.29.4"], [("0.30.0", "0.30.1", "compiled/float32/resnet50")]
        )  # fmt: skip
        ((case, (entry,)),) = known.measured["0.29.4"].items()
        assert (case, entry["resident_bytes"]) == ("compiled/float32/resnet50", 408912512)
        assert known.long_run["0.29.4"] == {"compiled/float32": 2.8591217532310905e-05}
        assert known.counters["0.26.5"]["compiled/float32/two_leaves"].calls == 49

    @pytest.mark.parametrize("odd", ODD, ids=lambda odd: f"{odd!r:.9}")
    @pytest.mark.parametrize("one", older("releases.jsonl"), ids=lambda one: one["what"])
    def test_an_odd_value_harms_its_own_line_only(self, tmp_path, one, odd):
        """Whatever the last line says, which also tells whose lines are shown."""
        path = tmp_path / "mac" / upstream_history.FILE
        made_up.write(path)
        text = path.read_text()
        whole = upstream_history.read(path)
        about = {"taken": upstream_history.taken(), "release": "0.31.0"}
        for entry in changed(one | about, odd):
            path.write_text(text + json.dumps(entry) + "\n")
            known = upstream_history.read(path)
            assert known.problems == [] or known.problems[0].startswith(f"{path}:{text.count(chr(10)) + 1}: ")
            assert len(known.problems) < 2
            for part, before in zip(known[:-1], whole[:-1], strict=True):
                assert [name for name in before if name not in part] == []
                assert not isinstance(part, dict) or {name: part[name] for name in before} == before
            if not known.problems:
                json.dumps(site.bounded(releases.of_machine("mac", path))).encode()

    @pytest.mark.parametrize(
        ("what", "place", "odd"),
        [
            ("case", "resident_bytes", 0), ("case", "resident_bytes", True), ("case", "measurement", {}),
            ("counted", "work", {"kernels": []}), ("counted", "case", "no/float32/two_leaves"),
            ("compared", "low", None), ("compared", "base", "no version"), ("machine", "description", "a\nb"),
            ("accuracy", "accuracy", {"after_2000": -1}),
        ],
    )  # fmt: skip
    def test_what_is_no_figure_is_named(self, tmp_path, what, place, odd):
        path = tmp_path / "mlx" / "mac" / upstream_history.FILE
        path.parent.mkdir(parents=True)
        (one,) = [one for one in older("releases.jsonl") if one["what"] == what]
        path.write_text(json.dumps(one | {place: odd}) + "\n")
        (problem,) = upstream_history.read(path).problems
        assert releases.left_out(tmp_path) == [problem]
        assert problem.startswith(f"{path}:1: it is passed over: ")


class TestCalibrations:
    def test_older_lines_are_read(self):
        found, problems = calibrate.read(OLDER / "calibration.jsonl")
        assert problems == []
        assert [(place.rpartition(":")[2], one.commit[:4], len(one.found)) for place, one in found] == [
            ("1", "", 6), ("2", "6506", 6),
        ]  # fmt: skip

    @pytest.mark.parametrize("odd", ODD, ids=lambda odd: f"{odd!r:.9}")
    def test_an_odd_value_harms_its_own_line_only(self, tmp_path, odd):
        path = tmp_path / "mac" / calibrate.FILE
        path.parent.mkdir()
        good, one = older("calibration.jsonl")
        for entry in changed(one, odd):
            path.write_text(json.dumps(entry) + "\n" + json.dumps(good) + "\n")
            rows, problems = trust.calibrations(tmp_path, ["mac"])
            assert [row["file"] for row in rows[-6:]] == [f"{path}:2"] * 6
            assert problems == [] or problems[0].startswith(f"{path}:1: it is passed over: ")
            json.dumps(rows, allow_nan=False).encode()
