"""Slices of several frames in one packet.

The payload of a pack packet holds one part for each frame of its pack that has a slice of that
number, in order: the part's length (a variable-length integer, 7 bits a byte, the least
significant first, as in Protocol Buffers) and its bytes; the last part needs no length.
"""

from __future__ import annotations

from collections.abc import Sequence

from codec.range_coder import CorruptPayload

_LONGEST = 2  # bytes of a length


def join_parts(parts: Sequence[bytes]) -> bytes:
    """One payload of one or more parts, each of less than 2**14 bytes."""
    lengths = [_length(len(part)) for part in parts[:-1]]
    return b"".join(a + b for a, b in zip(lengths, parts[:-1], strict=True)) + parts[-1]


def split_parts(payload: bytes, count: int) -> list[bytes]:
    """The inverse of `join_parts`.

    Raises:
        CorruptPayload: there are not so many parts.
    """
    parts, at = [], 0
    for _ in range(count - 1):
        size = 0
        for place in range(_LONGEST):
            if at >= len(payload):
                raise CorruptPayload(f"{len(payload)} bytes hold fewer than {count} parts")
            byte = payload[at]
            at += 1
            size |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                break
        else:
            raise CorruptPayload("a part's length has too many bytes")
        if at + size > len(payload):
            raise CorruptPayload(f"{len(payload)} bytes hold fewer than {count} parts")
        parts.append(payload[at : at + size])
        at += size
    return [*parts, payload[at:]]


def _length(size: int) -> bytes:
    if size < 0x80:
        return bytes([size])
    return bytes([size & 0x7F | 0x80, size >> 7])
