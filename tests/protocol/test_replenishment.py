"""Tokens that the receiver holds are not sent again: what it costs, and what a loss then means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from channels import Delivery
from channels.base import Channel
from codec.coders import CoderBook
from codec.context import ContextTables
from codec.entropy import ENTROPY_MODES
from codec.replenishment import KEPT
from sim.drivers.record import MediaFrame, StreamRecord
from sim.drivers.virtual import run_virtual
from sim.protocol.config import StreamConfig, StreamConfigError, StreamKey
from sim.protocol.interleaver import INTERLEAVERS
from sim.protocol.packetizer import Packetizer
from sim.protocol.protection import ArqConfig, FecConfig
from sim.protocol.replenishment import SentTokens

BOOK = CoderBook({64: np.repeat([2560, 512], [16, 48])}, ContextTables.random([64]))
KEY = StreamKey("0123456789abcdef", 3)
GRID = (6, 9)
Maps = list[NDArray[np.int64]]


class Outage(Channel):
    """Loses what is sent in given frames, and only that."""

    def __init__(self, lost: set[int], fps: float) -> None:
        self._lost, self._fps = lost, fps

    def transmit(self, data: bytes, now_s: float) -> tuple[Delivery, ...]:
        return () if int(now_s * self._fps + 1e-6) in self._lost else (Delivery(now_s),)


class EveryThird(Channel):
    """Loses every third packet."""

    def __init__(self) -> None:
        self._number = 0

    def transmit(self, data: bytes, now_s: float) -> tuple[Delivery, ...]:
        self._number += 1
        return (Delivery(now_s),) if self._number % 3 else ()


def moving(count: int, share: float, seed: int = 0) -> Maps:
    """Frames of which so many tokens change from each to the next."""
    rng = np.random.default_rng(seed)
    maps = [rng.integers(0, 64, GRID)]
    for _ in range(count - 1):
        changed = rng.random(GRID) < share
        maps.append(np.where(changed, rng.integers(0, 64, GRID), maps[-1]))
    return maps


def stream(maps: Maps, lost: Iterable[int] = (), **changes: Any) -> StreamRecord:
    return carried(maps, Outage(set(lost), 10), **changes)


def carried(maps: Maps, channel: Channel, **changes: Any) -> StreamRecord:
    basic: dict[str, Any] = {"codebook_size": 64, "slices": 4, "fps": 10, "playout_delay_s": 1.5}
    config = StreamConfig(**{**basic, **changes})
    frames = [MediaFrame(str(n), found, 9 * 16, 6 * 16) for n, found in enumerate(maps)]
    return run_virtual(frames, config, channel, KEY, BOOK)


def sent_tokens(maps: Maps, **changes: Any) -> list[int]:
    """How many tokens of each frame were sent, of a stream without loss."""
    record = stream(maps, **changes)
    return [ready.grid.indices.size - ready.kept for ready in record.frames]


@given(
    st.integers(2, 12),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.sampled_from(INTERLEAVERS),
    st.sampled_from(ENTROPY_MODES),
    st.integers(1, 54),
    st.integers(0, 2**32),
)
def test_without_loss_nothing_is_missing(
    refresh: int, share: float, interleaver: str, entropy: str, slices: int, seed: int
) -> None:
    maps = moving(6, share, seed)
    how = {"interleaver": interleaver, "entropy": entropy, "slices": slices}
    record = stream(maps, refresh=refresh, **how)
    for ready, expected in zip(record.frames, maps, strict=True):
        assert ready.complete
        np.testing.assert_array_equal(ready.grid.indices, expected)
    assert record.ledger.wire_bytes == sum(packet.size_bytes for packet in record.packets)


@given(
    st.integers(2, 8),
    st.sets(st.integers(0, 9)),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.integers(1, 9),
    st.integers(0, 2**32),
)
def test_an_outage_is_gone_within_the_cycle(
    refresh: int, lost: set[int], share: float, slices: int, seed: int
) -> None:
    maps = moving(20, share, seed)
    record = stream(maps, lost, refresh=refresh, slices=slices)
    for ready, expected in zip(record.frames, maps, strict=True):
        whole = not lost.intersection(range(ready.frame + 1))
        if whole or not lost.intersection(range(ready.frame - refresh + 1, ready.frame + 1)):
            np.testing.assert_array_equal(ready.grid.indices, expected)
            assert ready.complete
        assert ready.grid.received.any() == (ready.kept > 0 or ready.frame not in lost)


def test_a_still_picture_costs_only_the_refresh() -> None:
    maps = moving(1, 0) * 21
    for slices, refresh in ((1, 4), (4, 5), (9, 20), (54, 7)):
        sent = sent_tokens(maps, refresh=refresh, slices=slices)
        assert sent[0] == 54
        for first in range(1, 21 - refresh):
            assert sum(sent[first : first + refresh]) == 54  # each token once in any cycle
        assert max(sent[1:]) - min(sent[1:]) <= 1
    whole, refreshed = stream(maps), stream(maps, refresh=20)
    assert refreshed.ledger.payload_bytes < 0.3 * whole.ledger.payload_bytes


def test_a_lost_change_is_kept_wrong_until_it_is_refreshed_or_changes_again() -> None:
    before = moving(1, 0)[0]
    after = np.where(before == before[2, 3], before, (before + 1) % 64)
    maps = [before] * 2 + [after] * 6
    record = stream(maps, {2}, refresh=4)
    assert not record.frames[2].grid.received.any() and not record.frames[2].kept
    grids = [ready.grid.indices for ready in record.frames]
    wrong = [np.count_nonzero(a != b) for a, b in zip(grids, maps, strict=True)]
    assert wrong[:2] == [0, 0] and wrong[2] == 54 and wrong[6:] == [0, 0]
    assert wrong[3] > wrong[4] > wrong[5] > 0
    for ready in record.frames[3:6]:
        assert ready.complete and ready.kept
        stale = ready.grid.indices != after
        np.testing.assert_array_equal(ready.grid.indices[stale], before[stale])


def test_what_never_arrived_is_lost_not_kept() -> None:
    record = stream(moving(1, 0) * 4, {0}, refresh=6)
    for ready in record.frames[1:]:
        assert not ready.complete and ready.grid.received.any()
        np.testing.assert_array_equal(ready.grid.indices >= 0, ready.grid.received)


@pytest.mark.parametrize("entropy", ENTROPY_MODES)
def test_every_packet_is_decodable_alone(entropy: str) -> None:
    config = StreamConfig(codebook_size=64, slices=5, fps=10, entropy=entropy, refresh=9)
    packetizer = Packetizer(config, BOOK)
    first, second = moving(2, 0.3)
    memory, layout = SentTokens(9), config.layout(9 * 16, 6 * 16)
    assert not np.any(memory.without_kept(first, layout) == KEPT)
    tokens = memory.without_kept(second, layout)
    for packet in packetizer.split(tokens, 9 * 16, 6 * 16, 0):
        grid = packetizer.join([packet])
        mine = np.zeros(54, np.bool_)
        mine[layout.positions[packet.slice]] = True
        np.testing.assert_array_equal(grid.indices, np.where(mine.reshape(GRID), tokens, -1))


@pytest.mark.parametrize(
    "how",
    [
        {"fec": FecConfig("reed_solomon", 8, 8)},
        {"fec": FecConfig("reed_solomon", 4, 4, 2, True), "packing": 2},
        {"arq": ArqConfig(retries=4, delay_s=0.02)},
    ],
    ids=["parity", "unequal parity and packing", "retransmission"],
)
def test_protection_restores_what_is_sent(how: dict[str, Any]) -> None:
    maps = moving(10, 0.2)
    record = carried(maps, EveryThird(), refresh=5, **how)
    for ready, expected in zip(record.frames, maps, strict=True):
        np.testing.assert_array_equal(ready.grid.indices, expected)
    assert sum(ready.recovered for ready in record.frames) or record.ledger.retransmitted


def test_a_frame_of_another_size_is_sent_whole() -> None:
    small, large = moving(1, 0)[0], np.zeros((7, 9), np.int64)
    frames = [MediaFrame("", small, 144, 96), MediaFrame("", large, 144, 112)]
    config = StreamConfig(codebook_size=64, slices=4, fps=10, refresh=5)
    record = run_virtual([*frames, frames[0]], config, Outage(set(), 10), KEY, BOOK)
    assert [ready.kept for ready in record.frames] == [0, 0, 0]
    assert all(ready.complete for ready in record.frames)


def test_a_slice_that_could_outgrow_the_mtu_is_refused() -> None:
    plain = StreamConfig(codebook_size=64, slices=8, mtu=99)
    plain.layout(480, 480)
    with pytest.raises(StreamConfigError, match="use at least 10 slices"):
        replace(plain, refresh=5).layout(480, 480)
    replace(plain, refresh=5, slices=10).layout(480, 480)
    for refresh in (0, 1, 65536):
        with pytest.raises(StreamConfigError, match="refresh"):
            StreamConfig(refresh=refresh)
