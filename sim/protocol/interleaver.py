"""Which tokens share a slice, and in which order slices are sent.

Every interleaver is an order of the grid's cells, cut into runs of equal length (they differ by
at most one); run s is slice s. So a burst of lost packets is one longer run of that order, and
an interleaver is good if *every* run of its order is spread evenly over the grid.

"low_discrepancy" orders cells by the phase ``frac(x / rho + y / rho**2)``, rho = 1.3247... the
plastic number (rho**3 = rho + 1). Cells whose displacement is (dx, dy) differ by the same phase
wherever they are, and 1, 1/rho, 1/rho**2 span a cubic field, so this phase is badly approximable:
``|frac(dx / rho + dy / rho**2)| > c / max(|dx|, |dy|)**2``. Cells near in phase are far apart, at
every scale at once. The 4-neighbours differ by at least .245 turns and the diagonal ones by .185,
so with 32 slices no two of the 8-neighbours lie in the same burst of 5 packets. With up to 5
slices .245 turns are too close to a slice's length; other generators take their place.

Orders are computed in integers (phases in units of 2**-32 turns): the same on every machine.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

INTERLEAVERS = ("raster", "checkerboard", "low_discrepancy", "random")
"""By their number in the packet header."""

MAX_SLICES = 256

_TURN_BITS = 32
_PLASTIC = (0xC13FA9A9, 0x91E10DA6)  # 2**32 / rho, 2**32 / rho**2
_FEW_SLICES = {
    2: (0x80000000, 0x80000000),  # 1/2, 1/2: a checkerboard
    3: (0x61C88647, 0x9E3779B9),  # .382, .618: the golden section
    4: (0x4DBF4880, 0x77D566CF),  # .3037, .4681: found by search
    5: (0x4DBF4880, 0x77D566CF),
}


@lru_cache(maxsize=256)
def slice_positions(
    grid: tuple[int, int], slices: int, interleaver: str
) -> tuple[NDArray[np.int64], ...]:
    """The cells of each slice.

    Args:
        grid: (h, w), each >= 1.
        slices: number of slices, 1..min(256, h * w).
        interleaver: one of `INTERLEAVERS`.

    Returns:
        For each slice, in sending order, the raster positions ``y * w + x`` of its tokens, in
        coding order: int64[n], read-only. Together they hold every cell exactly once; their
        lengths differ by at most one.

    Raises:
        ValueError: an argument is out of range.
    """
    height, width = grid
    if height < 1 or width < 1:
        raise ValueError(f"grid must be at least 1x1, got {grid}")
    if not 1 <= slices <= min(MAX_SLICES, height * width):
        raise ValueError(f"cannot cut {height * width} tokens into {slices} slices")
    order = _order(height, width, slices, interleaver)
    order.flags.writeable = False
    return tuple(np.array_split(order, slices))


def _order(height: int, width: int, slices: int, interleaver: str) -> NDArray[np.int64]:
    cells = np.arange(height * width, dtype=np.uint64)
    y, x = cells // np.uint64(width), cells % np.uint64(width)
    key: NDArray[np.uint64]
    match interleaver:
        case "raster":
            key = cells
        case "checkerboard":  # every even cell before every odd one
            key = (x + y) % np.uint64(2)
        case "low_discrepancy":
            a, b = _FEW_SLICES.get(slices, _PLASTIC)
            key = (x * np.uint64(a) + y * np.uint64(b)) % np.uint64(1 << _TURN_BITS)
        case "random":
            key = _scrambled(cells)
        case _:
            raise ValueError(f"unknown interleaver {interleaver!r}")
    return np.argsort(key, kind="stable").astype(np.int64)


def _scrambled(cells: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function (Steele, Lea, Flood 2014): a fixed bijection of 64-bit words."""
    z = (cells + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
