"""AdamW on the classical roofline: how many operations it makes of a byte."""

OPERATIONS = 13
"""Floating-point operations a parameter, as MLX documents the step without bias correction; each counts as one.

w (1 - lr decay): 1. m = b1 m + (1 - b1) g: 3. v = b2 v + (1 - b2) g g: 4. w - lr m / (sqrt(v) + eps): 5.
"""


def intensity(parameters: int, ideal_bytes: float) -> float:
    """Operations a byte of a step that moves no byte more than it must."""
    return OPERATIONS * parameters / ideal_bytes


def rate(parameters: int, seconds: float) -> float:
    """Operations a second."""
    return OPERATIONS * parameters / seconds
