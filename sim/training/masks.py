"""Slices and losses of streams, on which context coder and inpainter are trained.

A mask is the grid of one image after some of its packets were lost, or the grids of several frames
in a row: interleaver, number of slices and channel are random, and computed by the code that
transmits streams.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from channels.erasure import UniformErasure
from channels.gilbert_elliott import GilbertElliott
from sim.protocol.interleaver import INTERLEAVERS, slice_positions

MAX_LOSS = 0.6
"""Largest loss rate of a mask's channel."""
MIN_TOKENS = 16
"""Fewest tokens of a slice."""


def packet_mask(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which tokens of a grid (h, w), or of the grids (n, h, w) of n frames that are sent one after
    the other, are received: bool of that shape, False = lost.

    4 to 64 slices, any interleaver, 2% to 60% loss, independent or in bursts of a mean length of
    1.5 to 8 packets.
    """
    grid = shape[-2], shape[-1]
    slices = int(np.exp(rng.uniform(np.log(4), np.log(65))))
    slices = min(slices, grid[0] * grid[1])
    interleaver = INTERLEAVERS[int(rng.integers(len(INTERLEAVERS)))]
    loss = float(rng.uniform(0.02, MAX_LOSS))
    model: UniformErasure | GilbertElliott = UniformErasure(loss)
    if rng.random() < 0.5:
        shortest = max(1.5, loss / (1 - loss))
        model = GilbertElliott.from_loss(loss, float(rng.uniform(shortest, 8)))
    received = np.ones((math.prod(shape[:-2]), grid[0] * grid[1]), bool)
    lost = model.sampler(rng).mask(len(received) * slices).reshape(-1, slices)
    for number, positions in enumerate(slice_positions(grid, slices, interleaver)):
        received[:, positions] = ~lost[:, number, None]
    return received.reshape(shape)


def random_slices(rng: np.random.Generator, grid: tuple[int, int]) -> tuple[NDArray[np.int64], ...]:
    """The raster positions of each slice's tokens, in coding order: int64[n] each. One slice or
    more, each of at least 16 tokens; the interleaver is raster with probability 1/2, else any
    other. See `slice_positions`."""
    most = max(1, grid[0] * grid[1] // MIN_TOKENS)
    slices = int(np.exp(rng.uniform(0, np.log(most + 1))))
    raster, *others = INTERLEAVERS
    interleaver = raster if rng.random() < 0.5 else others[int(rng.integers(len(others)))]
    return slice_positions(grid, slices, interleaver)
