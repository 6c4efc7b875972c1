"""Integer tables and range coding: the tokens of one slice <-> bytes.

A coder is given the tokens of a slice and nothing of any other: what one packet decodes to never
depends on another. It writes whole bytes and no length; the packet has one.

A coder's tables are integers, so encoder and decoder agree on every machine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache, cached_property
from itertools import accumulate, pairwise
from typing import Any, ClassVar, Protocol

import constriction
import numpy as np
from numpy.typing import ArrayLike, NDArray

from codec.range_coder import (
    BEGUN,
    WORD_BYTES,
    ZERO_AT_END,
    CorruptPayload,
    big_endian_words,
    shortest_codes,
)

ENTROPY_MODES = ("fixed", "static", "context")
"""By their number in the packet header."""

FREQUENCY_BITS = 16
FREQUENCY_TOTAL = 1 << FREQUENCY_BITS
"""What the frequencies of a `StaticCoder` sum to."""

_MODEL_BITS = 24  # constriction's fixed-point probabilities
_TOKEN_BITS = 16  # of a word that holds any token
_NO_TOKENS = np.empty(0, np.int64)

Positions = Sequence[NDArray[np.int64]]


class PayloadCoder(ABC):
    """Tokens of slices <-> bytes. A slice is coded alone; several are coded in one call because
    that is faster, never because it makes a difference."""

    @abstractmethod
    def encode_all(
        self, indices: NDArray[np.int64], positions: Positions, grid: tuple[int, int]
    ) -> list[bytes]:
        """Code slices.

        Args:
            indices: int64[n], 0..K-1, the tokens of all slices, one slice after the other.
            positions: for each slice its tokens' raster positions ``y * w + x``: int64[>= 1],
                n in all.
            grid: (h, w) of the whole frame.

        Returns:
            For each slice of m tokens at most ``fixed_bytes(m, K)`` bytes, maybe none.

        Raises:
            ValueError: a token is not in 0..K-1.
        """

    @abstractmethod
    def decode_all(
        self, payloads: Sequence[bytes], positions: Positions, grid: tuple[int, int]
    ) -> tuple[NDArray[np.int64], dict[int, CorruptPayload]]:
        """The inverse, for any slices in any order.

        Returns:
            (indices, errors): int64[n], 0..K-1, the tokens of all slices; and by place in
            ``payloads`` what is wrong with those that do not decode, whose tokens are -1. Whatever
            the bytes, nothing is raised and memory stays O(n). Damage is noticed where it can be,
            which is seldom: the packet's checksum is for that.
        """

    def encode(
        self, indices: NDArray[np.int64], positions: NDArray[np.int64], grid: tuple[int, int]
    ) -> bytes:
        """`encode_all` for one slice."""
        return self.encode_all(indices, (positions,), grid)[0]

    def decode(
        self, data: bytes, positions: NDArray[np.int64], grid: tuple[int, int]
    ) -> NDArray[np.int64]:
        """`decode_all` for one slice.

        Raises:
            CorruptPayload: it does not decode.
        """
        indices, errors = self.decode_all((data,), (positions,), grid)
        if errors:
            raise errors[0]
        return indices


class SliceCoder(PayloadCoder):
    """A coder of one entropy mode."""

    mode: ClassVar[int]
    """Index into `ENTROPY_MODES`."""

    @abstractmethod
    def write(
        self,
        encoder: Any,
        indices: NDArray[np.int64],
        positions: NDArray[np.int64],
        grid: tuple[int, int],
    ) -> None:
        """Code one slice, never bit-packed, behind what a constriction RangeEncoder holds;
        arguments and errors as of `encode_all`."""

    @abstractmethod
    def read(
        self, decoders: Sequence[Any], positions: Positions, grid: tuple[int, int]
    ) -> tuple[list[NDArray[np.int64]], dict[int, CorruptPayload]]:
        """The inverse, for slices each with a constriction RangeDecoder of its own.

        Returns:
            (tokens, errors): of each slice int64[>= 1], 0..K-1; by place, those that do not decode,
            whose tokens say nothing.
        """


class CoderFor(Protocol):
    """Gives the slice coder for an entropy mode and a codebook size."""

    def __call__(self, mode: int, codebook_size: int) -> SliceCoder:
        """The coder; raises LookupError where there is none."""
        ...


def fixed_bytes(tokens: int, codebook_size: int) -> int:
    """Bytes that n tokens take at log2 K bits each: the most that any coder here writes."""
    return -(-tokens * _bits_per_token(codebook_size) // 8)


class FixedCoder(SliceCoder):
    """Every token in log2 K bits, most significant first; the last byte is filled with zeros."""

    mode = 0

    def __init__(self, codebook_size: int) -> None:
        """``codebook_size``: K, a power of two from 2 to 2**15; raises ValueError if not."""
        self.codebook_size = codebook_size
        self._bits = _bits_per_token(codebook_size)
        self._places = 2 ** np.arange(self._bits, dtype=np.float32)[::-1].copy()

    def encode_all(
        self, indices: NDArray[np.int64], positions: Positions, grid: tuple[int, int]
    ) -> list[bytes]:
        """See `SliceCoder.encode_all`."""
        check_range(indices, self.codebook_size)
        words = np.unpackbits(indices.astype(">u2").view(np.uint8)).reshape(-1, _TOKEN_BITS)
        sizes = list(map(len, positions))
        longest = max(sizes)
        rows = _in_rows(words[:, -self._bits :], sizes, longest)
        width = -(-longest * self._bits // 8)
        packed = np.packbits(rows.reshape(len(sizes), -1), axis=1).tobytes()
        return [
            packed[at : at + -(-size * self._bits // 8)]
            for at, size in zip(range(0, len(packed), width), sizes, strict=True)
        ]

    def decode_all(
        self, payloads: Sequence[bytes], positions: Positions, grid: tuple[int, int]
    ) -> tuple[NDArray[np.int64], dict[int, CorruptPayload]]:
        """See `SliceCoder.decode_all`."""
        bits, errors = self._bits, {}
        sizes = list(map(len, positions))
        longest = max(sizes)
        width = -(-longest * bits // 8)
        rows = list(payloads)
        for number, (data, size) in enumerate(zip(payloads, sizes, strict=True)):
            filling = 8 * len(data) - size * bits
            if not filling:
                continue
            if not 0 < filling < 8:
                errors[number] = CorruptPayload(
                    f"{len(data)} bytes for {size} tokens of {bits} bits"
                )
                rows[number] = b""
            elif data[-1] & ((1 << filling) - 1):
                errors[number] = CorruptPayload("filling bits are not zero")
        if len(set(map(len, rows))) > 1 or len(rows[0]) != width:
            rows = [data.ljust(width, b"\0") for data in rows]
        packed = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, width)
        found = np.unpackbits(packed, axis=1, count=longest * bits).reshape(-1, longest, bits)
        # Whole numbers below 2**15: exact, and the fastest sum there is.
        indices = (_from_rows(found, sizes).astype(np.float32) @ self._places).astype(np.int64)
        for number in errors:
            start = sum(sizes[:number])
            indices[start : start + sizes[number]] = -1
        return indices, errors

    def write(
        self,
        encoder: Any,
        indices: NDArray[np.int64],
        positions: NDArray[np.int64],
        grid: tuple[int, int],
    ) -> None:
        """See `SliceCoder.write`; here every token takes log2 K bits."""
        check_range(indices, self.codebook_size)
        encoder.encode(indices.astype(np.int32), _uniform(self.codebook_size))

    def read(
        self, decoders: Sequence[Any], positions: Positions, grid: tuple[int, int]
    ) -> tuple[list[NDArray[np.int64]], dict[int, CorruptPayload]]:
        """See `SliceCoder.read`."""
        return _read(_uniform(self.codebook_size), decoders, positions)


def _uniform(codebook_size: int) -> Any:
    return constriction.stream.model.Uniform(codebook_size)


def _read(
    model: Any, decoders: Sequence[Any], positions: Positions
) -> tuple[list[NDArray[np.int64]], dict[int, CorruptPayload]]:
    """`SliceCoder.read` for tokens that all have one model."""
    found, errors = [], dict[int, CorruptPayload]()
    for number, (decoder, cells) in enumerate(zip(decoders, positions, strict=True)):
        try:
            found.append(decoder.decode(model, len(cells)).astype(np.int64))
        except AssertionError as error:  # how constriction reports an impossible code word
            errors[number] = CorruptPayload(str(error))
            found.append(np.full(len(cells), -1))
    return found, errors


def _in_rows(bits: NDArray[np.uint8], sizes: list[int], longest: int) -> NDArray[np.uint8]:
    """The bits of the tokens of slices, uint8[n, b] -> uint8[slices, longest, b], zeros behind
    the shorter ones."""
    if min(sizes) == longest:
        return bits.reshape(len(sizes), longest, -1)
    rows = np.zeros((len(sizes), longest, bits.shape[1]), np.uint8)
    rows[np.arange(longest) < np.array(sizes)[:, None]] = bits
    return rows


def _from_rows(rows: NDArray[np.uint8], sizes: list[int]) -> NDArray[np.uint8]:
    """The inverse of `_in_rows`."""
    longest = rows.shape[1]
    if min(sizes) == longest:
        return rows.reshape(-1, rows.shape[2])
    return rows[np.arange(longest) < np.array(sizes)[:, None]]


class StaticCoder(SliceCoder):
    """A range coder with one integer frequency per token, restarted in every slice.

    Range-coded bytes are cut to the fewest that name a number in the coder's final interval; the
    missing ones read as zero. Where that does not beat bit-packing, the slice is bit-packed: its
    length, `fixed_bytes`, says so, and nothing longer is ever written.

    The coder sees exactly the integer table. constriction's fast quantizer turns weights w into
    24-bit boundaries ``i + floor(sum(w[:i]) * (2**24 - K) / sum(w))``; with integer weights
    ``w = 2**8 * f - 1`` the factor is exactly 1 and boundary i is ``2**8 * sum(f[:i])``.
    """

    mode = 1

    def __init__(self, frequencies: ArrayLike) -> None:
        """``frequencies``: uint32[K], each >= 1, their sum 2**16; raises ValueError if not."""
        table = np.asarray(frequencies)
        if table.ndim != 1 or table.dtype.kind not in "iu":
            raise ValueError("frequencies must be a list of integers")
        if table.min(initial=1) < 1 or int(table.sum()) != FREQUENCY_TOTAL:
            raise ValueError(f"frequencies must be >= 1 and sum to {FREQUENCY_TOTAL}")
        self.codebook_size = len(table)
        self._fixed = FixedCoder(self.codebook_size)
        self._weights = (table.astype(np.int64) << (_MODEL_BITS - FREQUENCY_BITS)) - 1

    @cached_property
    def _model(self) -> Any:
        return constriction.stream.model.Categorical(
            self._weights.astype(np.float64), perfect=False
        )

    def __getstate__(self) -> dict[str, object]:
        """Everything but constriction's model, which cannot be pickled and is made again."""
        return {k: v for k, v in self.__dict__.items() if k != "_model"}

    def encode_all(
        self, indices: NDArray[np.int64], positions: Positions, grid: tuple[int, int]
    ) -> list[bytes]:
        """See `SliceCoder.encode_all`."""
        check_range(indices, self.codebook_size)
        tokens, model = indices.astype(np.int32), self._model
        start, ends, written = 0, [], []
        for cells in positions:
            stop = start + len(cells)
            encoder = constriction.stream.queue.RangeEncoder()  # `clear` forgets no carry
            encoder.encode(tokens[start:stop], model)
            ends.append(encoder.pos())
            written.append(encoder.get_compressed())
            start = stop
        found, limits = shortest_codes(ends, written), self._limits(positions)
        sizes = zip(map(len, found), limits, strict=True)
        too_long = [number for number, (size, limit) in enumerate(sizes) if size >= limit]
        if too_long:
            packed = self._fixed.encode_all(indices, positions, grid)
            for number in too_long:
                found[number] = packed[number]
        return found

    def decode_all(
        self, payloads: Sequence[bytes], positions: Positions, grid: tuple[int, int]
    ) -> tuple[NDArray[np.int64], dict[int, CorruptPayload]]:
        """See `SliceCoder.decode_all`."""
        sizes = list(map(len, positions))
        coded, packed = list[int](), list[int]()
        for number, (own, limit) in enumerate(zip(payloads, self._limits(positions), strict=True)):
            (packed if len(own) >= limit else coded).append(number)
        parts = [_NO_TOKENS] * len(sizes)
        errors: dict[int, CorruptPayload] = {}
        room = max(sizes) + 2  # words: a decoder reads two, then one for each token at most
        data = b"".join([payloads[number].ljust(WORD_BYTES * room, b"\0") for number in coded])
        decoder, model = constriction.stream.queue.RangeDecoder(big_endian_words(data)), self._model
        for place, number in enumerate(coded):
            if payloads[number].endswith(b"\0"):
                errors[number] = CorruptPayload(ZERO_AT_END)
                continue
            decoder.seek(place * room, BEGUN)
            try:
                parts[number] = decoder.decode(model, sizes[number])
            except AssertionError as error:  # how constriction reports an impossible code word
                errors[number] = CorruptPayload(str(error))
        if packed:
            found, wrong = self._fixed.decode_all(
                [payloads[number] for number in packed], [positions[n] for n in packed], grid
            )
            errors |= {packed[place]: error for place, error in wrong.items()}
            edges = accumulate([sizes[number] for number in packed], initial=0)
            for number, (start, stop) in zip(packed, pairwise(edges), strict=True):
                parts[number] = found[start:stop]
        for number in errors:
            parts[number] = np.full(sizes[number], -1)
        return np.concatenate(parts).astype(np.int64), errors

    def _limits(self, positions: Positions) -> list[int]:
        """Of each slice, the bytes from which on it is bit-packed."""
        limits = {size: fixed_bytes(size, self.codebook_size) for size in set(map(len, positions))}
        return [limits[len(cells)] for cells in positions]

    def write(
        self,
        encoder: Any,
        indices: NDArray[np.int64],
        positions: NDArray[np.int64],
        grid: tuple[int, int],
    ) -> None:
        """See `SliceCoder.write`."""
        check_range(indices, self.codebook_size)
        encoder.encode(indices.astype(np.int32), self._model)

    def read(
        self, decoders: Sequence[Any], positions: Positions, grid: tuple[int, int]
    ) -> tuple[list[NDArray[np.int64]], dict[int, CorruptPayload]]:
        """See `SliceCoder.read`."""
        return _read(self._model, decoders, positions)


@cache
def _bits_per_token(codebook_size: int) -> int:
    bits = codebook_size.bit_length() - 1
    if not 1 <= bits <= 15 or codebook_size != 1 << bits:
        raise ValueError(f"codebook size must be a power of two, 2..32768, got {codebook_size}")
    return bits


def check_range(indices: NDArray[np.int64], codebook_size: int) -> None:
    """Raise ValueError unless every token is in 0..K-1."""
    if len(indices) and indices.view(np.uint64).max() >= codebook_size:  # negative: huge
        raise ValueError(f"tokens must be in 0..{codebook_size - 1}")
