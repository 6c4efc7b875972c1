"""Conditional replenishment: tokens that the receiver holds already are not sent again.

As in H.261, whose encoders update every macroblock once in 132 transmissions at the latest (section
3.4), a token is sent where it differs from the last one sent there, and once in a cycle anyway, so
that nothing that was lost is missing for longer. The cycle goes along the interleaver's order, so
every slice of every frame has its share of it: packets stay of one length, and the refresh is
spread over the grid.

The sender compares with what it sent, not with what arrived: it knows nothing of losses. A receiver
that lost a token keeps an older one, and takes it for the sender's, until another is sent.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codec.replenishment import KEPT
from sim.protocol.events import ReceivedGrid
from sim.protocol.packet import Layout


class SentTokens:
    """The sender's memory: the token that was sent last, of every place."""

    def __init__(self, cycle: int) -> None:
        """``cycle``: frames in which every token is sent once, at least."""
        self._cycle, self._frame = cycle, 0
        self._indices = np.empty(0, np.int64)

    def without_kept(self, index_map: NDArray[np.int64], layout: Layout) -> NDArray[np.int64]:
        """The next frame, int64[h,w] 0..K-1, with `KEPT` in place of what is not sent. A grid of
        another shape than that of the frame before is sent whole."""
        if self._indices.shape != index_map.shape:
            self._indices = np.full(index_map.shape, KEPT)
        sent = index_map != self._indices
        sent.ravel()[layout.order[self._frame % self._cycle :: self._cycle]] = True
        self._frame += 1
        self._indices = index_map.copy()
        return np.where(sent, index_map, KEPT)


class ReceivedTokens:
    """The receiver's memory: the token that arrived last, of every place."""

    def __init__(self) -> None:
        self._indices = np.empty(0, np.int64)

    def fill(self, grid: ReceivedGrid) -> tuple[ReceivedGrid, int]:
        """The next frame with what is held in place of `KEPT`; where nothing is, it is lost.

        Returns:
            The grid, and how many of its received tokens were held.
        """
        indices = grid.indices
        if self._indices.shape != indices.shape:
            self._indices = np.full(indices.shape, -1)
        self._indices = np.where(grid.received, indices, self._indices)
        filled = np.where(indices == KEPT, self._indices, indices)
        received = filled >= 0
        return ReceivedGrid(filled, received), int(np.count_nonzero(received & ~grid.received))
