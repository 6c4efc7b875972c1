"""Losses that studies apply to index maps directly: of single tokens, of packets, of bursts, and
as many packets of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from channels.erasure import UniformErasure
from channels.gilbert_elliott import GilbertElliott
from codec.patches import PATCHES, grid_of
from sim.media.images import LoadedImage
from sim.protocol.interleaver import slice_positions

Kind = Literal["tokens", "packets", "bursts", "dispersed"]
KINDS: tuple[Kind, ...] = ("tokens", "packets", "bursts", "dispersed")
MEAN_BURST = 5.0


@dataclass(frozen=True)
class Condition:
    """What is lost.

    Attributes:
        kind: "tokens": each token alone; "packets": each packet alone; "bursts": packets by a
            Gilbert-Elliott chain with a mean burst of 5; "dispersed": exactly that share of each
            image's packets, at random (one of five, of low discrepancy: no two lost tokens are
            side by side).
        loss: rate, 0 to 1.
        slices, interleaver: how tokens are put into packets; without effect on "tokens".
    """

    kind: Kind
    loss: float
    slices: int = 32
    interleaver: str = "low_discrepancy"

    @property
    def name(self) -> str:
        """As "bursts 20%"."""
        return f"{self.kind} {self.loss:.0%}"


def received(
    condition: Condition, grids: Sequence[tuple[int, int]], seed: int
) -> list[NDArray[np.bool_]]:
    """Which tokens of each image arrive: bool[h,w] per grid.

    The images are one stream, in order, through one channel that starts in its stationary state.
    The same packets are lost under every interleaver, so interleavers are paired.
    """
    place = KINDS.index(condition.kind)
    rng = np.random.default_rng([seed, place, round(condition.loss * 1e6), condition.slices])
    if condition.kind == "tokens":
        return [rng.random(grid) >= condition.loss for grid in grids]
    counts = [min(condition.slices, grid[0] * grid[1]) for grid in grids]
    if condition.kind == "dispersed":
        lost = [rng.permutation(count) < round(condition.loss * count) for count in counts]
    else:
        channel: UniformErasure | GilbertElliott = UniformErasure(condition.loss)
        if condition.kind == "bursts":
            channel = GilbertElliott.from_loss(condition.loss, MEAN_BURST)
        lost = np.split(channel.sampler(rng).mask(sum(counts)), np.cumsum(counts)[:-1])
    found = []
    for grid, count, gone in zip(grids, counts, lost, strict=True):
        there = np.ones(grid[0] * grid[1], bool)
        positions = slice_positions(grid, count, condition.interleaver)
        for number in np.flatnonzero(gone):
            there[positions[number]] = False
        found.append(there.reshape(grid))
    return found


def grids_of(images: Sequence[LoadedImage]) -> list[tuple[int, int]]:
    """(h, w) of each image's index map."""
    return [grid_of(image.height, image.width, PATCHES[0]) for image in images]
