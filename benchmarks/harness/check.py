"""A case that is wrong is not fast: what is proven of every case before it is timed."""

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from benchmarks.harness import graph
from benchmarks.harness.agreement import WrongCase, blocks, worst_error
from benchmarks.harness.cases import Case
from benchmarks.harness.counters import Counters
from benchmarks.harness.evaluation import flat
from benchmarks.harness.step import Step


class Check:
    """The reference's side of a case's first STEPS steps. Made before the first step, compared after the last."""

    def __init__(self, case: Case, step: Step) -> None:
        self.case = case
        leaves = zip(flat(step.parameters), flat(step.gradients), strict=True)
        self.start = [(compared(parameter), compared(gradient)) for parameter, gradient in leaves]

    def error(self, step: Step) -> float:
        """The largest relative error of any compared element of w, m and v. Raises WrongCase over the tolerance."""
        found = (
            {"w": compared(w), "m": compared(state["m"]), "v": compared(state["v"])}
            for w, state in zip(flat(step.parameters), leaf_states(step), strict=True)
        )
        return worst_error(self.case, self.start, found, rounding=getattr(step.optimizer, "rounding", 1))


def leaf_states(step: Step) -> list[dict[str, mx.array]]:
    """m and v of every leaf, in the order of the gradients, in upstream's layout whatever the variant's own is."""
    optimizer = step.optimizer
    state = optimizer.upstream_state() if hasattr(optimizer, "upstream_state") else optimizer.state
    states: list[dict[str, mx.array]] = []
    tree_map(lambda _, state: states.append(state), step.gradients, state)
    return states


def compared(array: mx.array) -> np.ndarray:
    """The elements of `array` that are compared, copied, in float64.

    They are copied on the device: on CUDA looking at an array itself would move it to the host's memory, for good.
    """
    flat_array = array.reshape(-1)
    values = mx.array(mx.concatenate([flat_array[block] for block in blocks(array.size)]))
    return np.array(values.astype(mx.float32)).astype(np.float64)


def check_dtypes(case: Case, step: Step) -> None:
    """Raise WrongCase if a step changed a dtype."""
    precision = case.precision
    state = {name: held for name, held in step.optimizer.state.items() if name not in ("step", "learning_rate")}
    for name, wanted, arrays in (
        ("parameter", {precision.parameter}, flat(step.parameters)),
        ("state", precision.state_dtypes, flat(state)),
    ):
        found = {str(array.dtype).removeprefix("mlx.core.") for array in arrays if array.size > 1} - wanted
        if found:
            was = " and ".join(sorted(wanted))
            raise WrongCase(f"{case}: dtype changed: {name} became {', '.join(sorted(found))}, was {was}")


def check_kernels(case: Case, step: Step) -> tuple[int, int]:
    """The kernels of this very step that touch a leaf, and how many of them are fused.

    Raises WrongCase unless they are those that the variant says it runs.
    """
    kernels = graph.read(step).leaf_kernels
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
