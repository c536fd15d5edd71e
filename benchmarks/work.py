"""What a step does, counted in MLX's graph: exact figures, the same on every machine."""

from benchmarks.harness.suite import Suite, unit


class Work(Suite):
    """One step's kernels and bytes."""

    version = "1"

    @unit("modelled/ideal")
    def track_traffic_ratio(self, begun, variant, workload):
        """Bytes that the step's kernels read and write, over the least that a step of this precision can move."""
        return round(self.measurement.work.modelled_bytes / self.case.ideal_bytes, 4)

    @unit("kernels")
    def track_kernels(self, begun, variant, workload):
        """Launched kernels, those that only compute a rate included; a fused kernel counts as one."""
        return self.measurement.work.kernels + self.measurement.work.scalar_kernels
