"""The header of a safetensors file: names, dtypes and shapes of its tensors, and not one byte of their data.

The library checks the format: a header length within the file, JSON of the right structure, dtypes that it knows,
shapes that fill their place, and tensors that follow each other up to the last byte of the file. It reads through a
memory map, so a file of any size costs its header. Added here is what it lets pass: a name that occurs twice, of which
it keeps one, and headers so long that parsing takes gigabytes (1.4 GB for its limit of 100 MB, safetensors 0.8.0). A
file of another format, or without its end, is called so.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import fileformat

LARGEST_HEADER = 16 * 2**20
"""Bytes: about 150 000 tensors."""

LONGEST_TEXT = 200
"""Characters of a file's own text in a message."""


LARGEST_FILE = 2**63
"""Bytes: above it offsets are nonsense."""

LONGEST_NAME = 1000
"""Characters of a tensor's name."""


class BadFile(ValueError):
    """No file that can be read as safetensors; the message, one line, says which and why."""


class Tensor(NamedTuple):
    """A tensor as the header has it; `dtype` is the format's word: "F32", "BF16", "I64"."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def read(path: Path) -> list[Tensor]:
    """The tensors of `path`, in the order of their data. Raises BadFile, and OSError if it cannot be opened."""
    # Here, because asv imports every module of this folder, in environments that have no safetensors.
    from safetensors import SafetensorError, safe_open

    shown = printable(str(path))
    if not path.is_file():
        raise BadFile(f"{shown}: {absent(path)}")
    if reason := refused(path):
        raise BadFile(f"{shown}: {reason}")
    try:
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.offset_keys()}
            tensors = [Tensor(name, one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()]
        json.loads(text(path), object_pairs_hook=each_once)
    except (SafetensorError, ValueError, RecursionError) as error:
        reason = str(error).removeprefix("Error while deserializing header: ")
        raise BadFile(f"{shown}: no safetensors file, or not all of it: {cut(path) or printable(reason)}") from error
    if long := [tensor.name for tensor in tensors if len(tensor.name) > LONGEST_NAME]:
        raise BadFile(f"{shown}: the name {printable(long[0], 40)} is longer than {LONGEST_NAME} characters")
    return tensors


def absent(path: Path) -> str:
    """Why there is no file at `path`."""
    if path.is_symlink() and not path.exists():
        return "a link that leads to no file; get what it leads to"
    return "not a file" if path.exists() else "no such file"


def refused(path: Path) -> str | None:
    """Why `path` is not handed to the library: it is of another format, empty, or its header is too long."""
    with path.open("rb") as file:
        begin = file.read(fileformat.FIRST)
    length, size = int.from_bytes(begin[:8], "little"), path.stat().st_size
    if begin[8:9] == b"{" and length <= LARGEST_HEADER:
        return None
    if begin[8:9] == b"{" and length <= size - 8:
        return (
            f"too many tensors: a header of {length} bytes, the limit is {LARGEST_HEADER}, "
            "for some 150 000 tensors; save the model in several files with an index"
        )
    if what := fileformat.told(begin):
        return f"no safetensors file: it is {what}"
    if length > LARGEST_HEADER:
        return f"no safetensors file: a header of {length} bytes, the limit is {LARGEST_HEADER}"
    return None


def text(path: Path) -> bytes:
    """The JSON of `path`, as far as it is there."""
    with path.open("rb") as file:
        return file.read(min(int.from_bytes(file.read(8), "little"), LARGEST_HEADER))


def cut(path: Path) -> str | None:
    """What tells that the end of `path` is missing."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if 8 + length > size:
        return f"it ends after {size} bytes, within its header; get it anew"
    try:
        found = places(path).values()
        end = 8 + length + max(last for _, last in found)
        is_cut = size < end <= LARGEST_FILE and min(first for first, _ in found) == 0
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return f"it ends after {size} of {end} bytes; get it anew" if is_cut else None


def places(path: Path) -> dict[str, tuple[int, int]]:
    """Where in `path` the data of each tensor begins and ends, from the end of the header on."""
    entries = json.loads(text(path))
    return {name: tuple(one["data_offsets"]) for name, one in entries.items() if name != "__metadata__"}


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name!r} occurs twice")
        found[name] = value
    return found


def printable(text: str, longest: int = LONGEST_TEXT) -> str:
    """The beginning of `text` in one line, with escapes for what a terminal would not show or would obey."""
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text[:longest])
    return shown + "..." * (len(text) > longest)
