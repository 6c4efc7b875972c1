"""Conditional replenishment: slices of which only some tokens are sent.

One range-coded string holds which tokens of the slice are there and, behind it, those tokens by any
other coder. The map of them is a binary sequence of unknown probability, coded in slice order by
Krichevsky and Trofimov's estimator (1981), in whole numbers: after i tokens of which c were sent,
the next is with probability (c + 1/2) / (i + 1). So it costs half a logarithm more than the
entropy of the share that is sent, whatever that is; nothing sent takes no byte.

The string begins with a symbol, of 2^-8 for "yes", that says whether every token takes log2 K bits
instead, which bounds its length where another coder is surprised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from codec.entropy import FixedCoder, PayloadCoder, Positions, SliceCoder, fixed_bytes
from codec.range_coder import CorruptPayload, shortest_code, words_of

KEPT = -2
"""In place of a token that is not sent: the receiver keeps the one that it has."""

_FAMILY = constriction.stream.model.Categorical(perfect=False)
_TOTAL = (1 << 24) - 2  # constriction turns whole weights of this sum exactly into frequencies
_FLAT = np.array([[_TOTAL - (1 << 16), 1 << 16]], np.float64)
_SLACK_BYTES = 5  # logarithm of the map's length, the first symbol, and the last byte's rest


def replenishment_bytes(tokens: int, codebook_size: int) -> int:
    """The most bytes that a slice of n tokens takes, whichever of them are sent."""
    return fixed_bytes(tokens, codebook_size) + -(-tokens // 8) + _SLACK_BYTES


class ReplenishmentCoder(PayloadCoder):
    """Tokens that are sent and `KEPT` ones <-> bytes, at most `replenishment_bytes`."""

    def __init__(self, coder: SliceCoder, codebook_size: int) -> None:
        """``coder``: of the tokens that are sent."""
        self._coders = coder, FixedCoder(codebook_size)

    def encode_all(
        self, indices: NDArray[np.int64], positions: Positions, grid: tuple[int, int]
    ) -> list[bytes]:
        """See `PayloadCoder.encode_all`; tokens may be `KEPT`."""
        parts = np.split(indices, np.cumsum([len(cells) for cells in positions[:-1]]))
        return [
            min((self._coded(flat, *part, grid) for flat in (0, 1)), key=len)
            for part in zip(parts, positions, strict=True)
        ]

    def decode_all(
        self, payloads: Sequence[bytes], positions: Positions, grid: tuple[int, int]
    ) -> tuple[NDArray[np.int64], dict[int, CorruptPayload]]:
        """See `PayloadCoder.decode_all`; tokens may be `KEPT`."""
        found = [np.full(len(cells), -1) for cells in positions]
        errors: dict[int, CorruptPayload] = {}
        open_slices: tuple[dict[int, Any], dict[int, Any]] = {}, {}  # decoders, by coder and place
        for number, data in enumerate(payloads):
            try:
                decoder = constriction.stream.queue.RangeDecoder(words_of(data))
                flat = int(decoder.decode(_FAMILY, _FLAT)[0])
                found[number] = np.where(_read_map(decoder, len(found[number])), 0, KEPT)
            except CorruptPayload as error:
                errors[number] = error
            except AssertionError as error:  # how constriction reports an impossible code word
                errors[number] = CorruptPayload(str(error))
            else:
                if (found[number] != KEPT).any():
                    open_slices[flat][number] = decoder
        for coder, decoders in zip(self._coders, open_slices, strict=True):
            cells = [positions[number][found[number] != KEPT] for number in decoders]
            tokens, wrong = coder.read(list(decoders.values()), cells, grid)
            for place, number in enumerate(decoders):
                found[number][found[number] != KEPT] = tokens[place]
                if place in wrong:
                    errors[number] = wrong[place]
        for number in errors:
            found[number][:] = -1
        return np.concatenate(found), errors

    def _coded(
        self,
        flat: int,
        indices: NDArray[np.int64],
        positions: NDArray[np.int64],
        grid: tuple[int, int],
    ) -> bytes:
        sent = indices != KEPT
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(np.array([flat], np.int32), _FAMILY, _FLAT)
        encoder.encode(sent.astype(np.int32), _FAMILY, _weights(sent))
        if sent.any():
            self._coders[flat].write(encoder, indices[sent], positions[sent], grid)
        return shortest_code(encoder)


def _weights(sent: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The weights of "kept" and "sent" for every token of a slice, whole numbers [n,2]."""
    before: NDArray[np.int64] = np.cumsum(sent) - sent
    ones = (2 * before + 1) * _TOTAL // (2 * np.arange(1, len(sent) + 1))
    return np.stack([_TOTAL - ones, ones], axis=1).astype(np.float64)


def _read_map(decoder: Any, tokens: int) -> NDArray[np.bool_]:
    """The inverse: which of so many tokens are sent."""
    sent, before = np.zeros(tokens, np.bool_), 0
    weights = np.empty((1, 2))
    for number in range(tokens):
        weights[0, 1] = (2 * before + 1) * _TOTAL // (2 * number + 2)
        weights[0, 0] = _TOTAL - weights[0, 1]
        if decoder.decode(_FAMILY, weights)[0]:
            sent[number] = True
            before += 1
    return sent
