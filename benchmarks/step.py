"""How long a step takes, where its time goes, and how far that is from what the machine allows."""

import statistics

from benchmarks.harness import run
from benchmarks.harness.suite import Suite, sampled, unit


class Step(Suite):
    """One update of the whole tree, parameters and state evaluated."""

    version = "3"

    @unit("seconds", rounds=2)
    def track_seconds(self, begun, case):
        """Seconds a step. Each of asv's rounds is a fresh process: memory layout differs from start to start."""
        step = run.take(self.case).step
        return sampled(step.seconds, step.number)

    @unit("seconds")
    def track_host_seconds(self, begun, case):
        """Seconds to build the step's graph in Python; nothing is evaluated, so the device has no part in it."""
        return sampled(self.measurement.host)

    @unit("x roofline")
    def track_times_roofline(self, begun, case):
        """Seconds a step over roofline seconds, against the ceiling measured in this run. 1 is the best possible."""
        roofline = run.roofline_of(begun).seconds(self.case)
        return round(statistics.median(self.measurement.step.seconds) / roofline, 4)
