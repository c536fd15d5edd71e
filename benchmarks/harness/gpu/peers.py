"""What peers take on the same card: seconds of a step, and PyTorch's joules. A process of these has no MLX in it."""

import os
from collections.abc import Iterator
from functools import partial

import numpy as np

from benchmarks.harness import inputs, peer_process, trees
from benchmarks.harness.cases import Case
from benchmarks.harness.energy import NotMeasured, idle_meter
from benchmarks.harness.gpu.chosen import BUDGET, PEERS_PRECISIONS, TREES
from benchmarks.harness.gpu.lines import BUS, Line, guarded, importable, joules_twice
from benchmarks.harness.peers import PEERS


def peers(name: str) -> Iterator[Line]:
    """Yield the steps of a peer on every tree, checked and timed."""
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
    told = peer_process.measured_peer(case, "CUDA", BUDGET)
    if told["environment"].endswith(" on cpu"):
        raise RuntimeError(f"it ran on the processor: {told['environment']}")
    return told


def emptied(name: str) -> None:
    """Give a framework's free memory back, for the next tree."""
    if name.startswith("torch"):
        import torch

        torch.cuda.empty_cache()


def torch_energy() -> Iterator[Line]:
    """Yield the joules a step of PyTorch's fused AdamW on the largest tree, measured twice."""
    case = Case("torch_fused", "float32", "llama_1b", bias_correction=True)
    about = {"what": "energy", "case": "torch_fused/float32/llama_1b", "parameters": case.parameter_count}
    if not importable("torch"):
        yield about | {"why": "not available here: torch is not installed"}
        return
    try:
        meter, idle = idle_meter("CUDA", os.environ.get(BUS, ""))  # before anything is asked of the card
    except NotMeasured as error:
        yield about | {"why": f"not available here: {error}"}
        return
    tree = trees.build(case.tree_name)
    gradients, parameters = (np.asarray(tile) for tile in inputs.tiles())
    peer = PEERS[case.variant](tree, case.precision, "CUDA", 1)
    peer.fill(peer_process.leaves(parameters, tree), peer_process.leaves(gradients, tree))
    peer()
    yield from joules_twice(about, peer, meter, idle)
