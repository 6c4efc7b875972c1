"""Every repair of lost tokens behind one function; received tokens always pass unchanged.

A repair is a vector for each lost token, decoded like a codeword, and the nearest or most probable
index, which is what "tokens right" counts.

none               a neutral codeword (the one nearest the mean of the codebook's use): grey holes
most_frequent      the codeword used most
nearest            the nearest received token
neighbour_average  the distance-weighted mean of the received neighbours' codewords
inpaint            the masked transformer's expected codeword (`codec.inpainting`)
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


Words = NDArray[np.float32]


@dataclass(frozen=True)
class Concealed:
    """A filled grid.

    Attributes:
        indices: int64[h,w] in [0, K).
        words: float32[h,w,D], what is decoded: the codewords of the indices where received; where
            lost, whatever vector the concealer estimates, which may lie between codewords.
        probability: float32[h,w], the model's probability of each filled token; 1 where received,
            NaN where the concealer gives none.
    """

    indices: Indices
    words: Words
    probability: NDArray[np.float32]


def _shares(model: Model, codebook_size: int) -> NDArray[np.float64]:
    return model.frequencies(codebook_size).astype(np.float64) / 2**16


def _none(model: Model, indices: Indices, received: Mask, codebook_size: int) -> Words:
    words = model.codewords(codebook_size)
    mean = (_shares(model, codebook_size) @ words).astype(np.float32)
    return np.broadcast_to(words[_nearest_index(words, mean)], (*indices.shape, len(mean)))


def _most_frequent(model: Model, indices: Indices, received: Mask, codebook_size: int) -> Words:
    word = model.codewords(codebook_size)[_shares(model, codebook_size).argmax()]
    return np.broadcast_to(word, (*indices.shape, len(word)))


def _nearest(model: Model, indices: Indices, received: Mask, codebook_size: int) -> Words:
    if not received.any():
        return _most_frequent(model, indices, received, codebook_size)
    where = distance_transform_edt(~received, return_distances=False, return_indices=True)
    words: Words = model.codewords(codebook_size)[indices[tuple(where)]]
    return words


def _neighbour_average(model: Model, indices: Indices, received: Mask, codebook_size: int) -> Words:
    # Gaussian weights of one token's radius; where nothing is near, the nearest token stands.
    weight = gaussian_filter(received.astype(np.float64), 1.0, mode="constant", truncate=4)
    words = model.codewords(codebook_size)[np.where(received, indices, 0)] * received[..., None]
    total = gaussian_filter(words, (1.0, 1.0, 0.0), mode="constant", truncate=4)
    far = weight < 1e-9
    average: Words = (total / np.where(far, 1.0, weight)[..., None]).astype(np.float32)
    average[far] = _nearest(model, indices, received, codebook_size)[far]
    return average


def _nearest_index(codewords: Words, words: Words) -> Indices:
    scores = words @ codewords.T - (codewords**2).sum(1) / 2
    best: Indices = scores.argmax(-1)
    return best


_SIMPLE: dict[str, Callable[[Model, Indices, Mask, int], Words]] = {
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
    codewords = model.codewords(codebook_size)
    if name == "inpaint":
        filled = model.inpaint(indices, received, codebook_size)
        guessed, words, probability = filled.indices, filled.words, filled.probability
    else:
        words = _SIMPLE[name](model, indices, received, codebook_size)
        guessed = _nearest_index(codewords, words)
        probability = np.where(received, np.float32(1), np.float32(np.nan))
    kept = np.where(received, indices, guessed)
    return Concealed(kept, np.where(received[..., None], codewords[kept], words), probability)
