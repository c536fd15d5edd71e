"""A process that measures one variant or peer on one workload, or first of all what this machine allows.

    python -m benchmarks.harness.peer_process machine
    python -m benchmarks.harness.peer_process torch_fused float32 gpt2 CPU

It answers with one line of JSON on its standard output: figures, or `failed` with the reason. It ends with whoever
started it. A peer's process has no MLX in it.
"""

import json
import math
import os
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np

import adamw
from benchmarks.harness import agreement, inputs, resident, sampling, trees
from benchmarks.harness.cases import Case
from benchmarks.harness.conversation import end_with_parent, own_output
from benchmarks.harness.peers import PEERS, Peer

THREADS = "NUMBA_NUM_THREADS"
"""The environment variable with the number of threads that a step may use: `inplace` reads it through numba."""

REHEARSAL = {"weight": [trees.shape(2**18), trees.shape(1024)]}
"""Leaves large and small enough for all that a framework does of its own accord: threads, another loop."""


def main(arguments: list[str]) -> None:
    answers = own_output()
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        answer = allowed() if arguments == ["machine"] else measured(*arguments)
    except Exception as error:
        answer = {"failed": f"{type(error).__name__}: {error}"[:500]}
    answers.write(json.dumps(answer) + "\n")
    answers.close()


def allowed() -> dict[str, Any]:
    """This machine, its ceiling, and why which variant cannot run on it."""
    from benchmarks.harness import ceiling, machine

    here = machine.identify()
    return {
        "machine": str(here),
        "backend": here.backend,
        "cache_bytes": here.cache_bytes,
        "ceiling": ceiling.measure()._asdict(),
        "unavailable": {name: reason for name in adamw.names() if (reason := why_not(name))},
    }


def why_not(variant: str) -> str | None:
    """Why `variant` cannot run here; None if it can, and if asking fails: then its own process says how."""
    try:
        return adamw.unavailable(variant)
    except Exception:
        return None


def measured(name: str, precision: str, tree: str, backend: str) -> dict[str, Any]:
    """The figures of a variant or a peer, once its result is right. Raises agreement.WrongCase."""
    case = Case(name, precision, tree, bias_correction=True)
    return measured_peer(case, backend) if name in PEERS else measured_variant(case, backend)


def measured_variant(case: Case, backend: str) -> dict[str, Any]:
    """What the harness measures of a variant."""
    from benchmarks.harness.measure import measure

    measurement = measure(case)
    return {
        **measurement.step._asdict(),
        "peak": measurement.memory.peak,
        "memory_source": "MLX",
        "error": measurement.error,
        "environment": f"mlx {version('mlx')} on {backend}",
    }


def measured_peer(case: Case, backend: str, budget: float = sampling.BUDGET) -> dict[str, Any]:
    """The same of a peer. Its peak: the most that is held by steps after the first, above what was there before."""
    make, threads = PEERS[case.variant], int(os.environ[THREADS])
    tree = trees.build(case.tree_name)
    gradients, parameters = inputs.tiles()
    rehearse(make(REHEARSAL, case.precision, backend, threads))
    peer = make(tree, case.precision, backend, threads)
    before = resident.now()
    peer.fill(leaves(parameters, tree), leaves(gradients, tree))
    peer()  # which may make the state
    resident.forget_peak()
    for _ in range(agreement.STEPS - 1):
        peer()
    peak, source = resident.peak()  # before the check: what it frees may stay with the allocator
    check_dtypes(case, peer)
    starts = zip(rounded(peer, parameters, tree), rounded(peer, gradients, tree), strict=True)
    found = ({name: compared(peer, array) for name, array in leaf.items()} for leaf in every_leaf(peer, tree))
    error = agreement.worst_error(case, starts, found, peer.tolerance)
    on_host = peer.device == "cpu"
    return {
        **sampling.sample(peer, peer.synchronize, budget)._asdict(),
        "peak": peak - before if on_host else None,
        "memory_source": source if on_host else None,
        "error": error,
        "environment": f"{peer.versions()} on {peer.device}",
    }


def rehearse(peer: Peer) -> None:
    """Steps of a small tree: what the framework takes for itself on first use is no part of any tree's memory."""
    gradients, parameters = inputs.tiles()
    peer.fill(leaves(parameters, REHEARSAL), leaves(gradients, REHEARSAL))
    for _ in range(agreement.STEPS):
        peer()


def leaves(tile: np.ndarray, tree: Any) -> Iterator[np.ndarray]:
    """The values of every leaf of `tree`, flat, in float32."""
    return (inputs.leaf(tile, number, shape.size) for number, shape in enumerate(trees.leaves(tree)))


def every_leaf(peer: Peer, tree: Any) -> Iterator[dict[str, Any]]:
    return (peer.leaf(number) for number, _ in enumerate(trees.leaves(tree)))


def rounded(peer: Peer, tile: np.ndarray, tree: Any) -> Iterator[np.ndarray]:
    """The elements of every leaf's input that are compared, rounded to the peer's dtype by the peer itself."""
    for number, shape in enumerate(trees.leaves(tree)):
        parts = [inputs.part(tile, number, block) for block in agreement.blocks(shape.size)]
        values = np.concatenate(parts)
        yield peer.part(peer.array(values, trees.shape(values.size)), slice(None)).astype(np.float64)


def compared(peer: Peer, array: Any) -> np.ndarray:
    """The elements of `array` that are compared, in float64."""
    parts = [peer.part(array, block) for block in agreement.blocks(math.prod(array.shape))]
    return np.concatenate(parts).astype(np.float64)


def check_dtypes(case: Case, peer: Peer) -> None:
    """Raise WrongCase if the parameters or moments of the first leaf have another dtype than the precision says."""
    precision = case.precision
    wanted = {"w": precision.parameter, "m": precision.state, "v": precision.state}
    for name, array in peer.leaf(0).items():
        found = str(array.dtype).removeprefix("torch.")
        if found != wanted[name] and not (name != "w" and precision.state_is_the_variants):
            raise agreement.WrongCase(f"{case}: dtype changed: {name} became {found}, was {wanted[name]}")


if __name__ == "__main__":
    main(sys.argv[1:])
