"""How far a variant's result is from AdamW in float64: a fast wrong answer is not fast."""

from benchmarks.harness.suite import Suite, unit


class Accuracy(Suite):
    """The first steps of every case, compared element by element; a case over its tolerance fails in every suite."""

    version = "2"

    @unit("relative error")
    def track_error(self, begun, case):
        """The largest relative error of w, m and v after three steps."""
        return float(f"{self.measurement.error:.3g}")
