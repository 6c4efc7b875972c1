"""RTP streams in packet captures: pcap and pcapng, as tcpdump and Wireshark write them.

Layouts: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng, tcpdump.org's list of link types; RFC 791
and RFC 8200 (IP), RFC 768 (UDP), RFC 3550 section 5.1 (RTP), IEEE 802.1Q (VLAN tags).
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from ipaddress import ip_address
from itertools import pairwise
from typing import NamedTuple

from channels.parameters import ChannelParameterError

_PCAP = {  # the first four bytes, for microseconds and nanoseconds: byte order
    b"\xd4\xc3\xb2\xa1": "<",
    b"\x4d\x3c\xb2\xa1": "<",
    b"\xa1\xb2\xc3\xd4": ">",
    b"\xa1\xb2\x3c\x4d": ">",
}
_SECTION = b"\x0a\x0d\x0d\x0a"
_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 1, 2, 3, 6  # block types of pcapng
_IP_AT = {0: 4, 12: 0, 14: 0, 101: 0, 108: 4, 228: 0, 229: 0}
"""Where IP begins, by link type: NULL, RAW (three numbers), LOOP, IPV4, IPV6."""
_TYPE_AT = {1: (12, 14), 113: (14, 16), 276: (0, 20)}
"""Where the protocol and what follows begin, by link type: Ethernet, Linux cooked 1 and 2."""
_VLAN, _IPS = (0x8100, 0x88A8, 0x9100), (0x0800, 0x86DD)
_UDP, _FRAGMENT, _AUTHENTICATION = 17, 44, 51
_EXTENSIONS = (0, 43, _FRAGMENT, _AUTHENTICATION, 60)
_RTCP_TYPES = range(192, 224)  # RFC 5761, section 4: never the second byte of RTP


class _Captured(NamedTuple):
    interface: int
    link_type: int
    data: bytes


class _End(NamedTuple):
    """An address in network order, 4 or 16 bytes, and a port."""

    address: bytes
    port: int

    def __str__(self) -> str:
        ip = ip_address(self.address)
        return f"[{ip}]:{self.port}" if ip.version == 6 else f"{ip}:{self.port}"


class _Udp(NamedTuple):
    source: _End
    target: _End
    payload: bytes


class _Stream(NamedTuple):
    interface: int
    ssrc: int
    source: _End
    target: _End

    def __str__(self) -> str:
        return f"0x{self.ssrc:08x} {self.source} > {self.target}"


def is_capture(start: bytes) -> bool:
    """Whether a file that begins so is a capture."""
    return start[:4] in _PCAP or start[:4] == _SECTION


def rtp_streams(data: bytes) -> dict[str, list[int]]:
    """The sequence numbers of every RTP stream in a capture, in order of arrival, by name.

    A name is SSRC, source and target, and the interface if streams came in on several. A stream is
    RTP where two numbers follow each other (RFC 3550, appendix A.1). A file that ends within a
    packet is read up to there.

    Raises:
        ChannelParameterError: ("path") damaged, or no stream in it.
    """
    found: dict[_Stream, list[int]] = defaultdict(list)
    packets, link_types = 0, set()
    for captured in _packets(data):
        packets += 1
        link_types.add(captured.link_type)
        udp = _udp(captured)
        if udp is None or len(udp.payload) < 12 or udp.payload[0] >> 6 != 2:
            continue
        if udp.payload[1] in _RTCP_TYPES:
            continue
        sequence, ssrc = struct.unpack_from(">2xH4xI", udp.payload)
        found[_Stream(captured.interface, ssrc, udp.source, udp.target)].append(sequence)
    streams = {key: numbers for key, numbers in found.items() if _in_sequence(numbers)}
    if not streams:
        unknown = sorted(link_types - _IP_AT.keys() - _TYPE_AT.keys())
        of = f" of link type {', '.join(map(str, unknown))}, which is not read" if unknown else ""
        raise ChannelParameterError(
            "path", f"no RTP over UDP in this capture of {packets} packets{of}"
        )
    several = len({stream.interface for stream in streams}) > 1
    return {
        str(stream) + f" on interface {stream.interface}" * several: numbers
        for stream, numbers in streams.items()
    }


def _in_sequence(numbers: list[int]) -> bool:
    return any((b - a) % 65536 == 1 for a, b in pairwise(numbers))


def _packets(data: bytes) -> Iterator[_Captured]:
    order = _PCAP.get(data[:4])
    if order is None:
        return _blocks(data)
    return _records(data, order)


def _records(data: bytes, order: str) -> Iterator[_Captured]:
    """The packets of a pcap file: a header of 24 bytes, then records."""
    if len(data) < 24:
        raise ChannelParameterError("path", "ends within the header of the capture")
    link_type = struct.unpack_from(f"{order}I", data, 20)[0] & 0xFFFF
    record, at = struct.Struct(f"{order}8xI4x"), 24
    while at + 16 <= len(data):
        size = record.unpack_from(data, at)[0]
        at += 16
        if at + size > len(data):
            return
        yield _Captured(0, link_type, data[at : at + size])
        at += size


def _blocks(data: bytes) -> Iterator[_Captured]:
    """The packets of a pcapng file: sections of blocks, each its own byte order and interfaces."""
    order, at, interfaces = "<", 0, list[int]()
    while at + 12 <= len(data):
        if data[at : at + 4] == _SECTION:
            order = "<" if data[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
            interfaces = []
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if size < 12 or size % 4:
            raise ChannelParameterError("path", f"the capture is damaged at byte {at}")
        if at + size > len(data):
            return
        body = data[at + 8 : at + size - 4]
        at += size
        if kind == _INTERFACE and len(body) >= 8:
            interfaces.append(struct.unpack_from(f"{order}H", body)[0])
            continue
        interface, start, length = 0, 4, len(body)
        if kind in (_PACKET, _OLD_PACKET) and len(body) >= 20:
            number = "I" if kind == _PACKET else "H2x"
            interface, length = struct.unpack_from(f"{order}{number}8xI", body)
            start = 20
        elif kind != _SIMPLE_PACKET:
            continue
        if interface < len(interfaces):
            yield _Captured(interface, interfaces[interface], body[start : start + length])


def _udp(captured: _Captured) -> _Udp | None:
    """The UDP datagram in a captured packet, if there is one, as far as it was captured."""
    data, at = captured.data, _IP_AT.get(captured.link_type)
    try:
        if captured.link_type in _TYPE_AT:
            protocol_at, at = _TYPE_AT[captured.link_type]
            (protocol,) = struct.unpack_from(">H", data, protocol_at)
            while protocol in _VLAN:
                (protocol,) = struct.unpack_from(">2xH", data, at)
                at += 4
            if protocol not in _IPS:
                return None
        if at is None:
            return None
        version = data[at] >> 4
        return _udp_in_ipv4(data[at:]) if version == 4 else _udp_in_ipv6(data[at:])
    except (struct.error, IndexError):  # cut short
        return None


def _udp_in_ipv4(data: bytes) -> _Udp | None:
    (fragment,) = struct.unpack_from(">H", data, 6)
    if data[9] != _UDP or fragment & 0x1FFF:
        return None
    return _datagram(data[12:16], data[16:20], data[4 * (data[0] & 15) :])


def _udp_in_ipv6(data: bytes) -> _Udp | None:
    following, at = data[6], 40
    while following in _EXTENSIONS:
        if following == _FRAGMENT and struct.unpack_from(">2xH", data, at)[0] >> 3:
            return None
        size = {_FRAGMENT: 8, _AUTHENTICATION: 4 * data[at + 1] + 8}
        step = size.get(following, 8 * data[at + 1] + 8)
        following, at = data[at], at + step
    if data[0] >> 4 != 6 or following != _UDP:
        return None
    return _datagram(data[8:24], data[24:40], data[at:])


def _datagram(source: bytes, target: bytes, data: bytes) -> _Udp:
    first, second, length = struct.unpack_from(">HHH", data)
    return _Udp(_End(source, first), _End(target, second), data[8 : length or len(data)])
