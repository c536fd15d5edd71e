"""Weights that a file may have twice: a head that is its embedding. Names and shapes hint at it, the data tells.

Of the data a few thousand bytes are looked at. Where they are all alike, as in a file of zeros, they tell nothing.
"""

import re
from collections import Counter
from pathlib import Path
from typing import BinaryIO, NamedTuple

from benchmarks.harness import header
from benchmarks.harness.header import Tensor

LOOKS, LOOK_BYTES = 16, 4096

EMBEDDINGS = re.compile(r"(^|[._])(embed(ding|dings)?|embed_(tokens?|in)|\w{0,30}_embeddings?|wte|shared)(\.weight)?$")

HEADS = re.compile(r"(^|[._])(\w{0,30}_head|head|embed_out|output|decoder|proj_out|unembed(ding)?|to_logits)\.weight$")

IN_A_LAYER = re.compile(r"(^|\.)\d+\.")

MOST_CANDIDATES = 64

LIKE_ZEROS = 4
"""Different bytes, of which one number again and again has no more."""


class Tied(NamedTuple):
    """The names of weights that are stored twice, and of those that may be, each with the name of the other."""

    surely: dict[str, str]
    perhaps: dict[str, str]


class Candidate(NamedTuple):
    """A weight, and some of its data."""

    tensor: Tensor
    data: list[bytes]


def look(paths: list[Path], files: list[list[Tensor]]) -> Tied:
    """The embeddings and heads of one shape whose data is the same, or does not tell. Raises OSError."""
    places = [(path, tensor) for path, tensors in zip(paths, files, strict=True) for tensor in tensors]
    places = [one for one in places if may_be_tied(one[1])][:MOST_CANDIDATES]
    shapes = Counter(tensor.shape for _, tensor in places)
    begins = {path: header.places(path) for path, tensor in places if shapes[tensor.shape] > 1}
    found = Tied({}, {})
    for shape in [shape for shape, count in shapes.items() if count > 1]:
        alike = [
            Candidate(tensor, some_data(path, *begins[path][tensor.name]))
            for path, tensor in places
            if tensor.shape == shape
        ]
        compare(sorted(alike, key=lambda one: not EMBEDDINGS.search(one.tensor.name)), found)
    return found


def compare(alike: list[Candidate], found: Tied) -> None:
    """Add to `found` what of `alike`, the embeddings first, is another one again."""
    if not EMBEDDINGS.search(alike[0].tensor.name):
        return
    for number, one in enumerate(alike):
        same = [other for other in alike[:number] if other.data == one.data]
        is_of_another_dtype = number > 0 and one.tensor.dtype != alike[0].tensor.dtype
        if same and len(set(b"".join(one.data))) > LIKE_ZEROS:
            found.surely[one.tensor.name] = same[0].tensor.name
        elif same or is_of_another_dtype:
            found.perhaps[one.tensor.name] = alike[0].tensor.name


def may_be_tied(tensor: Tensor) -> bool:
    name = tensor.name
    is_one = EMBEDDINGS.search(name) or HEADS.search(name)
    return len(tensor.shape) == 2 and 0 not in tensor.shape and is_one is not None and not IN_A_LAYER.search(name)


def some_data(path: Path, begin: int, end: int) -> list[bytes]:
    """What lies in a few places of a tensor's data, from its beginning to its end."""
    size = min(LOOK_BYTES, end - begin)
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little") + begin
        return [read_at(file, start + (end - begin - size) * step // (LOOKS - 1), size) for step in range(LOOKS)]


def read_at(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)
