"""Faults on the wire, injected: strangers, floods, loss, damage, hostile packets.

docs/faults.md is made of these tests and those of test_faults_peers.py.
"""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import zmq

from sim.drivers.keys import read_keys, write_keys
from sim.drivers.links import open_receiver, open_sender
from sim.drivers.live_receiver import RECEIVER_ANOMALIES
from sim.drivers.live_sender import StreamRefused
from sim.drivers.wire import (
    NOTE,
    Batch,
    Hello,
    Items,
    Probe,
    Ready,
    pack,
    pack_terms,
    parse_from_receiver,
)
from sim.errors import UserError
from sim.protocol.config import StreamKey
from sim.protocol.events import REJECTIONS
from sim.protocol.handshake import StreamStart
from sim.protocol.receiver import Receiver
from tests.drivers import live_peers as peers
from tests.drivers.fault_table import fault
from tests.drivers.live_pair import (
    Collector,
    Receiving,
    expected,
    frames_of,
    make_sender,
    no_wrong_token,
    send,
    sending_end,
    wait_for,
)

pytestmark = pytest.mark.timeout(120)

LOOPBACK = "tcp://127.0.0.1:*"

# Strangers


@fault(
    "a second sender while the first is served",
    "it is told to wait, and served when the first is done",
    "foreign_session",
)
def test_second_sender_waits() -> Mapping[str, int]:
    receiving = Receiving(open_receiver(LOOPBACK), sessions=2)
    address = receiving.link.address
    link, first = make_sender(address, sending_end(20), pace=0.5)
    thread = threading.Thread(target=first.run, daemon=True)
    with contextlib.closing(link):
        thread.start()
        wait_for(lambda: bool(receiving.streams))
        send(address, sending_end(seed=2))
        thread.join(30)
    receiving.stop()
    assert [frames_of(s) for s in receiving.streams] == [expected(20), expected(12, 2)]
    return receiving.receiver.anomalies


@fault(
    "a stranger floods the receiver with batches, ten times the stream's own",
    "they are counted and dropped; the marks bound what waits; the stream is whole",
    "foreign_session",
)
def test_flood_of_foreign_batches() -> Mapping[str, int]:
    receiving = Receiving(open_receiver(LOOPBACK))
    address = receiving.link.address
    over = threading.Event()
    counts = {"flood": 0}

    def flood() -> None:
        link = open_sender(address)
        message = pack(Batch(1, 0, 0, Items.of([(NOTE, 0.0, bytes(200))] * 8)))
        while not over.is_set():
            counts["flood"] += link.send(message)
        link.close()

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    wait_for(lambda: receiving.receiver.anomalies["foreign_session"] > 0)
    send(address, sending_end(40), pace=0.2)
    over.set()
    thread.join(10)
    receiving.stop()
    assert frames_of(receiving.streams[0]) == expected(40)
    assert counts["flood"] > 10 * 40, "many for each frame"
    return receiving.receiver.anomalies


@fault(
    "messages of random and of damaged bytes",
    "none is believed: each is counted, nothing changes, the stream is whole",
    "malformed_message",
    "foreign_session",
)
def test_mutated_messages() -> Mapping[str, int]:
    receiving = Receiving(open_receiver(LOOPBACK))
    link = open_sender(receiving.link.address)
    rng = np.random.default_rng(1)
    good = [
        pack(Batch(5, 3, 1, Items.of([(NOTE, 1.0, b"abc"), (68, 2.0, b"defg")]))),
        pack(Probe(5, 3)),
        pack(Hello(5, 1, 3, b"x" * 50)),
    ]
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.connect(receiving.link.address)
        stranger.send_multipart(good)  # one message in three frames
        wait_for(lambda: any(receiving.receiver.anomalies.values()))
        assert receiving.receiver.anomalies["malformed_message"] == 1
    for number in range(3000):
        data = bytearray(good[number % 3]) if number % 4 else bytearray(rng.bytes(40))
        for _ in range(3):
            data[rng.integers(len(data))] = rng.integers(256)
        while not link.send(bytes(data[: rng.integers(1, len(data) + 1)])):
            time.sleep(0.001)
    send(receiving.link.address, sending_end())
    receiving.stop()
    link.close()
    assert frames_of(receiving.streams[-1]) == expected()
    return receiving.receiver.anomalies


@fault(
    "a stream of another model or seed",
    "refused in one line before any packet; the receiver waits for the right one",
    "sender_refused",
)
def test_foreign_stream_is_refused() -> Mapping[str, int]:
    receiving = Receiving(open_receiver(LOOPBACK))
    end = sending_end()
    end.start = StreamStart(peers.CONFIG, StreamKey("f" * 16, 9), ((16, 16),)).pack()
    link, sender = make_sender(receiving.link.address, end)
    with contextlib.closing(link), pytest.raises(StreamRefused, match="model"):
        sender.run()
    send(receiving.link.address, sending_end())
    receiving.stop()
    assert frames_of(receiving.streams[-1]) == expected()
    return receiving.receiver.anomalies


@fault(
    "a sender whose CURVE key is not known, or that has none",
    "it never gets through the door, and both sides say so",
    "refused_key",
)
def test_unknown_keys_are_refused(tmp_path: Path) -> Mapping[str, int]:
    ours, friend = write_keys(tmp_path / "good")
    _, stranger = write_keys(tmp_path / "bad")
    (stranger / "peers" / "receiver.key").write_bytes(
        (friend / "peers" / "receiver.key").read_bytes()
    )
    receiving = Receiving(open_receiver(LOOPBACK, str(ours)))
    address = receiving.link.address
    for keys, says in ((str(stranger), "refuses this sender's key"), (None, "both, or neither")):
        with (
            contextlib.closing(open_sender(address, keys)) as link,
            pytest.raises(UserError, match=says),
        ):
            for _ in range(200):
                link.send(pack(Probe(1, 1)))
                assert link.receive(0.1) is None
    assert not any(receiving.receiver.anomalies[name] for name in RECEIVER_ANOMALIES)
    with contextlib.closing(open_sender(address, str(friend))) as link:
        make_sender(address, end := sending_end(), link=link)[1].run()
    receiving.stop()
    assert end.ledger.sent > 0
    assert frames_of(receiving.streams[0]) == expected()
    assert len(read_keys(ours).peers) == 1
    return receiving.receiver.anomalies


# A transport that loses, repeats and reorders batches


class Troubled:
    """A sender's link that mistreats one message in `one_in`, always the same ones."""

    window, batch_bytes, reliable = 8, 200, False

    def __init__(self, address: str, kind: str, one_in: int = 7) -> None:
        self._link = open_sender(address)
        self._kind, self._one_in, self._count = kind, one_in, 0
        self._held: deque[bytes] = deque()

    def send(self, message: bytes) -> bool:
        self._count += message[:1] == b"M"
        if message[:1] != b"M" or self._count % self._one_in:
            return self._link.send(message)
        if self._kind == "twice":
            return self._link.send(message) and self._link.send(message)
        if self._kind == "damaged":
            return self._link.send(message[:-1] + bytes([message[-1] ^ 1]) + b"xx")
        return True  # lost

    def receive(self, timeout_s: float) -> bytes | None:
        return self._link.receive(timeout_s)

    def close(self) -> None:
        self._link.close()


def through(kind: str) -> tuple[Collector, Mapping[str, int]]:
    receiving = Receiving(open_receiver("udp://127.0.0.1:0"))
    address = receiving.link.address
    send(address, sending_end(40), link=Troubled(address, kind))
    receiving.stop()
    stream = receiving.streams[0]
    assert len(stream.frames) == 40
    assert no_wrong_token(stream.frames, peers.make_frames(40)) > 0
    return stream, receiving.receiver.anomalies


@fault(
    "UDP loses batches",
    "the gap in their numbers is counted; the sender asks and goes on; images have holes",
    "lost_batches",
)
def test_lost_batches() -> Mapping[str, int]:
    return through("lost")[1]


@fault("UDP delivers batches twice", "the second is counted and dropped", "stale_batches")
def test_batches_twice() -> Mapping[str, int]:
    stream, anomalies = through("twice")
    assert frames_of(stream) == expected(40)
    return anomalies


@fault(
    "UDP datagrams damaged on the way",
    "their checksum tells; they are counted and lost",
    "malformed_message",
    "lost_batches",
)
def test_damaged_batches() -> Mapping[str, int]:
    return through("damaged")[1]


@fault(
    "a sender that breaks the rules: time runs back, kinds nobody knows",
    "such items are counted and dropped, the rest is taken",
    "time_reversed",
    "unknown_item",
    "malformed_message",
)
def test_sender_that_breaks_the_rules() -> Mapping[str, int]:
    receiving = Receiving(open_receiver(LOOPBACK), silence_s=0.3)
    with contextlib.closing(open_sender(receiving.link.address)) as link:
        (terms,) = pack_terms(sending_end().start, {})
        while (data := link.receive(0.1)) is None:
            link.send(pack(Hello(7, 0, 1, terms)))
        assert isinstance(parse_from_receiver(data), Ready)
        items = [(NOTE, 1.0, b""), (NOTE, 0.5, b""), (NOTE, float("nan"), b"")]
        items += [(99, 2.0, b""), (NOTE, 2.0, b"")]
        link.send(pack(Batch(7, 0, 0, Items.of(items))))
        items = [(NOTE, when, b"") for when in (2.0, float("nan"), 3.0, float("inf"))]
        link.send(pack(Batch(7, 1, 0, Items.of(items))))
        link.send(b"M")
        wait_for(lambda: receiving.streams[0].closed)
    receiving.stop()
    assert len(receiving.streams[0].notes) == 4
    assert receiving.receiver.anomalies["time_reversed"] == 4
    return receiving.receiver.anomalies


# The packets themselves


def hostile(count: int) -> tuple[Receiver, Mapping[str, int]]:
    """A receiver fed with `count` mutated datagrams among the true ones, as they come."""
    end = sending_end(40, {"type": "perfect"})
    receiver = Receiver(StreamStart.parse(end.start), peers.KEY, peers.make_book())
    rng = np.random.default_rng(3)
    frames = []
    each = count // 250  # that many true ones there are
    while (now := end.next_time()) is not None:
        for data in end.send_until(now)[1]:
            receiver.handle_timer(now - 1e-9)
            size = len(data)
            edits = rng.integers(0, [size, 256, size + 8], (each, 3)).tolist()
            for at, value, length in edits:
                mutated = data[:at] + bytes([value]) + data[at + 1 :]
                receiver.receive_datagram(mutated[:length] if value & 1 else mutated, now)
            receiver.receive_datagram(data, now)
        while (event := receiver.next_event()) is not None:
            frames += [event] if hasattr(event, "grid") else []
    receiver.handle_timer(1e9)
    while (event := receiver.next_event()) is not None:
        frames += [event] if hasattr(event, "grid") else []
    assert len(frames) == 40 and all(frame.complete for frame in frames)
    no_wrong_token(frames, peers.make_frames(40))
    counters = receiver.counters
    assert counters["received"] == counters["accepted"] + sum(counters[r] for r in REJECTIONS)
    return receiver, counters


@fault(
    "mutated datagrams, 15,000 among a stream's own",
    "the checksum, keyed with model and session, stops them; every image is whole",
    "malformed_truncated",
    "malformed_version",
    "foreign_or_corrupt",
    "duplicate",
)
def test_mutated_datagrams() -> Mapping[str, int]:
    return hostile(15_000)[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
@fault(
    "a million of them (`-m slow`)",
    "the same; memory grows by less than 10 MB",
    "malformed_truncated",
    "malformed_version",
    "foreign_or_corrupt",
    "duplicate",
)
def test_a_million_mutated_datagrams() -> Mapping[str, int]:
    hostile(15_000)  # whatever is kept for ever is there now
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    receiver, counters = hostile(1_000_000)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert counters["received"] > 1_000_000
    assert grown < 10_000  # kilobytes
    assert receiver.next_event() is None
    return counters


@fault(
    "packets duplicated, reordered, delayed and damaged by the link, and copies ten times over",
    "the first sound copy counts, in any order; the rest is named",
    "duplicate",
    "reordered",
    "foreign_or_corrupt",
    "late",
)
def test_rough_link() -> Mapping[str, int]:
    spec = {
        "loss": {"type": "uniform", "loss": 0.1},
        "link": {
            "delay_s": 0.1,
            "jitter": {"type": "normal", "std_s": 0.05},
            "reorder": 0.2,
            "reorder_s": 0.1,
            "duplicate": 0.3,
            "bit_error": 0.0005,
        },
    }

    class Tenfold(Collector):
        def datagrams(self, times_s: Sequence[float], data: Sequence[bytes]) -> None:
            for when, content in zip(times_s, data, strict=True):
                super().datagrams([when] * 10, [content] * 10)

    receiving = Receiving(open_receiver(LOOPBACK), open_stream=Tenfold)
    send(receiving.link.address, sending_end(60, spec))
    receiving.stop()
    stream = receiving.streams[0]
    assert no_wrong_token(stream.frames, peers.make_frames(60)) > 0
    return stream.end.counters
