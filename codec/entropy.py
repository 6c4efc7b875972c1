"""Integer tables and range coding: the tokens of one slice <-> bytes.

A coder is given the tokens of a slice and nothing of any other: what one packet decodes to never
depends on another. It writes whole bytes and no length; the packet has one.

A coder's tables are integers, so encoder and decoder agree on every machine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache, cached_property
from itertools import accumulate
from typing import Any, ClassVar, Protocol

import constriction
import numpy as np
from numpy.typing import ArrayLike, NDArray

ENTROPY_MODES = ("fixed", "static", "context")
"""By their number in the packet header."""

FREQUENCY_BITS = 16
FREQUENCY_TOTAL = 1 << FREQUENCY_BITS
"""What the frequencies of a `StaticCoder` sum to."""

_MODEL_BITS = 24  # constriction's fixed-point probabilities
_STATE_BYTES = 8  # of its range coder
_STATE_MASK = (1 << 64) - 1
_WORD_BYTES = 4
_TOKEN_BITS = 16  # of a word that holds any token

Positions = Sequence[NDArray[np.int64]]


class CorruptPayload(ValueError):
    """Bytes that no encoder of this model and slice has written."""


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

    def encode_all(
        self, indices: NDArray[np.int64], positions: Positions, grid: tuple[int, int]
    ) -> list[bytes]:
        """See `SliceCoder.encode_all`."""
        check_range(indices, self.codebook_size)
        words = np.unpackbits(indices.astype(">u2").view(np.uint8)).reshape(-1, _TOKEN_BITS)
        sizes = [len(cells) for cells in positions]
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
        sizes = [len(cells) for cells in positions]
        longest = max(sizes)
        width = -(-longest * bits // 8)
        rows: list[bytes] = []
        for data, size in zip(payloads, sizes, strict=True):
            filling = 8 * len(data) - size * bits
            if filling and not 0 < filling < 8:
                errors[len(rows)] = CorruptPayload(
                    f"{len(data)} bytes for {size} tokens of {bits} bits"
                )
                data = b""
            elif filling and data[-1] & ((1 << filling) - 1):
                errors[len(rows)] = CorruptPayload("filling bits are not zero")
            rows.append(data.ljust(width, b"\0"))
        packed = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, width)
        found = np.unpackbits(packed, axis=1, count=longest * bits).reshape(-1, longest, bits)
        words = np.zeros((sum(sizes), _TOKEN_BITS), np.uint8)
        words[:, -bits:] = _from_rows(found, sizes)
        indices = np.packbits(words).view(">u2").astype(np.int64)
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
        found, start, too_long = [], 0, []
        for number, cells in enumerate(positions):
            stop = start + len(cells)
            encoder = constriction.stream.queue.RangeEncoder()
            encoder.encode(tokens[start:stop], model)
            found.append(shortest_code(encoder))
            if len(found[-1]) >= fixed_bytes(len(cells), self.codebook_size):
                too_long.append(number)
            start = stop
        if too_long:
            packed = self._fixed.encode_all(indices, positions, grid)
            for number in too_long:
                found[number] = packed[number]
        return found

    def decode_all(
        self, payloads: Sequence[bytes], positions: Positions, grid: tuple[int, int]
    ) -> tuple[NDArray[np.int64], dict[int, CorruptPayload]]:
        """See `SliceCoder.decode_all`."""
        edges = list(accumulate((len(cells) for cells in positions), initial=0))
        indices = np.full(edges[-1], -1)
        errors: dict[int, CorruptPayload] = {}
        packed = []
        for number, (data, cells) in enumerate(zip(payloads, positions, strict=True)):
            if len(data) >= fixed_bytes(len(cells), self.codebook_size):
                packed.append(number)
                continue
            try:
                decoder = constriction.stream.queue.RangeDecoder(words_of(data))
                found = decoder.decode(self._model, len(cells))
            except CorruptPayload as error:
                errors[number] = error
            except AssertionError as error:  # how constriction reports an impossible code word
                errors[number] = CorruptPayload(str(error))
            else:
                indices[edges[number] : edges[number + 1]] = found
        if packed:
            found, wrong = self._fixed.decode_all(
                [payloads[number] for number in packed], [positions[n] for n in packed], grid
            )
            at = 0
            for place, number in enumerate(packed):
                size = len(positions[number])
                indices[edges[number] : edges[number + 1]] = found[at : at + size]
                at += size
                if place in wrong:
                    errors[number] = wrong[place]
        return indices, errors

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


def shortest_code(encoder: Any) -> bytes:
    """The shortest byte string in a constriction RangeEncoder's final interval, without trailing
    zeros."""
    words, (lower, size) = encoder.pos()
    length = words * _WORD_BYTES + _STATE_BYTES
    written = encoder.get_compressed().astype(">u4").tobytes()
    # The code is a fraction with `length` bytes. constriction wrote the upper end of some interval;
    # its own lower end differs by less than 2**64.
    point = int.from_bytes(written.ljust(length, b"\0"), "big")
    lowest = point - (point - lower & _STATE_MASK)
    if not lowest:
        return b""
    # The highest bit in which lowest - 1 and the highest differ: bytes below it may all be zero.
    free = (((lowest - 1) ^ (lowest + size - 1)).bit_length() - 1) // 8
    code: int = -(-lowest >> 8 * free)  # rounded up
    return code.to_bytes(length - free, "big").rstrip(b"\0")


def words_of(data: bytes) -> NDArray[np.uint32]:
    """What a constriction RangeDecoder reads, from what `shortest_code` wrote.

    Raises:
        CorruptPayload: it never writes this.
    """
    if data.endswith(b"\0"):
        raise CorruptPayload("a zero byte at the end is never written")
    return np.frombuffer(data + bytes(-len(data) % _WORD_BYTES), ">u4").astype(np.uint32)


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
