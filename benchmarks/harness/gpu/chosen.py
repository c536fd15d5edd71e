"""The trees, precisions and cases that are looked at on a GPU."""

TREES = ("one_leaf", "two_leaves", "thousand_leaves", "resnet50", "gpt2", "llama_1b")
PRECISIONS = ("float32", "bfloat16", "mixed", "master")
PEERS_PRECISIONS = PRECISIONS[:2]
OWN = ("kernel", "kernel_inplace")
"""The variants with a GPU kernel of this project's. Where there are peers to compare with, their steps are timed with
bias correction as well, which the peers always have."""

BUDGET = 0.25
"""Seconds of samples of a case: a look at many cases, not the suite's own figures."""

TRAFFIC = (
    *(f"{name}/float32/one_leaf" for name in ("eager", "compiled", "split", *OWN)),
    *(f"{name}/float32/gpt2" for name in OWN),
    *(f"{name}/bfloat16/one_leaf" for name in ("compiled", *OWN)),
)
ENERGY = tuple(f"{name}/float32/llama_1b" for name in ("eager", "compiled", *OWN))
