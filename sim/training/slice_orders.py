"""Ways of slicing a grid, as streams do it: what the context coder is trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.protocol.interleaver import INTERLEAVERS, slice_positions

FEWEST_TOKENS = 16


def random_slices(rng: np.random.Generator, grid: tuple[int, int]) -> tuple[NDArray[np.int64], ...]:
    """The slices of a random interleaver, raster or one of the others with equal chance: one
    slice or more, each of at least 16 tokens. See `slice_positions`."""
    most = max(1, grid[0] * grid[1] // FEWEST_TOKENS)
    slices = int(np.exp(rng.uniform(0, np.log(most + 1))))
    raster, *others = INTERLEAVERS
    interleaver = raster if rng.random() < 0.5 else others[int(rng.integers(len(others)))]
    return slice_positions(grid, slices, interleaver)
