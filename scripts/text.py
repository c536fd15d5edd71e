"""Somebody's text as it is shown by what takes some text for more: Markdown on GitHub, and spreadsheets."""

import re
from collections.abc import Iterable
from numbers import Number

from scripts import command

LONGEST = 120
"""Characters of a text as code."""

FORMULA = re.compile('(^|;)(?=[\\s"]*[=+\\-@\uff1d\uff0b\uff0d\uff20])')
"""Where a spreadsheet would begin to calculate: in a cell, and after a semicolon, which separates cells in many
languages, whatever is quoted: there, a quote amid a cell is a quote. What is beyond ASCII, Japan's take as well."""


def code(said: object, longest: int = LONGEST) -> str:
    """What is `said` as code on one line: the only place where GitHub looks for no mentions, however @ is escaped."""
    plain = command.one_line(str(said)).replace("`", "'").replace("|", "/")[:longest].strip()
    return f"`{plain}`" if plain else ""


def csv(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table as CSV: its headings are cells as well."""
    return "".join(f"{','.join(map(cell, row))}\n" for row in (columns, *rows))


def cell(value: object) -> str:
    """A cell of CSV: a number as it is, nothing for what is missing, all else as a text that no spreadsheet runs."""
    if value is None or value != value:
        return ""
    if isinstance(value, Number):
        return str(value)
    return '"' + FORMULA.sub(r"\1'", command.one_line(str(value))).replace('"', '""') + '"'
