"""The values of every case's inputs, from a fixed seed, the same whatever runs on them. Nothing here needs MLX."""

import numpy as np

SEED = 0
STRIDE = 7919
"""Elements of the tile between the starts of two leaves; odd, so that all leaves of a tree start differently."""

TILE = 2**20
"""Elements drawn at random; a larger leaf repeats them."""


def values(random: np.random.Generator) -> np.ndarray:
    """Magnitudes from 0.5 to 1.5 of either sign: no step takes them near a denormal, an overflow or a zero."""
    return random.uniform(0.5, 1.5, TILE) * random.choice([-1.0, 1.0], TILE)


def tiles() -> tuple[np.ndarray, np.ndarray]:
    """(gradients' tile, parameters' tile) in float32."""
    random = np.random.default_rng(SEED)
    return values(random).astype(np.float32), values(random).astype(np.float32)


def leaf(tile: np.ndarray, number: int, size: int) -> np.ndarray:
    """The `size` elements of leaf `number` of a tree: the tile repeated, a view of it where that is enough."""
    start = number * STRIDE % TILE
    first = tile[start : start + size]
    missing = size - first.size
    if not missing:
        return first
    return np.concatenate([first, *[tile] * (missing // TILE), tile[: missing % TILE]])


def part(tile: np.ndarray, number: int, elements: slice) -> np.ndarray:
    """Those elements of `leaf(tile, number, size)`, without the rest."""
    return tile[(number * STRIDE + np.arange(elements.start, elements.stop)) % TILE]
