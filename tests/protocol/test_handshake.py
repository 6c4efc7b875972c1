from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.patches import PATCHES
from sim.protocol.config import StreamConfig, StreamConfigError, StreamKey
from sim.protocol.handshake import ForeignStream, StreamStart
from sim.protocol.interleaver import INTERLEAVERS
from sim.protocol.packet import MalformedPacket

KEY = StreamKey("00112233445566ff", 77)
START = StreamStart(StreamConfig(), KEY, ((768, 512), (16, 16), (512, 768)))


@given(
    st.builds(
        StreamConfig,
        codebook_size=st.sampled_from([2, 64, 32768]),
        entropy=st.sampled_from(["fixed", "static", "context"]),
        patch=st.sampled_from(PATCHES),
        slices=st.integers(1, 256),
        interleaver=st.sampled_from(INTERLEAVERS),
        fps=st.floats(0.1, 30),
        playout_delay_s=st.floats(0, 4),
        mtu=st.integers(20000, 65507),
        first_sequence=st.integers(0, 65535),
        refresh=st.none() | st.integers(2, 65535),
    ),
    st.lists(st.tuples(st.integers(1, 900), st.integers(1, 900)), max_size=10),
    st.integers(0, 2**32 - 1),
)
def test_terms_come_back(
    config: StreamConfig, sizes: list[tuple[int, int]], stream_id: int
) -> None:
    start = StreamStart(config, StreamKey("f" * 16, stream_id), tuple(sizes))
    assert StreamStart.parse(start.pack()) == start


def test_golden_bytes() -> None:
    assert START.pack().hex() == (
        "54535331" + "00112233445566ff" + "0000004d" + "4000000000000000" + "3ff0000000000000"
        "0000" + "05dc" + "1f" + "0a" + "02" + "01" + "00000003"
        "03000200" + "00100010" + "02000300" + "5732a361"
    )
    refreshed = StreamStart(StreamConfig(refresh=300), KEY, ((768, 512),)).pack().hex()
    assert refreshed[:8] == b"TSS3".hex() and refreshed[88:-16] == (
        "0101" + "ff00000000" + "0000" + "00" * 32 + "012c"
    )


@given(st.data())
def test_damaged_terms_are_refused(data: st.DataObject) -> None:
    good = START.pack()
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(bad) - 1))] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(bad), good[: data.draw(st.integers(0, len(good) - 1))], good + b"\0"):
        with pytest.raises(MalformedPacket):
            StreamStart.parse(damaged)


@given(st.binary(max_size=80))
def test_any_bytes_are_refused(data: bytes) -> None:
    for damaged in (data, START.pack()[:4] + data):
        with pytest.raises(MalformedPacket):
            StreamStart.parse(damaged)


def test_sequences_count_on_past_their_16_bits() -> None:
    start = StreamStart(StreamConfig(first_sequence=65520), KEY, START.sizes)
    assert start.first_sequences == (65520, 65552, 65553, 65585)


def test_another_model_or_session_is_refused_in_one_line() -> None:
    START.check_key(KEY)
    for key in (StreamKey("f" * 16, 77), StreamKey(KEY.fingerprint, 78)):
        with pytest.raises(ForeignStream) as error:
            START.check_key(key)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("sizes", [((0, 5),), ((5, 8193),), ((16, 16),) * (2**20 + 1)])
def test_frames_that_cannot_be_streamed_are_refused(sizes: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(StreamConfigError):
        StreamStart(StreamConfig(), KEY, sizes)
