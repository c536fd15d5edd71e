"""What a line of releases.jsonl must say to be read: types and bounds of all that is shown, counted or divided by."""

from typing import Annotated, Any, get_type_hints

import msgspec
from msgspec import Meta

from benchmarks.harness.counters import Counters
from scripts.lines import Count, Entry, Positive, Size, Text, Whole

ELSEWHERE = ("resumed", "skipped", "started")
"""The lines of a ledger that say nothing of a release."""


class About(msgspec.Struct):
    """What every line has."""

    what: Text
    release: Text
    taken: Annotated[str, Meta(pattern=r"^suite [0-9a-f]+, [\w.+-]+, Python [\w.+]+$", max_length=100)]


class Line(msgspec.Struct, tag_field="what"):
    """A line by its kind, with what is read of it; the other fields may be whatever they are."""


class Samples(msgspec.Struct):
    seconds: Annotated[list[Positive], Meta(min_length=1)]


class Memory(msgspec.Struct):
    peak: Count


Error = Annotated[float, Meta(ge=0)]
"""Infinite where half precision has overflowed."""


class Measurement(msgspec.Struct):
    step: Samples
    memory: Memory
    work: Entry
    error: Error


class Measured(Line, tag="case"):
    case: Text
    resident_bytes: Size
    measurement: Measurement


class Counted(Line, tag="counted"):
    case: Text
    work: Entry


class Accuracy(msgspec.Struct):
    after_2000: Error | None
    """An older line has null in place of an infinity."""


class LongRun(Line, tag="accuracy"):
    case: Text
    accuracy: Accuracy


class Machine(Line, tag="machine"):
    description: Text = ""


class Compared(Line, tag="compared"):
    base: Text
    case: Text
    verdict: Text
    why: Text
    pairs: Count
    ratio: Positive | None
    low: Positive | None
    high: Positive | None

    def __post_init__(self) -> None:
        if self.ratio is not None and None in (self.low, self.high):
            raise ValueError("a ratio without its interval")


class Failed(Line, tag="failure"):
    case: Text


class Absent(Line, tag="absent"):
    why: Text


KINDS = Measured | Counted | LongRun | Machine | Compared | Failed | Absent

BOUNDED: dict[Any, Any] = {int: Whole, int | None: Whole | None, str | None: Text | None}
WORK = msgspec.defstruct(
    "Work",
    [
        (name, BOUNDED[kind], Counters._field_defaults.get(name, msgspec.NODEFAULT))
        for name, kind in get_type_hints(Counters).items()
    ],
    forbid_unknown_fields=True,
)
"""The Counters, each of its own kind."""


def counters(work: Entry) -> Counters:
    """What a line says of the work of a step. Raises ValueError."""
    return Counters(**msgspec.structs.asdict(msgspec.convert(work, WORK)))
