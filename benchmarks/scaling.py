"""How a step's time grows with its size: one float32 leaf of 2^10 to 2^26 elements."""

import statistics

from benchmarks.harness import cases, run, trees
from benchmarks.harness.suite import Suite, sampled, unit


class Scaling(Suite):
    """From launch-bound, through the caches, to memory-bound."""

    version = "1"
    params = (cases.variant_names(), list(trees.SWEEP))
    param_names = ["variant", "elements"]

    def setup(self, begun, variant, elements):
        self.case = run.choose(variant, f"float32/leaf_{elements}")

    @unit("seconds")
    def track_seconds(self, begun, variant, elements):
        step = run.take(self.case).step
        return sampled(step.seconds, step.number)

    @unit("x roofline")
    def track_times_roofline(self, begun, variant, elements):
        """A size that fits a cache may come out below 1: the ceiling is memory's."""
        roofline = run.roofline_of(begun).seconds(self.case)
        return round(statistics.median(self.measurement.step.seconds) / roofline, 4)
