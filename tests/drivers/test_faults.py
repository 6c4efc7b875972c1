"""Every fault that a stream must survive, injected: nothing crashes, nothing grows, no token is
wrong, and what happened is counted under its name. docs/faults.md is made of these tests."""

from __future__ import annotations

import ast
import contextlib
import multiprocessing
import os
import resource
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fault_table
import live_peers as peers
import numpy as np
import pytest
from fault_table import fault
from live_pair import (
    Collector,
    Receiving,
    make_sender,
    no_wrong_token,
    receive_in_process,
    send,
    send_in_process,
    sending_end,
    wait_for,
)

from sim.drivers.keys import read_keys, write_keys
from sim.drivers.links import open_receiver, open_sender
from sim.drivers.receiving import RECEIVER_ANOMALIES
from sim.drivers.recording import Recorder, replay
from sim.drivers.sending import SENDER_ANOMALIES, Stopped, StreamRefused
from sim.drivers.virtual import run_virtual
from sim.drivers.wire import (
    NOTE,
    Batch,
    Hello,
    Probe,
    Ready,
    pack,
    pack_terms,
    parse_from_receiver,
)
from sim.protocol.config import StreamKey
from sim.protocol.handshake import StreamStart
from sim.protocol.receiver import REJECTIONS, Receiver

pytestmark = pytest.mark.timeout(120)

LOOPBACK = "tcp://127.0.0.1:*"


def expected(count: int = 12, seed: int = 1) -> list[bytes]:
    """The frames of the same stream in virtual time."""
    spec = {"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5}
    record = run_virtual(
        peers.make_frames(count),
        peers.CONFIG,
        peers.make_channel(spec, seed),
        peers.KEY,
        peers.make_book(),
    )
    return [frame.grid.indices.tobytes() for frame in record.frames]


def frames_of(stream: Collector) -> list[bytes]:
    return [frame.grid.indices.tobytes() for frame in stream.frames]


@contextlib.contextmanager
def process(target: Any, *arguments: Any) -> Iterator[multiprocessing.process.BaseProcess]:
    child = multiprocessing.get_context("spawn").Process(target=target, args=arguments, daemon=True)
    child.start()
    try:
        yield child
    finally:
        child.kill()
        child.join()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


# Peers that come and go


@fault(
    "sender killed, another started",
    "the receiver gives the silent one up, closes its session and takes the new one whole",
    "sender_gone",
)
def test_sender_killed_and_restarted() -> Mapping[str, int]:
    receiving = Receiving(open_receiver(LOOPBACK), sessions=2, silence_s=0.5)
    address = receiving.link.address
    with process(send_in_process, address, 200, 1.0) as child:
        wait_for(lambda: bool(receiving.streams) and len(receiving.streams[0].frames) > 0)
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
    send(address, sending_end())
    receiving.stop()
    killed, whole = receiving.streams
    assert killed.closed and killed.account is None
    assert no_wrong_token(killed.frames, peers.make_frames(200)) > 0
    assert frames_of(whole) == expected()
    return receiving.receiver.anomalies


@fault(
    "receiver killed in the middle of an image, and started again",
    "the sender notices, introduces itself again and goes on where it was; what was under way is "
    "lost and counted",
    "receiver_restarted",
    "joined_late",
)
def test_receiver_killed_and_restarted(tmp_path: Path) -> Mapping[str, int]:
    address = f"tcp://127.0.0.1:{free_port()}"
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    link, sender = make_sender(address, sending_end(60), pace=1.0)
    thread = threading.Thread(target=sender.run, daemon=True)
    with contextlib.closing(link):
        with process(receive_in_process, address, first, 5.0) as child:
            thread.start()
            wait_for(lambda: (first / "anomalies").exists() and sender.media_s > 0.5)
            os.kill(child.pid or 0, signal.SIGKILL)
            child.join()
        with process(receive_in_process, address, second, 5.0):
            wait_for(lambda: sender.anomalies["receiver_restarted"] > 0)
            sender.stop()
            thread.join(30)
            assert not thread.is_alive()
            wait_for(lambda: (second / "sessions").exists())
    anomalies = ast.literal_eval((second / "anomalies").read_text())
    return {**anomalies, **sender.anomalies}


@fault(
    "receiver started long after the sender",
    "the sender waits and sends nothing; the stream is whole",
)
def test_any_start_order() -> Mapping[str, int]:
    port = free_port()
    link, sender = make_sender(f"tcp://127.0.0.1:{port}", sending_end())
    thread = threading.Thread(target=sender.run, daemon=True)
    with contextlib.closing(link):
        thread.start()
        wait_for(lambda: sender.state == "waiting for a receiver")
        time.sleep(0.3)
        receiving = Receiving(open_receiver(f"tcp://127.0.0.1:{port}"))
        thread.join(30)
    receiving.stop()
    assert frames_of(receiving.streams[0]) == expected()
    assert not any(sender.anomalies.values())
    return {}


@fault(
    "sender told to stop (Ctrl-C) in the middle",
    "what was captured is sent to its end, the receiver gets a whole account; without a receiver "
    "it says so and ends",
)
def test_sender_stopped() -> Mapping[str, int]:
    receiving = Receiving(open_receiver(LOOPBACK))
    end = sending_end(200)
    link, sender = make_sender(receiving.link.address, end, pace=1.0)

    def stop_soon() -> None:
        wait_for(lambda: sender.media_s > 0.3)
        sender.stop()

    stopper = threading.Thread(target=stop_soon, daemon=True)
    stopper.start()
    with contextlib.closing(link):
        sender.run(lambda: {"captured": end.captured})
    receiving.stop()
    stream = receiving.streams[0]
    assert 0 < end.captured < 200
    assert stream.account == {"captured": end.captured}
    assert frames_of(stream) == expected(200)[: end.captured]

    link, lonely = make_sender(f"tcp://127.0.0.1:{free_port()}", sending_end())
    lonely.stop()
    with contextlib.closing(link), pytest.raises(Stopped):
        lonely.run()
    return {}


@fault(
    "receiver stops reading (a stalled consumer)",
    "the sender stops after its window of batches, then goes on from there; nothing is lost",
    "stalls",
)
def test_stalled_consumer() -> Mapping[str, int]:
    go_on = threading.Event()

    def opened(start: bytes, about: dict[str, Any]) -> Collector:
        return Collector(start, about, lambda: go_on.wait(20))

    receiving = Receiving(open_receiver(LOOPBACK), open_stream=opened)
    end = sending_end(100)
    link, sender = make_sender(receiving.link.address, end, pace=0.1)
    link.window = 4
    thread = threading.Thread(target=sender.run, daemon=True)
    with contextlib.closing(link):
        thread.start()
        wait_for(lambda: sender.state == "waiting for the receiver to read")
        stuck = sender.media_s
        time.sleep(1.5)
        assert sender.media_s == stuck
        assert sender.unanswered <= link.window
        go_on.set()
        thread.join(60)
        assert not thread.is_alive()
    receiving.stop()
    assert frames_of(receiving.streams[0]) == expected(100)
    return sender.anomalies


@pytest.mark.slow
def test_a_long_stall_loses_nothing() -> None:
    """Longer than any timeout, with more under way than the sockets hold."""
    go_on = threading.Event()

    def opened(start: bytes, about: dict[str, Any]) -> Collector:
        return Collector(start, about, lambda: go_on.wait(60))

    receiving = Receiving(open_receiver(LOOPBACK), open_stream=opened)
    link, sender = make_sender(receiving.link.address, sending_end(400), pace=0.1)
    link.window = 500
    thread = threading.Thread(target=sender.run, daemon=True)
    with contextlib.closing(link):
        thread.start()
        time.sleep(15)
        go_on.set()
        thread.join(60)
        assert not thread.is_alive()
    receiving.stop()
    assert frames_of(receiving.streams[0]) == expected(400)
    assert not any(receiving.receiver.anomalies.values())


class JumpingClock:
    """Runs fast, and jumps an hour ahead and two back again and again."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._looks = 0
        self._began = time.monotonic()

    def now(self) -> float:
        self._looks += 1
        if self._looks % 50 == 0:
            self._offset += 3600.0 if self._looks % 100 else -7200.0
        return time.monotonic() + self._offset

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@fault(
    "the sender's clock jumps an hour ahead and two back",
    "the stream's zero moves with it: no burst, no hang, the same images",
    "clock_jumps",
)
def test_clock_jumps() -> Mapping[str, int]:
    receiving = Receiving(open_receiver(LOOPBACK))
    began = time.monotonic()
    sender = send(receiving.link.address, sending_end(20), pace=0.2, clock=JumpingClock())
    assert time.monotonic() - began < 30
    receiving.stop()
    assert frames_of(receiving.streams[0]) == expected(20)
    return sender.anomalies


@fault(
    "the disk is full while a stream is recorded",
    "the recording ends and is removed, the stream goes on unharmed",
    "recording_failed",
)
def test_full_disk(tmp_path: Path) -> Mapping[str, int]:
    recorders: list[Recorder] = []
    inner: list[Collector] = []

    def opened(start: bytes, about: dict[str, Any]) -> Recorder:
        inner.append(Collector(start, about))
        recorders.append(Recorder(inner[0], tmp_path / "r.tsr", start, about))
        return recorders[0]

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    receiving = Receiving(open_receiver(LOOPBACK), open_stream=opened)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # writes beyond it fail
    try:
        send(receiving.link.address, sending_end(200))
        receiving.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert frames_of(inner[0]) == expected(200)
    assert list(tmp_path.iterdir()) == []
    return {"recording_failed": int("broke off" in recorders[0].failed)}


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
        message = pack(Batch(1, 0, 0, [(NOTE, 0.0, bytes(200))] * 8))
        while not over.is_set():
            counts["flood"] += link.send(message)
        link.close()

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    wait_for(lambda: receiving.receiver.anomalies["foreign_session"] > 0)
    sender = send(address, sending_end(40), pace=0.2)
    over.set()
    thread.join(10)
    receiving.stop()
    assert frames_of(receiving.streams[0]) == expected(40)
    assert counts["flood"] > 10 * sender._number
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
        pack(Batch(5, 3, 1, [(NOTE, 1.0, b"abc"), (68, 2.0, b"defg")])),
        pack(Probe(5, 3)),
        pack(Hello(5, 1, 3, b"x" * 50)),
    ]
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
    "it never gets through the door",
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
    for keys in (str(stranger), None):
        with contextlib.closing(open_sender(address, keys)) as link:
            for _ in range(5):
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
        link.send(pack(Batch(7, 0, 0, [*items, (99, 2.0, b""), (NOTE, 2.0, b"")])))
        link.send(b"M")
        wait_for(lambda: receiving.streams[0].closed)
    receiving.stop()
    assert len(receiving.streams[0].notes) == 2
    return receiving.receiver.anomalies


# The packets themselves


def hostile(count: int) -> tuple[Receiver, Mapping[str, int]]:
    """A receiver fed with `count` mutated datagrams among the true ones, as they come."""
    end = sending_end(40, {"type": "perfect"})
    receiver = Receiver(StreamStart.parse(end.start), peers.KEY, peers.make_book())
    rng = np.random.default_rng(3)
    frames = []
    each = count // 300
    while (now := end.next_time()) is not None:
        for _, data in end.advance(now):
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
    "mutated datagrams, a million of them (`-m slow`)",
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
def test_a_million_mutated_datagrams() -> None:
    hostile(15_000)  # whatever is kept for ever is there now
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    receiver, counters = hostile(1_000_000)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert counters["received"] > 900_000
    assert grown < 10_000  # kilobytes
    assert receiver.next_event() is None


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
        def datagram(self, when: float, data: bytes) -> None:
            for _ in range(10):
                super().datagram(when, data)

    receiving = Receiving(open_receiver(LOOPBACK), open_stream=Tenfold)
    send(receiving.link.address, sending_end(60, spec))
    receiving.stop()
    stream = receiving.streams[0]
    assert no_wrong_token(stream.frames, peers.make_frames(60)) > 0
    return stream.end.counters


@fault(
    "a recording cut off or damaged",
    "cut off, it is replayed as far as it goes; damaged, one line says where",
)
def test_broken_recordings(tmp_path: Path) -> Mapping[str, int]:
    from sim.errors import UserError

    path = tmp_path / "r.tsr"

    def opened(start: bytes, about: dict[str, Any]) -> Recorder:
        return Recorder(Collector(start, about), path, start, about)

    receiving = Receiving(open_receiver(LOOPBACK), open_stream=opened)
    send(receiving.link.address, sending_end())
    receiving.stop()
    whole = path.read_bytes()
    again: list[Collector] = []

    def collect(start: bytes, about: dict[str, Any]) -> Collector:
        again.append(Collector(start, about))
        return again[-1]

    assert replay(path, collect)
    assert frames_of(again[0]) == expected()
    path.write_bytes(whole[: len(whole) // 2])
    assert not replay(path, collect)
    assert frames_of(again[1]) == expected()[: len(again[1].frames)]
    rng = np.random.default_rng(2)
    for at in rng.integers(0, len(whole), 60):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :])
        try:
            assert not replay(path, collect)  # a length that points beyond the end
        except UserError as error:
            assert str(path) in str(error)
        else:
            assert frames_of(again[-1]) == expected()[: len(again[-1].frames)]
    return {}


def test_every_anomaly_has_a_fault_that_makes_it_count() -> None:
    named = {name for row in fault_table.ROWS for name in row.counters}
    unheard = {"unacknowledged_batches"}  # 0 when the receiver is killed between two batches
    assert {*SENDER_ANOMALIES, *RECEIVER_ANOMALIES} <= named | unheard


def test_the_document_has_the_rows_of_these_tests() -> None:
    text = fault_table.DOCUMENT.read_text()
    assert fault_table.with_table(text) == text, "run python tests/drivers/fault_table.py"
