"""Of a lane's results asv reads its own machines' only: another lane's, in a folder beside them, are below as well."""

from collections.abc import Iterator
from pathlib import Path

import asv.commands.compare
import asv.commands.publish
import asv.commands.show
import asv.machine
import asv.results

USERS = (asv.machine, asv.commands.compare, asv.commands.publish, asv.commands.show)
"""The modules that look for machines, each by a name of its own."""

original_results = asv.results.iter_results_paths
original_machines = asv.machine.iter_machine_files


def iter_results_paths(results: str) -> Iterator[tuple[str, str, str]]:
    """asv's own, of `results`/MACHINE, or of a machine's folder itself."""
    for root, name, machine in original_results(results):
        if Path(results) in (Path(root), Path(root).parent):
            yield root, name, machine


def iter_machine_files(results: str) -> Iterator[str]:
    """asv's own, of `results`/MACHINE."""
    return (path for path in original_machines(results) if Path(path).parents[1] == Path(results))


asv.results.iter_results_paths = iter_results_paths
for module in USERS:
    module.iter_machine_files = iter_machine_files
