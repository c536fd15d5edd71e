"""A step's graph is read right: what is fused, how large every array is, what is evaluated together."""

import here
import mlx.core as mx
import mlx.optimizers
import pytest
from mlx.utils import tree_map

import adamw
from benchmarks.harness import cases, dot, graph, primitives
from benchmarks.harness.count import HollowStep
from benchmarks.harness.evaluation import as_if_evaluated, flat, held_back, hollow, undone
from benchmarks.harness.step import TRACES, Step
from benchmarks.harness.tracing import untraced_variants

NESTED = cases.Case("compiled", "float32", "nested")


def ready(case: cases.Case, kind: type[Step] = HollowStep) -> Step:
    step = kind(case)
    step()
    return step


@pytest.mark.parametrize("variant", here.FLOAT32)
def test_arrays_without_memory_have_the_graph_of_real_ones(variant):
    case = NESTED._replace(variant=variant)
    assert graph.read(ready(case)) == graph.read(ready(case, Step))


def test_counting_leaves_the_step_as_it_was():
    step = ready(NESTED._replace(variant="windowed"), Step)
    before = flat([step.parameters, step.optimizer.state])
    graph.read(step)
    assert all(old is new for old, new in zip(before, flat([step.parameters, step.optimizer.state]), strict=True))
    assert step.optimizer.step.item() == 1


def test_evaluation_is_back_afterwards():
    evaluate, start = mx.eval, mx.async_eval
    with pytest.raises(RuntimeError), held_back():
        raise RuntimeError
    assert (mx.eval, mx.async_eval) == (evaluate, start)


def test_a_hollow_array_takes_no_memory():
    mx.synchronize()
    before = mx.get_active_memory()
    (array,) = as_if_evaluated([hollow((1000, 1000), mx.float32)]).values()
    assert (array.shape, array.dtype, array.nbytes) == ((1000, 1000), mx.float32, 4_000_000)
    assert mx.get_active_memory() - before < 100


def test_arrays_are_told_apart_beyond_mlxs_limit_of_names():
    inputs = [mx.full((2,), 0.5) for _ in range(dot.NAMES_A_TEXT + 5)]
    mx.eval(inputs)
    results = [array + 1 for array in inputs]
    read = dot.read([*inputs, *results])
    makers = {node.outputs[0]: node.inputs[0] for node in read.nodes if node.label == "Add"}
    assert [makers[number] for number in read.given[len(inputs) :]] == read.given[: len(inputs)]


def test_an_array_given_twice_is_found_twice():
    array = mx.full((2,), 0.5)
    mx.eval(array)
    result = array * 2
    first, second, other = dot.read([array, array, result]).given
    assert first == second != other


def test_both_views_of_an_unfused_graph_must_agree(monkeypatch):
    step = ready(NESTED._replace(variant="eager"))
    found = graph.read(step)
    assert found.primitive_count
    assert None not in found.nbytes
    original = primitives.Primitives.receive

    def forgetful(self, part):
        if part.get("name") != "Square":
            original(self, part)

    monkeypatch.setattr(primitives.Primitives, "receive", forgetful)
    with pytest.raises(graph.Disagreement, match="Square"):
        graph.read(step)


def test_without_primitives_only_known_sizes_are_told(monkeypatch):
    monkeypatch.setattr(primitives, "available", lambda: False)
    eager, compiled = (graph.read(ready(NESTED._replace(variant=name))) for name in ("eager", "compiled"))
    assert eager.primitive_count is None
    assert None in eager.nbytes
    assert None not in compiled.nbytes


def test_an_array_that_belongs_to_nobody_is_refused(monkeypatch):
    hidden = mx.full((256, 256), 0.5)
    mx.eval(hidden)

    class Reading(mlx.optimizers.AdamW):
        def apply_single(self, gradient, parameter, state):
            return super().apply_single(gradient + hidden, parameter, state)

    monkeypatch.setattr(adamw, "load", lambda name: Reading)
    with pytest.raises(graph.Disagreement, match=r"reads \d+ bytes that are neither"):
        graph.read(ready(NESTED))


def test_windows_are_stages_of_the_graph():
    gpt2 = graph.read(ready(cases.case("windowed", "float32/gpt2")))
    assert len(gpt2.stages) > 20
    assert len({kernel.stage for kernel in gpt2.leaf_kernels}) > 10
    assert gpt2.stages[-1][0]
    whole = graph.read(ready(cases.case("compiled", "float32/gpt2")))
    assert len(whole.stages) == 1


def test_undone_puts_private_arrays_back():
    class Averaging(mlx.optimizers.AdamW):
        average = None

        def apply_gradients(self, gradients, parameters):
            self.average = tree_map(lambda array: array * 0.5, parameters)
            return super().apply_gradients(gradients, parameters)

    optimizer = Averaging(1e-2)
    tree = {"weight": mx.ones((4,))}
    optimizer.init(tree)
    optimizer.average = before = {"weight": mx.ones((4,))}
    with undone(optimizer):
        optimizer.apply_gradients(tree, tree)
        assert optimizer.average is not before
    assert optimizer.average is before


def test_traces_are_counted_and_a_new_one_shows():
    step = Step(NESTED)

    def traced() -> int:
        before = TRACES.traces
        step()
        return TRACES.traces - before

    assert [traced(), traced(), traced()] == [1, 0, 0]
    step.optimizer.weight_decay = 0.5
    assert traced() == 0
    step.optimizer.betas = [0.5, 0.6]
    assert [traced(), traced()] == [1, 0]


def test_variants_imported_anew_are_traced_anew():
    split = NESTED._replace(variant="split")
    ready(split)
    before = TRACES.traces
    ready(split)
    assert TRACES.traces == before
    with untraced_variants():
        ready(split)
    assert TRACES.traces > before
    again = TRACES.traces
    ready(split)
    assert TRACES.traces == again
