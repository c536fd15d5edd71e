"""Somebody's text is text, on GitHub and in a spreadsheet, whatever that takes for a separator."""

import csv
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some
from markup import outside

from scripts import command, text

RUN = set("=+-@\uff1d\uff0b\uff0d\uff20\t\r\n")
"""What a spreadsheet calculates with if a cell begins with it."""

FORMULAS = [
    "=1+1", "+1", "-cmd", "@x", "\t=1", "\r=1", "\n=1", " =1", "\u200b =1", "\uff1d1", "a;=1+1", 'a;";=1', "a; =1",
    "a;b;+1", 'a;" =1', "a\n=1", '";=1', '=HYPERLINK("http://x.example/?"&A1,"ok")',
]  # fmt: skip


MARKUP = [
    "@octocat &#64;octocat \\@octocat", "#1 owner/adamw#1 GH-1", "www.evil.example https://evil.example a@evil.example",
    "_x_ **x** ~~x~~ `x` ``x``", "1. x", "- x", "# x", "a | b \\| c \\", "one\r\ntwo\n\n# three\u2028- four", "[x](https://x)",
    "![x](https://x)", "<img src=x> <!-- x -->", "`", "\\`", "``` x", "    x", "> x", "[^1]: x", ":tada: $x$ $`x`$",
]  # fmt: skip


@pytest.mark.parametrize("said", MARKUP)
def test_nothing_that_is_said_is_markup(said):
    for written in (f"{text.code(said)}", f"- {text.code(said)}: {text.code(said)}", f"## {text.code(said)}"):
        assert outside(written).strip() in ("", ":")
    row = outside(f"| a | b |\n|---|---|\n| {text.code(said)} | {text.code(said)} |")
    assert row.split() == ["a", "b"]


@given(some.text())
def test_no_text_ends_its_code(said):
    written = text.code(said)
    assert outside(written) == ""
    assert bool(written) == bool(command.one_line(said).strip())
    assert len(written) <= text.LONGEST + 2


def read(written: str, delimiter: str) -> list[list[str]]:
    return list(csv.reader(written.splitlines(), delimiter=delimiter))


def inert(written: str) -> bool:
    """Whether no cell is a formula, whichever of these a spreadsheet takes for the separator."""
    cells = [cell for delimiter in ",;\t" for row in read(written, delimiter) for cell in row]
    return not any(cell.lstrip()[:1] in RUN or cell[:1] in RUN for cell in cells if cell)


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_and_no_heading_is_a_formula(formula):
    assert inert(text.csv([formula, "b"], [["a", formula], [formula, "b"]]))


@given(some.lists(some.text(some.sampled_from("=+-@;,'\" \t\r\n\x00\u200b\uff1da1")), min_size=1, max_size=3))
def test_no_text_is_a_formula(texts):
    assert inert(text.csv(texts, [texts]))


@given(some.lists(some.one_of(some.text(), some.integers(), some.floats(allow_nan=False)), min_size=1))
def test_a_table_is_read_back_each_text_on_one_line(row):
    written = text.csv(["a"], [row])
    heading, *told = read(written, ",")
    assert heading == ["a"]
    for cell, value in zip(told[0], row, strict=True):
        if isinstance(value, str):
            assert cell.replace("'", "") == command.one_line(value).replace("'", "")
        else:
            assert type(value)(cell) == value


def test_every_text_is_quoted_and_what_is_missing_is_nothing():
    row = ["x", 'a"b', "", None, float("nan"), float("inf"), 3, 0.5, True]
    assert text.csv(["a;b"], [row]) == '"a;b"\n"x","a""b","",,,inf,3,0.5,True\n'


def test_nobody_writes_csv_in_another_way():
    scripts = (Path(__file__).parent.parent / "scripts").rglob("*.py")
    assert [path for path in scripts if re.search(r"to_csv\(|^import csv|^from csv", path.read_text(), re.M)] == []
