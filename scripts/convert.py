"""Turn results of older versions into runs: asv's own files and the ledgers beside them. It can be run again and again.

They are read without that as well. Each becomes the same run wherever it is done.
"""

import argparse
import sys
from pathlib import Path

from rich.progress import track

from scripts import command, derived, lanes, legacy, machines
from scripts.history import configuration
from scripts.runs import Odd

EPILOG = """examples:
  python -m scripts.convert                     the results of this repository's commits
  python -m scripts.convert --lane mlx          those of MLX's own

exit codes: 0 done, 1 something cannot be read and stays as it is, 2 error, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    lanes.add_argument(parser)
    parser.add_argument("--results", type=Path, metavar="DIR", help="default: those of the lane")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    results = options.results or Path(configuration(options.lane).results_dir)
    folders, left_out = machines.folders(results)
    older = [path for folder in folders for path in legacy.left(folder)]
    done = 0
    console = command.console(stderr=True)
    for path in track(older, "converting", console=console, disable=not console.is_interactive):
        try:
            legacy.convert(path)
            done += 1
        except (Odd, OSError) as error:
            left_out.append(command.one_line(f"{path}: {error}"))
    derived.rebuild(results)
    print(f"{done} result{'s are runs' if done != 1 else ' is a run'} now")
    for line in left_out:
        print(f"left as it is: {line}")
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(command.run(main))
