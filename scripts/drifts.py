"""A drift: a level that moves little by little, which a search for steps takes for several of them, or for one.

A ramp, flat before it and after it, is held against the steps that were found: it must leave so much less unexplained
that it is the better description although it was found later. That is Bayes' information criterion, and a margin.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Values = NDArray[np.float64]

SHORTEST = 8
"""Points from the beginning of a drift to its end: a shorter one is a step that is not known to the point."""

MARGIN = 3.0
"""What the ramp must be better by, in twice the logarithm of the likelihood: a step that is hardly clear stays one."""

PLACES = 24
"""Points of a series at which a drift may begin or end; of a long series not every one is tried."""

FAR, AROUND = 3.5, 5
"""Standard deviations beyond which a point is no farther off the median of those around it: it would bend the ramp."""


class Ramp(NamedTuple):
    """A drift in a part of a series.

    start, end  indices of the last point of the old level, and of the first of the new one
    size        log of the new level over the old
    error       standard error of `size`
    fitted      the level at every point of the part
    """

    start: int
    end: int
    size: float
    error: float
    fitted: Values


def better(values: Values, firsts: list[int], spread: float) -> Ramp | None:
    """The drift that describes a part of a series better than steps at `firsts` do; None if none does.

    `spread` is the standard deviation around the steps' levels.
    """
    if not spread or len(values) < SHORTEST + 1:
        return None
    around = ndimage.median_filter(values, AROUND, mode="reflect")
    near = around + np.clip(values - around, -FAR * spread, FAR * spread)
    left = sum(float(np.square(part - part.mean()).sum()) for part in np.split(near, placed(near, firsts)))
    found, rest = fitted(near)
    variance, lasting = rest / max(1, len(values) - 4), memory(near - found.fitted)
    gain = (left - rest) / variance / lasting if variance else math.inf
    if gain + (2 * len(firsts) + 1 - 4) * math.log(len(values)) < MARGIN:
        return None
    return found._replace(error=found.error * math.sqrt(variance * lasting))


def placed(values: Values, firsts: list[int]) -> list[int]:
    """Where the steps near `firsts` leave least unexplained, one after the other between its neighbours."""
    bounds = [0, *firsts, len(values)]
    for number in range(1, len(bounds) - 1):
        start, end = bounds[number - 1], bounds[number + 1]
        sums, counts = np.cumsum(values[start:end] - values[start:end].mean())[:-1], np.arange(1, end - start)
        bounds[number] = start + 1 + int(np.argmax(sums**2 / (counts * (end - start - counts))))
    return bounds[1:-1]


def memory(residuals: Values) -> float:
    """What the variance of a mean is multiplied by because points resemble their neighbours; at least 1."""
    total = float(residuals @ residuals)
    lag = float(residuals[1:] @ residuals[:-1]) / total - 1 / math.sqrt(len(residuals)) if total else 0.0
    lag = min(max(lag, 0.0), 0.9)
    return (1 + lag) / (1 - lag)


def fitted(values: Values) -> tuple[Ramp, float]:
    """The ramp that leaves least unexplained, and how much, in squares. Its error is for noise of 1."""
    count = len(values)
    places = np.unique(np.linspace(0, count - 1, min(count, PLACES)).round().astype(int))
    starts, ends = np.array([(start, end) for start in places for end in places if end - start >= SHORTEST]).T
    shapes = np.clip((np.arange(count) - starts[:, None]) / (ends - starts)[:, None], 0, 1)
    shapes -= shapes.mean(axis=1, keepdims=True)
    squares, products = np.square(shapes).sum(axis=1), shapes @ values
    best = int(np.argmax(products**2 / squares))
    size = float(products[best] / squares[best])
    level = values.mean() + size * shapes[best]
    ramp = Ramp(int(starts[best]), int(ends[best]), size, 1 / math.sqrt(float(squares[best])), level)
    return ramp, float(np.square(values - level).sum())
