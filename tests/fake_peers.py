"""Peers that need nothing installed, right and wrong ones, planted in the processes that `scripts.peers` starts.

python tests/fake_peers.py NAME PRECISION TREE BACKEND     instead of benchmarks.harness.peer_process
python tests/fake_peers.py command [ARGUMENT ...]          scripts.peers among them
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.harness import ceiling, peer_process, peers, sampling, trees
from benchmarks.harness.cases import LEARNING_RATE, PRECISIONS
from scripts import command
from scripts import peers as script


class Right(peers.Peer):
    """AdamW in place, with NumPy."""

    precisions = ("float32",)
    limit = "it is a fake"
    decay = 1 - LEARNING_RATE * peers.WEIGHT_DECAY

    def __init__(self, tree, precision, backend, threads):
        self.shapes = list(trees.leaves(tree))
        self.t = 0

    def fill(self, parameters, gradients):
        self.w = list(map(self.array, parameters, self.shapes))
        self.g = list(map(self.array, gradients, self.shapes))
        self.m = [np.zeros_like(w) for w in self.w]
        self.v = [np.zeros_like(w) for w in self.w]

    def __call__(self):
        self.t += 1
        b1, b2 = peers.BETAS
        for w, g, m, v in zip(self.w, self.g, self.m, self.v, strict=True):
            m += (1 - b1) * (g - m)
            v += (1 - b2) * (g * g - v)
            w *= self.decay
            w -= LEARNING_RATE / (1 - b1**self.t) * m / (np.sqrt(v / (1 - b2**self.t)) + peers.EPS)

    def leaf(self, number):
        return {"w": self.w[number], "m": self.m[number], "v": self.v[number]}

    def array(self, values, shape):
        return values.reshape(shape).copy()

    def part(self, array, block):
        return array.reshape(-1)[block].astype(np.float32)

    @classmethod
    def versions(cls):
        return f"NumPy, MLX loaded: {'mlx.core' in sys.modules}, threads {os.environ[peer_process.THREADS]}"


class NoDecay(Right):
    decay = 1.0


class Widening(Right):
    def __call__(self):
        super().__call__()
        self.w = [w.astype(np.float64) for w in self.w]


class Dying(Right):
    def __call__(self):
        print("Error: cannot go on", file=sys.stderr, flush=True)
        os._exit(9)


class Hanging(Right):
    """Says in the file FAKE_PEER_PID who it is, and never ends."""

    def __call__(self):
        Path(os.environ["FAKE_PEER_PID"]).write_text(str(os.getpid()))
        time.sleep(600)


class Absent(Right):
    packages = ("no_such_framework",)


FAKES = {
    "right": Right,
    "no_decay": NoDecay,
    "widening": Widening,
    "dying": Dying,
    "hanging": Hanging,
    "absent": Absent,
}


def plant() -> None:
    assert PRECISIONS["float32"].tolerance < 1e-3, "or a missing decay would pass"
    peers.PEERS.update(FAKES)
    sampling.WARM_UP = 0.01
    ceiling.SMALLEST_WORKING_SET, ceiling.CACHE_MULTIPLE = 2**22, 0
    script.WORKER = [sys.executable, __file__]


if __name__ == "__main__":
    plant()
    if sys.argv[1] == "command":
        sys.exit(command.run(lambda: script.main(sys.argv[2:])))
    peer_process.main(sys.argv[1:])
