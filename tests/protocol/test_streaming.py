"""Sender and receiver joined by a list: what leaves one is handed to the other."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from codec.coders import CoderBook
from sim.protocol.config import StreamConfig, StreamKey
from sim.protocol.events import REJECTIONS, FrameReady, PacketRejected
from sim.protocol.handshake import ForeignStream, StreamStart
from sim.protocol.ledger import Ledger, LedgerError
from sim.protocol.packet import PARITY, Layout, Packet, pack, seal
from sim.protocol.receiver import Receiver
from sim.protocol.sender import Sender

KEY = StreamKey("0123456789abcdef", 3)
BOOK = CoderBook({64: np.full(64, 1024)})
CONFIG = StreamConfig(codebook_size=64, slices=6, fps=4, playout_delay_s=0.5)
SIZES = ((64, 48), (33, 80), (16, 16), (100, 20))
Sent = tuple[float, bytes]


def make_maps(sizes: Iterable[tuple[int, int]], seed: int = 0) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 64, (-(-height // 16), -(-width // 16))) for width, height in sizes]


MAPS = make_maps(SIZES)


def layout_of(frame: int) -> Layout:
    return CONFIG.layout(*SIZES[frame])


def send(
    config: StreamConfig = CONFIG,
    sizes: tuple[tuple[int, int], ...] = SIZES,
    maps: list[NDArray[np.int64]] = MAPS,
) -> list[Sent]:
    """Every datagram of a stream with its time of sending."""
    sender = Sender(StreamStart(config, KEY, sizes), BOOK)
    out: list[Sent] = []
    for frame, (size, index_map) in enumerate(zip(sizes, maps, strict=True)):
        sender.submit(index_map, *size, config.capture_s(frame))
        while (timer := sender.next_timer()) is not None:
            out += [(timer, data) for data in sender.datagrams_to_send(timer)]
    return out


def receive(
    arrivals: Iterable[Sent],
    config: StreamConfig = CONFIG,
    sizes: tuple[tuple[int, int], ...] = SIZES,
) -> tuple[list[FrameReady], dict[str, int]]:
    """What a receiver makes of datagrams arriving at given times."""
    receiver = Receiver(StreamStart(config, KEY, sizes), KEY, BOOK)
    for now, data in arrivals:
        while (due := receiver.next_timer()) is not None and due < now:
            receiver.handle_timer(due)
        receiver.receive_datagram(data, now)
    while (due := receiver.next_timer()) is not None:
        receiver.handle_timer(due)
    frames = []
    while (event := receiver.next_event()) is not None:
        if isinstance(event, FrameReady):
            frames.append(event)
    rejected = sum(receiver.counters[reason] for reason in REJECTIONS)
    assert receiver.counters["received"] == receiver.counters["accepted"] + rejected
    return frames, receiver.counters


def check_tokens(frames: list[FrameReady], maps: list[NDArray[np.int64]] = MAPS) -> None:
    """Every frame is there, and each of its tokens is the one sent or marked as lost."""
    assert [frame.frame for frame in frames] == list(range(len(maps)))
    for frame, index_map in zip(frames, maps, strict=True):
        expected = np.where(frame.grid.received, index_map, -1)
        np.testing.assert_array_equal(frame.grid.indices, expected)
        assert frame.complete == frame.grid.received.all()
        assert (frame.first_arrival_s is not None) == frame.grid.received.any()


def test_without_loss_every_token_arrives() -> None:
    frames, counters = receive(send())
    check_tokens(frames)
    assert all(frame.complete for frame in frames)
    assert counters["accepted"] == counters["received"] == 6 + 6 + 1 + 6
    assert [(frame.width, frame.height) for frame in frames] == list(SIZES)
    assert [frame.due_s for frame in frames] == [0.5, 0.75, 1.0, 1.25]
    assert [frame.first_arrival_s for frame in frames] == [0.0, 0.25, 0.5, 0.75]


def test_packets_are_paced_evenly_over_the_frame_interval() -> None:
    times = [now for now, _ in send()]
    np.testing.assert_allclose(times[:6], np.arange(6) / 24)
    np.testing.assert_allclose(times[6:12], 0.25 + np.arange(6) / 24)
    assert times[12] == 0.5
    assert times == sorted(times)


def test_frames_of_which_nothing_arrives_are_reported_all_the_same() -> None:
    frames, counters = receive([])
    check_tokens(frames)
    assert not any(frame.grid.received.any() for frame in frames)
    assert [(frame.width, frame.height) for frame in frames] == list(SIZES)
    assert not any(counters.values())


@given(st.integers(0, 2**32), st.floats(0, 1), st.integers(0, 65535))
def test_any_loss_disorder_and_duplication(seed: int, loss: float, first: int) -> None:
    config = StreamConfig(
        codebook_size=64, slices=6, fps=4, playout_delay_s=0.5, first_sequence=first
    )
    rng = np.random.default_rng(seed)
    arrivals = []
    for now, data in send(config):
        for _ in range(rng.integers(1, 4)):
            if rng.random() >= loss:
                arrivals.append((now + rng.exponential(0.2), data))
    arrivals.sort(key=lambda arrival: arrival[0])
    frames, counters = receive(arrivals, config)
    check_tokens(frames)
    assert counters["received"] == len(arrivals)
    used = {"received", "accepted", "reordered", "duplicate", "late"}
    assert {kind for kind, count in counters.items() if count} <= used
    in_time = sum(int(frame.grid.received.sum()) for frame in frames)
    assert in_time >= counters["accepted"]


def test_sequence_numbers_wrap() -> None:
    """35,000 packets in 140 frames from sequence 65,000 on, of which 25,000 in a row are lost."""
    config = StreamConfig(
        codebook_size=64, slices=250, fps=10, playout_delay_s=1, first_sequence=65000
    )
    sizes = ((256, 256),) * 140
    maps = make_maps(sizes)
    sent = send(config, sizes, maps)
    frames, counters = receive(sent[:5_000] + sent[30_000:], config, sizes)
    check_tokens(frames, maps)
    assert counters["accepted"] == counters["received"] == 10_000


def test_a_packet_at_the_deadline_is_in_time_and_one_after_it_is_late() -> None:
    sent = send()
    frames, counters = receive([(0.5, sent[0][1]), (np.nextafter(0.5, 1), sent[1][1])])
    assert counters["accepted"] == counters["late"] == 1
    assert frames[0].grid.received.sum() == len(layout_of(0).positions[0])


def test_duplicates_and_reordering_are_counted() -> None:
    sent = send()
    arrivals = [(0.4, sent[i][1]) for i in (0, 2, 1, 2, 3)]
    _, counters = receive(arrivals)
    assert (counters["accepted"], counters["duplicate"], counters["reordered"]) == (4, 1, 1)


def sealed(slice_: int, layout: Layout, sequence: int, payload: bytes, kind: int = 0) -> bytes:
    return pack(Packet(sequence, slice_, layout, payload, kind), KEY.seed)


def replace(layout: Layout, **changes: object) -> Layout:
    return dataclasses.replace(layout, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: b"", "malformed_truncated"),
        (lambda: bytes(2000), "malformed_oversized"),
        (lambda: b"\xc0" + bytes(20), "malformed_version"),
        (lambda: bytes(20), "foreign_or_corrupt"),
        (lambda: sealed(0, layout_of(0), 0, b"", PARITY), "unsupported_kind"),
        (lambda: sealed(0, layout_of(0), 300, b""), "out_of_window"),
        (lambda: sealed(0, layout_of(0), 1, b""), "out_of_window"),
        (lambda: sealed(0, layout_of(3), 13, b""), "out_of_window"),  # not captured yet
        (lambda: sealed(0, layout_of(1), 0, b""), "inconsistent"),
        (lambda: sealed(0, replace(layout_of(0), interleaver="raster"), 0, b""), "inconsistent"),
        (lambda: sealed(0, replace(layout_of(0), codebook_size=128), 0, b""), "inconsistent"),
        (lambda: sealed(0, layout_of(0), 0, b"\xff" * 9), "corrupt_payload"),
        (lambda: sealed(0, layout_of(0), 0, b"\0"), "corrupt_payload"),
    ],
)
def test_what_cannot_be_used_is_counted_by_kind(make: Callable[[], bytes], reason: str) -> None:
    sent = send()
    hostile = make()
    frames, counters = receive([(0.1, hostile), *((0.4, data) for _, data in sent[:6])])
    check_tokens(frames)
    assert counters[reason] == 1
    assert counters["accepted"] == 6
    assert frames[0].complete


@given(st.lists(st.binary(max_size=60), max_size=20), st.integers(0, 2**32))
def test_hostile_bytes_never_change_a_token(noise: list[bytes], seed: int) -> None:
    """Noise, packets of strangers, damaged and cut copies, and forged ones with good checksums
    but senseless fields, among honest packets."""
    rng = np.random.default_rng(seed)
    honest = send()
    hostile = list(noise)
    for _, data in honest:
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= rng.integers(1, 256)
        hostile += [bytes(damaged), data[: rng.integers(len(data))]]
        hostile.append(pack(Packet(0, 0, layout_of(0), data[12:]), KEY.seed ^ 1))
        head = bytearray(data[:9])
        head[rng.integers(3, 9)] ^= rng.integers(1, 256)  # anything but kind and sequence
        crc = zlib.crc32(b"junk", zlib.crc32(head, KEY.seed)) & 0xFFFFFF
        if head[3] >= 6:  # or else it could pass for a packet of this very stream
            hostile.append(bytes(head) + crc.to_bytes(3, "big") + b"junk")
    arrivals = honest + [(float(rng.uniform(0, 1.2)), data) for data in hostile]
    arrivals.sort(key=lambda arrival: arrival[0])
    frames, counters = receive(arrivals)
    check_tokens(frames)
    assert all(frame.complete for frame in frames)
    assert counters["accepted"] == len(honest)


@given(st.integers(0, 2**32), st.floats(0, 0.4))
def test_what_comes_together_counts_as_if_it_came_alone(seed: int, jitter_s: float) -> None:
    """Frames, rejections and counters do not depend on how arrivals are cut into calls, nor on
    when somebody asks for the counters: copies, damage, and sealed payloads that do not decode,
    before and after the true packet, over several layouts."""
    rng = np.random.default_rng(seed)
    arrivals = []
    for now, data in send():
        copies = [data] * int(rng.integers(0, 3))
        if rng.random() < 0.3:
            copies.append(seal(data[:9], bytes(200), KEY.seed))
        if rng.random() < 0.3:
            at = int(rng.integers(len(data)))
            copies.append(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        rng.shuffle(copies)
        arrivals += [(now + float(rng.uniform(0, jitter_s)), copy) for copy in copies]
    arrivals.sort(key=lambda arrival: arrival[0])

    def run(together: bool) -> tuple[list[FrameReady], list[PacketRejected], dict[str, int]]:
        receiver = Receiver(StreamStart(CONFIG, KEY, SIZES), KEY, BOOK)
        rest = arrivals
        while (due := receiver.next_timer()) is not None:
            intime = bisect_right(rest, due, key=lambda arrival: arrival[0])
            cuts = rng.integers(0, intime + 1, 3).tolist() if together else range(intime)
            for start, stop in pairwise(sorted({0, *cuts, intime})):
                receiver.receive(*zip(*rest[start:stop], strict=True))
                assert together or receiver.counters["received"]
            receiver.handle_timer(due)
            rest = rest[intime:]
        for now, data in rest:
            receiver.receive_datagram(data, now)
        events = list(iter(receiver.next_event, None))
        frames = [event for event in events if isinstance(event, FrameReady)]
        rejected = [event for event in events if isinstance(event, PacketRejected)]
        rejected.sort(key=lambda event: (event.now_s, event.reason, event.detail))
        return frames, rejected, receiver.counters

    (frames, *rest), (alone, *others) = run(True), run(False)
    assert rest == others
    for one, other in zip(frames, alone, strict=True):
        np.testing.assert_array_equal(one.grid.indices, other.grid.indices)
        assert dataclasses.replace(one, grid=other.grid) == other


def test_a_flood_does_not_fill_the_memory() -> None:
    receiver = Receiver(StreamStart(CONFIG, KEY, SIZES), KEY, BOOK)
    for number in range(20_000):
        receiver.receive_datagram(struct.pack(">I", number), 0.1)
    events = 0
    while isinstance(receiver.next_event(), PacketRejected):
        events += 1
    assert events < 2_000
    assert receiver.counters["malformed_truncated"] == 20_000
    receiver.receive_datagram(b"", 0.1)
    assert isinstance(receiver.next_event(), PacketRejected)


def test_a_foreign_stream_or_one_without_coder_is_refused_at_once() -> None:
    with pytest.raises(ForeignStream):
        Receiver(StreamStart(CONFIG, KEY, SIZES), StreamKey("f" * 16, 3), BOOK)
    with pytest.raises(LookupError):
        Receiver(StreamStart(CONFIG, KEY, SIZES), KEY, CoderBook({}))


def test_the_ledger_closes_or_says_so() -> None:
    _, counters = receive(send()[:5])
    ledger = Ledger(sent=8, erased=3, delivered=5, wire_bytes=100, payload_bytes=50, pixels=200)
    ledger.check(counters)
    assert (ledger.bpp, ledger.bpp_wire, ledger.loss_rate) == (2, 4, 3 / 8)
    assert np.isnan(Ledger().bpp) and np.isnan(Ledger().loss_rate)
    for wrong in ({"erased": 2}, {"duplicated": 1}, {"sent": 9}, {"delivered": 4, "erased": 4}):
        with pytest.raises(LedgerError):
            Ledger(**{"sent": 8, "erased": 3, "delivered": 5, **wrong}).check(counters)
    with pytest.raises(LedgerError):
        ledger.check({**counters, "accepted": 4})
