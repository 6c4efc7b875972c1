from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.coders import CoderBook
from sim.protocol.config import StreamConfig, StreamConfigError, StreamKey
from sim.protocol.interleaver import INTERLEAVERS
from sim.protocol.packet import HEADER_BYTES, pack, parse
from sim.protocol.packetizer import Packetizer

SIZES = (8, 64, 1024)
BOOK = CoderBook({size: np.full(size, 65536 // size) for size in SIZES})


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from(SIZES),
    st.sampled_from(INTERLEAVERS),
    st.sampled_from(["fixed", "static"]),
    st.integers(1, 256),
    st.integers(0, 2**32),
    st.data(),
)
def test_losing_packets_never_changes_the_tokens_of_the_others(
    width: int,
    height: int,
    size: int,
    interleaver: str,
    entropy: str,
    slices: int,
    seed: int,
    data: st.DataObject,
) -> None:
    config = StreamConfig(
        codebook_size=size, entropy=entropy, slices=slices, interleaver=interleaver, fps=50
    )
    packetizer = Packetizer(config, BOOK)
    rng = np.random.default_rng(seed)
    index_map = rng.integers(0, size, (-(-height // 16), -(-width // 16)))
    packets = packetizer.split(index_map, width, height, seed)
    assert len(packets) == min(slices, index_map.size)
    kept = [packet for packet in packets if data.draw(st.booleans())] or packets[:1]
    rng.shuffle(kept)
    grid = packetizer.join(parse(pack(packet, 7), 7) for packet in kept)
    there = np.zeros(index_map.size, bool)
    for packet in kept:
        there[packet.layout.positions[packet.slice]] = True
    np.testing.assert_array_equal(grid.received, there.reshape(index_map.shape))
    np.testing.assert_array_equal(grid.indices, np.where(grid.received, index_map, -1))


def test_default_slices_of_a_768x512_image_are_32_to_64_bytes() -> None:
    index_map = np.random.default_rng(0).integers(0, 1024, (32, 48))
    packets = Packetizer(StreamConfig(), BOOK).split(index_map, 768, 512, 0)
    assert len(packets) == 32
    assert all(32 <= len(packet.payload) <= 64 for packet in packets)


def test_of_two_packets_for_one_slice_the_first_counts_and_a_broken_one_does_not() -> None:
    packetizer = Packetizer(StreamConfig(entropy="fixed", slices=4), BOOK)
    first = packetizer.split(np.full((2, 2), 1), 32, 32, 0)
    second = packetizer.split(np.full((2, 2), 2), 32, 32, 0)
    broken = [type(p)(p.sequence, p.slice, p.layout, b"") for p in first]
    grid = packetizer.join([*broken[:2], first[1], second[1], second[0], *broken[2:]])
    np.testing.assert_array_equal(grid.indices.ravel()[first[1].layout.positions[1]], [1])
    np.testing.assert_array_equal(grid.indices.ravel()[first[0].layout.positions[0]], [2])
    assert grid.received.sum() == 2


def test_packets_of_different_frames_are_not_joined() -> None:
    packetizer = Packetizer(StreamConfig(), BOOK)
    one = packetizer.split(np.zeros((2, 2), int), 32, 32, 0)
    other = packetizer.split(np.zeros((2, 3), int), 48, 32, 4)
    for packets in ([], [one[0], other[0]]):
        with pytest.raises(ValueError, match="one frame"):
            packetizer.join(packets)


@pytest.mark.parametrize(
    ("index_map", "match"),
    [
        (np.zeros((2, 3), int), "grid"),
        (np.full((2, 2), 1024), "0..1023"),
        (np.full((2, 2), -1), "0..1023"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(index_map: np.ndarray, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Packetizer(StreamConfig(), BOOK).split(index_map, 32, 32, 0)


def test_a_missing_coder_is_noticed_at_once() -> None:
    with pytest.raises(LookupError):
        Packetizer(StreamConfig(codebook_size=512), BOOK)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("codebook_size", 1000),
        ("codebook_size", 1),
        ("entropy", "huffman"),
        ("slices", 0),
        ("slices", 257),
        ("interleaver", "spiral"),
        ("fps", 0.0),
        ("fps", float("nan")),
        ("fps", float("inf")),
        ("playout_delay_s", -1.0),
        ("playout_delay_s", 1000.0),
        ("mtu", 12),
        ("mtu", 70000),
        ("first_sequence", 65536),
    ],
)
def test_a_setting_that_cannot_work_is_named(parameter: str, value: float) -> None:
    with pytest.raises(StreamConfigError) as error:
        StreamConfig(**{parameter: value})  # type: ignore[arg-type]
    assert error.value.parameter == parameter
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", [("xyz", 0), ("0123456789abcdef", -1), ("0123456789ABCDEF", 0)])
def test_a_key_is_checked(key: tuple[str, int]) -> None:
    with pytest.raises(StreamConfigError):
        StreamKey(*key)


def test_an_mtu_too_small_says_how_many_slices_it_takes() -> None:
    with pytest.raises(StreamConfigError, match="at least 21 slices") as error:
        StreamConfig(slices=4, mtu=108).layout(768, 512)
    assert error.value.parameter == "slices"
    config = StreamConfig(slices=21, mtu=108)
    assert config.layout(768, 512).slice_count == 21
    index_map = np.random.default_rng(0).integers(0, 1024, (32, 48))
    for packet in Packetizer(config, BOOK).split(index_map, 768, 512, 0):
        assert HEADER_BYTES + len(packet.payload) <= 108
    with pytest.raises(StreamConfigError, match="raise the mtu"):
        StreamConfig(slices=256, mtu=40).layout(8192, 8192)


def test_bytes_take_as_many_packets_as_the_mtu_asks_for() -> None:
    """Files differ in size, so one number of packets would not do for all."""
    how: dict[str, Any] = {"codebook_size": 256, "entropy": "fixed", "interleaver": "raster"}
    config = StreamConfig(slices=3, mtu=112, **how)
    for columns, packets in ((2, 2), (30, 3), (300, 3), (301, 4), (512, 6)):
        layout = config.layout(16 * columns, 16)
        assert layout.slice_count == packets
        assert max(map(len, layout.positions)) <= 100
    with pytest.raises(StreamConfigError, match="raise the mtu"):
        config.layout(8192, 8192)
    with pytest.raises(StreamConfigError, match="at least 11 slices"):  # of tokens, their number
        StreamConfig(slices=3, mtu=112, entropy="static").layout(768, 288)
