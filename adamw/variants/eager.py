"""Upstream's AdamW as it is, uncompiled: every operation of every leaf is a kernel of its own."""

from adamw.base import ResumableAdamW

PRECISIONS = ("float32", "float16", "bfloat16")
"""Not mixed: with float32 state its parameters silently become float32, which is another precision."""


class AdamW(ResumableAdamW):
    """`mlx.optimizers.AdamW`, unchanged, but for states that another variant saved."""

    kernels_a_leaf = (0, 0)
