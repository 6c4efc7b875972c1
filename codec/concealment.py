"""Concealment of lost tokens, every method behind one function; received tokens are not changed.

A concealer gives for each lost token a vector, which is decoded as a codeword would be, and an
index, the nearest or most probable codeword, from which token accuracy is counted.

none               a neutral codeword, nearest to the usage-weighted mean of all: grey holes
most_frequent      the codeword used most
nearest            the nearest received token
neighbour_average  the distance-weighted mean of the received neighbours' codewords
median             the median of the received neighbours' codewords, in each dimension
telea, biharmonic  the neighbour average; then the lost squares of the decoded image are painted
                   over (`codec.pixel_repair`)
inpaint            the masked transformer (`codec.inpainting`) by a schedule (`codec.decoding`)

Three remember the frame shown before, of a video; with none of the same grid, nothing:

previous             what was shown there before; at first grey holes, as none
previous_or_average  that or the neighbour average: of the two, the one that would have been nearer
                     to the tokens received around the lost one
inpaint_memory       inpaint, by a transformer that sees what was shown before and how sure that was
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from codec.decoding import ONE_PASS, Decoding, Indices, Mask
from codec.model import Model
from codec.pixel_repair import PIXEL_REPAIRS, repair_pixels

CodewordVectors = NDArray[np.float32]


@dataclass(frozen=True)
class Concealed:
    """A filled grid.

    Attributes:
        indices: int64[h,w] in [0, K).
        codeword_vectors: float32[h,w,D], the decoder's input: the codewords of the indices where
            received; where lost, the concealer's estimate, which may lie between codewords.
        probability: float32[h,w], the model's probability of each filled token; 1 where received,
            NaN where the concealer gives none.
        pixel_error: float32[h,w], expected root mean squared error of the token's pixels against
            the decode without loss, in 8-bit levels; 0 where received, NaN where the concealer
            gives none or the model was not calibrated.
    """

    indices: Indices
    codeword_vectors: CodewordVectors
    probability: NDArray[np.float32]
    pixel_error: NDArray[np.float32]


@dataclass(frozen=True)
class Restored:
    """A filled grid and the image decoded from it, uint8[H,W,3]."""

    concealed: Concealed
    image: NDArray[np.uint8]


def _shares(model: Model, codebook_size: int) -> NDArray[np.float64]:
    return model.frequencies(codebook_size).astype(np.float64) / 2**16


def _none(model: Model, indices: Indices, received: Mask, codebook_size: int) -> CodewordVectors:
    codewords = model.codewords(codebook_size)
    mean = (_shares(model, codebook_size) @ codewords).astype(np.float32)
    return np.broadcast_to(codewords[_nearest_index(codewords, mean)], (*indices.shape, len(mean)))


def _most_frequent(
    model: Model, indices: Indices, received: Mask, codebook_size: int
) -> CodewordVectors:
    codeword = model.codewords(codebook_size)[_shares(model, codebook_size).argmax()]
    return np.broadcast_to(codeword, (*indices.shape, len(codeword)))


def _nearest(model: Model, indices: Indices, received: Mask, codebook_size: int) -> CodewordVectors:
    if not received.any():
        return _most_frequent(model, indices, received, codebook_size)
    where = distance_transform_edt(~received, return_distances=False, return_indices=True)
    vectors: CodewordVectors = model.codewords(codebook_size)[indices[tuple(where)]]
    return vectors


def _neighbour_average(
    model: Model, indices: Indices, received: Mask, codebook_size: int
) -> CodewordVectors:
    # Gaussian weights, standard deviation one token; the nearest token where none is within 4.
    weight = _around(received.astype(np.float64))
    vectors = model.codewords(codebook_size)[np.where(received, indices, 0)] * received[..., None]
    total = _around(vectors)
    far = weight < 1e-9
    average: CodewordVectors = (total / np.where(far, 1.0, weight)[..., None]).astype(np.float32)
    average[far] = _nearest(model, indices, received, codebook_size)[far]
    return average


def _around(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Sums float[h,w] or float[h,w,D] over the neighbourhood of each token, by Gaussian weights."""
    sigmas = (1.0, 1.0) + (0.0,) * (values.ndim - 2)
    smooth: NDArray[np.floating] = gaussian_filter(values, sigmas, mode="constant", truncate=4)
    return smooth


_OWN_WEIGHT = 1 / np.exp(-(np.arange(-4, 5) ** 2) / 2).sum() ** 2  # of a token in `_around`


def _median(model: Model, indices: Indices, received: Mask, codebook_size: int) -> CodewordVectors:
    # Of the 8 neighbours; the nearest token where none of them was received.
    height, width = indices.shape
    vectors = model.codewords(codebook_size)[np.where(received, indices, 0)]
    vectors = np.where(received[..., None], vectors, np.float32(np.nan))
    padded = np.pad(vectors, ((1, 1), (1, 1), (0, 0)), constant_values=np.nan)
    found = np.array(_nearest(model, indices, received, codebook_size))
    around = np.pad(received, 1)
    moves = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    near = np.any([around[y : y + height, x : x + width] for y, x in moves], axis=0) & ~received
    stack = np.stack([padded[y : y + height, x : x + width][near] for y, x in moves])
    found[near] = np.nanmedian(stack, axis=0)
    return found


def _previous(
    model: Model,
    indices: Indices,
    received: Mask,
    codebook_size: int,
    before: CodewordVectors | None,
) -> CodewordVectors:
    return _none(model, indices, received, codebook_size) if before is None else before


def _previous_or_average(
    model: Model,
    indices: Indices,
    received: Mask,
    codebook_size: int,
    before: CodewordVectors | None,
) -> CodewordVectors:
    average = _neighbour_average(model, indices, received, codebook_size)
    if before is None:
        return average
    there = received[..., None]
    sent = model.codewords(codebook_size)[np.where(received, indices, 0)] * there
    # What the average of the others would have said of each received token, if there are any.
    weight = _around(received.astype(np.float64)) - _OWN_WEIGHT * received
    others = (_around(sent) - _OWN_WEIGHT * sent) / np.maximum(weight, 1e-9)[..., None]
    witness = received & (weight > 1e-9)
    stale, rough = (_around(((guess - sent) ** 2).sum(-1) * witness) for guess in (before, others))
    chosen: CodewordVectors = np.where((stale <= rough)[..., None], before, average)
    return chosen


def _nearest_index(codewords: CodewordVectors, vectors: CodewordVectors) -> Indices:
    """The index of the codeword float32[K,D] nearest to each vector float32[...,D]."""
    scores = vectors @ codewords.T - (codewords**2).sum(1) / 2
    best: Indices = scores.argmax(-1)
    return best


_SIMPLE: dict[str, Callable[[Model, Indices, Mask, int], CodewordVectors]] = {
    "none": _none,
    "most_frequent": _most_frequent,
    "nearest": _nearest,
    "neighbour_average": _neighbour_average,
    "median": _median,
}
CONCEALERS: tuple[str, ...] = (*_SIMPLE, *PIXEL_REPAIRS, "inpaint")
"""Those of a single image."""

_REMEMBERING: dict[
    str, Callable[[Model, Indices, Mask, int, CodewordVectors | None], CodewordVectors]
] = {"previous": _previous, "previous_or_average": _previous_or_average}
VIDEO_CONCEALERS: tuple[str, ...] = (*_REMEMBERING, "inpaint_memory")
"""Those that see what they showed before."""

MEMORY = 1
"""Frames shown before that a concealer looks at."""


def restore(
    name: str,
    model: Model,
    indices: Indices,
    received: Mask,
    codebook_size: int,
    size: tuple[int, int],
    decoding: Decoding = ONE_PASS,
) -> Restored:
    """Fill the lost tokens of a grid and decode it; see `conceal`.

    Args:
        name, model, indices, received, codebook_size, decoding: as for `conceal`.
        size: (height, width) of the image in pixels.

    Raises:
        ValueError: as for `conceal`, or RepairMissing: a pixel repair's library is not installed.
    """
    concealed = conceal(name, model, indices, received, codebook_size, decoding)
    return Restored(concealed, draw(name, model, concealed, received, size, decoding))


def draw(
    name: str,
    model: Model,
    concealed: Concealed,
    received: Mask,
    size: tuple[int, int],
    decoding: Decoding = ONE_PASS,
) -> NDArray[np.uint8]:
    """The image of a filled grid, uint8[H,W,3]; arguments and errors as of `restore`."""
    image = model.decode_codewords(concealed.codeword_vectors, *size, decoding.enhance)
    return repair_pixels(name, image, received) if name in PIXEL_REPAIRS else image


def conceal(
    name: str,
    model: Model,
    indices: Indices,
    received: Mask,
    codebook_size: int,
    decoding: Decoding = ONE_PASS,
    shown: Sequence[Concealed] = (),
) -> Concealed:
    """Fill the lost tokens of a grid.

    Args:
        name: one of CONCEALERS or VIDEO_CONCEALERS.
        model: supplies codewords, usage and the transformer.
        indices: int64[h,w]; values where `received` is False are ignored.
        received: bool[h,w].
        codebook_size: K of the indices.
        decoding: the transformer's schedule.
        shown: what this concealer made of the frames shown before, the latest last; `MEMORY` of
            them are enough. Those of CONCEALERS do not look at it.

    Raises:
        ValueError: unknown name, or a received index outside [0, K).
        ModelError: the model lacks the transformer, or its transformer the memory.
    """
    known = (*CONCEALERS, *VIDEO_CONCEALERS)
    if name not in known:
        raise ValueError(f"concealer {name!r} is unknown; choose one of {', '.join(known)}")
    if (
        received.any()
        and not 0 <= indices[received].min() <= indices[received].max() < codebook_size
    ):
        raise ValueError(f"a received index lies outside the codebook of {codebook_size}")
    codewords = model.codewords(codebook_size)
    latest = shown[-1] if shown and shown[-1].indices.shape == indices.shape else None
    if name in ("inpaint", "inpaint_memory"):
        memory = None
        if name == "inpaint_memory" and latest is not None:
            memory = np.dstack([latest.codeword_vectors, np.nan_to_num(latest.probability)])
        filled = model.inpaint(indices, received, codebook_size, decoding, memory)
        error = filled.spread * np.float32(model.calibration[codebook_size].pixel_error_scale)
        error[received] = 0
        return Concealed(filled.indices, filled.codeword_vectors, filled.probability, error)
    if name in _REMEMBERING:
        before = None if latest is None else latest.codeword_vectors
        vectors = _REMEMBERING[name](model, indices, received, codebook_size, before)
    else:
        simple = "neighbour_average" if name in PIXEL_REPAIRS else name
        vectors = _SIMPLE[simple](model, indices, received, codebook_size)
    filled_indices = np.where(received, indices, _nearest_index(codewords, vectors))
    return Concealed(
        filled_indices,
        np.where(received[..., None], codewords[filled_indices], vectors),
        np.where(received, np.float32(1), np.float32(np.nan)),
        np.where(received, np.float32(0), np.float32(np.nan)),
    )
