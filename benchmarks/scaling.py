"""How a step's time grows with its size: one float32 leaf of 2^10 to 2^26 elements."""

import statistics

from benchmarks.harness import cases, run
from benchmarks.harness.suite import Suite, sampled, unit


class Scaling(Suite):
    """From launch-bound, through the caches, to memory-bound."""

    version = "3"
    params = ([name for name in cases.names() if name.split("/", 1)[1] in cases.sweep()],)

    @unit("seconds")
    def track_seconds(self, begun, case):
        step = run.take(self.case).step
        return sampled(step.seconds, step.number)

    @unit("x roofline")
    def track_times_roofline(self, begun, case):
        """A size that fits a cache may come out below 1: the ceiling is memory's."""
        roofline = run.roofline_of(begun).seconds(self.case)
        return round(statistics.median(self.measurement.step.seconds) / roofline, 4)
