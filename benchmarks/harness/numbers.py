"""Numbers in JSON, which knows no infinity and no NaN: they are written as strings, as protobuf's JSON does.

An error that is not finite is a figure: half precision that has overflowed. It is "Infinity" in a line, and stays so in
whatever is made of it. Older lines have Python's own Infinity and NaN, which are read as well.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

NOT_FINITE = 1e9
"""What asv's files have in place of an error that is not finite: they and asv's pages know no infinity."""

LARGEST = 9.99e8
"""What asv's files have in place of an error that is larger, but finite."""


def line(entry: Mapping[str, Any]) -> str:
    """`entry` as one line of JSON."""
    return json.dumps(spoken(entry), allow_nan=False)


def spoken(data: Any) -> Any:
    """`data` with a string in place of every number that JSON does not know."""
    if isinstance(data, Mapping):
        return {key: spoken(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [spoken(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    return data


def error(told: Any) -> Any:
    """An error as it was measured; infinite if it was not finite, however that is written."""
    if told in ("Infinity", "-Infinity", "NaN") or (isinstance(told, float) and not math.isfinite(told)):
        return math.inf
    return told


def heard(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of a ledger with its errors as numbers: those of a case, and those of the long run."""
    measured, accuracy = entry.get("measurement"), entry.get("accuracy")
    if isinstance(measured, dict) and "error" in measured:
        entry = entry | {"measurement": measured | {"error": error(measured["error"])}}
    if isinstance(accuracy, dict):
        entry = entry | {"accuracy": {name: error(value) for name, value in accuracy.items()}}
    return entry


def in_asv(error: float) -> float:
    """An error as asv's files have it: three digits, NOT_FINITE of what is not finite."""
    return float(f"{min(error, LARGEST):.3g}") if math.isfinite(error) else NOT_FINITE


def from_asv(figure: float) -> float:
    """An error that asv's files have; infinite if it was not finite."""
    return figure if figure < NOT_FINITE else math.inf


def in_words(value: float, form: str) -> str:
    """A figure as people read it."""
    return format(value, form) if math.isfinite(value) else "not finite"
