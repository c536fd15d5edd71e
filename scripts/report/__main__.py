"""Write the report of everything that was measured: one site, offline, to be opened from a file or served."""

import argparse
import sys
from pathlib import Path

from scripts import command, history, lanes
from scripts.report.publisher import publish

EPILOG = """examples:
  python -m scripts.report                      what asv publish writes: open .asv/html/index.html
  python -m scripts.report --lane mlx --html /tmp/site    of MLX's own commits, somewhere else

exit codes: 0 written, 2 error, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    lanes.add_argument(parser)
    parser.add_argument("--html", type=Path, metavar="DIR", help="default: html_dir of the configuration")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    html = options.html or options.lane.parent / history.configuration(options.lane).html_dir
    with command.busy(f"reading the results and writing {html}"):
        publish(options.lane, html.resolve())
    print(f"report: {html / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(command.run(main))
