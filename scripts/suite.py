"""What the suite of this checkout says of its benchmarks: versions, units, parameters. Nobody else decides them."""

import pkgutil
from functools import lru_cache
from pathlib import Path
from typing import Any

from asv import util
from asv_runner.discovery import disc_benchmarks

import benchmarks
from scripts import command

FILE = "benchmarks.json"
"""asv's description of the benchmarks, in the folder of a lane's results: asv writes it anew with every run."""

PLAIN = (str, int, float, list, dict, bool)

Described = dict[str, dict[str, Any]]


@lru_cache
def own() -> Described:
    """The description of every benchmark of this checkout, by its name, as asv's own discovery has it."""
    found = {}
    for suite in pkgutil.iter_modules(benchmarks.__path__):
        if not suite.ispkg:
            for one in disc_benchmarks(f"benchmarks.{suite.name}"):
                told = {key: value for key, value in vars(one).items() if isinstance(value, PLAIN)}
                found[one.name] = {key: value for key, value in told.items() if not key.startswith("_")}
    return found


def described(folder: Path, results: Path) -> tuple[Described, list[str]]:
    """The descriptions of the suite in `folder`, and what is wrong with them.

    Of a suite that is not this checkout's own there is what asv wrote of it when it ran it here.
    """
    if folder.resolve() == Path(benchmarks.__path__[0]).resolve():
        return own(), []
    path = results / FILE
    try:
        told = util.load_json(str(path), api_version=2)
        return {name: one for name, one in told.items() if isinstance(one, dict)}, []
    except (util.UserError, OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        return {}, [command.one_line(f"{path}: {error}; units and versions are not known")]


def write(folder: Path, results: Path) -> None:
    """Have asv find the descriptions of this checkout's suite where it looks for them."""
    if folder.resolve() == Path(benchmarks.__path__[0]).resolve():
        results.mkdir(parents=True, exist_ok=True)
        util.write_json(str(results / FILE), dict(sorted(own().items())), 2)
