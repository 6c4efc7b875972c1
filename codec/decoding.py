"""Schedules that fill a grid in one or several passes (Chang et al., MaskGIT, CVPR 2022).

A schedule calls `tokens_to_logits(indices, known)` and knows neither networks nor networking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
# (indices int64[h,w], known bool[h,w]) -> logits float32[n,K] of the n unknown positions, in raster
# order. Indices are meaningless where known is False.
TokensToLogits = Callable[[Indices, Mask], NDArray[np.float32]]


@dataclass(frozen=True)
class Filled:
    """A grid without holes.

    Attributes:
        indices: int64[h,w]; the most probable token where it was unknown.
        probability: float32[h,w], what the model gave that token when it was chosen; 1 where known.
        words: float32[h,w,D], codewords; where it was unknown, the mean of all codewords by their
            probabilities, which decodes nearer to the original than the most probable one.
    """

    indices: Indices
    probability: NDArray[np.float32]
    words: NDArray[np.float32]


def fill(
    tokens_to_logits: TokensToLogits,
    codewords: NDArray[np.float32],
    indices: Indices,
    known: Mask,
    steps: int = 1,
) -> Filled:
    """Fill the unknown positions in `steps` passes, the most confident predictions first.

    Pass s of S keeps as many predictions as brings the share filled to 1 - cos(pi/2 s/S), the
    cosine schedule of MaskGIT (eq. 4), always taking the most probable token and never sampling.

    Args:
        tokens_to_logits: the model.
        codewords: float32[K,D].
        indices: int64[h,w]; ignored where unknown.
        known: bool[h,w].
        steps: number of passes.

    Raises:
        ValueError: steps is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; at least one pass is needed")
    filled, known = np.where(known, indices, 0), known.copy()
    probability = np.ones(indices.shape, np.float32)
    words = codewords[filled]
    lost = int((~known).sum())
    for step in range(1, steps + 1):
        rows, columns = np.nonzero(~known)
        if len(rows) == 0:
            break
        logits = tokens_to_logits(filled, known)
        chance = np.exp(logits - logits.max(1, keepdims=True))
        chance /= chance.sum(1, keepdims=True)
        best = chance.argmax(1)
        surest = chance.max(1)
        left = 0 if step == steps else round(lost * float(np.cos(np.pi / 2 * step / steps)))
        take = np.argsort(-surest, kind="stable")[: len(rows) - left]
        where = rows[take], columns[take]
        filled[where], probability[where] = best[take], surest[take]
        words[where] = chance[take] @ codewords
        known[where] = True
    return Filled(filled, probability, words)
