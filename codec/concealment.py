"""Every repair of lost tokens behind one function; received tokens always pass unchanged.

none               a neutral codeword (the one nearest the mean of the codebook's use): grey holes
most_frequent      the codeword used most
nearest            the nearest received token
neighbour_average  the codeword nearest the distance-weighted mean of received neighbours' codewords
inpaint            the masked transformer (`codec.inpainting`)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from codec.model import Model

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Concealed:
    """A filled grid.

    Attributes:
        indices: int64[h,w] in [0, K).
        probability: float32[h,w], the model's probability of each filled token; 1 where received,
            NaN where the concealer gives none.
    """

    indices: Indices
    probability: NDArray[np.float32]


def _shares(model: Model, codebook_size: int) -> NDArray[np.float64]:
    return model.frequencies(codebook_size).astype(np.float64) / 2**16


def _nearest_word(words: NDArray[np.float32], vectors: NDArray[np.float64]) -> Indices:
    scores = vectors @ words.T.astype(np.float64) - (words.astype(np.float64) ** 2).sum(1) / 2
    best: Indices = scores.argmax(-1)
    return best


def _none(model: Model, indices: Indices, received: Mask, codebook_size: int) -> Indices:
    words = model.codewords(codebook_size)
    neutral = _nearest_word(words, _shares(model, codebook_size) @ words)
    return np.full_like(indices, neutral)


def _most_frequent(model: Model, indices: Indices, received: Mask, codebook_size: int) -> Indices:
    return np.full_like(indices, _shares(model, codebook_size).argmax())


def _nearest(model: Model, indices: Indices, received: Mask, codebook_size: int) -> Indices:
    if not received.any():
        return _most_frequent(model, indices, received, codebook_size)
    where = distance_transform_edt(~received, return_distances=False, return_indices=True)
    filled: Indices = indices[tuple(where)]
    return filled


def _neighbour_average(
    model: Model, indices: Indices, received: Mask, codebook_size: int
) -> Indices:
    filled = _nearest(model, indices, received, codebook_size)
    words = model.codewords(codebook_size)
    # Gaussian weights of one token's radius; where nothing is near, the nearest token stands.
    weight = gaussian_filter(received.astype(np.float64), 1.0, mode="constant", truncate=3)
    vectors = np.where(received[..., None], words[np.where(received, indices, 0)], 0.0)
    total = gaussian_filter(vectors, (1.0, 1.0, 0.0), mode="constant", truncate=3)
    near = weight > 1e-9
    filled[near] = _nearest_word(words, total[near] / weight[near][:, None])
    return filled


_SIMPLE: dict[str, Callable[[Model, Indices, Mask, int], Indices]] = {
    "none": _none,
    "most_frequent": _most_frequent,
    "nearest": _nearest,
    "neighbour_average": _neighbour_average,
}
CONCEALERS: tuple[str, ...] = (*_SIMPLE, "inpaint")


def conceal(
    name: str, model: Model, indices: Indices, received: Mask, codebook_size: int
) -> Concealed:
    """Fill the lost tokens of a grid.

    Args:
        name: one of CONCEALERS.
        model: supplies codewords, usage and the transformer.
        indices: int64[h,w]; values where `received` is False are ignored.
        received: bool[h,w].
        codebook_size: K of the indices.

    Raises:
        ValueError: unknown name, or a received index outside [0, K).
    """
    if name not in CONCEALERS:
        raise ValueError(f"concealer {name!r} is unknown; choose one of {', '.join(CONCEALERS)}")
    if (
        received.any()
        and not 0 <= indices[received].min() <= indices[received].max() < codebook_size
    ):
        raise ValueError(f"a received index lies outside the codebook of {codebook_size}")
    if name == "inpaint":
        filled, probability = model.inpaint(indices, received, codebook_size)
    else:
        filled = _SIMPLE[name](model, indices, received, codebook_size)
        probability = np.where(received, np.float32(1), np.float32(np.nan))
    return Concealed(np.where(received, indices, filled), probability)
