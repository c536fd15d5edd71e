"""The header of a safetensors file: names, dtypes and shapes of its tensors, and not one byte of their data.

The library checks the format: a header length within the file, JSON of the right structure, dtypes that it knows,
shapes that fill their place, and tensors that follow each other up to the last byte of the file. It reads through a
memory map, so a file of any size costs its header. Added here is what it lets pass: a name that occurs twice, of which
it keeps one, and headers so long that parsing takes gigabytes (1.4 GB for its limit of 100 MB, safetensors 0.8.0).
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

LARGEST_HEADER = 16 * 2**20
"""Bytes: about 150 000 tensors."""

LONGEST_TEXT = 200
"""Characters of a file's own text in a message."""


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

    if not path.is_file():
        raise BadFile(f"{printable(str(path))}: {'not a file' if path.exists() else 'no such file'}")
    try:
        text = header(path)
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.offset_keys()}
            tensors = [Tensor(name, one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()]
        json.loads(text, object_pairs_hook=each_once)
    except (SafetensorError, ValueError) as error:
        reason = printable(str(error).removeprefix("Error while deserializing header: "))
        raise BadFile(
            f"{printable(str(path))}: no safetensors file, or not all of it: {reason}; get it anew"
        ) from error
    return tensors


def header(path: Path) -> bytes:
    """The JSON of `path`, as far as it is there. Raises ValueError if it says to be longer than LARGEST_HEADER."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEADER:
            raise ValueError(f"a header of {length} bytes, the limit is {LARGEST_HEADER}")
        return file.read(length)


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name!r} occurs twice")
        found[name] = value
    return found


def printable(text: str) -> str:
    """The beginning of `text` in one line, with escapes for what a terminal would not show or would obey."""
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text[:LONGEST_TEXT])
    return shown + "..." * (len(text) > LONGEST_TEXT)
