from __future__ import annotations

import numpy as np
import pytest

from channels import Channel, Delivery
from sim.drivers.endpoints import ReceiverEndpoint, SenderEndpoint
from sim.drivers.record import MediaFrame, StreamRecord
from sim.drivers.virtual import run_virtual
from sim.protocol.config import StreamConfig, StreamConfigError, StreamKey
from sim.protocol.events import FrameReady
from sim.protocol.handshake import ForeignStream
from sim.protocol.packet import HEADER_BYTES
from tests.drivers import live_peers as peers

BURSTS = {"type": "gilbert_elliott", "loss": 0.3, "mean_burst": 4}


def stream(spec: dict[str, object], seed: int = 1, **options: object) -> StreamRecord:
    channel = peers.make_channel(spec, seed)
    return run_virtual(
        peers.make_frames(), peers.CONFIG, channel, peers.KEY, peers.make_book(), **options
    )


def test_a_perfect_channel_delivers_every_frame() -> None:
    record = stream({"type": "perfect"})
    for sent, got in zip(peers.make_frames(), record.frames, strict=True):
        np.testing.assert_array_equal(got.grid.indices, sent.index_map)
        assert got.complete
        assert got.first_arrival_s == peers.CONFIG.capture_s(got.frame)
    assert {packet.fate for packet in record.packets} == {"delivered"}
    assert record.ledger.sent == len(record.packets) == record.counters["accepted"]


def test_records_and_frames_tell_the_same_story() -> None:
    record = stream(BURSTS)
    erased = [packet for packet in record.packets if packet.fate == "erased"]
    assert 0 < len(erased) == record.ledger.erased < record.ledger.sent
    for sent, got in zip(peers.make_frames(), record.frames, strict=True):
        layout = peers.CONFIG.layout(sent.width, sent.height)
        received = np.ones(layout.tokens, bool)
        for packet in erased:
            if packet.frame == got.frame:
                received[layout.positions[packet.slice]] = False
        np.testing.assert_array_equal(got.grid.received.ravel(), received)
        np.testing.assert_array_equal(
            got.grid.indices, np.where(got.grid.received, sent.index_map, -1)
        )


def test_sequence_numbers_run_on_and_times_never_turn_back() -> None:
    packets = stream(BURSTS).packets
    first = peers.CONFIG.first_sequence
    assert [p.sequence for p in packets] == [(first + i) % 65536 for i in range(len(packets))]
    assert [p.sent_s for p in packets] == sorted(p.sent_s for p in packets)


def test_every_byte_is_accounted_for() -> None:
    record = stream(BURSTS)
    ledger, packets = record.ledger, record.packets
    assert ledger.wire_bytes == sum(packet.size_bytes for packet in packets)
    assert ledger.payload_bytes == ledger.wire_bytes - HEADER_BYTES * len(packets)
    assert ledger.pixels == sum(frame.width * frame.height for frame in peers.make_frames())
    assert ledger.bpp < ledger.bpp_wire
    assert ledger.control_bytes > 0


def test_late_packets_are_recorded_by_both_sides() -> None:
    record = stream({"link": {"delay_s": 0.2, "jitter": {"type": "normal", "std_s": 0.05}}})
    late = sum(packet.late for packet in record.packets)
    assert 0 < late == record.ledger.late == record.counters["late"] < len(record.packets)
    for packet in record.packets:
        assert packet.late == (packet.arrival_s > peers.CONFIG.due_s(packet.frame))


def test_a_rough_link_is_counted_by_kind_and_changes_no_token() -> None:
    record = stream(
        {
            "loss": {"type": "uniform", "loss": 0.1},
            "link": {
                "jitter": {"type": "normal", "std_s": 0.01},
                "reorder": 0.2,
                "reorder_s": 0.05,
                "duplicate": 0.2,
                "bit_error": 0.001,
            },
        }
    )
    for kind in ("reordered", "duplicate", "foreign_or_corrupt"):
        assert record.counters[kind] > 0, kind
    assert record.ledger.duplicated > 0
    assert record.ledger.corrupted > 0
    for sent, got in zip(peers.make_frames(), record.frames, strict=True):
        np.testing.assert_array_equal(
            got.grid.indices, np.where(got.grid.received, sent.index_map, -1)
        )


def test_the_sink_sees_frames_in_order_and_progress_counts_them() -> None:
    seen: list[FrameReady] = []
    steps: list[tuple[int, int]] = []
    record = stream(BURSTS, on_frame=seen.append, progress=lambda *step: steps.append(step))
    assert seen == record.frames
    assert steps == [(n + 1, 12) for n in range(12)]


def test_ties_are_broken_in_favour_of_arrivals() -> None:
    """A packet that arrives exactly at the deadline is in time."""

    class AtTheDeadline(Channel):
        def transmit(self, data: bytes, now_s: float) -> tuple[Delivery, ...]:
            frame = int(now_s * config.fps + 1e-9)
            return (Delivery(config.due_s(frame)), Delivery(np.nextafter(config.due_s(frame), 9)))

    config = StreamConfig(codebook_size=64, slices=4, fps=3, playout_delay_s=0.4)
    record = run_virtual(peers.make_frames(), config, AtTheDeadline(), peers.KEY, peers.make_book())
    assert all(frame.complete for frame in record.frames)
    assert record.counters["late"] == record.ledger.duplicated == len(record.packets)
    assert record.ledger.late == 0


def test_no_frames_is_a_stream_too() -> None:
    record = run_virtual(
        [], peers.CONFIG, peers.make_channel(BURSTS, 1), peers.KEY, peers.make_book()
    )
    assert record.frames == record.packets == []


@pytest.mark.parametrize(
    ("frame", "config", "error", "match"),
    [
        (MediaFrame("a", np.zeros((3, 3), int), 64, 48), peers.CONFIG, ValueError, "a: .*grid"),
        (MediaFrame("a", np.full((1, 1), 64), 16, 16), peers.CONFIG, ValueError, r"0\.\.63"),
        (
            MediaFrame("a", np.zeros((64, 64), int), 1024, 1024),
            StreamConfig(codebook_size=64, slices=1),
            StreamConfigError,
            "at least 3 slices",
        ),
        (
            MediaFrame("a", np.zeros((1, 1), int), 16, 16),
            StreamConfig(codebook_size=128),
            LookupError,
            "128",
        ),
    ],
)
def test_frames_that_do_not_fit_are_refused(
    frame: MediaFrame, config: StreamConfig, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        channel = peers.make_channel(BURSTS, 1)
        run_virtual([frame], config, channel, peers.KEY, peers.make_book())


def test_a_receiver_with_another_model_refuses_the_stream() -> None:
    channel = peers.make_channel(BURSTS, 1)
    book = peers.make_book()
    sending = SenderEndpoint(peers.make_frames(), peers.CONFIG, channel, peers.KEY, book)
    with pytest.raises(ForeignStream):
        ReceiverEndpoint(sending.start, StreamKey("f" * 16, 9), book, print)
