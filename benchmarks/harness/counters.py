"""What one step does, as plain data: figures that are exact, repeat under any load, and are lower when better."""

from typing import NamedTuple

from benchmarks.harness.cases import Case


class Counters(NamedTuple):
    """The work of one step in its steady state. None: this MLX does not tell.

    kernels           launched kernels that touch a leaf; a fused kernel counts as one
    fused_kernels     those of them that `mx.compile` made
    scalar_kernels    launched kernels that touch no leaf
    modelled_bytes    bytes that the kernels read and write
    bytes_read        those of them that are read
    primitives        operations before fusion
    temporaries       arrays written for another kernel to read, and no result
    allocated_bytes   bytes of the arrays that are not written over an older one
    peak_bytes        the most memory there can be during the step, however far MLX runs ahead (see `donation`)
    held_arrays       old parameters and moments that somebody still holds when they are read for the last time
    kept_arrays       leaf-sized arrays that stay after the step besides parameters, gradients and state
    graph_growth      operations that a step's graph has more than the graph of the step before
    memory_growth     bytes that stay after a step more than after the step before
    evaluations       calls of `mx.eval`, `mx.async_eval` and `mx.synchronize` by the variant itself
    waits             those of them that wait for the device
    wrong_results     1 if a few steps of the tree with small leaves are not AdamW's, else 0
    traces            how often compiled functions are traced in the first ten steps
    calls             Python functions and builtins called on the host
    result_bytes      bytes of the new parameters and of the state
    parameter_dtypes  of the new parameters
    state_dtypes      of the new state
    """

    kernels: int
    fused_kernels: int
    scalar_kernels: int
    modelled_bytes: int | None
    bytes_read: int | None = None
    primitives: int | None = None
    temporaries: int | None = None
    allocated_bytes: int | None = None
    peak_bytes: int | None = None
    held_arrays: int | None = None
    kept_arrays: int | None = None
    graph_growth: int | None = None
    memory_growth: int | None = None
    evaluations: int | None = None
    waits: int | None = None
    wrong_results: int | None = None
    traces: int | None = None
    calls: int | None = None
    result_bytes: int | None = None
    parameter_dtypes: str | None = None
    state_dtypes: str | None = None

    @property
    def unfused_kernels(self) -> int:
        return self.kernels - self.fused_kernels

    @property
    def bytes_written(self) -> int | None:
        if self.modelled_bytes is None or self.bytes_read is None:
            return None
        return self.modelled_bytes - self.bytes_read


class Donation(NamedTuple):
    """What an MLX donates to: plain kernels, fused kernels with one output, fused kernels with several."""

    plain: bool
    fused: bool
    several_outputs: bool


class Figure(NamedTuple):
    """How a counter is told to people.

    name    an attribute of Counters
    words   with the value in place of {}
    each    what the value is divided by: "leaf", "N" (bytes of the parameters) or nothing
    unless  names of figures that tell the same: where one of them changed too, this one is left out of the words
    sized   whether it rests on the sizes of all arrays: an array of unknown size is taken for one of a leaf's
    """

    name: str
    words: str
    each: str = ""
    unless: tuple[str, ...] = ()
    sized: bool = False

    def text(self, counters: Counters, case: Case) -> str:
        """The value alone, divided: `3`, `7N`, `bfloat16`."""
        value = getattr(counters, self.name)
        if self.each == "leaf":
            return f"{value / case.leaf_count:.4g}"
        if self.each == "N":
            return f"{value / case.parameter_bytes:.4g}N"
        return str(value)

    def change(self, old: Counters, new: Counters, case: Case) -> str:
        """`3 kernels a leaf, was 1`; the undivided values where rounding hides the difference."""
        before, now = self.text(old, case), self.text(new, case)
        if before == now:
            return f"{self.words.format(getattr(new, self.name))} (a step), was {getattr(old, self.name)}"
        return f"{self.words.format(now)}, was {before}"


FIGURES = (
    Figure("kernels", "{} kernels a leaf", "leaf", sized=True),
    Figure("unfused_kernels", "{} unfused kernels a leaf", "leaf", ("kernels",), sized=True),
    Figure("scalar_kernels", "{} scalar kernels", sized=True),
    Figure("modelled_bytes", "traffic {}", "N"),
    Figure("bytes_read", "reads {}", "N", ("modelled_bytes",)),
    Figure("bytes_written", "writes {}", "N", ("modelled_bytes",)),
    Figure("temporaries", "{} temporaries a leaf", "leaf", sized=True),
    Figure("primitives", "{} primitives a leaf", "leaf", ("kernels", "scalar_kernels")),
    Figure("peak_bytes", "peak up to {}", "N"),
    Figure("allocated_bytes", "allocates {} a step", "N", ("peak_bytes",)),
    Figure("held_arrays", "{} old arrays held by somebody while the step runs"),
    Figure("kept_arrays", "{} arrays left behind after the step"),
    Figure("graph_growth", "the graph grows by {} operations a step"),
    Figure("memory_growth", "memory grows by {} bytes a step"),
    Figure("evaluations", "{} evaluations inside a step"),
    Figure("waits", "{} waits for the device inside a step"),
    Figure("wrong_results", "wrong result: {}"),
    Figure("traces", "traced {} times in 10 steps"),
    Figure("calls", "{} Python calls a leaf", "leaf"),
    Figure("parameter_dtypes", "parameters become {}"),
    Figure("state_dtypes", "state becomes {}"),
    Figure("result_bytes", "results of {}", "N", ("parameter_dtypes", "state_dtypes")),
)
