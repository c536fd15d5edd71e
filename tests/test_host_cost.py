"""What Python costs a leaf to build a step's graph. `pytest --benchmark-only` measures in earnest."""

import here
import mlx.core as mx
import pytest

import adamw
from benchmarks.harness.evaluation import held_back, undone

LEAVES = 200


@pytest.mark.parametrize("name", here.VARIANTS)
def test_dispatch_of_a_leaf(benchmark, name):
    """Microseconds for LEAVES leaves, nothing evaluated; `leaves` in extra_info."""
    tree = {"layers": [{"weight": mx.ones((8,))} for _ in range(LEAVES)]}
    optimizer = adamw.create(name, learning_rate=1e-2)
    optimizer.init(tree)
    mx.eval(tree, optimizer.state)
    mx.eval(optimizer.apply_gradients(tree, tree), optimizer.state)
    benchmark.extra_info["leaves"] = LEAVES

    def dispatch():
        with undone(optimizer), held_back():
            return optimizer.apply_gradients(tree, tree)

    updated = benchmark(dispatch)
    assert len(updated["layers"]) == LEAVES
    assert optimizer.step.item() == 1
