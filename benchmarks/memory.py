"""How much memory a step takes, against what must be resident: parameters, gradients and state."""

from benchmarks.harness.suite import Suite, unit


class Memory(Suite):
    """The steady state: after several steps, with MLX's buffer cache unlimited."""

    version = "2"

    @unit("bytes")
    def track_peak_bytes(self, begun, case):
        """MLX's peak while stepping. It excludes the cache; with many leaves it depends on how far MLX runs ahead."""
        return self.measurement.memory.peak

    @unit("bytes")
    def track_active_bytes(self, begun, case):
        """What MLX holds in arrays between two steps."""
        return self.measurement.memory.active

    @unit("bytes")
    def track_cache_bytes(self, begun, case):
        """Freed buffers that MLX keeps for reuse."""
        return self.measurement.memory.cache

    @unit("bytes")
    def track_process_bytes(self, begun, case):
        """What the process holds: its physical footprint on macOS, its RSS elsewhere."""
        return self.measurement.memory.process

    @unit("peak/ideal")
    def track_memory_ratio(self, begun, case):
        """Peak over resident ideal. 1 is a step that updates in place."""
        return round(self.measurement.memory.peak / self.case.resident_bytes, 4)
