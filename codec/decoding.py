"""Schedules that fill a grid in one or several passes (Chang et al., MaskGIT, CVPR 2022).

A schedule calls `tokens_to_logits(indices, received)`; it depends on neither networks nor
networking.

    confidence   the most probable predictions first (MaskGIT, section 3.2, without sampling)
    halton       positions far from one another first, whatever the predictions (Besnier et al.,
                 Halton-MaskGIT, ICLR 2025), in the order of a two-dimensional Halton sequence
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
# (indices int64[h,w], received bool[h,w]) -> logits float32[n,K] of the n lost positions, in raster
# order. Indices are ignored where received is False.
TokensToLogits = Callable[[Indices, Mask], NDArray[np.float32]]

Order = Literal["confidence", "halton"]
FillMode = Literal["soft", "argmax"]
MAX_STEPS = 12


@dataclass(frozen=True)
class Decoding:
    """How a grid is filled, and the image decoded.

    Attributes:
        order: which positions are filled first; without effect in one pass.
        steps: passes, 1 to 12. Tokens filled in one count as received in the next.
        fill_mode: the vector of a filled position: "soft", the mean of all codewords weighted by
            their probabilities; "argmax", the most probable codeword.
        enhance: whether Real-ESRGAN enlarges the image that is decoded then (`codec.enhance`).

    Raises:
        ValueError: an attribute is none of these.
    """

    order: Order = "confidence"
    steps: int = 1
    fill_mode: FillMode = "soft"
    enhance: bool = False

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("order", self.order, get_args(Order)),
            ("fill_mode", self.fill_mode, get_args(FillMode)),
        ):
            if value not in choices:
                raise ValueError(f"{name} {value!r} is unknown; choose one of {', '.join(choices)}")
        if not 1 <= self.steps <= MAX_STEPS:
            raise ValueError(f"steps is {self.steps}; choose from 1 to {MAX_STEPS} passes")


ONE_PASS = Decoding()


@dataclass(frozen=True)
class Calibration:
    """What was fitted for one codebook on photos that were never trained on.

    Attributes:
        probability_temperature: > 0; logits are divided by it for the probabilities reported to
            users, so that a token of probability p is right with frequency p (Guo et al., ICML
            2017, section 4.2).
        codeword_temperature: > 0; of the mean in "soft" decoding, such that images come out nearest
            to the originals. Usually higher: wrong detail costs more than missing detail.
        pixel_error_scale: root mean squared pixel error (8-bit levels, against the decode without
            loss) of a filled token per unit of its spread; NaN if not fitted.
    """

    probability_temperature: float = 1.0
    codeword_temperature: float = 1.0
    pixel_error_scale: float = float("nan")

    @classmethod
    def from_config(cls, config: Mapping[str, float]) -> Calibration:
        """From the config of an inpainter's weights file; the inverse of `to_config`."""
        return cls(config["probability"], config["words"], config["pixels"])

    def to_config(self) -> dict[str, float]:
        """The three numbers under the names that weights files have for them."""
        return {
            "probability": self.probability_temperature,
            "words": self.codeword_temperature,
            "pixels": self.pixel_error_scale,
        }


UNFITTED = Calibration()


@dataclass(frozen=True)
class Filled:
    """A grid without holes.

    Attributes:
        indices: int64[h,w]; the most probable token where it was lost.
        probability: float32[h,w], that token's calibrated probability when it was chosen; 1 where
            received.
        codeword_vectors: float32[h,w,D], the decoder's input; the codewords of the indices where
            received.
        spread: float32[h,w], the standard deviation of a codeword drawn by the calibrated
            probabilities: root mean squared distance from its mean. 0 where received.
    """

    indices: Indices
    probability: NDArray[np.float32]
    codeword_vectors: NDArray[np.float32]
    spread: NDArray[np.float32]


def fill(
    tokens_to_logits: TokensToLogits,
    codewords: NDArray[np.float32],
    indices: Indices,
    received: Mask,
    decoding: Decoding = ONE_PASS,
    calibration: Calibration = UNFITTED,
) -> Filled:
    """Fill the lost positions.

    Pass s of S keeps as many predictions as brings the share filled to 1 - cos(pi/2 s/S), the
    cosine schedule of MaskGIT (eq. 4): few at first, while few tokens are given. The most probable
    token is taken, never a random one, so equal grids give equal images.

    Args:
        tokens_to_logits: the model.
        codewords: float32[K,D].
        indices: int64[h,w] in [0, K); ignored where lost.
        received: bool[h,w], False where a token was lost.
        decoding: the schedule.
        calibration: temperatures.
    """
    filled, received = np.where(received, indices, 0), received.copy()
    probability, spread = np.ones(indices.shape, np.float32), np.zeros(indices.shape, np.float32)
    vectors = codewords[filled]
    rank = halton_rank(*indices.shape) if decoding.order == "halton" else None
    lost = int((~received).sum())
    for step in range(1, decoding.steps + 1):
        rows, columns = np.nonzero(~received)
        left = round(lost * float(np.cos(np.pi / 2 * step / decoding.steps)))
        if left == len(rows):
            continue  # the same logits would come again
        logits = tokens_to_logits(filled, received)
        best = logits.argmax(1)
        chance = softmax(logits, calibration.probability_temperature)
        top = chance[np.arange(len(best)), best]
        first = -top if rank is None else rank[rows, columns]
        take = np.argsort(first, kind="stable")[: len(rows) - left]
        where = rows[take], columns[take]
        filled[where], probability[where] = best[take], top[take]
        spread[where] = _spread(chance[take], codewords)
        if decoding.fill_mode == "argmax":
            vectors[where] = codewords[best[take]]
        elif calibration.codeword_temperature == calibration.probability_temperature:
            vectors[where] = chance[take] @ codewords
        else:
            vectors[where] = softmax(logits[take], calibration.codeword_temperature) @ codewords
        received[where] = True
    return Filled(filled, probability, vectors, spread)


def halton_rank(height: int, width: int) -> NDArray[np.int64]:
    """When a Halton sequence first visits each cell of a grid: int64[h,w], distinct, from 0 on
    with gaps.

    Point i of the sequence has the base-2 digits of i, reversed, as its row and the base-3 digits
    as its column (Halton 1960). On a grid of 2^a x 3^b cells the first 2^a 3^b points visit every
    cell exactly once, since i is determined by its remainders modulo 2^a and 3^b; a smaller grid is
    cut from that one. So this is a formula for each cell, not a walk.
    """
    rows, row_cells = _reversed_digits(height, 2)
    columns, column_cells = _reversed_digits(width, 3)
    # Chinese remainders: i = row + 2^a * t with t = (column - row) / 2^a modulo 3^b.
    inverse = pow(row_cells, -1, column_cells) if column_cells > 1 else 0
    turns = (columns[None, :] - rows[:, None]) * inverse % column_cells
    rank: NDArray[np.int64] = rows[:, None] + row_cells * turns
    return rank


def _reversed_digits(side: int, base: int) -> tuple[NDArray[np.int64], int]:
    """0..side-1 with their digits reversed, int64[side], and the power of the base that bounds
    them."""
    cells, rest = 1, np.arange(side)
    turned = np.zeros(side, np.int64)
    while cells < side:
        turned = turned * base + rest % base
        rest //= base
        cells *= base
    return turned, cells


def softmax(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Probabilities float32[n,K] of logits float32[n,K] divided by a temperature."""
    chance: NDArray[np.float32] = logits - logits.max(1, keepdims=True)
    if temperature != 1:
        chance /= np.float32(temperature)
    np.exp(chance, out=chance)
    chance /= chance.sum(1, keepdims=True)
    return chance


def _spread(chance: NDArray[np.float32], codewords: NDArray[np.float32]) -> NDArray[np.float32]:
    """Standard deviation in codeword space: float32[n,K], float32[K,D] -> float32[n]."""
    square = chance @ (codewords**2).sum(1) - ((chance @ codewords) ** 2).sum(1)
    spread: NDArray[np.float32] = np.sqrt(square.clip(min=0))
    return spread
