"""A sender and a receiver in one process, each in a thread, over a real socket: for faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from sim.drivers.clock import Clock, WallClock
from sim.drivers.endpoints import ReceiverEndpoint, SenderEndpoint
from sim.drivers.links import ReceiverLink, SenderLink, open_receiver, open_sender
from sim.drivers.live_receiver import LiveReceiver
from sim.drivers.live_sender import LiveSender
from sim.drivers.record import MediaFrame
from sim.drivers.virtual import run_virtual
from sim.protocol.events import FrameReady
from tests.drivers import live_peers as peers

BURSTS = {"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5}


class Collector:
    """An `Incoming` that keeps the frames; ``before`` is called before each datagram."""

    def __init__(
        self, start: bytes, about: Mapping[str, Any], before: Callable[[], object] = lambda: None
    ) -> None:
        self.frames: list[FrameReady] = []
        self.end = ReceiverEndpoint(start, peers.KEY, peers.make_book(), self.frames.append)
        self.account: Mapping[str, Any] | None = None
        self.closed = False
        self.notes: list[bytes] = []
        self.before = before
        self.watermark, self.next_time = self.end.watermark, self.end.next_time
        self.replies = self.end.replies

    def datagrams(self, times_s: Sequence[float], data: Sequence[bytes]) -> None:
        for _ in data:
            self.before()
        self.end.datagrams(times_s, data)

    def note(self, when: float, data: bytes) -> None:
        self.notes.append(data)

    def news(self) -> None:
        return None

    def close(self, account: Mapping[str, Any] | None) -> Mapping[str, Any]:
        self.account, self.closed = account, True
        return self.end.counters


class Receiving:
    """A receiver thread; ``streams`` are what it collected, one for each session."""

    def __init__(
        self,
        link: ReceiverLink,
        *,
        sessions: int = 1,
        silence_s: float = 5.0,
        open_stream: Callable[..., Any] = Collector,
        clock: Clock | None = None,
    ) -> None:
        self.link = link
        self.streams: list[Any] = []
        self.error: BaseException | None = None

        def opened(start: bytes, about: dict[str, Any]) -> Any:
            self.streams.append(open_stream(start, about))
            return self.streams[-1]

        self.receiver = LiveReceiver(link, opened, clock or WallClock(), silence_s=silence_s)
        self._sessions = sessions
        self._over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            for _ in range(self._sessions):
                self.receiver.serve()
            while not self._over.is_set():
                self.receiver.answer_for(0.05)
        except BaseException as error:
            self.error = error
        finally:
            self.link.close()

    def stop(self) -> None:
        """End the thread, with the session at hand if there is one."""
        self._over.set()
        self.receiver.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error


def sending_end(count: int = 12, spec: Mapping[str, Any] = BURSTS, seed: int = 1) -> SenderEndpoint:
    return SenderEndpoint(
        peers.make_frames(count),
        peers.CONFIG,
        peers.make_channel(spec, seed),
        peers.KEY,
        peers.make_book(),
    )


def make_sender(
    address: str, end: SenderEndpoint, pace: float = 0.0, **options: Any
) -> tuple[SenderLink, LiveSender]:
    link = options.pop("link", None) or open_sender(address)
    clock = options.pop("clock", WallClock())
    return link, LiveSender(end, link, clock, pace=pace, **options)


def send(address: str, end: SenderEndpoint, **options: Any) -> LiveSender:
    """Send a whole stream."""
    link, sender = make_sender(address, end, **options)
    with closing(link):
        sender.run()
    return sender


def no_wrong_token(frames: list[FrameReady], sent: list[MediaFrame]) -> int:
    """Check every received token; how many there were."""
    tokens = 0
    for ready in frames:
        truth = sent[ready.frame].index_map
        received = ready.grid.received
        np.testing.assert_array_equal(ready.grid.indices, np.where(received, truth, -1))
        tokens += int(received.sum())
    return tokens


def wait_for(condition: Callable[[], bool], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def expected(count: int = 12, seed: int = 1) -> list[bytes]:
    """The frames of the same stream in virtual time."""
    record = run_virtual(
        peers.make_frames(count),
        peers.CONFIG,
        peers.make_channel(BURSTS, seed),
        peers.KEY,
        peers.make_book(),
    )
    return [frame.grid.indices.tobytes() for frame in record.frames]


def frames_of(stream: Collector) -> list[bytes]:
    return [frame.grid.indices.tobytes() for frame in stream.frames]


# Processes that can be killed.


def write_whole(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)


def receive_in_process(address: str, folder: Path, silence_s: float) -> None:
    """Serve for ever; every anomaly and every frame is written down at once."""
    link = open_receiver(address)

    def before() -> None:
        write_whole(folder / "anomalies", repr(receiver.anomalies))

    streams: list[Collector] = []

    def opened(start: bytes, about: dict[str, Any]) -> Collector:
        streams.append(Collector(start, about, before))
        return streams[-1]

    receiver = LiveReceiver(link, opened, WallClock(), silence_s=silence_s)
    (folder / "ready").touch()
    while True:
        receiver.serve()
        wrong = [no_wrong_token(s.frames, peers.make_frames(200)) for s in streams]
        text = repr([len(stream.frames) for stream in streams])
        before()
        write_whole(folder / "sessions", f"{text} {wrong}")


def send_in_process(address: str, count: int, pace: float) -> None:
    send(address, sending_end(count), pace=pace)
