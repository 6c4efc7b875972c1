"""Integer tables and range coding: the tokens of one slice <-> bytes.

A coder is given the tokens of a slice and nothing of any other: what one packet decodes to never
depends on another. It writes whole bytes and no length; the packet has one.

A coder's tables are integers, so encoder and decoder agree on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import constriction
import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from codec.context import ContextTables

ENTROPY_MODES = ("fixed", "static", "context")
"""By their number in the packet header."""

FREQUENCY_BITS = 16
FREQUENCY_TOTAL = 1 << FREQUENCY_BITS
"""What the frequencies of a `StaticCoder` sum to."""

_MODEL_BITS = 24  # constriction's fixed-point probabilities
_STATE_BITS = 64  # of its range coder
_WORD_BYTES = 4


class CorruptPayload(ValueError):
    """Bytes that no encoder of this model and slice has written."""


class SliceCoder(Protocol):
    """Tokens of one slice <-> bytes."""

    @property
    def mode(self) -> int:
        """Index into `ENTROPY_MODES`."""
        ...

    def encode(
        self, indices: NDArray[np.int64], positions: NDArray[np.int64], grid: tuple[int, int]
    ) -> bytes:
        """Code the tokens of one slice.

        Args:
            indices: int64[n], 0..K-1, n >= 1.
            positions: int64[n], raster positions ``y * w + x`` of these tokens.
            grid: (h, w) of the whole frame.

        Returns:
            At most ``fixed_bytes(n, K)`` bytes, maybe none.

        Raises:
            ValueError: a token is not in 0..K-1.
        """
        ...

    def decode(
        self, data: bytes, positions: NDArray[np.int64], grid: tuple[int, int]
    ) -> NDArray[np.int64]:
        """The tokens that `encode` was given: int64[n], 0..K-1.

        Raises:
            CorruptPayload: and nothing else, whatever the bytes; memory stays O(n). Damage is
                noticed where it can be, which is seldom: the packet's checksum is for that.
        """
        ...


class CoderFor(Protocol):
    """Gives the slice coder for an entropy mode and a codebook size."""

    def __call__(self, mode: int, codebook_size: int) -> SliceCoder:
        """The coder; raises LookupError where there is none."""
        ...


def fixed_bytes(tokens: int, codebook_size: int) -> int:
    """Bytes that n tokens take at log2 K bits each: the most that any coder here writes."""
    return -(-tokens * _bits_per_token(codebook_size) // 8)


class FixedCoder:
    """Every token in log2 K bits, most significant first; the last byte is filled with zeros."""

    mode = 0

    def __init__(self, codebook_size: int) -> None:
        """``codebook_size``: K, a power of two from 2 to 2**15; raises ValueError if not."""
        self.codebook_size = codebook_size
        self._bits = _bits_per_token(codebook_size)
        self._weights = 1 << np.arange(self._bits - 1, -1, -1)

    @cached_property
    def _rows(self) -> NDArray[np.uint8]:
        """uint8[K, log2 K]: the bits of every token."""
        tokens = np.arange(self.codebook_size)[:, None]
        return np.asarray((tokens & self._weights) != 0, np.uint8)

    def encode(
        self, indices: NDArray[np.int64], positions: NDArray[np.int64], grid: tuple[int, int]
    ) -> bytes:
        """See `SliceCoder.encode`."""
        check_range(indices, self.codebook_size)
        return np.packbits(self._rows.take(indices, axis=0)).tobytes()

    def decode(
        self, data: bytes, positions: NDArray[np.int64], grid: tuple[int, int]
    ) -> NDArray[np.int64]:
        """See `SliceCoder.decode`."""
        n, used = len(positions), len(positions) * self._bits
        filling = 8 * len(data) - used
        if not 0 <= filling < 8:
            raise CorruptPayload(f"{len(data)} bytes for {n} tokens of {self._bits} bits")
        if filling and data[-1] & ((1 << filling) - 1):
            raise CorruptPayload("filling bits are not zero")
        bits = np.unpackbits(np.frombuffer(data, np.uint8), count=used)
        return bits.reshape(n, self._bits) @ self._weights


class StaticCoder:
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

    def encode(
        self, indices: NDArray[np.int64], positions: NDArray[np.int64], grid: tuple[int, int]
    ) -> bytes:
        """See `SliceCoder.encode`."""
        check_range(indices, self.codebook_size)
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(indices.astype(np.int32), self._model)
        data = shortest_code(encoder)
        if len(data) < fixed_bytes(len(indices), self.codebook_size):
            return data
        return self._fixed.encode(indices, positions, grid)

    def decode(
        self, data: bytes, positions: NDArray[np.int64], grid: tuple[int, int]
    ) -> NDArray[np.int64]:
        """See `SliceCoder.decode`."""
        n = len(positions)
        if len(data) >= fixed_bytes(n, self.codebook_size):
            return self._fixed.decode(data, positions, grid)
        decoder = constriction.stream.queue.RangeDecoder(words_of(data))
        try:
            indices = decoder.decode(self._model, n)
        except AssertionError as error:  # how constriction reports an impossible code word
            raise CorruptPayload(str(error)) from None
        return np.asarray(indices, np.int64)


def shortest_code(encoder: Any) -> bytes:
    """The shortest byte string in a constriction RangeEncoder's final interval, without trailing
    zeros."""
    words, (lower, size) = encoder.pos()
    written = encoder.get_compressed().astype(">u4").tobytes()
    # The code is a fraction with `places` bits. constriction wrote the upper end of some interval;
    # its own lower end differs by less than 2**64.
    places = words * 8 * _WORD_BYTES + _STATE_BITS
    point = int.from_bytes(written, "big") << (places - 8 * len(written))
    lowest = point - (point - lower) % (1 << _STATE_BITS)
    # The highest bit in which lowest - 1 and the highest differ: below it, all may be zero.
    differ = (lowest - 1) ^ (lowest + size - 1)
    free = (differ.bit_length() - 1) // 8 * 8 if lowest else places
    code = -(-lowest >> free) << free  # lowest, rounded up
    return bytes(code.to_bytes(places // 8, "big").rstrip(b"\0"))


def words_of(data: bytes) -> NDArray[np.uint32]:
    """What a constriction RangeDecoder reads, from what `shortest_code` wrote.

    Raises:
        CorruptPayload: it never writes this.
    """
    if data.endswith(b"\0"):
        raise CorruptPayload("a zero byte at the end is never written")
    return np.frombuffer(data + bytes(-len(data) % _WORD_BYTES), ">u4").astype(np.uint32)


class CoderBook:
    """The coders of one model: ``book(mode, codebook_size)``. Can be pickled."""

    def __init__(
        self, frequencies: Mapping[int, ArrayLike], context: ContextTables | None = None
    ) -> None:
        """``frequencies``: by codebook size, the table of its `StaticCoder`; {} for none.
        ``context``: the model's tables for its `ContextCoder`s; None for none."""
        self._static = {size: StaticCoder(table) for size, table in frequencies.items()}
        self._fixed: dict[int, FixedCoder] = {}
        self._tables = context
        self._context: dict[int, SliceCoder] = {}

    def __call__(self, mode: int, codebook_size: int) -> SliceCoder:
        """The coder; raises LookupError where this model has none."""
        if ENTROPY_MODES[mode] == "fixed":
            return self._fixed.setdefault(codebook_size, FixedCoder(codebook_size))
        if ENTROPY_MODES[mode] == "static" and codebook_size in self._static:
            return self._static[codebook_size]
        if ENTROPY_MODES[mode] == "context" and self._tables is not None:
            from codec.context import ContextCoder

            if codebook_size not in self._context:
                self._context[codebook_size] = ContextCoder(self._tables, codebook_size)
            return self._context[codebook_size]
        raise LookupError(f"no {ENTROPY_MODES[mode]} coder for a codebook of {codebook_size}")


def _bits_per_token(codebook_size: int) -> int:
    bits = codebook_size.bit_length() - 1
    if not 1 <= bits <= 15 or codebook_size != 1 << bits:
        raise ValueError(f"codebook size must be a power of two, 2..32768, got {codebook_size}")
    return bits


def check_range(indices: NDArray[np.int64], codebook_size: int) -> None:
    """Raise ValueError unless every token is in 0..K-1."""
    if len(indices) and indices.view(np.uint64).max() >= codebook_size:  # negative: huge
        raise ValueError(f"tokens must be in 0..{codebook_size - 1}")
