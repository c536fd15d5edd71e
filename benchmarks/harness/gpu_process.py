"""A process that looks at one part of a GPU, for `scripts.gpu_check`: a line of JSON for everything it finds.

    python -m benchmarks.harness.gpu_process steps gpt2

It waits for a line on standard input before it touches the GPU, so that it can be started ahead: importing takes
seconds. It ends with whoever started it. What a part needs and a machine lacks is a line with `why`.
"""

import ctypes
import gc
import json
import os
import statistics
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks.harness import cases, trees
from benchmarks.harness.cases import Case
from benchmarks.harness.conversation import end_with_parent, own_output

Line = dict[str, Any]

BUS = "ADAMW_BUS"
"""The environment variable that tells a part without MLX the bus on which MLX's card is."""

BUDGET = 0.25
"""Seconds of samples of a case: a look at many cases, not the suite's own figures."""

TREES = ("one_leaf", "two_leaves", "thousand_leaves", "resnet50", "gpt2", "llama_1b")
PRECISIONS = ("float32", "bfloat16", "mixed", "master")
PEERS_PRECISIONS = PRECISIONS[:2]
OWN = ("kernel", "kernel_inplace")
"""The variants with a GPU kernel of this project's. Where there are peers to compare with, their steps are timed with
bias correction as well, which the peers always have."""

SETTINGS: tuple[dict[str, Any], ...] = (
    {"learning_rate": 1e-2},
    {"learning_rate": 3e-3, "betas": [0.8, 0.95], "eps": 1e-3, "weight_decay": 0.3, "bias_correction": True},
)
SIZES = (0, 1, 7, 8, 255, 256, 257, 1023, 1024, 1025, 2000, 2**16 + 3)
FEW_THREADS = 2**12
"""Threads of a launch, so that the longest of SIZES is longer than what they update at once."""

TABLES = (256, 257, 9, 1000, 511, 8, 300, 1025)
"""Sizes of leaves whose last groups are full, almost empty, or all there is."""

TOGETHER = (1, 3, 8)
"""How many of TABLES are launched together: every number is a kernel to be compiled."""

STEPS = 200
STREAMED = 2**30
"""Bytes of each array that PyTorch's streaming kernels go through."""

TRAFFIC = (
    *(f"{name}/float32/one_leaf" for name in ("eager", "compiled", "split", *OWN)),
    *(f"{name}/float32/gpt2" for name in OWN),
    *(f"{name}/bfloat16/one_leaf" for name in ("compiled", *OWN)),
)
ENERGY = tuple(f"{name}/float32/llama_1b" for name in ("eager", "compiled", *OWN))


def machine() -> Iterator[Line]:
    """What the machine is, and how fast it streams."""
    from benchmarks.harness import ceiling, roofline
    from benchmarks.harness import machine as machines
    from benchmarks.harness.host import nvidia

    here = machines.identify()
    told = {name: value for name, value in machines.gpu_info().items() if name != "uuid"}
    yield {"what": "machine", "description": str(here), "backend": here.backend, "cache_bytes": here.cache_bytes}
    yield {"what": "settings", **machines.settings(), "device_info": told}
    yield {"what": "card", "when": "before", **nvidia.about(bus=machines.bus())}
    if here.backend == "CPU":
        return
    yield {"what": "spec", **(here.spec._asdict() if here.spec else {"why": f"{here.chip} is not in chips.py"})}
    size, in_memory = ceiling.working_set(here.cache_bytes, machines.free_bytes())
    for name, rate in ceiling.mlx_kernels(size):
        yield {"what": "ceiling", "kernel": name, "bytes_per_second": rate, "bytes": size, "in_memory": in_memory}
    yield {"what": "launch", **roofline.measure_launch()._asdict()}


def torch() -> Iterator[Line]:
    """How fast PyTorch streams."""
    import torch

    from benchmarks.harness import ceiling

    a, b, c = (torch.ones(STREAMED // 4, device="cuda") for _ in range(3))

    def waiting(call: Callable[[], object]) -> Callable[[], None]:
        def wait() -> None:
            call()
            torch.cuda.synchronize()

        return wait

    for name, call, streams in (
        ("copy", lambda: b.copy_(a), 2),
        ("triad", lambda: torch.add(a, b, alpha=0.5, out=c), 3),
        ("scale in place", lambda: a.mul_(0.5), 2),
    ):
        rate = ceiling.best_rate(waiting(call), streams * STREAMED)
        told = {"bytes_per_second": rate, "bytes": streams * STREAMED, "in_memory": True}
        yield {"what": "ceiling", "kernel": f"torch {torch.__version__} {name}", **told}


def right(variant: str, name: str) -> Iterator[Line]:
    """Whether a GPU kernel of our own is AdamW in some dtypes, element by element, and after many steps."""
    import numpy as np

    import adamw
    from adamw import gpu
    from benchmarks.harness import accuracy
    from benchmarks.harness.rounding import DTYPES, Run

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


def counters(device: str) -> Iterator[Line]:
    """What MLX donates to, and the counters of every case of the quick profile, on "gpu" or "cpu"."""
    import mlx.core as mx

    mx.set_default_device(getattr(mx, device))
    import adamw
    from benchmarks.harness import donation
    from benchmarks.harness.measure import private_caches

    with private_caches():
        yield {"what": "donates", "device": device, **donation.measure()._asdict()}
        for case in cases.chosen([name for name in adamw.names() if not adamw.unavailable(name)], "quick"):
            about = {"what": "counters", "device": device, "case": str(case)}
            yield from guarded(about, partial(counted, case))


def counted(case: Case) -> Line:
    from benchmarks.harness.count import count

    return count(case)._asdict()


def joules(step: Callable[[], object], meter: Any, idle: float) -> Line:
    from benchmarks.harness.energy import measure

    return measure(step, meter, idle)._asdict()


def guarded(about: Line, look: Callable[[], Line]) -> Iterator[Line]:
    """`about` with what `look` finds, or with `why` it finds nothing."""
    try:
        yield about | look()
    except Exception as error:
        yield about | {"why": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    gc.collect()


def steps(tree: str) -> Iterator[Line]:
    """The steps of every variant on one tree, checked and timed."""
    import mlx.core as mx

    import adamw
    from benchmarks.harness import machine as machines
    from benchmarks.harness.measure import private_caches

    with private_caches():
        for precision in PRECISIONS:
            for variant in adamw.names():
                if precision not in cases.precisions(variant) or adamw.unavailable(variant):
                    continue
                for corrected in (False, True) if variant in OWN and precision in PEERS_PRECISIONS else (False,):
                    case = Case(variant, precision, tree, corrected)
                    about = {"what": "step", "case": str(case), "ideal_bytes": case.ideal_bytes}
                    mx.synchronize()  # what is freed is given back when the device is done
                    free = machines.free_bytes()
                    if case.needed_bytes > free:
                        needs = f"needs {case.needed_bytes / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
                        yield about | {"skipped": needs}
                        continue
                    yield from guarded(about, partial(timed, case))
                    mx.clear_cache()


def timed(case: Case) -> Line:
    """The figures of a case whose result is right. Raises check.WrongCase."""
    import time

    import mlx.core as mx

    from adamw.ownership import InPlaceAdamW
    from benchmarks.harness import agreement, check, sampling
    from benchmarks.harness.measure import measure_memory
    from benchmarks.harness.measurement import rounded
    from benchmarks.harness.step import TRACES, Step

    step = Step(case)
    expected = check.Check(case, step)
    start = time.perf_counter()
    step()
    first = time.perf_counter() - start
    for _ in range(agreement.STEPS - 1):
        step()
    error = expected.error(step)
    check.check_dtypes(case, step)
    check.check_kernels(case, step)
    step()
    memory = measure_memory(step)
    traces = TRACES.traces
    samples = sampling.sample(step, mx.synchronize, BUDGET)
    if TRACES.traces != traces:
        raise check.WrongCase(f"{case}: traced while the clock ran")
    step.dispatch_only()
    works_outside = isinstance(step.optimizer, InPlaceAdamW)  # what it launches is not in the graph that is built
    host = None if works_outside else statistics.median(step.dispatch_only() for _ in range(5))
    return {
        "seconds": rounded(samples.seconds),
        "number": samples.number,
        "first_step": first,
        "host": host,
        "resident_bytes": case.resident_bytes,
        **memory._asdict(),
        "error": error,
    }


def peers(name: str) -> Iterator[Line]:
    """The steps of a peer on every tree, checked and timed."""
    from benchmarks.harness.peers import PEERS

    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if missing := [package for package in PEERS[name].packages if not importable(package)]:
        yield {"what": "peer", "case": name, "why": f"{' and '.join(missing)} not installed"}
        return
    for precision in PEERS_PRECISIONS:
        for tree in TREES:
            case = Case(name, precision, tree, bias_correction=True)
            about = {"what": "peer", "case": str(case), "ideal_bytes": case.ideal_bytes}
            yield from guarded(about, partial(on_the_gpu, case))
            emptied(name)


def on_the_gpu(case: Case) -> Line:
    """The figures of a peer. Raises RuntimeError if it ran on the processor: JAX does where its own CUDA is missing."""
    from benchmarks.harness import peer_process

    told = peer_process.measured_peer(case, "CUDA", BUDGET)
    if told["environment"].endswith(" on cpu"):
        raise RuntimeError(f"it ran on the processor: {told['environment']}")
    return told


def importable(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def emptied(name: str) -> None:
    """Give a framework's free memory back, for the next tree."""
    if name.startswith("torch"):
        import torch

        torch.cuda.empty_cache()


def traffic(*names: str) -> Iterator[Line]:
    """One step of every case, of TRAFFIC if none is named, for a profiler that is told when it begins and ends."""
    import mlx.core as mx

    from benchmarks.harness.step import Step

    driver = ctypes.CDLL("libcuda.so.1")
    ones = mx.ones(32)
    mx.eval(ones)
    for name in names or TRAFFIC:
        variant, _, workload = name.partition("/")
        step = Step(cases.case(variant, workload))
        for _ in range(2):
            step()
        driver.cuProfilerStart()
        mx.eval(mx.sin(ones))  # ncu.MARKER, alone
        mx.synchronize()
        step()
        driver.cuProfilerStop()
        yield {"what": "profiled", "case": name}
        del step
        gc.collect()
        mx.clear_cache()


def energy() -> Iterator[Line]:
    """Joules a step of every case of ENERGY, each measured twice."""
    import mlx.core as mx

    from benchmarks.harness import machine as machines
    from benchmarks.harness.energy import NotMeasured, idle_watts
    from benchmarks.harness.host import HERE
    from benchmarks.harness.step import Step

    meter = HERE.energy(machines.backend(), machines.bus())
    if meter is None:
        yield {"what": "energy", "why": "not available here: nothing counts energy"}
        return
    mx.eval(mx.ones(3))
    try:
        idle = idle_watts(meter)
    except NotMeasured as error:
        yield {"what": "energy", "why": str(error)}
        return
    for name in ENERGY:
        variant, _, workload = name.partition("/")
        case = cases.case(variant, workload)
        about = {"what": "energy", "case": name, "parameters": case.parameter_count}
        if case.needed_bytes > machines.free_bytes():
            yield about | {"why": "needs more memory than is free"}
            continue
        step = Step(case)
        for _ in range(3):
            step()
        for _ in range(2):
            yield from guarded(about, partial(joules, step, meter, idle))
        del step
        gc.collect()
        mx.clear_cache()


def torch_energy() -> Iterator[Line]:
    """Joules a step of PyTorch's fused AdamW on the largest tree."""
    import numpy as np

    from benchmarks.harness import inputs, peer_process
    from benchmarks.harness.energy import idle_watts
    from benchmarks.harness.host import HERE
    from benchmarks.harness.peers import PEERS

    meter = HERE.energy("CUDA", os.environ.get(BUS, ""))
    if meter is None or not importable("torch"):
        yield {"what": "energy", "case": "torch_fused/float32/llama_1b", "why": "not available here"}
        return
    idle = idle_watts(meter)  # before anything is asked of the card, as with MLX's
    case = Case("torch_fused", "float32", "llama_1b", bias_correction=True)
    tree = trees.build(case.tree_name)
    gradients, parameters = (np.asarray(tile) for tile in inputs.tiles())
    peer = PEERS[case.variant](tree, case.precision, "CUDA", 1)
    peer.fill(peer_process.leaves(parameters, tree), peer_process.leaves(gradients, tree))
    peer()
    about = {"what": "energy", "case": "torch_fused/float32/llama_1b", "parameters": case.parameter_count}
    for _ in range(2):
        yield from guarded(about, partial(joules, peer, meter, idle))


def card() -> Iterator[Line]:
    """The card once more, at the end: hotter, perhaps slower."""
    from benchmarks.harness.host import nvidia

    yield {"what": "card", "when": "after", **nvidia.about(bus=os.environ.get(BUS, ""))}


PARTS: dict[str, Callable[..., Iterator[Line]]] = {
    part.__name__: part for part in (machine, torch, right, counters, steps, peers, traffic, energy, torch_energy, card)
}


def main(arguments: list[str]) -> None:
    answers = own_output()
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    part, *rest = arguments
    ready(part)
    sys.stdin.readline()
    try:
        for line in PARTS[part](*rest):
            answers.write(json.dumps(line) + "\n")
            answers.flush()
    except Exception as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        answers.write(json.dumps({"what": "lost", "part": " ".join(arguments), "why": why}) + "\n")
        answers.flush()


def ready(part: str) -> None:
    """Import what a part needs and what takes seconds, without touching the GPU."""
    if part in ("torch", "peers", "torch_energy"):
        __import__("torch") if importable("torch") else None
    elif part != "card":
        __import__("benchmarks.harness.step")


if __name__ == "__main__":
    main(sys.argv[1:])
