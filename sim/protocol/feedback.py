"""The control packet of the way back: which media packets the receiver misses.

Big-endian: version and kind as in `packet` and four zero bits, sequence u16, checksum u24; then
bits, from the most significant on, for the numbers after that one (as a generic NACK of RFC 4585,
section 6.2.1, but as long as it needs to be). The first number itself is always missed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from sim.protocol.packet import CONTROL, MalformedPacket, first_byte, seal, unseal
from sim.protocol.sequence import SEQUENCES

MAX_SPAN = 2048
"""How far the numbers in one packet may lie apart."""

_HEAD = struct.Struct(">BH")
_MAX_BYTES = _HEAD.size + 3 + MAX_SPAN // 8


def pack_requests(sequences: Iterable[int], key: int) -> list[bytes]:
    """Datagrams that ask for media packets.

    Args:
        sequences: unwrapped, ascending.
        key: `StreamKey.seed`.
    """
    spans: list[list[int]] = []
    for sequence in sequences:
        if spans and sequence - spans[-1][0] <= MAX_SPAN:
            spans[-1].append(sequence)
        else:
            spans.append([sequence])
    return [_pack(span, key) for span in spans]


def _pack(sequences: list[int], key: int) -> bytes:
    first, *others = sequences
    bits = bytearray((sequences[-1] - first + 7) // 8)
    for other in others:
        at = other - first - 1
        bits[at // 8] |= 0x80 >> at % 8
    return seal(_HEAD.pack(first_byte(CONTROL), first % SEQUENCES), bytes(bits), key)


def parse_requests(data: bytes, key: int) -> tuple[int, list[int]]:
    """The numbers in a datagram: the first as on the wire, and the distances of all from it.

    Raises:
        MalformedPacket: and nothing else, whatever the bytes.
    """
    bits = unseal(data, key, _HEAD.size, _MAX_BYTES)
    first, sequence = _HEAD.unpack_from(data)
    if first != first_byte(CONTROL):
        raise MalformedPacket("kind", first >> 4 & 3)
    if bits and not bits[-1]:
        raise MalformedPacket("feedback", "zero bytes at the end are never written")
    distances = [0]
    distances += (at + 1 for at in range(8 * len(bits)) if bits[at // 8] & 0x80 >> at % 8)
    return sequence, distances
