"""The parity packet: a header that says what it protects, then one symbol of an erasure code.

Big-endian, 12 bytes as in `packet`::

    version/kind/code: 2 + 2 + 4 bits   sequence u16   number u8   data-1 u8
    block u8   depth-1 u8   parity-1 u8   listed u8   checksum u24

It protects ``data`` media packets of a group whose first has the number ``sequence``: those at
``block``, ``block + depth``, ``block + 2 depth`` ... after it, or, if ``listed`` is not 0, those
whose bits are set (from the most significant on) in the first ``listed`` bytes of the payload.
``number`` counts the block's ``parity`` packets.

A symbol of the code is what a media packet's header does not say: checksum (3 bytes), payload,
then 0x80 and zeros up to the length of the longest (ISO/IEC 7816-4). So a packet that has been
restored is the packet that was sent, and its own checksum tells if not.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.protocol.packet import (
    CHECKSUM_BYTES,
    FIELDS,
    MAX_DATAGRAM_BYTES,
    PARITY,
    MalformedPacket,
    first_byte,
    seal,
    unseal,
)
from sim.protocol.protection import FEC_CODES, MAX_BLOCK
from sim.protocol.sequence import SEQUENCES

_MARK = b"\x80"


@dataclass(frozen=True, slots=True)
class ParityPacket:
    """One parity packet.

    Attributes:
        code: one of `FEC_CODES`.
        sequence: of the group's first media packet, 0..2**16-1.
        number: 0..parity-1, of this packet in its block.
        block: 0..254, of the block in its group.
        parity: parity packets of the block, 1..254.
        depth: 1..255, distance of the block's media packets; 1 if they are listed.
        members: the block's media packets, ascending, counted from the group's first.
        listed: whether the packet lists its members.
        symbol: of the erasure code.
    """

    code: str
    sequence: int
    number: int
    block: int
    parity: int
    depth: int
    members: tuple[int, ...]
    listed: bool
    symbol: bytes


def pack_parity(packet: ParityPacket, key: int) -> bytes:
    """The packet as a datagram. ``key``: `StreamKey.seed`."""
    bits = bytearray()
    if packet.listed:
        bits = bytearray(packet.members[-1] // 8 + 1)
        for member in packet.members:
            bits[member // 8] |= 0x80 >> member % 8
    word = packet.block << 24 | (packet.depth - 1) << 16 | (packet.parity - 1) << 8 | len(bits)
    head = FIELDS.pack(
        first_byte(PARITY) | FEC_CODES.index(packet.code),
        packet.sequence % SEQUENCES,
        packet.number,
        len(packet.members) - 1,
        word,
    )
    return seal(head, bytes(bits) + packet.symbol, key)


def parse_parity(data: bytes, key: int, max_bytes: int = MAX_DATAGRAM_BYTES) -> ParityPacket:
    """The inverse of `pack_parity`, for a datagram whose kind is `PARITY`.

    Raises:
        MalformedPacket: and nothing else, whatever the bytes.
    """
    payload = unseal(data, key, FIELDS.size, max_bytes)
    first, sequence, number, last, word = FIELDS.unpack_from(data)
    block, depth, parity, listed = (
        word >> 24,
        (word >> 16 & 255) + 1,
        (word >> 8 & 255) + 1,
        word & 255,
    )
    if first >> 4 & 3 != PARITY:
        raise MalformedPacket("kind", first >> 4 & 3)
    code = first & 15
    if code >= len(FEC_CODES) or number >= parity or last + 1 + parity > MAX_BLOCK:
        raise MalformedPacket("block", (code, number, last + 1, parity))
    if len(payload) <= listed + CHECKSUM_BYTES:
        raise MalformedPacket("block", len(payload))
    if listed:
        members = tuple(at for at in range(8 * listed) if payload[at // 8] & 0x80 >> at % 8)
        if len(members) != last + 1 or depth != 1:
            raise MalformedPacket("block", (len(members), last + 1, depth))
    else:
        members = tuple(range(block, block + (last + 1) * depth, depth))
    return ParityPacket(
        FEC_CODES[code],
        sequence,
        number,
        block,
        parity,
        depth,
        members,
        listed > 0,
        payload[listed:],
    )


def padded(sealed: bytes, length: int) -> bytes:
    """The symbol of a media packet.

    Args:
        sealed: its checksum and payload.
        length: of the symbol, more than that of ``sealed``.
    """
    return (sealed + _MARK).ljust(length, b"\0")


def unpadded(symbol: bytes) -> bytes | None:
    """The inverse of `padded`; None if the symbol cannot be one."""
    sealed = symbol.rstrip(b"\0")
    if not sealed.endswith(_MARK) or len(sealed) <= CHECKSUM_BYTES:
        return None
    return sealed[:-1]
