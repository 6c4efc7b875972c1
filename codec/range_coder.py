"""What a constriction range coder writes, cut to the fewest bytes, and read again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORD_BYTES = 4
_STATE_BYTES = 8
_STATE_MASK = (1 << 64) - 1
BEGUN = (0, _STATE_MASK)
"""A decoder's state before the first token, for its `seek`."""
ZERO_AT_END = "a zero byte at the end is never written"


class CorruptPayload(ValueError):
    """Bytes that no encoder of this model and slice has written."""


def shortest_code(encoder: Any) -> bytes:
    """The shortest byte string in a constriction RangeEncoder's final interval, without trailing
    zeros."""
    return shortest_codes([encoder.pos()], [encoder.get_compressed()])[0]


def shortest_codes(
    ends: Sequence[tuple[int, tuple[int, int]]], written: Sequence[NDArray[np.uint32]]
) -> list[bytes]:
    """`shortest_code` of several encoders: of each its ``pos()`` and ``get_compressed()``."""
    code, at, found = np.concatenate(written).astype(">u4").tobytes(), 0, []
    for (words, (lower, size)), own in zip(ends, written, strict=True):
        begin, at = at, at + WORD_BYTES * len(own)
        settled, lowest = WORD_BYTES * words, lower
        length = _STATE_BYTES
        if not lower or lower + size > _STATE_MASK:
            # The interval's ends differ in settled words too. The code is a fraction; constriction
            # wrote the upper end of some interval, whose lower end differs by less than 2**64.
            length += settled
            point = int.from_bytes(code[begin:at].ljust(length, b"\0"), "big")
            lowest, settled = point - (point - lower & _STATE_MASK), 0
        if not lowest:
            found.append(b"")
            continue
        # The highest bit in which lowest - 1 and the highest differ: bytes below may all be zero.
        free = (((lowest - 1) ^ (lowest + size - 1)).bit_length() - 1) // 8
        rest = -(-lowest >> 8 * free)  # rounded up
        found.append(
            (code[begin : begin + settled] + rest.to_bytes(length - free, "big")).rstrip(b"\0")
        )
    return found


def words_of(data: bytes) -> NDArray[np.uint32]:
    """What a constriction RangeDecoder reads, from what `shortest_code` wrote.

    Raises:
        CorruptPayload: it never writes this.
    """
    if data.endswith(b"\0"):
        raise CorruptPayload(ZERO_AT_END)
    return big_endian_words(data + bytes(-len(data) % WORD_BYTES))


def big_endian_words(data: bytes) -> NDArray[np.uint32]:
    """Whole words, as constriction's coders hold them."""
    return np.frombuffer(data, ">u4").astype(np.uint32)
