"""What a step does, counted in MLX's graph: exact figures, the same on every machine."""

from benchmarks.harness import run
from benchmarks.harness.suite import Suite, unit


class Work(Suite):
    """One step's kernels, bytes, memory and host calls. Nothing is timed: `asv run --bench ^work` takes minutes."""

    version = "2"

    def setup(self, begun, case):
        super().setup(begun, case)
        self.work = run.counted(self.case)

    @unit("modelled/ideal")
    def track_traffic_ratio(self, begun, case):
        """Bytes that the step's kernels read and write, over the least that a step of this precision can move."""
        return ratio(self.work.modelled_bytes, self.case.ideal_bytes)

    @unit("bytes")
    def track_modelled_bytes(self, begun, case):
        """Bytes that the step's kernels read and write."""
        return told(self.work.modelled_bytes)

    @unit("kernels")
    def track_kernels(self, begun, case):
        """Launched kernels, those that only compute a rate included; a fused kernel counts as one."""
        return self.work.kernels + self.work.scalar_kernels

    @unit("kernels a leaf")
    def track_kernels_a_leaf(self, begun, case):
        """Launched kernels that touch a leaf, over the leaves."""
        return ratio(self.work.kernels, self.case.leaf_count)

    @unit("kernels")
    def track_scalar_kernels(self, begun, case):
        """Launched kernels that touch no leaf: rates and corrections, once a step or once a leaf."""
        return self.work.scalar_kernels

    @unit("primitives")
    def track_primitives(self, begun, case):
        """Operations before fusion."""
        return told(self.work.primitives)

    @unit("arrays")
    def track_temporaries(self, begun, case):
        """Leaf-sized arrays that one kernel writes for another to read."""
        return self.work.temporaries

    @unit("peak/ideal")
    def track_peak_ratio(self, begun, case):
        """The most memory there can be during a step, over what must be resident. MLX may show less, never more."""
        return ratio(self.work.peak_bytes, self.case.resident_bytes)

    @unit("arrays and operations")
    def track_left_behind(self, begun, case):
        """Arrays held while they could be written over, arrays that stay after a step, operations that pile up."""
        return told(self.work.held_arrays) + told(self.work.kept_arrays) + told(self.work.graph_growth)

    @unit("traces")
    def track_traces(self, begun, case):
        """How often compiled functions are traced in the first ten steps."""
        return self.work.traces

    @unit("calls a leaf")
    def track_host_calls_a_leaf(self, begun, case):
        """Python functions and builtins called to build the graph of a step, over the leaves."""
        return ratio(self.work.calls, self.case.leaf_count)

    @unit("bytes")
    def track_result_bytes(self, begun, case):
        """Bytes of the new parameters and of the state: more of them is a dtype that grew."""
        return self.work.result_bytes


def told(figure: int | None) -> int:
    """`figure`; the benchmark is skipped where this MLX does not tell it."""
    return run.skip("not available in this MLX") if figure is None else figure


def ratio(figure: int | None, of: int) -> float:
    return round(told(figure) / of, 4)
