"""What a step does is counted right, and a change in it is seen."""

import mlx.core as mx
import mlx.optimizers
import pytest

import adamw
from benchmarks.harness import graph
from benchmarks.harness.step import TRACES

LEAVES = (4096, 64, 64)


def tree(value: float) -> dict:
    made = {"leaves": [mx.full((size,), value) for size in LEAVES]}
    mx.eval(made)
    return made


def work(optimizer) -> graph.Work:
    optimizer.init(tree(0.5))
    mx.eval(optimizer.state)
    return graph.step_work(optimizer, tree(0.25), tree(0.5))


N = sum(LEAVES) * 4


@pytest.mark.parametrize(
    ("name", "bias_correction", "kernels", "fused", "traffic"),
    [
        ("eager", False, 13, 0, 30),
        ("eager", True, 14, 0, 32),
        ("compiled", False, 1, 1, 7),
        ("compiled", True, 1, 1, 7),
        ("split", False, 3, 3, 10),
        ("split", True, 3, 3, 10),
        ("windowed", False, 1, 1, 7),
        ("windowed", True, 1, 1, 7),
    ],
)
def test_theory_is_met(name, bias_correction, kernels, fused, traffic):
    found = work(adamw.create(name, learning_rate=1e-2, bias_correction=bias_correction))
    assert found.kernels == kernels * len(LEAVES)
    assert found.fused_kernels == fused * len(LEAVES)
    assert found.modelled_bytes == traffic * N


def test_a_leaf_larger_than_the_window_is_split():
    found = work(adamw.create("windowed", learning_rate=1e-2, window_bytes=1024))
    assert found.kernels == 3 + 1 + 1
    assert found.modelled_bytes == 4 * (10 * LEAVES[0] + 7 * LEAVES[1] + 7 * LEAVES[2])


def test_many_leaves_are_counted_in_parts():
    many = {"leaves": [mx.full((8,), 0.5) for _ in range(2 * graph.LEAVES_A_GRAPH + 1)]}
    optimizer = adamw.create("compiled", learning_rate=1e-2)
    optimizer.init(many)
    mx.eval(many, optimizer.state)
    few = work(adamw.create("compiled", learning_rate=1e-2))
    found = graph.step_work(optimizer, many, many)
    assert found.fused_kernels == 2 * graph.LEAVES_A_GRAPH + 1
    assert found.scalar_kernels == few.scalar_kernels


class Unfused(adamw.load("compiled")):
    """Fusion broken on purpose: a reduction cannot be fused."""

    def apply_single(self, gradient, parameter, state):
        return super().apply_single(gradient + 0 * mx.sum(gradient), parameter, state)


def test_broken_fusion_shows():
    found, whole = work(Unfused(1e-2)), work(adamw.create("compiled", learning_rate=1e-2))
    assert found.kernels > whole.kernels
    assert found.modelled_bytes > whole.modelled_bytes


def test_counting_leaves_the_optimizer_as_it_was():
    optimizer = adamw.create("windowed", learning_rate=1e-2)
    optimizer.init(tree(0.5))
    mx.eval(optimizer.state)
    before = optimizer.state["leaves"][0]["m"]
    graph.step_work(optimizer, tree(0.25), tree(0.5))
    assert optimizer.state["leaves"][0]["m"] is before
    assert optimizer.step.item() == 0


def test_evaluation_is_back_afterwards():
    evaluate, start = mx.eval, mx.async_eval
    with pytest.raises(RuntimeError), graph.held_back():
        raise RuntimeError
    assert (mx.eval, mx.async_eval) == (evaluate, start)


def test_traces_are_counted_and_a_new_one_shows():
    optimizer = adamw.create("compiled", learning_rate=1e-2)
    held = [tree(0.5)]

    def step() -> int:
        before = TRACES.traces
        held.append(optimizer.apply_gradients(tree(0.25), held.pop()))
        mx.eval(held, optimizer.state)
        return TRACES.traces - before

    assert [step(), step(), step()] == [1, 0, 0]
    optimizer.weight_decay = 0.5
    assert [step(), step()] == [1, 0]


def test_upstream_eager_is_what_eager_is():
    assert work(adamw.create("eager", learning_rate=1e-2)) == work(mlx.optimizers.AdamW(1e-2))


class Reshaping(adamw.load("eager")):
    """Works on a flat view of every leaf."""

    def apply_single(self, gradient, parameter, state):
        return super().apply_single(gradient.reshape(2, -1), parameter.reshape(2, -1), state).reshape(-1)

    def init_single(self, parameter, state):
        super().init_single(parameter.reshape(2, -1), state)


def test_work_through_a_view_counts():
    assert work(Reshaping(1e-2)).modelled_bytes == work(adamw.create("eager", learning_rate=1e-2)).modelled_bytes
