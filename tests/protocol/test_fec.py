"""Erasure codes, and the packets that carry their symbols."""

from __future__ import annotations

import itertools
import zlib
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.range_coder import CorruptPayload
from sim.protocol.erasure_codes import ReedSolomon, Xor
from sim.protocol.fec import ErasureCode, erasure_code
from sim.protocol.feedback import MAX_SPAN, pack_requests, parse_requests
from sim.protocol.packet import HEADER_BYTES, MalformedPacket
from sim.protocol.packing import join_parts, split_parts
from sim.protocol.parity import ParityPacket, pack_parity, padded, parse_parity, unpadded
from sim.protocol.protection import FEC_CODES

KEY = 0xABCD1234


def block(k: int, length: int, seed: int = 0) -> list[bytes]:
    rng = np.random.default_rng(seed)
    return [rng.bytes(length) for _ in range(k)]


def coded(code: ErasureCode, symbols: list[bytes], parity: int) -> dict[int, bytes]:
    return dict(enumerate([*symbols, *code.encode(symbols, parity)]))


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("m", [1, 2, 4])
def test_any_k_of_n_restore_the_block_and_fewer_claim_nothing(k: int, m: int) -> None:
    code = ReedSolomon()
    symbols = block(k, 7, seed=k)
    everything = coded(code, symbols, m)
    for count in range(k + m + 1):
        for held in itertools.combinations(range(k + m), count):
            restored = code.decode(k, m, {i: everything[i] for i in held})
            lost = {i: symbols[i] for i in range(k) if i not in held}
            assert restored == (lost if count >= k else {})


@given(st.integers(1, 254), st.data())
def test_large_blocks(k: int, data: st.DataObject) -> None:
    m = data.draw(st.integers(1, min(255 - k, 16)))
    symbols = block(k, 3)
    everything = coded(ReedSolomon(), symbols, m)
    held = data.draw(st.permutations(range(k + m)))[:k]
    restored = ReedSolomon().decode(k, m, {i: everything[i] for i in held})
    assert restored == {i: symbols[i] for i in range(k) if i not in held}


def test_the_code_never_changes() -> None:
    symbols = [b"\x01\x00", b"\x02\xff", b"\x80\x10"]
    assert [p.hex() for p in ReedSolomon().encode(symbols, 2)] == ["75e1", "dfc0"]
    assert [p.hex() for p in Xor().encode(symbols, 2)] == ["8110", "02ff"]


def test_an_independent_library_makes_the_same_parity_and_restores_from_it() -> None:
    pytest.importorskip("pyeclib", reason="the fec extra is not installed")
    fast, own = erasure_code("reed_solomon"), ReedSolomon()
    assert type(fast) is not ReedSolomon
    rng = np.random.default_rng(1)
    for k, m, length in [(1, 1, 1), (1, 5, 9), (3, 4, 5), (16, 4, 57), (20, 12, 31), (40, 9, 8)]:
        symbols = block(k, length, seed=m)
        everything = coded(own, symbols, m)
        assert coded(fast, symbols, m) == everything
        for count in range(max(0, k - 1), k + m + 1):
            held = {int(i): everything[i] for i in rng.permutation(k + m)[:count]}
            assert fast.decode(k, m, held) == own.decode(k, m, held)


def test_xor_restores_one_loss_of_each_sum() -> None:
    symbols = block(7, 5)
    everything = coded(Xor(), symbols, 3)
    for lost in itertools.chain.from_iterable(itertools.combinations(range(10), n) for n in (1, 2)):
        held = {i: s for i, s in everything.items() if i not in lost}
        expected = {}
        for j in range(3):
            of_sum = [i for i in lost if i == 7 + j or (i < 7 and i % 3 == j)]
            if len(of_sum) == 1 and of_sum[0] < 7:
                expected[of_sum[0]] = symbols[of_sum[0]]
        assert Xor().decode(7, 3, held) == expected


@pytest.mark.skipif(find_spec("raptorq") is None, reason="the raptorq extra is not installed")
def test_raptorq_is_right_or_silent_and_seldom_silent() -> None:
    code = erasure_code("raptorq")
    rng = np.random.default_rng(2)
    asked = silent = 0
    for k, m, length in [(1, 1, 8), (5, 3, 40), (16, 4, 56), (200, 54, 1480)]:
        symbols = block(k, length, seed=k)
        everything = coded(code, symbols, m)
        assert {len(symbol) for symbol in everything.values()} == {length}
        for _ in range(20):
            held = {int(i): everything[i] for i in rng.permutation(k + m)[: k + rng.integers(2)]}
            lost = {i: symbols[i] for i in range(k) if i not in held}
            restored = code.decode(k, m, held)
            assert restored in ({}, lost)
            asked += 1
            silent += restored != lost
    assert silent <= asked // 10  # RFC 6330 promises 1% for k, 0.01% for k + 1
    assert code.decode(2, 1, {0: bytes(8)}) == {}


@given(st.binary(min_size=4, max_size=90), st.integers(0, 20))
def test_padding_can_be_undone(sealed: bytes, more: int) -> None:
    assert unpadded(padded(sealed, len(sealed) + 1 + more)) == sealed


def test_what_is_no_padded_packet_is_none() -> None:
    for symbol in (b"", bytes(9), b"\x01" * 9, b"\x80", b"ab\x80\0"):
        assert unpadded(symbol) is None


@st.composite
def parity_packet(draw: st.DrawFn) -> ParityPacket:
    k = draw(st.integers(1, 60))
    parity = draw(st.integers(1, 255 - k))
    listed = draw(st.booleans())
    place = draw(st.integers(0, 254))
    depth = 1 if listed else draw(st.integers(1, 255))
    members = range(place, place + k * depth, depth)
    if listed:
        members = sorted(draw(st.sets(st.integers(0, 2039), min_size=k, max_size=k)))
    return ParityPacket(
        draw(st.sampled_from(FEC_CODES)),
        draw(st.integers(0, 65535)),
        draw(st.integers(0, parity - 1)),
        place,
        parity,
        depth,
        tuple(members),
        listed,
        draw(st.binary(min_size=4, max_size=80)),
    )


@given(parity_packet())
def test_parity_packets_survive_the_wire(packet: ParityPacket) -> None:
    data = pack_parity(packet, KEY)
    listing = packet.members[-1] // 8 + 1 if packet.listed else 0
    assert len(data) == HEADER_BYTES + listing + len(packet.symbol)
    assert parse_parity(data, KEY) == packet


def test_golden_parity_packets() -> None:
    equal = ParityPacket("reed_solomon", 0xBEEF, 1, 2, 4, 5, (2, 7, 12), False, b"symbol")
    assert pack_parity(equal, KEY).hex() == "10beef010202040300" + "9b5483" + b"symbol".hex()
    listed = ParityPacket("xor", 7, 0, 1, 2, 1, (0, 3, 9), True, b"symbol")
    assert (
        pack_parity(listed, KEY).hex() == "110007000201000102" + "75827f" + "9040" + b"symbol".hex()
    )
    [request] = pack_requests([65540, 65541, 65549], KEY)
    assert request.hex() == "200004" + "e48acd" + "8080"


@given(st.binary(max_size=60), st.integers(0, 3))
def test_any_bytes_are_refused_by_name(body: bytes, kind: int) -> None:
    """Even with a good checksum: only `MalformedPacket`, or a packet that packs to these bytes."""
    for head_bytes, parse in ((9, parse_parity), (3, parse_requests)):
        with pytest.raises(MalformedPacket):
            parse(body, KEY)
        if len(body) < head_bytes:
            continue
        head = bytes([body[0] & 0x0F | kind << 4]) + body[1:head_bytes]
        crc = zlib.crc32(body[head_bytes:], zlib.crc32(head, KEY)) & 0xFFFFFF
        data = head + crc.to_bytes(3, "big") + body[head_bytes:]
        try:
            found = parse(data, KEY)
        except MalformedPacket:
            continue
        if isinstance(found, ParityPacket):
            assert parse_parity(pack_parity(found, KEY), KEY) == found
        else:
            first, distances = found
            assert pack_requests([first + d for d in distances], KEY) == [data]


@given(st.sets(st.integers(0, 9000), min_size=1, max_size=60), st.integers(0, 200_000))
def test_requests_survive_the_wire(numbers: set[int], base: int) -> None:
    asked = sorted(base + number for number in numbers)
    found = []
    for data in pack_requests(asked, KEY):
        first, distances = parse_requests(data, KEY)
        assert distances[-1] <= MAX_SPAN
        origin = next(n for n in asked if n % 65536 == first and n not in found)
        found += [origin + distance for distance in distances]
    assert found == asked


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=20), st.integers(1, 25))
def test_parts_can_be_told_apart(parts: list[bytes], count: int) -> None:
    payload = join_parts(parts)
    assert split_parts(payload, len(parts)) == parts
    overhead = len(payload) - sum(map(len, parts))
    assert overhead == sum(1 + (len(part) >= 128) for part in parts[:-1])
    try:
        assert len(split_parts(payload, count)) == count
    except CorruptPayload:
        assert count != len(parts)
