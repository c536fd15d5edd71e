"""The lanes: whose commits are measured, each by a configuration of asv.

`adamw` is this repository with MLX held still, `mlx` is MLX's own repository with this suite held still.
"""

import argparse
from pathlib import Path

ADAMW, MLX = Path("asv.conf.json"), Path("asv.mlx.conf.json")
LANES = {"adamw": ADAMW, "mlx": MLX}


def lane(text: str) -> Path:
    """The configuration of the lane called `text`; any other text is a configuration's path."""
    return LANES.get(text, Path(text))


def missing(path: Path) -> str:
    """What helps if a lane's configuration is not there; empty if it is."""
    return "" if path.exists() else "; run it from the root of a clone, or name another --lane"


def branch(results: Path, first: str = "results") -> str:
    """The results branch of the lane whose results are there: the machines' folders of two lanes must not meet.

    `first` is the first lane's.
    """
    return first if results.name == "results" else f"{first}-{results.name}"


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Add --lane, whose value is the path of a configuration."""
    parser.add_argument(
        "--lane", type=lane, default=ADAMW, metavar="L", help="adamw, mlx, or a configuration of asv; default: adamw"
    )
