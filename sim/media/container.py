"""The file of one image: the packets of a stream behind each other. No clock, disk or network.

    magic "\\xabT1"   model: first 3 bytes of its fingerprint
    then per packet: payload length, LEB128 (7 bits a byte, lowest first; the top bit says that more
    follow)   the packet as on the wire: its 12-byte header, its payload

Six bytes, and one to three for each packet. A packet has its own checksum, so damage costs the
packets that it hits and no others: what does not check is skipped byte by byte until a packet does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sim.protocol.config import StreamKey
from sim.protocol.packet import (
    HEADER_BYTES,
    MAX_DATAGRAM_BYTES,
    MEDIA,
    VERSION,
    Layout,
    MalformedPacket,
    Packet,
    pack,
    parse,
)

MAGIC = b"\xabT1"
MARK_BYTES = 3
FILE_HEADER_BYTES = len(MAGIC) + MARK_BYTES
MAX_FILE_BYTES = 1 << 21
"""More than the largest image takes at the largest codebook."""

_MAX_LENGTH_BYTES = 3
_FIRST_BYTE = (VERSION << 6 | MEDIA << 4) >> 4  # upper half of every packet here


class NotATokenFile(ValueError):
    """The bytes are no file of this format."""


class ForeignModel(ValueError):
    """The file was made with another model. ``digest``: how that model's fingerprint begins."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"made with another model, {digest}...")
        self.digest = digest


class NothingLeft(ValueError):
    """The file is of this model, but no packet in it is intact."""


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        layout: of the image.
        packets: those that are intact, by slice, at most one each, at least one in all.
    """

    layout: Layout
    packets: tuple[Packet, ...]

    @property
    def lost(self) -> int:
        """Packets that are missing or damaged."""
        return self.layout.slice_count - len(self.packets)


def pack_file(packets: Iterable[Packet], key: StreamKey) -> bytes:
    """The file of one frame's packets, whose sequence numbers start at 0 with slice 0.

    Raises:
        ValueError: a packet's sequence number is not its slice, or it is no media packet.
    """
    parts = [MAGIC, bytes.fromhex(key.fingerprint)[:MARK_BYTES]]
    for packet in packets:
        if packet.sequence != packet.slice or packet.kind != MEDIA:
            raise ValueError("a file holds the media packets of a stream's first frame")
        parts += [_length(len(packet.payload)), pack(packet, key.seed)]
    return b"".join(parts)


def read_file(data: bytes, key: StreamKey) -> Contents:
    """The intact packets of a file.

    Work is bounded by the file's length; packets that disagree with the majority about the image
    are left out.

    Raises:
        NotATokenFile, ForeignModel, NothingLeft: and nothing else, whatever the bytes.
    """
    if not data.startswith(MAGIC) or not FILE_HEADER_BYTES < len(data) <= MAX_FILE_BYTES:
        raise NotATokenFile("not a file of image tokens")
    found = list(_scan(data, key.seed))
    if not found:
        digest = data[len(MAGIC) : FILE_HEADER_BYTES].hex()
        if not key.fingerprint.startswith(digest):
            raise ForeignModel(digest)
        raise NothingLeft("no packet in this file is intact")
    layout = Counter(packet.layout for packet in found).most_common(1)[0][0]
    slices: dict[int, Packet] = {}
    for packet in found:
        if packet.layout == layout:
            slices.setdefault(packet.slice, packet)
    return Contents(layout, tuple(slices[number] for number in sorted(slices)))


def _scan(data: bytes, seed: int) -> Iterator[Packet]:
    """Every packet that checks, in order. Gives up once the bytes checked in vain are many times
    the file."""
    patience = 16 * len(data) + (1 << 20)
    offset = FILE_HEADER_BYTES
    while offset + HEADER_BYTES < len(data) and patience > 0:
        start, payload = _read_length(data, offset)
        end = start + HEADER_BYTES + payload
        offset += 1
        if payload < 0 or end > len(data) or data[start] >> 4 != _FIRST_BYTE:
            continue
        try:
            packet = parse(data[start:end], seed)
        except MalformedPacket:
            patience -= end - start + 256
            continue
        if packet.sequence == packet.slice:
            yield packet
            offset = end


def _length(value: int) -> bytes:
    """LEB128 of a payload's length."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_length(data: bytes, offset: int) -> tuple[int, int]:
    """(offset after it, length) of the LEB128 number there; length -1 if there is none."""
    value = 0
    for place in range(_MAX_LENGTH_BYTES):
        if offset + place >= len(data):
            break
        byte = data[offset + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return offset + place + 1, value if value <= MAX_DATAGRAM_BYTES - HEADER_BYTES else -1
    return offset, -1
