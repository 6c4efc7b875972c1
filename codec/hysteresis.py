"""Hysteresis: tokens of a video that stay while they are nearly as good as others.

Noise moves a latent to and fro across the border between two codewords, and what is shown flickers
between them though nothing has changed. So a place keeps the token of the frame before, unless
another codeword is nearer by more than a margin (`codec.model.Model.encode_near`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class SteadyTokens:
    """The tokens of the frames of one video, in order."""

    def __init__(self) -> None:
        self._before = np.empty(0, np.int64)

    def next_frame(self, near: NDArray[np.int64]) -> NDArray[np.int64]:
        """The next frame's tokens.

        Args:
            near: int64[h,w,n], the best token of each place and those that may stay.

        Returns:
            int64[h,w]: the frame's before where it is among them, otherwise the best; the best of
            all places if the frame's before had another grid.
        """
        tokens = near[..., 0]
        if self._before.shape == tokens.shape:
            stays = (near == self._before[..., None]).any(axis=-1)
            tokens = np.where(stays, self._before, tokens)
        self._before = tokens
        return tokens
