from __future__ import annotations

import dataclasses
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.entropy import ENTROPY_MODES
from codec.patches import PATCHES
from sim.protocol.interleaver import INTERLEAVERS
from sim.protocol.packet import (
    CODEBOOK_SIZES,
    CONTROL,
    HEADER_BYTES,
    MAX_SIDE,
    MEDIA,
    PACK,
    Layout,
    MalformedPacket,
    Packet,
    pack,
    parse,
)
from sim.protocol.sequence import SEQUENCES, unwrap

KEY = 0x1234ABCD
LAYOUT = Layout(1024, 32, "low_discrepancy", "static", 768, 512)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    width, height = draw(st.integers(1, MAX_SIDE)), draw(st.integers(1, MAX_SIDE))
    return Layout.of_image(
        width,
        height,
        codebook_size=draw(st.sampled_from(CODEBOOK_SIZES)),
        slices=draw(st.integers(1, 256)),
        interleaver=draw(st.sampled_from(INTERLEAVERS)),
        entropy=draw(st.sampled_from(ENTROPY_MODES)),
        patch=draw(st.sampled_from(PATCHES)),
        replenished=draw(st.booleans()),
    )


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    layout = draw(layouts())
    return Packet(
        draw(st.integers(0, SEQUENCES - 1)),
        draw(st.integers(0, layout.slice_count - 1)),
        layout,
        draw(st.binary(max_size=200)),
        draw(st.sampled_from([MEDIA, PACK])),
    )


@given(packets(), st.integers(0, 2**32 - 1))
def test_what_is_packed_is_parsed(packet: Packet, key: int) -> None:
    data = pack(packet, key)
    assert len(data) == HEADER_BYTES + len(packet.payload)
    assert parse(data, key) == packet


def test_golden_bytes() -> None:
    """The wire format: these never change."""
    packet = Packet(0xBEEF, 5, LAYOUT, b"payload")
    assert pack(packet, KEY).hex() == "0abeef051f90bfc1ff" + "c1c111" + b"payload".hex()
    some = Layout(1024, 32, "low_discrepancy", "static", 768, 512, replenished=True)
    assert pack(Packet(0xBEEF, 5, some, b"payload"), KEY).hex()[:18] == "4abeef051f90bfc1ff"
    small = Packet(1, 0, Layout(2, 1, "raster", "fixed", 1, 1), b"", CONTROL)
    assert pack(small, 0).hex() == "2100010000" + "00000000" + "f489fa"
    widest = Layout(2**15, 256, "random", "context", 8192, 8192, 32)
    assert pack(Packet(65535, 255, widest, b""), KEY).hex() == "0fffffffff" + "efffffff" + "52b181"


@given(packets(), st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1))
def test_another_streams_packet_is_refused(packet: Packet, key: int, other: int) -> None:
    with pytest.raises(MalformedPacket) as error:
        parse(pack(packet, key), key ^ other)
    assert error.value.field == "checksum"


@given(packets(), st.data())
def test_damaged_packets_are_refused(packet: Packet, data: st.DataObject) -> None:
    good = pack(packet, KEY)
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 5))):
        bad[data.draw(st.integers(0, len(bad) - 1))] ^= data.draw(st.integers(1, 255))
    if bytes(bad) != good:
        with pytest.raises(MalformedPacket):
            parse(bytes(bad), KEY)
    cut = data.draw(st.integers(0, len(good) - 1))
    with pytest.raises(MalformedPacket):
        parse(good[:cut], KEY)


@given(st.binary(max_size=100))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        parse(data, KEY)


def reseal(data: bytes, **changes: int) -> bytes:
    """The packet with header bytes changed and the checksum made good again."""
    head = bytearray(data[:9])
    for name, value in changes.items():
        head[int(name[1:])] = value
    crc = zlib.crc32(data[12:], zlib.crc32(head, KEY)) & 0xFFFFFF
    return bytes(head) + crc.to_bytes(3, "big") + data[12:]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"b0": 0x8A}, "version"),
        ({"b0": 0x1A}, "kind"),
        ({"b0": 0x2A}, "kind"),
        ({"b0": 0x00}, "codebook"),
        ({"b3": 32}, "slice"),
        ({"b5": 0xB0}, "entropy"),
    ],
)
def test_a_sealed_packet_with_a_bad_field_is_refused_by_name(
    changes: dict[str, int], field: str
) -> None:
    data = pack(Packet(7, 3, LAYOUT, b"x"), KEY)
    assert parse(reseal(data), KEY).slice == 3
    with pytest.raises(MalformedPacket) as error:
        parse(reseal(data, **changes), KEY)
    assert error.value.field == field


def test_more_slices_than_tokens_are_refused() -> None:
    tiny = Layout(16, 4, "raster", "fixed", 32, 32)
    data = pack(Packet(0, 0, tiny, b"x"), KEY)
    with pytest.raises(MalformedPacket) as error:
        parse(reseal(data, b4=4), KEY)
    assert error.value.field == "slice_count"


def test_size_limits() -> None:
    data = pack(Packet(0, 0, LAYOUT, bytes(1488)), KEY)
    assert parse(data, KEY, 1500).payload == bytes(1488)
    for bad, limit, field in ((data, 1499, "oversized"), (data[:11], 1500, "truncated")):
        with pytest.raises(MalformedPacket) as error:
            parse(bad, KEY, limit)
        assert error.value.field == field


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 0},
        {"height": 8193},
        {"patch": 17},
        {"codebook_size": 1000},
        {"codebook_size": 1},
        {"slice_count": 0},
        {"slice_count": 257},
        {"interleaver": "none"},
        {"entropy": "huffman"},
    ],
)
def test_an_impossible_layout_cannot_be_made(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedPacket):
        dataclasses.replace(LAYOUT, **changes)  # type: ignore[arg-type]


def test_a_slice_beyond_the_count_cannot_be_packed() -> None:
    with pytest.raises(MalformedPacket):
        pack(Packet(0, 32, LAYOUT, b""), KEY)


@given(st.integers(-(10**9), 10**9), st.integers(-(2**15), 2**15 - 1))
def test_sequence_numbers_unwrap_next_to_the_reference(reference: int, offset: int) -> None:
    number = reference + offset
    assert unwrap(number % SEQUENCES, reference) == number
