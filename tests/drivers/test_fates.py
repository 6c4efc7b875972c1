"""Every lost packet has one fate: erased, overflowed, corrupted or late."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from channels import build, read_channel
from channels.base import OVERFLOWED, loss_mask
from channels.composite import ReceiveDiversity
from sim.drivers.record import LOST, PacketRecord
from sim.drivers.virtual import run_virtual
from sim.live.monitor import StreamMonitor
from sim.protocol.config import StreamConfig
from tests.drivers import live_peers as peers

EVERYTHING = {
    "loss": {"type": "uniform", "loss": 0.1},
    "link": {"rate_bps": 30_000, "queue_packets": 6, "bit_error": 3e-4},
}
CONFIG = StreamConfig(codebook_size=64, slices=16, fps=20, playout_delay_s=0.05)


def test_the_fates_of_a_stream_add_up_and_the_loss_process_keeps_its_own() -> None:
    loss, link = read_channel(EVERYTHING)
    channel = build(loss, link=link, seed=3)
    record = run_virtual(peers.make_frames(), CONFIG, channel, peers.KEY, peers.make_book())
    found = Counter(packet.outcome for packet in record.packets)
    assert set(found) == {"delivered", *LOST}, "this channel loses in every way"
    ledger = record.ledger
    assert (ledger.erased, ledger.overflowed) == (found["erased"], found["overflowed"])
    assert ledger.sent == ledger.erased + ledger.overflowed + ledger.delivered
    erased = [packet.fate == "erased" for packet in record.packets]
    assert erased == loss_mask(loss, len(erased), 3).tolist(), "whatever the link does"


def test_one_by_one_and_at_once_the_same_packets_overflow() -> None:
    loss, link = read_channel(EVERYTHING)
    times = np.arange(60) * 1e-3
    alone, together = (build(loss, link=link, seed=4) for _ in range(2))
    dropped = [alone.transmit(bytes(100), at) is OVERFLOWED for at in times.tolist()]
    found = together.transmit_all([bytes(100)] * 60, times).overflowed
    assert found == set(np.flatnonzero(dropped).tolist()) and 0 < len(found) < 60


def test_what_one_of_several_receivers_erased_did_not_overflow() -> None:
    loss, link = read_channel(EVERYTHING)
    both = ReceiveDiversity([build(loss, link=link, seed=seed) for seed in (1, 2)])
    single = [build(loss, link=link, seed=seed) for seed in (1, 2)]
    for at in range(60):
        answers = [channel.transmit(bytes(100), at * 1e-3) for channel in single]
        found = both.transmit(bytes(100), at * 1e-3)
        assert (found is OVERFLOWED) == all(answer is OVERFLOWED for answer in answers)


@pytest.mark.parametrize("ahead", [0, 5])
def test_bits_per_pixel_of_a_running_stream_are_those_of_what_is_due(ahead: int) -> None:
    """Packets of images to come do not count yet: their pixels do not either."""
    loss, link = read_channel({"type": "perfect"})
    frames = peers.make_frames()
    channel = build(loss, link=link, seed=1)
    record = run_virtual(frames, CONFIG, channel, peers.KEY, peers.make_book())
    monitor = StreamMonitor("s", {"type": "perfect"}, CONFIG, len(frames))
    packets: list[PacketRecord] = list(record.packets)
    shown = []
    for number, ready in enumerate(record.frames):
        while packets and packets[0].frame <= number + ahead:
            monitor.packet(packets.pop(0))
        monitor.image(ready)
        own = [p.size_bytes for p in record.packets if p.frame <= number]
        pixels = sum(frame.width * frame.height for frame in frames[: number + 1])
        assert monitor.bpp_wire == pytest.approx(8 * sum(own) / pixels)
        shown.append(monitor.bpp_wire)
    assert shown[-1] == pytest.approx(record.ledger.bpp_wire)
