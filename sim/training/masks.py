"""Slices and losses as streams make them: what context coder and inpainter are trained on.

Each mask is one image's grid after a random interleaver, number of slices and channel took some of
its packets, from the very code that transmits streams.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from channels.erasure import UniformErasure
from channels.gilbert_elliott import GilbertElliott
from sim.protocol.interleaver import INTERLEAVERS, slice_positions

HIGHEST_LOSS = 0.6
MIN_TOKENS = 16


def packet_mask(rng: np.random.Generator, grid: tuple[int, int]) -> NDArray[np.bool_]:
    """One pattern of received tokens, bool[h,w] (False = lost).

    4 to 64 slices, every interleaver, 2% to 60% loss, uniform or in bursts of 1.5 to 8 packets.
    """
    slices = int(np.exp(rng.uniform(np.log(4), np.log(65))))
    slices = min(slices, grid[0] * grid[1])
    interleaver = INTERLEAVERS[int(rng.integers(len(INTERLEAVERS)))]
    loss = float(rng.uniform(0.02, HIGHEST_LOSS))
    model: UniformErasure | GilbertElliott = UniformErasure(loss)
    if rng.random() < 0.5:
        shortest = max(1.5, loss / (1 - loss))
        model = GilbertElliott.from_loss(loss, float(rng.uniform(shortest, 8)))
    lost = model.sampler(rng).mask(slices)
    received = np.ones(grid[0] * grid[1], bool)
    for positions, gone in zip(slice_positions(grid, slices, interleaver), lost, strict=True):
        received[positions] = not gone
    return received.reshape(grid)


def random_slices(rng: np.random.Generator, grid: tuple[int, int]) -> tuple[NDArray[np.int64], ...]:
    """The slices of a random interleaver, raster or one of the others with equal chance: one
    slice or more, each of at least 16 tokens. See `slice_positions`."""
    most = max(1, grid[0] * grid[1] // MIN_TOKENS)
    slices = int(np.exp(rng.uniform(0, np.log(most + 1))))
    raster, *others = INTERLEAVERS
    interleaver = raster if rng.random() < 0.5 else others[int(rng.integers(len(others)))]
    return slice_positions(grid, slices, interleaver)
