"""The measured ceiling: the fastest that streaming work really moves bytes on the device that MLX uses.

On a GPU, MLX's own streaming kernels. On a CPU, NumPy on every core, since MLX's CPU backend runs on one: the ceiling
says what the hardware allows, not what MLX makes of it. Bytes are counted as the work asks for them (read + written);
a cache that reads a line before it is overwritten moves more, which is why the in-place kernels often win.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from benchmarks.harness import machine

REPEATS = 7
CHAIN = 8
CACHE_MULTIPLE = 4
SMALLEST_WORKING_SET = 2**30
LARGEST_SHARE = 4  # of the free memory, at most one part in this many


class Ceiling(NamedTuple):
    """A bandwidth to hold a figure against, and what it is.

    bytes_per_second  of the fastest streaming kernel
    kernel            which one that was
    working_set       bytes it went through
    in_memory         whether those were at least CACHE_MULTIPLE times the last-level cache; None: cache unknown
    """

    bytes_per_second: float
    kernel: str
    working_set: int
    in_memory: bool | None

    def __str__(self) -> str:
        note = {True: "", False: ", partly cache-resident", None: ", cache size unknown"}[self.in_memory]
        return (
            f"{self.bytes_per_second / 1e9:.1f} GB/s measured here ({self.kernel}, "
            f"{self.working_set / 2**30:.1f} GiB{note})"
        )


class Kernel(NamedTuple):
    """A streaming kernel over `arrays` equal arrays that reads and writes `streams` of them."""

    name: str
    arrays: int
    streams: int
    run: Callable[..., Any]


def working_set(cache_bytes: int | None, free_bytes: int) -> tuple[int, bool | None]:
    """(bytes to stream through, whether they exceed the cache CACHE_MULTIPLE times)."""
    wanted = max(SMALLEST_WORKING_SET, CACHE_MULTIPLE * (cache_bytes or 0))
    size = min(wanted, free_bytes // LARGEST_SHARE)
    return size, None if cache_bytes is None else size >= CACHE_MULTIPLE * cache_bytes


def measure() -> Ceiling:
    """The ceiling of the device that MLX uses."""
    here = machine.identify()
    size, in_memory = working_set(here.cache_bytes, machine.free_bytes())
    kernels = cpu_kernels if here.backend == "CPU" else mlx_kernels
    rate, name = max((rate, name) for name, rate in kernels(size))
    return Ceiling(rate, name, size, in_memory)


def best_rate(run: Callable[[], Any], moved: int, repeats: int = REPEATS) -> float:
    """Bytes a second of the fastest of `repeats` runs that each move `moved` bytes, after one that is not counted."""
    run()
    shortest = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        shortest = min(shortest, time.perf_counter() - start)
    return moved / shortest


def cpu_kernels(size: int) -> list[tuple[str, float]]:
    """(name, bytes a second) of every NumPy kernel, each core streaming through its share of `size` bytes."""
    import numpy as np

    half = np.float32(0.5)
    kernels = (
        Kernel("copy", 2, 2, lambda a, b: np.copyto(a, b)),
        Kernel("scale in place", 1, 2, lambda a: np.multiply(a, half, out=a)),
        Kernel("add in place", 2, 3, lambda a, b: np.add(a, b, out=a)),
    )
    return [threaded_rate(kernel, size, os.cpu_count() or 1) for kernel in kernels]


def threaded_rate(kernel: Kernel, size: int, threads: int) -> tuple[str, float]:
    """(name, bytes a second) of `kernel`, run by every thread on arrays of its own."""
    import numpy as np

    length = size // kernel.arrays // threads // 4

    def arrays(_: int) -> list[Any]:
        return [np.ones(length, np.float32) for _ in range(kernel.arrays)]

    with ThreadPoolExecutor(threads) as pool:
        shares = list(pool.map(arrays, range(threads)))
        rate = best_rate(
            lambda: list(pool.map(lambda share: kernel.run(*share), shares)), kernel.streams * length * 4 * threads
        )
    return f"NumPy {kernel.name}, {threads} threads", rate


def mlx_kernels(size: int) -> list[tuple[str, float]]:
    """(name, bytes a second) of MLX's streaming kernels on its default device, over `size` bytes of float32.

    CHAIN kernels are evaluated together: what an evaluation costs by itself is not bandwidth, and the roofline has it
    apart (`roofline.Launch`).
    """
    import mlx.core as mx

    length = size // 2 // 4
    parts = [mx.ones(length // CHAIN) for _ in range(CHAIN)]
    held, other = [mx.ones(length)], mx.ones(length)
    triad = mx.compile(lambda a, b: 0.5 * a + b)
    scale = mx.compile(lambda a: a * 0.5 + 0.25)
    mx.eval(parts, held, other)

    def copies() -> None:
        mx.eval([mx.array(part) for part in parts])
        mx.synchronize()

    def chained(kernel: Callable[[Any], Any]) -> Callable[[], None]:
        """`kernel` again and again on its own result, over which MLX writes, as nobody else holds it."""

        def run() -> None:
            for _ in range(CHAIN):
                held.append(kernel(held.pop()))
            mx.eval(held)
            mx.synchronize()

        return run

    in_place = {"triad in place": (3, lambda array: triad(array, other)), "scale in place": (2, scale)}
    rates = [("MLX copy", best_rate(copies, 2 * CHAIN * parts[0].nbytes))]
    rates += [
        (f"MLX {name}", best_rate(chained(kernel), CHAIN * streams * length * 4))
        for name, (streams, kernel) in in_place.items()
    ]
    return rates
