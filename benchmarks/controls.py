"""Controls: fixed pieces of work that no commit here can change. When one moves, the machine moved, not the code."""

import mlx.core as mx
import mlx.optimizers
import numpy as np

from benchmarks.harness.sampling import sample
from benchmarks.harness.suite import sampled, unit

ELEMENTS = 2**24


class Controls:
    """64 MiB arrays of float32, on MLX's device and on one core with NumPy."""

    version = "1"
    timeout = 300

    def setup(self):
        mx.set_cache_limit(2**30)
        self.a, self.b = mx.full((ELEMENTS,), 0.5), mx.full((ELEMENTS,), 0.25)
        mx.eval(self.a, self.b)

    @unit("seconds")
    def track_stream_copy(self):
        """b = 1 a on MLX: 2 arrays moved."""
        return timed(lambda: self.a * 1.0)

    @unit("seconds")
    def track_stream_triad(self):
        """c = a + s b on MLX, compiled: 3 arrays moved."""
        triad = mx.compile(lambda a, b: a + 0.5 * b)
        return timed(lambda: triad(self.a, self.b))

    @unit("seconds")
    def track_numpy_loop(self):
        """a = s a in place with NumPy on one core: 2 arrays moved, MLX not involved."""
        array, scale = np.ones(ELEMENTS, np.float32), np.float32(1.0)
        samples = sample(lambda: np.multiply(array, scale, out=array))
        return sampled(samples.seconds, samples.number)

    @unit("seconds")
    def track_sgd(self):
        """A step of `mlx.optimizers.SGD` with momentum, uncompiled, on one leaf: not what this is about."""
        optimizer = mlx.optimizers.SGD(learning_rate=1e-6, momentum=0.9)
        held, gradients = [{"weight": self.a}], {"weight": self.b}

        def step():
            held.append(optimizer.apply_gradients(gradients, held.pop()))
            mx.eval(held, optimizer.state)

        samples = sample(step, mx.synchronize)
        return sampled(samples.seconds, samples.number)


def timed(build):
    samples = sample(lambda: mx.eval(build()), mx.synchronize)
    return sampled(samples.seconds, samples.number)
