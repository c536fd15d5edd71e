"""A case that is wrong is not fast: what is proven of every case before it is timed."""

import math

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from adamw import reference
from benchmarks.harness import graph
from benchmarks.harness.cases import LEARNING_RATE, Case
from benchmarks.harness.counters import Counters
from benchmarks.harness.evaluation import flat
from benchmarks.harness.step import Step

STEPS = 3
BLOCKS = 8
BLOCK = 2**13
"""Elements. Of a leaf larger than BLOCKS blocks, that many are compared, evenly spread, the first and last included."""


class WrongCase(RuntimeError):
    """A case that does not do what its name says: a wrong result, a changed dtype, unexpected kernels, a new trace."""


class Check:
    """The reference's side of a case's first STEPS steps. Made before the first step, compared after the last."""

    def __init__(self, case: Case, step: Step) -> None:
        self.case = case
        leaves = zip(flat(step.parameters), flat(step.gradients), strict=True)
        self.start = [(compared(parameter), compared(gradient)) for parameter, gradient in leaves]

    def error(self, step: Step) -> float:
        """The largest relative error of any compared element of w, m and v. Raises WrongCase over the tolerance.

        The inputs keep every reference value well away from zero, so the error is relative, element by element.
        """
        states = leaf_states(step)
        worst, place = 0.0, ""
        for number, (start, w, state) in enumerate(zip(self.start, flat(step.parameters), states, strict=True)):
            expected = self._expected(*start)
            arrays = {"w": w, "m": state["m"], "v": state["v"]}
            for (name, array), ideal in zip(arrays.items(), expected, strict=True):
                error = float(np.max(np.abs(compared(array) - ideal) / np.abs(ideal)))
                error = math.inf if math.isnan(error) else error
                if error > worst:
                    worst, place = error, f"{name} of leaf {number}"
        tolerance = self.case.precision.tolerance * getattr(step.optimizer, "rounding", 1)
        if worst > tolerance:
            raise WrongCase(
                f"{self.case}: wrong result: error {worst:.3g} in {place} after {STEPS} steps, "
                f"tolerance {tolerance:.3g}"
            )
        return worst

    def _expected(self, parameter: np.ndarray, gradient: np.ndarray) -> reference.Leaf:
        leaf = reference.start(parameter)
        for t in range(1, STEPS + 1):
            leaf = reference.step(
                leaf, gradient, t, learning_rate=LEARNING_RATE, bias_correction=self.case.bias_correction
            )
        return leaf


def leaf_states(step: Step) -> list[dict[str, mx.array]]:
    """m and v of every leaf, in the order of the gradients, in upstream's layout whatever the variant's own is."""
    optimizer = step.optimizer
    state = optimizer.upstream_state() if hasattr(optimizer, "upstream_state") else optimizer.state
    states: list[dict[str, mx.array]] = []
    tree_map(lambda _, state: states.append(state), step.gradients, state)
    return states


def compared(array: mx.array) -> np.ndarray:
    """The elements of `array` that are compared, copied, in float64."""
    values = array.reshape(-1)
    if values.size > BLOCKS * BLOCK:
        starts = np.linspace(0, values.size - BLOCK, BLOCKS).astype(int).tolist()
        values = mx.concatenate([values[start : start + BLOCK] for start in starts])
    return np.array(values.astype(mx.float32)).astype(np.float64)


def check_dtypes(case: Case, step: Step) -> None:
    """Raise WrongCase if a step changed a dtype."""
    precision = case.precision
    state = {name: held for name, held in step.optimizer.state.items() if name not in ("step", "learning_rate")}
    for name, wanted, arrays in (
        ("parameter", {precision.parameter}, flat(step.parameters)),
        ("state", precision.state_dtypes, flat(state)),
    ):
        found = {str(array.dtype).removeprefix("mlx.core.") for array in arrays} - wanted
        if found:
            was = " and ".join(sorted(wanted))
            raise WrongCase(f"{case}: dtype changed: {name} became {', '.join(sorted(found))}, was {was}")


def check_kernels(case: Case, step: Step) -> tuple[int, int]:
    """The kernels of this very step that touch a leaf, and how many of them are fused.

    Raises WrongCase unless they are those that the variant says it runs.
    """
    kernels = graph.read(step, shapes=False).leaf_kernels
    fused = sum(kernel.is_fused for kernel in kernels)
    fewest, most = (count * case.leaf_count for count in step.optimizer.kernels_a_leaf)
    if not max(fewest, most > 0) <= fused <= most:
        hint = "; is there a C++ compiler, and MLX_DISABLE_COMPILE unset?" if not fused else ""
        raise WrongCase(f"{case}: {fused} compiled kernels in a step, expected {fewest} to {most}{hint}")
    return len(kernels), fused


def check_counters(case: Case, work: Counters, kernels: tuple[int, int]) -> None:
    """Raise WrongCase unless `work` has the real step's `kernels` (all, fused), and moves what a step must."""
    if work.modelled_bytes is not None and work.modelled_bytes < case.ideal_bytes:
        raise WrongCase(
            f"{case}: its graph moves {work.modelled_bytes} bytes, less than the {case.ideal_bytes} it must"
        )
    if kernels != (work.kernels, work.fused_kernels):
        raise WrongCase(
            f"{case}: {kernels[0]} kernels in a step, {kernels[1]} compiled; "
            f"without its memory {work.kernels} and {work.fused_kernels} were counted"
        )
