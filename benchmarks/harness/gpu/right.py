"""Whether a GPU kernel of this project's is AdamW."""

from collections.abc import Iterator

import numpy as np

import adamw
from adamw import gpu
from benchmarks.harness import accuracy, cases
from benchmarks.harness.gpu.chosen import PRECISIONS
from benchmarks.harness.gpu.lines import Line
from benchmarks.harness.rounding import DTYPES, SETTINGS, Run

SIZES = (0, 1, 7, 8, 255, 256, 257, 1023, 1024, 1025, 2000, 2**16 + 3)
FEW_THREADS = 2**12
"""Threads of a launch, so that the longest of SIZES is longer than what they update at once."""

TABLES = (256, 257, 9, 1000, 511, 8, 300, 1025)
"""Sizes of leaves whose last groups are full, almost empty, or all there is."""

TOGETHER = (1, 3, 8)
"""How many of TABLES are launched together: every number is a kernel to be compiled."""

STEPS = 200


def right(variant: str, name: str) -> Iterator[Line]:
    """Yield how far a variant is from AdamW in some dtypes, element by element, and after many steps."""
    if why := adamw.unavailable(variant):
        yield {"what": "right", "variant": variant, "dtypes": name, "why": why}
        return
    gpu.MOST_THREADS = FEW_THREADS
    worst = 0.0
    for settings in SETTINGS:
        run = Run(adamw.create(variant, **settings), DTYPES[name], list(SIZES))
        worst = max(worst, *(run.excess(**settings) for _ in range(3)))
    for number in TOGETHER:
        run = Run(adamw.create(variant, **SETTINGS[0]), DTYPES[name], list(TABLES[:number]))
        worst = max(worst, run.excess(**SETTINGS[0]))
    yield {"what": "right", "variant": variant, "dtypes": name, "excess": worst}
    if name in PRECISIONS:
        long = accuracy.Run(variant, cases.PRECISIONS[name], rounded=True)
        random = np.random.default_rng(1)
        for _ in range(STEPS):
            long.step(random.normal(0.02, 0.1, accuracy.ELEMENTS))
        yield {"what": "way", "variant": variant, "precision": name, "steps": STEPS, "error": long.error()}
