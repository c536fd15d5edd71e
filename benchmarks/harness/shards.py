"""The files of one model: those that are named, that an index names or that lie in a folder; whether any is missing.

What an index says is a stranger's text: it may name files of its own folder only. A link is followed, as downloads are
made of links.
"""

import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness.header import BadFile, absent, printable

INDEX = ".safetensors.index.json"

MOST_FILES = 1000

MOST_ENTRIES = 10_000
"""Of a folder."""

LARGEST_INDEX = 32 * 2**20
"""Bytes: about 300 000 tensors."""

NUMBERED = re.compile(
    r"(?P<before>.*?)(?<!\d)(?P<number>\d{1,6})[-_. ]?of[-_. ]?(?P<total>\d{1,6})(?P<after>\D.*|)", re.I | re.S
)
"""The name of one file of several: model-00001-of-00004.safetensors."""

OF_A_RANK = re.compile(r"rank[-_]?\d+[-_]part[-_]?\d+", re.I)
"""The name of a file in which every tensor is one process's part of it."""

OTHER_FORMATS = {".bin", ".ckpt", ".gguf", ".h5", ".keras", ".msgpack", ".npz", ".onnx", ".pt", ".pth", ".tflite"}


class Files(NamedTuple):
    """The files, in lines what was found and is not among them, and the tensors that an index says are in them."""

    paths: list[Path]
    notes: list[str] = []
    tensors: frozenset[str] = frozenset()


def files(sources: list[str]) -> Files:
    """The files of the model that `sources` name, all of them. Raises BadFile and OSError."""
    named = [Path(source) for source in sources]
    followed = [of_folder(path) if path.is_dir() else of_index(path) for path in named if leads_on(path)]
    plain = [path for path in named if not leads_on(path)]
    paths = plain + [path for path in unique(one for each in followed for one in each.paths) if path not in plain]
    if len(paths) > MOST_FILES:
        raise BadFile(f"{shown(named[0])}: {len(paths)} files, at most {MOST_FILES} are read")
    check_whole(paths)
    notes = [note for each in followed for note in each.notes]
    return Files(paths, notes, frozenset().union(*(each.tensors for each in followed)))


def leads_on(path: Path) -> bool:
    return path.is_dir() or (path.suffix.lower() == ".json" and path.is_file())


def of_folder(folder: Path) -> Files:
    """The files of the model in `folder`: by its index, or the only one, or all of one numbered set."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in itertools.islice(entries, MOST_ENTRIES + 1))
    if len(names) > MOST_ENTRIES:
        raise BadFile(f"{shown(folder)}: more than {MOST_ENTRIES} entries; name the model's files")
    names = [name for name in names if not name.startswith(".")]  # macOS keeps ._files beside files
    found = [name for name in names if name.lower().endswith(".safetensors")]
    indices = [name for name in names if name.lower().endswith(INDEX)]
    if len(indices) > 1:
        raise BadFile(
            f"{shown(folder)}: {len(indices)} indices, of which only one can be meant; name one: {listed(indices)}"
        )
    if not found and not indices:
        raise BadFile(f"{shown(folder)}: no safetensors file in this folder{elsewhere(folder, names)}")
    if not indices and len(unique(map(set_of, found))) > 1:
        raise BadFile(
            f"{shown(folder)}: {len(found)} files that may not be one model's; name those that are: {listed(found)}"
        )
    chosen = of_index(folder / indices[0]) if indices else Files([folder / name for name in found])
    others = [name for name in found if folder / name not in chosen.paths]
    others += sorted(str(path.relative_to(folder)) for path in itertools.islice(deeper(folder), MOST_FILES))
    return chosen._replace(notes=[f"left out, as it may be another model's: {listed(others)}"] * bool(others))


def deeper(folder: Path) -> Iterator[Path]:
    """The safetensors files one folder further down, or where a download's snapshots are."""
    for pattern in ("snapshots/*/*.safetensors", "*/*.safetensors"):
        yield from (path for path in folder.glob(pattern) if not path.relative_to(folder).parts[0].startswith("."))


def elsewhere(folder: Path, names: list[str]) -> str:
    """Where the files may be instead: one folder further down, or in another format."""
    if inner := next(deeper(folder), None):
        return f"; name the one that has them, such as {shown(inner.parent)}"
    others = [name for name in names if Path(name).suffix.lower() in OTHER_FORMATS]
    return f", but {listed(others)}; convert the model to safetensors" if others else "; name the model's files"


def of_index(path: Path) -> Files:
    """The files that the index `path` names; all must be there, in its folder."""
    places = weight_map(path)
    names = unique(places.values())
    for name in names:
        if not is_plain(name):
            raise BadFile(f"{shown(path)}: it names {printable(name, 80)!r}, no plain name of a file in its own folder")
    if len(names) > MOST_FILES:
        raise BadFile(f"{shown(path)}: it names {len(names)} files, at most {MOST_FILES} are read")
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise BadFile(
            f"{shown(path)}: of the {len(names)} files that it names {len(missing)} are missing: {listed(missing)}; "
            "get them into its folder"
        )
    return Files([path.parent / name for name in names], tensors=frozenset(places))


def weight_map(path: Path) -> dict[str, str]:
    """Which file holds which tensor, as the index `path` says. Raises BadFile."""
    if not path.is_file():
        raise BadFile(f"{shown(path)}: {absent(path)}")
    if path.stat().st_size > LARGEST_INDEX:
        raise BadFile(f"{shown(path)}: too long for an index, the limit is {LARGEST_INDEX} bytes")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadFile(
            f"{shown(path)}: no index of safetensors files, as it is no JSON: {printable(str(error))}"
        ) from error
    places = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(one, str) for one in places.values()):
        raise BadFile(
            f"{shown(path)}: no index of safetensors files, as it has no weight_map; name the model's folder or files"
        )
    return places


def is_plain(name: str) -> bool:
    """Whether `name` is a file's name and nothing more: no path, no hidden file, nothing that cannot be shown."""
    if not name.isprintable() or not 0 < len(os.fsencode(name)) < 256:
        return False
    return not name.startswith(".") and not set(name) & set("/\\:")


def check_whole(paths: list[Path]) -> None:
    """Raise BadFile if the names, or an index that lies beside a file, tell that files of the model are missing."""
    sets: dict[tuple[str, int, str], set[int]] = {}
    for path in paths:
        name = own_name(path)
        if OF_A_RANK.search(name):
            raise BadFile(f"{shown(path)}: one process's part of every tensor; name files with whole tensors")
        if match := NUMBERED.fullmatch(name):
            sets.setdefault(set_of(name), set()).add(int(match["number"]))
    for (before, total, after), numbers in sets.items():
        check_set(f"{before}*{after}", numbers, total)
    named = {path.name for path in paths} | {own_name(path) for path in paths}
    for folder in unique(path.parent for path in paths):
        check_beside(folder, {path.name for path in paths if path.parent == folder}, named)


def own_name(path: Path) -> str:
    """The name of `path`, or of what it is a link to if only that is numbered."""
    target = os.path.basename(os.path.realpath(path))
    return target if NUMBERED.fullmatch(target) and not NUMBERED.fullmatch(path.name) else path.name


def set_of(name: str) -> tuple[str, int, str]:
    """What is the same in the names of a numbered set; of another name, the name."""
    match = NUMBERED.fullmatch(name)
    return (match["before"], int(match["total"]), match["after"]) if match else (name, 1, "")


def check_set(pattern: str, numbers: set[int], total: int) -> None:
    first = 0 if 0 in numbers else 1
    there = sum(first <= number < first + total for number in numbers)
    if there < total:
        lacking = next(number for number in range(first, first + total) if number not in numbers)
        raise BadFile(
            f"{printable(pattern, 80)}: {there} of {total} files, so a part of a model (number {lacking} is missing); "
            "name all of them, their index, or their folder"
        )


def check_beside(folder: Path, names: set[str], named: set[str]) -> None:
    """Raise BadFile if an index in `folder` names one of `names` beside files that are not `named`."""
    for index in itertools.islice(folder.glob("*" + INDEX), 10):
        try:
            wanted = set(weight_map(index).values())
        except (BadFile, OSError):
            continue  # not what was asked for
        if names & wanted and not wanted <= named:
            raise BadFile(
                f"{shown(folder / min(names & wanted))}: one of several, a part of a model: {printable(index.name)} "
                f"names {len(wanted)} files; name the index or the folder"
            )


def unique(items: Iterable) -> list:
    return list(dict.fromkeys(items))


def shown(path: Path) -> str:
    return printable(str(path))


def listed(names: list[str]) -> str:
    """The first of `names`, and how many more there are."""
    return ", ".join(printable(name, 60) for name in names[:2]) + f" and {len(names) - 2} more" * (len(names) > 2)
