"""One pass over w, g, m and v in the memory of MLX's arrays, on all cores: 7N bytes of traffic, nothing allocated.

The pass is a loop compiled by numba.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import mlx.core as mx
import numpy as np

from adamw.base import Unavailable
from adamw.ownership import InPlaceAdamW, New, address, evaluated
from adamw.walk import Place

NO_NUMBA: str | None = None
"""Why there is no loop to run, in one line."""

try:
    from adamw import loops
except ModuleNotFoundError as error:
    NO_NUMBA = f"inplace needs {error.name}; install it: pip install numba"
except Exception as error:  # whatever numba, and what it loads, raise where they cannot run
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    NO_NUMBA = f"inplace needs numba, which does not work here: {''.join(filter(str.isprintable, text))}"

CHUNKS_A_THREAD = 8
"""So that a thread on a slow core takes fewer chunks, not longer."""

SMALLEST_CHUNK = 2**15
"""Elements; handing fewer to another thread takes longer than updating them."""


Part = tuple[int, int, int]
"""A piece of several leaves' elements: the first leaf, the element in it to begin with, how many elements."""


class AdamW(InPlaceAdamW):
    """`mlx.optimizers.AdamW` that updates parameters and state where they lie, on the CPU. It mutates arrays.

    What that asks of whoever holds them is told in `InPlaceAdamW`. The arithmetic is float32, whatever the dtypes are.
    It needs numba, and memory that the CPU shares with MLX's device.

    Args:
        threads (int): default NUMBA_NUM_THREADS, or all cores that the process may use.
    """

    def __init__(self, *args: Any, threads: int | None = None, **hyper_parameters: Any) -> None:
        if reason := self.unavailable():
            raise Unavailable(reason)
        if threads is not None and threads <= 0:
            raise ValueError(f"AdamW threads should be >0, {threads} was provided instead")
        super().__init__(*args, **hyper_parameters)
        self.threads = threads or loops.THREADS

    @staticmethod
    def unavailable() -> str | None:
        if NO_NUMBA or (reason := loops.unavailable()):
            return NO_NUMBA or reason
        if mx.default_device() != mx.Device(mx.cpu) and not mx.metal.is_available():
            return "inplace needs memory that CPU and GPU share, as on Apple silicon; use another variant"
        return None

    def _update(self, places: list[Place], new: New) -> None:
        groups: dict[tuple, list[tuple]] = {}
        contiguous: list[mx.array] = []
        for (gradient, _, _), own in zip(places, self._owned(places, new), strict=True):
            try:
                at = address(gradient)
            except TypeError:
                contiguous.append(evaluated(mx.contiguous(gradient)))
                at = address(contiguous[-1])
            groups.setdefault((*own.dtypes, gradient.dtype), []).append((at, *own.row))
        scalars = self._scalars()
        work: list[tuple[Callable[..., None], list[Part]]] = []
        for (parameter, moment, gradient_dtype), rows in groups.items():
            loop = loops.loop(*map(name, (parameter, gradient_dtype, moment)))
            table = np.array(rows, np.int64)
            work.append((partial(loop, table, scalars), list(chunks(table[:, -1], self.threads))))
        for update, parts in work:  # all is known to be there: what is written now cannot be taken back
            each(self.threads, update, parts)

    def _scalars(self) -> np.ndarray:
        """This step's scalars, as `loops.loop` takes them."""
        b1, b2, eps, weight_decay, bias_correction = self.constants
        rate, step = self.learning_rate.item(), self.step.item()
        decay, scale = 1 - rate * weight_decay, 1.0
        if bias_correction:
            rate, scale = rate / (1 - b1**step), (1 - b2**step) ** -0.5
        return np.array([b1, 1 - b1, b2, 1 - b2, eps, decay, rate, scale], np.float32)


def name(dtype: mx.Dtype) -> str:
    return str(dtype).removeprefix("mlx.core.")


def chunks(sizes: np.ndarray, threads: int) -> Iterator[Part]:
    """All elements of leaves of these sizes in pieces of about one size."""
    ends = np.cumsum(sizes)
    total = int(ends[-1])
    length = max(SMALLEST_CHUNK, -(-total // (threads * CHUNKS_A_THREAD) // 64) * 64)
    for start in range(0, total, length):
        leaf = int(np.searchsorted(ends, start, side="right"))
        yield leaf, start - int(ends[leaf] - sizes[leaf]), min(length, total - start)


def each(threads: int, work: Callable[..., None], parts: list[Part]) -> None:
    """Call `work` with every part, on `threads` threads at once."""
    if threads == 1 or len(parts) == 1:
        for part in parts:
            work(*part)
    else:
        list(pool(threads).map(lambda part: work(*part), parts))


@cache
def pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="adamw")
