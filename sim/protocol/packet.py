"""The datagram: a 12-byte header that explains itself, then one slice's payload.

Kinds: media (0) as below; pack (3), whose payload holds the slice of that number of several
frames (`packing`); parity (1, `parity`); control (2, `feedback`), on the way back.

Big-endian bit fields::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +---+---+-------+-------------------------------+---------------+
    |ver|knd|log2 K |           sequence            |     slice     |
    +---+---+-------+---+---+-----------------------+---+-----------+
    | slice count-1 |ilv|ent|p|        width-1          |p|height-1 ..
    +---------------+---+---+-+-------------------------+-+---------+
     .. height-1    |                   checksum                    |
    +---------------+-----------------------------------------------+

width and height are the image's, in pixels (13 bits each); the two bits p, upper first, say how
many pixels a token stands for in each direction (`codec.patches.PATCHES`), so the grid of tokens is
1/16 of the image or less, rounded up. There is no frame field: ``sequence - slice`` is the sequence
number of the frame's slice 0 and names the frame. There is no payload length: a datagram has one.

The version is 0; it is 1 in media and packs whose payloads hold only some of their slices' tokens,
and say which (`codec.replenishment`).

The checksum is the low 24 bits of the CRC-32 (ISO 3309, as in zlib) of everything else, started
from the stream's key instead of 0: damage and strangers fail alike. About one
damaged packet in 2**24 passes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain, repeat
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from codec.entropy import ENTROPY_MODES
from codec.patches import PATCHES, grid_of
from sim.protocol.interleaver import INTERLEAVERS, MAX_SLICES, slice_positions
from sim.protocol.sequence import SEQUENCES

VERSION = 0
REPLENISHED = 1
"""The version of packets whose payloads say which tokens they hold."""

MEDIA, PARITY, CONTROL, PACK = 0, 1, 2, 3
HEADER_BYTES = 12
MAX_DATAGRAM_BYTES = 65_507  # the largest UDP payload over IPv4
MAX_SIDE = 1 << 13  # pixels
CODEBOOK_SIZES = tuple(1 << bits for bits in range(1, 16))

CHECKSUM_BYTES = 3
FIELDS = struct.Struct(">BHBBI")
"""Everything in the header before the checksum."""

_FIELDS_BYTES = FIELDS.size
_CHECKSUM_MASK = 0xFFFFFF


class MalformedPacket(ValueError):
    """Bytes that are no packet of this stream.

    ``field`` names what is wrong, ``value`` is what was found. From `parse`, in the order in
    which it looks: truncated, oversized, version, checksum, kind, entropy, codebook,
    slice_count, slice; from other packets' parsers also block, feedback.
    """

    def __init__(self, field: str, value: object) -> None:
        super().__init__(f"malformed packet: {field} {value}")
        self.field = field
        self.value = value


@dataclass(frozen=True)
class Layout:
    """What all packets of one frame have in common.

    Attributes:
        codebook_size: K, a power of two from 2 to 2**15.
        slice_count: 1..256, at most one per token.
        interleaver: one of `INTERLEAVERS`.
        entropy: one of `codec.entropy.ENTROPY_MODES`.
        width, height: of the image in pixels, 1..8192.
        patch: pixels a token stands for in each direction, one of `codec.patches.PATCHES`.
        replenished: whether payloads say which of their slice's tokens they hold.

    Raises:
        MalformedPacket: a field is out of range.
    """

    codebook_size: int
    slice_count: int
    interleaver: str
    entropy: str
    width: int
    height: int
    patch: int = PATCHES[0]
    replenished: bool = False

    def __post_init__(self) -> None:
        if self.patch not in PATCHES:
            raise MalformedPacket("patch", self.patch)
        for side in (self.width, self.height):
            if not 1 <= side <= MAX_SIDE:
                raise MalformedPacket("side", side)
        if self.codebook_size not in CODEBOOK_SIZES:
            raise MalformedPacket("codebook", self.codebook_size)
        if not 1 <= self.slice_count <= min(MAX_SLICES, self.tokens):
            raise MalformedPacket("slice_count", self.slice_count)
        if self.interleaver not in INTERLEAVERS:
            raise MalformedPacket("interleaver", self.interleaver)
        if self.entropy not in ENTROPY_MODES:
            raise MalformedPacket("entropy", self.entropy)

    @classmethod
    def of_image(
        cls,
        width: int,
        height: int,
        *,
        codebook_size: int,
        slices: int,
        interleaver: str,
        entropy: str,
        patch: int,
        replenished: bool = False,
    ) -> Layout:
        """The layout of an image cut into ``slices``, or into as many as it has tokens if fewer."""
        slices = min(slices, math.prod(grid_of(height, width, patch)))
        layout = cls(codebook_size, slices, interleaver, entropy, width, height, patch, replenished)
        return _layout(*layout._bits)

    @cached_property
    def grid(self) -> tuple[int, int]:
        """(h, w): rows and columns of the grid of tokens."""
        return grid_of(self.height, self.width, self.patch)

    @property
    def tokens(self) -> int:
        """Tokens in the grid."""
        return self.grid[0] * self.grid[1]

    @cached_property
    def positions(self) -> tuple[NDArray[np.int64], ...]:
        """Raster positions of each slice's tokens: see `interleaver.slice_positions`."""
        return slice_positions(self.grid, self.slice_count, self.interleaver)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The positions of all slices, one slice after the other: int64[tokens]."""
        return np.concatenate(self.positions)

    @cached_property
    def _bits(self) -> tuple[int, int, int]:
        """Version and log2 K, slice count - 1, the 32 bits from the interleaver to the height."""
        word = INTERLEAVERS.index(self.interleaver) << 30 | ENTROPY_MODES.index(self.entropy) << 28
        patch = PATCHES.index(self.patch)
        word |= patch >> 1 << 27 | (self.width - 1) << 14 | (patch & 1) << 13 | (self.height - 1)
        version = REPLENISHED if self.replenished else VERSION
        first = version << 6 | self.codebook_size.bit_length() - 1
        return first, self.slice_count - 1, word


@lru_cache(maxsize=4096)
def _layout(first: int, last_slice: int, word: int) -> Layout:
    """The inverse of `Layout._bits`; packets of one frame share one object."""
    entropy = word >> 28 & 3
    if entropy >= len(ENTROPY_MODES):
        raise MalformedPacket("entropy", entropy)
    return Layout(
        codebook_size=1 << (first & 15),
        slice_count=last_slice + 1,
        interleaver=INTERLEAVERS[word >> 30],
        entropy=ENTROPY_MODES[entropy],
        width=(word >> 14 & 0x1FFF) + 1,
        height=(word & 0x1FFF) + 1,
        patch=PATCHES[word >> 26 & 2 | word >> 13 & 1],
        replenished=first >> 6 == REPLENISHED,
    )


@dataclass(frozen=True, slots=True)
class Packet:
    """One slice of one frame.

    Attributes:
        sequence: 0..2**16-1; the slices of a frame are numbered on, and so are the frames.
        slice: 0..slice_count-1.
        layout: what it shares with the frame's other packets.
        payload: the slice's tokens, entropy coded.
        kind: `MEDIA` or `PACK`.
    """

    sequence: int
    slice: int
    layout: Layout
    payload: bytes
    kind: int = MEDIA


def pack(packet: Packet, key: int) -> bytes:
    """The packet as a datagram: `HEADER_BYTES` and the payload.

    Args:
        packet: sequence, slice and kind must be in range.
        key: `StreamKey.seed` of the stream, 0..2**32-1.

    Raises:
        MalformedPacket: the slice is not below the slice count.
        struct.error: the sequence number has more than 16 bits.
    """
    return seal(header(packet), packet.payload, key)


def header(packet: Packet) -> bytes:
    """A packet's header but for the checksum; it does not depend on the payload."""
    first, last_slice, word = packet.layout._bits
    if not 0 <= packet.slice <= last_slice:
        raise MalformedPacket("slice", packet.slice)
    first |= packet.kind << 4
    return FIELDS.pack(first, packet.sequence, packet.slice, last_slice, word)


def headers(layout: Layout, first_sequence: int, kind: int = MEDIA) -> list[bytes]:
    """`header` of all packets of a frame.

    Args:
        layout: the frame's.
        first_sequence: number of slice 0; any integer, taken modulo 2**16.
        kind: `MEDIA` or `PACK`.
    """
    first, last_slice, word = layout._bits
    begin = first_sequence % SEQUENCES
    end = begin + last_slice + 1
    sequences = chain(range(begin, min(end, SEQUENCES)), range(end - SEQUENCES))
    same = repeat(first | kind << 4), repeat(last_slice), repeat(word)
    return list(map(FIELDS.pack, same[0], sequences, range(last_slice + 1), *same[1:]))


def first_byte(kind: int) -> int:
    """Version 0 and the kind, in the upper half of a datagram's first byte."""
    return VERSION << 6 | kind << 4


def seal(head: bytes, payload: bytes, key: int) -> bytes:
    """A datagram: head, checksum, payload."""
    return head + checksum(head, payload, key) + payload


def seal_all(heads: Iterable[bytes], payloads: Iterable[bytes], key: int) -> list[bytes]:
    """`seal` for the packets of a frame."""
    return [
        head + (crc32(payload, crc32(head, key)) & _CHECKSUM_MASK).to_bytes(3, "big") + payload
        for head, payload in zip(heads, payloads, strict=True)
    ]


def checksum(head: bytes, payload: bytes, key: int) -> bytes:
    """What stands between a header and its payload."""
    return (crc32(payload, crc32(head, key)) & _CHECKSUM_MASK).to_bytes(CHECKSUM_BYTES, "big")


def unseal(
    data: bytes,
    key: int,
    head_bytes: int,
    max_bytes: int = MAX_DATAGRAM_BYTES,
    max_version: int = VERSION,
) -> bytes:
    """The payload of a datagram of a version up to this one whose checksum is right.

    Raises:
        MalformedPacket: truncated, oversized, version or checksum.
    """
    start = head_bytes + CHECKSUM_BYTES
    if len(data) < start:
        raise MalformedPacket("truncated", len(data))
    if len(data) > max_bytes:
        raise MalformedPacket("oversized", len(data))
    if data[0] >> 6 > max_version:
        raise MalformedPacket("version", data[0] >> 6)
    payload = data[start:]
    if checksum(data[:head_bytes], payload, key) != data[head_bytes:start]:
        raise MalformedPacket("checksum", data[head_bytes:start].hex())
    return payload


def parse(data: bytes, key: int, max_bytes: int = MAX_DATAGRAM_BYTES) -> Packet:
    """The media or pack packet in a datagram: ``parse(pack(p, key), key) == p``.

    Args:
        data: any bytes whatever.
        key: as for `pack`.
        max_bytes: longest datagram to look at.

    Raises:
        MalformedPacket: and nothing else. See there for the fields.
    """
    payload = unseal(data, key, _FIELDS_BYTES, max_bytes, REPLENISHED)
    first, sequence, slice_, last_slice, word = FIELDS.unpack_from(data)
    kind = first >> 4 & 3
    if kind in (PARITY, CONTROL):
        raise MalformedPacket("kind", kind)
    layout = _layout(first & 0xCF, last_slice, word)
    if slice_ > last_slice:
        raise MalformedPacket("slice", slice_)
    return Packet(sequence, slice_, layout, payload, kind)
