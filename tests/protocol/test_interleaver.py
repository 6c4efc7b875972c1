from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sim.protocol.interleaver import INTERLEAVERS, slice_positions

KODAK = (32, 48)


def slice_map(grid: tuple[int, int], slices: int, interleaver: str) -> NDArray[np.int64]:
    """int64[h, w]: which slice holds each token."""
    owner = np.full(grid[0] * grid[1], -1)
    for number, positions in enumerate(slice_positions(grid, slices, interleaver)):
        owner[positions] = number
    return owner.reshape(grid)


def gap(owner: NDArray[np.int64], dy: int, dx: int) -> int:
    """Smallest distance in sending order between a token's slice and that of the token
    (dy, dx) away; a large number if there is no such pair."""
    height, width = owner.shape
    if abs(dy) >= height or abs(dx) >= width:
        return 1 << 30
    here = owner[max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
    there = owner[max(0, dy) : height - max(0, -dy), max(0, dx) : width - max(0, -dx)]
    return int(abs(here - there).min())


def nearest_in_bursts(owner: NDArray[np.int64], burst: int, reach: int = 8) -> float:
    """Least distance, in tokens, between two tokens lost in one burst of so many packets."""
    best = np.inf
    for dy in range(reach + 1):
        for dx in range(-reach, reach + 1):
            if (dy, dx) > (0, 0) and gap(owner, dy, dx) < burst:
                best = min(best, np.hypot(dy, dx))
    return float(best)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 256), st.sampled_from(INTERLEAVERS))
def test_every_interleaver_is_a_balanced_partition(
    height: int, width: int, slices: int, interleaver: str
) -> None:
    slices = min(slices, height * width)
    parts = slice_positions((height, width), slices, interleaver)
    assert len(parts) == slices
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(height * width))


@pytest.mark.parametrize("interleaver", INTERLEAVERS)
def test_positions_are_part_of_the_wire_format(interleaver: str) -> None:
    """No positions are sent, so they may never change."""
    digest = hashlib.sha256()
    for grid, slices in ((KODAK, 32), ((17, 5), 7), ((64, 64), 256), ((3, 3), 2)):
        for part in slice_positions(grid, slices, interleaver):
            digest.update(part.astype("<i8").tobytes())
    assert (
        digest.hexdigest()[:16]
        == {
            "raster": "8bc83e74db26b5fb",
            "checkerboard": "42efad2464f1c29a",
            "low_discrepancy": "e21a16a7e2f999d6",
            "random": "d3537ac152735f57",
        }[interleaver]
    )


def test_positions_cannot_be_spoilt() -> None:
    with pytest.raises(ValueError, match="read-only"):
        slice_positions(KODAK, 32, "raster")[0][0] = 5


@pytest.mark.parametrize(
    ("grid", "slices", "interleaver"),
    [((0, 5), 1, "raster"), ((2, 2), 5, "raster"), ((2, 2), 0, "raster"), ((2, 2), 2, "spiral")],
)
def test_impossible_cuts_are_refused(grid: tuple[int, int], slices: int, interleaver: str) -> None:
    with pytest.raises(ValueError, match=r"grid|cut|unknown"):
        slice_positions(grid, slices, interleaver)


def test_low_discrepancy_separates_neighbours_on_every_grid() -> None:
    """Two 4-neighbours are never in one slice, whatever the grid and the slice count."""
    shapes = [(h, w) for h in range(1, 14) for w in range(1, 14)]
    shapes += [(21, 34), (34, 21), (16, 64), KODAK, KODAK[::-1], (1, 100), (64, 64)]
    for slices in (2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64, 100, 256):
        for grid in shapes:
            if slices <= grid[0] * grid[1]:
                owner = slice_map(grid, slices, "low_discrepancy")
                assert min(gap(owner, 0, 1), gap(owner, 1, 0)) >= 1, (grid, slices)


def test_low_discrepancy_spreads_bursts_on_a_768x512_image() -> None:
    """With 32 slices: 4-neighbours 7 packets apart, 8-neighbours 5, as measured."""
    owner = slice_map(KODAK, 32, "low_discrepancy")
    assert min(gap(owner, 0, 1), gap(owner, 1, 0)) == 7
    assert min(gap(owner, 1, 1), gap(owner, 1, -1)) == 5


@pytest.mark.parametrize(
    ("interleaver", "distances"),
    [
        ("raster", [1.0, 1.0, 1.0, 1.0]),
        ("checkerboard", [1.41, 1.41, 1.41, 1.41]),
        ("low_discrepancy", [4.0, 2.24, 2.0, 1.0]),
        ("random", [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_distance_of_the_tokens_lost_together(interleaver: str, distances: list[float]) -> None:
    """Measured: the least distance between two tokens lost in a burst of 1, 3, 5 and 8 of 32
    packets of a 768x512 image."""
    owner = slice_map(KODAK, 32, interleaver)
    measured = [round(nearest_in_bursts(owner, burst), 2) for burst in (1, 3, 5, 8)]
    assert measured == distances


@pytest.mark.parametrize("grid", [KODAK, (48, 32), (16, 16), (33, 47), (100, 150)])
def test_every_burst_is_spread_evenly(grid: tuple[int, int]) -> None:
    """Each 8x8 window loses its share of any burst of a quarter of the packets, within a few
    tokens; a random order strays twice as far."""

    def worst(interleaver: str) -> float:
        owner = slice_map(grid, 32, interleaver)
        errors = []
        for start in range(25):
            lost = ((owner >= start) & (owner < start + 8)).astype(float)
            sums = lost.cumsum(0).cumsum(1)
            sums = np.pad(sums, ((1, 0), (1, 0)))
            windows = sums[8:, 8:] - sums[:-8, 8:] - sums[8:, :-8] + sums[:-8, :-8]
            errors.append(abs(windows - 64 * 8 / 32).max())
        return max(errors)

    assert worst("low_discrepancy") <= 3
    assert worst("random") > 2 * worst("low_discrepancy")
