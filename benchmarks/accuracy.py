"""How far a variant's result is from AdamW in float64: a fast wrong answer is not fast."""

from benchmarks.harness import cases, numbers, run
from benchmarks.harness.suite import Suite, unit


class Accuracy(Suite):
    """The first steps of every case, compared element by element; a case over its tolerance fails in every suite."""

    version = "2"

    @unit("relative error")
    def track_error(self, begun, case):
        """The largest relative error of w, m and v after three steps."""
        return numbers.in_asv(self.measurement.error)


class LongRun(Suite):
    """Thousands of steps of a small leaf, in every precision of every variant: where half precision is not AdamW."""

    version = "1"
    params = (
        [f"{variant}/{precision}" for variant in cases.variant_names() for precision in cases.precisions(variant)],
    )

    def setup(self, begun, case):
        self.accuracy = run.accuracy(*case.split("/"))

    @unit("error of the way")
    def track_after_1(self, begun, case):
        """|w - w_reference| / |w_reference - w_start| after one step. 1 is as wrong as not to move."""
        return numbers.in_asv(self.accuracy.after_1)

    @unit("error of the way")
    def track_after_100(self, begun, case):
        return numbers.in_asv(self.accuracy.after_100)

    @unit("error of the way")
    def track_after_2000(self, begun, case):
        return numbers.in_asv(self.accuracy.after_2000)

    @unit("relative error")
    def track_v_after_2000(self, begun, case):
        return numbers.in_asv(self.accuracy.v_after_2000)

    @unit("relative error")
    def track_v_decay(self, begun, case):
        """Of v, after one step and 500 more with zero gradients."""
        return numbers.in_asv(self.accuracy.v_decay)

    @unit("error of the way")
    def track_zero_gradients(self, begun, case):
        """After 100 steps without gradients: only the weight decay moves the parameters."""
        return numbers.in_asv(self.accuracy.zero_gradients)

    @unit("error of the way")
    def track_tiny_gradients(self, begun, case):
        """After 100 steps with gradients of 1e-6."""
        return numbers.in_asv(self.accuracy.tiny_gradients)

    @unit("cross entropy")
    def track_digits_loss(self, begun, case):
        """The loss with which a small network ends that is trained on scikit-learn's digits."""
        return numbers.in_asv(self.accuracy.loss)
