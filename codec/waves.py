"""The order in which a slice's tokens are coded in context: in waves whose tokens do not see each
other, so that a decoder evaluates a wave at once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def coding_waves(
    positions: NDArray[np.int64], grid: tuple[int, int], reach: int
) -> NDArray[np.int64]:
    """In which wave each token of a slice is coded: the first that comes after the waves of all
    tokens before it, in the slice's order, that are at most `reach` rows and columns away.

    Args:
        positions: int64[n], raster positions in the slice's order.
        grid: (h, w) of the whole frame.
        reach: >= 0.

    Returns:
        int64[n], from 1, read-only. The coding order is by wave, and in a wave the slice's.
    """
    return _coding_waves(positions.tobytes(), grid, reach)


@lru_cache(maxsize=256)  # the slices of a stream are those of every frame
def _coding_waves(positions: bytes, grid: tuple[int, int], reach: int) -> NDArray[np.int64]:
    rows, columns = np.divmod(np.frombuffer(positions, np.int64), grid[1])
    window = 2 * reach + 1
    last = np.zeros((grid[0] + 2 * reach, grid[1] + 2 * reach), np.int64)
    waves = []
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        wave = last[row : row + window, column : column + window].max() + 1
        last[row + reach, column + reach] = wave
        waves.append(wave)
    found = np.array(waves, np.int64)
    found.flags.writeable = False
    return found
