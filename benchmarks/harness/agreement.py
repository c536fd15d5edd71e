"""How far results are from AdamW in float64, and how far they may be. Nothing here needs MLX."""

import math
from collections.abc import Iterable

import numpy as np

from adamw import reference
from benchmarks.harness.cases import LEARNING_RATE, Case

STEPS = 3
BLOCKS = 8
BLOCK = 2**13
"""Elements. Of a leaf larger than BLOCKS blocks, that many are compared, evenly spread, the first and last included."""

LOOSEST = 2**-6
"""Tolerance of w, however coarse the state is: three steps move it by 2 to 6 %, and one of them missing must show."""


class WrongCase(RuntimeError):
    """A case that does not do what its name says: a wrong result, a changed dtype, unexpected kernels, a new trace."""


def blocks(size: int) -> list[slice]:
    """The parts of a flat leaf of `size` elements that are compared."""
    if size <= BLOCKS * BLOCK:
        return [slice(0, size)]
    return [slice(start, start + BLOCK) for start in np.linspace(0, size - BLOCK, BLOCKS).astype(int).tolist()]


def worst_error(
    case: Case,
    starts: Iterable[tuple[np.ndarray, np.ndarray]],
    found: Iterable[dict[str, np.ndarray]],
    state_tolerance: float | None = None,
    rounding: float = 1,
) -> float:
    """The largest relative error of any element of w, m and v after STEPS steps. Raises WrongCase over the tolerance.

    `starts` has the parameter and the gradient of every leaf before the first step, `found` its w, m and v after the
    last. The inputs keep every reference value well away from zero, so the error is relative, element by element.
    `state_tolerance` is that of m and v, if it is not the precision's; `rounding` how far a stored result may be off,
    in half units in the last place.
    """
    worst, places = dict.fromkeys("wmv", 0.0), dict.fromkeys("wmv", 0)
    for number, (start, arrays) in enumerate(zip(starts, found, strict=True)):
        expected = after_steps(*start, case.bias_correction)
        for name, ideal in expected._asdict().items():
            error = float(np.max(np.abs(arrays[name] - ideal) / np.abs(ideal)))
            error = math.inf if math.isnan(error) else error
            if error > worst[name]:
                worst[name], places[name] = error, number
    tolerances = dict.fromkeys("wmv", state_tolerance or case.precision.tolerance)
    tolerances["w"] = min(case.precision.tolerance, LOOSEST)
    tolerances = {name: tolerance * rounding for name, tolerance in tolerances.items()}
    name = max(worst, key=lambda name: worst[name] / tolerances[name])
    if worst[name] > tolerances[name]:
        raise WrongCase(
            f"{case}: wrong result: error {worst[name]:.3g} in {name} of leaf {places[name]} after {STEPS} steps, "
            f"tolerance {tolerances[name]:.3g}"
        )
    return max(worst.values())


def after_steps(parameter: np.ndarray, gradient: np.ndarray, bias_correction: bool) -> reference.Leaf:
    """What the reference makes of a leaf in STEPS steps with the same gradient."""
    leaf = reference.start(parameter)
    for t in range(1, STEPS + 1):
        leaf = reference.step(leaf, gradient, t, learning_rate=LEARNING_RATE, bias_correction=bias_correction)
    return leaf
