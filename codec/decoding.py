"""Schedules that fill a grid in one or several passes (Chang et al., MaskGIT, CVPR 2022).

A schedule calls `tokens_to_logits(indices, known)` and knows neither networks nor networking.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
# (indices int64[h,w], known bool[h,w]) -> logits float32[n,K] of the n unknown positions, in raster
# order. Indices are meaningless where known is False.
TokensToLogits = Callable[[Indices, Mask], NDArray[np.float32]]


def fill(
    tokens_to_logits: TokensToLogits, indices: Indices, known: Mask, steps: int = 1
) -> tuple[Indices, NDArray[np.float32]]:
    """Fill the unknown positions in `steps` passes, the most confident predictions first.

    Pass s of S keeps as many predictions as brings the share filled to 1 - cos(pi/2 s/S), the
    cosine schedule of MaskGIT (eq. 4), always taking the most probable token and never sampling.

    Returns:
        indices int64[h,w] with known positions unchanged, and the probability float32[h,w] that
        the model gave each filled token when it was chosen (1 where known).

    Raises:
        ValueError: steps is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; at least one pass is needed")
    filled, known = np.where(known, indices, 0), known.copy()
    probability = np.ones(indices.shape, np.float32)
    lost = int((~known).sum())
    for step in range(1, steps + 1):
        rows, columns = np.nonzero(~known)
        if len(rows) == 0:
            break
        logits = tokens_to_logits(filled, known)
        best = logits.argmax(1)
        chance = 1 / np.exp(logits - logits.max(1, keepdims=True)).sum(1)
        left = 0 if step == steps else round(lost * float(np.cos(np.pi / 2 * step / steps)))
        take = np.argsort(-chance, kind="stable")[: len(rows) - left]
        filled[rows[take], columns[take]] = best[take]
        probability[rows[take], columns[take]] = chance[take]
        known[rows[take], columns[take]] = True
    return filled, probability
