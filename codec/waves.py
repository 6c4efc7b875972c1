"""The coding order of a slice's tokens in context mode: in waves. The tokens of a wave are not in
each other's context, so a decoder evaluates the network for all of them at once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def coding_waves(
    positions: NDArray[np.int64], grid: tuple[int, int], reach: int
) -> NDArray[np.int64]:
    """The wave in which each token of a slice is coded: the one after the latest wave of those
    tokens that precede it in the slice's order and are at most `reach` rows and columns away.

    Args:
        positions: int64[n], raster positions in the slice's order.
        grid: (h, w) of the whole frame.
        reach: >= 0.

    Returns:
        int64[n], from 1, read-only. Tokens are coded by wave, and within a wave in slice order.
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
    result = np.array(waves, np.int64)
    result.flags.writeable = False
    return result
