"""A stream as a pcapng file, for Wireshark: what the sender sent, and what the receiver got.

draft-ietf-opsawg-pcapng; two interfaces of link type RAW, ``sender`` and ``receiver``. A packet
that was lost is there on the sender's side only, and its comment says so. Datagrams are in IPv4
(RFC 791) and UDP (RFC 768, without a checksum), from 192.0.2.1 to 192.0.2.2 (RFC 5737) and back, on
`PORT`; a packet has the same IP identification on both sides. Times are virtual, in nanoseconds
from 0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sim.drivers.record import PacketRecord
from sim.drivers.tap import Passage
from sim.protocol.packet import MAX_DATAGRAM_BYTES

PORT = 5572
MAGIC = b"\x0a\x0d\x0d\x0a"
_RAW = 101  # tcpdump.org/linktypes.html
_ENDS = (bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2]))
_SENDER, _RECEIVER = 0, 1
_IN, _OUT = 1, 2  # epb_flags: inbound, outbound
_CORRUPTED = "corrupted on its way"
_FATES = {"erased": "lost", "overflowed": "lost: dropped by the link", "corrupted": _CORRUPTED}
_COMMENT, _FLAGS, _NAME, _DESCRIPTION, _RESOLUTION, _PROGRAM = 1, 2, 2, 3, 9, 4


class _Datagram(NamedTuple):
    time_s: float
    interface: int
    direction: int
    source: int
    number: int
    data: bytes
    comment: str


def pcapng(
    start: bytes,
    packets: Sequence[PacketRecord],
    forth: Sequence[Passage],
    back: Iterable[Passage],
    about: str,
    program: str,
) -> bytes:
    """The file.

    Args:
        start: the message before the stream, which no channel carries.
        packets, forth: what became of every packet, and its way; in sending order.
        back: the way of the receiver's control packets.
        about: comment of the whole file.
        program: that writes it.
    """
    captured = [
        _Datagram(0.0, _SENDER, _OUT, _SENDER, 0, start, "start of the stream, sent reliably"),
        _Datagram(0.0, _RECEIVER, _IN, _SENDER, 0, start, ""),
    ]
    number = 0
    for packet, passage in zip(packets, forth, strict=True):
        number += 1
        captured += _passage(passage, number, _SENDER, _fate(packet))
    for passage in back:
        number += 1
        captured += _passage(passage, number, _RECEIVER, "" if passage.arrivals else "lost")
    captured.sort(key=lambda one: one.time_s)  # stable: what is sent comes before it arrives
    return b"".join(
        (
            _section(about, program),
            _interface("sender", "packets as they leave the sender"),
            _interface("receiver", "what reaches the receiver, and what it sends back"),
            *map(_packet, captured),
        )
    )


def _fate(packet: PacketRecord) -> str:
    """What the packet alone does not tell; "" if nothing is special."""
    words = ["retransmission"] * (packet.kind == "retransmission")
    words += [_FATES[packet.fate]] if packet.fate in _FATES else []
    words += ["arrives too late"] * packet.late
    words += [f"arrives {packet.copies} times"] * (packet.copies > 1)
    return ", ".join(words)


def _passage(passage: Passage, number: int, source: int, comment: str) -> list[_Datagram]:
    found = [_Datagram(passage.sent_s, source, _OUT, source, number, passage.data, comment)]
    for arrival_s, data in passage.arrivals:
        changed = "" if data == passage.data else _CORRUPTED
        found.append(_Datagram(arrival_s, 1 - source, _IN, source, number, data, changed))
    return found


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _text(code: int, text: str) -> bytes:
    return _option(code, text.encode("utf-8", "replace")[:65_000]) if text else b""


def _section(about: str, program: str) -> bytes:
    options = _text(_COMMENT, about) + _text(_PROGRAM, program) + _option(0, b"")
    return _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + options)


def _interface(name: str, about: str) -> bytes:
    options = _text(_NAME, name) + _text(_DESCRIPTION, about) + _option(_RESOLUTION, b"\x09")
    return _block(1, struct.pack("<HHI", _RAW, 0, 0) + options + _option(0, b""))


def _packet(one: _Datagram) -> bytes:
    data = _datagram(one)
    time = divmod(round(one.time_s * 1e9), 2**32)  # nanoseconds: upper half, lower half
    head = struct.pack("<IIIII", one.interface, *time, len(data), len(data))
    options = _text(_COMMENT, one.comment) + _option(_FLAGS, struct.pack("<I", one.direction))
    return _block(6, head + data + bytes(-len(data) % 4) + options + _option(0, b""))


def _datagram(one: _Datagram) -> bytes:
    """The bytes in UDP in IPv4; a message too long for one datagram is cut."""
    content = one.data[:MAX_DATAGRAM_BYTES]
    udp = struct.pack(">HHHH", PORT, PORT, 8 + len(content), 0) + content
    ends = _ENDS[one.source] + _ENDS[1 - one.source]
    fields = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), one.number % 65536, 0, 64, 17, 0)
    total = sum(struct.unpack(">10H", fields + ends))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return fields[:10] + struct.pack(">H", checksum) + ends + udp
