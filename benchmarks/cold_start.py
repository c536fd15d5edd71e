"""What the first step costs on top: tracing the update and compiling its kernels."""

from benchmarks.harness.suite import Suite, unit


class ColdStart(Suite):
    """The first step of a process whose kernel cache is empty."""

    version = "2"

    @unit("seconds")
    def track_first_step_seconds(self, begun, case):
        return self.measurement.first_step
