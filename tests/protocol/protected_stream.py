"""A stream with protection: sender and receiver joined by lists, and what may get lost."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.coders import CoderBook
from sim.protocol.config import StreamConfig, StreamKey
from sim.protocol.events import REJECTIONS, FrameReady, PacketSent
from sim.protocol.handshake import StreamStart
from sim.protocol.protection import FecConfig
from sim.protocol.receiver import Receiver
from sim.protocol.sender import Sender
from tests.reachable import reachable

KEY = StreamKey("0123456789abcdef", 3)
BOOK = CoderBook({64: np.repeat([2560, 512], [16, 48])})
SIZES = ((64, 48), (33, 80), (16, 16), (100, 50), (64, 48), (100, 20), (128, 64))
RS = FecConfig("reed_solomon", 6, 3, 2)
Maps = list[NDArray[np.int64]]


def make_maps(sizes: Iterable[tuple[int, int]], seed: int = 0) -> Maps:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 64, (-(-height // 16), -(-width // 16))) for width, height in sizes]


def configured(**changes: Any) -> StreamConfig:
    basic = {"codebook_size": 64, "slices": 9, "fps": 10, "playout_delay_s": 1.5}
    return StreamConfig(**{**basic, "first_sequence": 65500, **changes})


@dataclass
class Run:
    """What became of a stream."""

    sent: list[PacketSent] = field(default_factory=list)
    datagrams: list[bytes] = field(default_factory=list)
    frames: list[FrameReady] = field(default_factory=list)
    requests: list[tuple[float, bytes]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    refused: int = 0


Fate = Callable[[PacketSent], bool]


def play(
    config: StreamConfig,
    arrives: Fate,
    sizes: tuple[tuple[int, int], ...] = SIZES,
    *,
    delay_s: float = 0.0,
    importance: Maps | None = None,
    extra: Iterable[tuple[float, bytes]] = (),
    feedback_arrives: Callable[[int], bool] = lambda number: True,
) -> Run:
    """Run a stream event by event, in the order of the driver law."""
    run = Run()
    start = StreamStart(config, KEY, sizes)
    assert StreamStart.parse(start.pack()) == start
    sender = Sender(start, BOOK)
    receiver = Receiver(start, KEY, BOOK)
    held = len(reachable(receiver, BOOK, *reachable(start)))
    maps = make_maps(sizes)
    captured, entered = 0, 0
    events: list[tuple[float, int, int, bytes]] = []  # when, feedback before arrival, order
    for when, data in extra:
        heapq.heappush(events, (when, 2, (entered := entered + 1), data))
    while True:
        capture_s = config.capture_s(captured) if captured < len(sizes) else None
        times = [t for t in (capture_s, sender.next_timer()) if t is not None]
        ring_s = receiver.next_timer()
        nexts = [(min(times), 1)] if times else []
        nexts += [events[0][:2]] if events else []
        nexts += [(ring_s, 3)] if ring_s is not None else []
        if not nexts:
            break
        now, moment = min(nexts)
        if moment == 0:
            sender.receive_feedback(heapq.heappop(events)[3], now)
        elif moment == 1:
            if capture_s is not None and capture_s <= now:
                hard = None if importance is None else importance[captured]
                sender.submit(maps[captured], *sizes[captured], now, hard)
                captured += 1
            for data in sender.datagrams_to_send(now):
                sent = sender.next_event()
                assert sent is not None
                run.sent.append(sent)
                run.datagrams.append(data)
                if arrives(sent):
                    heapq.heappush(events, (now + delay_s, 2, (entered := entered + 1), data))
        elif moment == 2:
            receiver.receive_datagram(heapq.heappop(events)[3], now)
        else:
            receiver.handle_timer(now)
        for data in receiver.feedback_to_send():
            run.requests.append((now, data))
            assert config.arq is not None
            if feedback_arrives(len(run.requests) - 1):
                back_s = now + config.arq.delay_s
                heapq.heappush(events, (back_s, 0, (entered := entered + 1), data))
    while (event := receiver.next_event()) is not None:
        if isinstance(event, FrameReady):
            run.frames.append(event)
    run.counters, run.refused = receiver.counters, sender.counters["refused"]
    assert [frame.frame for frame in run.frames] == list(range(len(sizes)))
    for frame, index_map in zip(run.frames, maps, strict=True):  # lost or right, never wrong
        expected = np.where(frame.grid.received, index_map, -1)
        np.testing.assert_array_equal(frame.grid.indices, expected)
        assert frame.complete == frame.grid.received.all()
    rejected = sum(receiver.counters[reason] for reason in REJECTIONS)
    assert receiver.counters["received"] == receiver.counters["accepted"] + rejected
    kept = reachable(receiver, BOOK, *reachable(start))
    assert len(kept) <= held + 5, "memory is given back"  # numbers come and go
    return run


def everything(sent: PacketSent) -> bool:
    return True


def original(sent: PacketSent) -> bool:
    return sent.kind == "media"


def lossy(loss: float, seed: int) -> Fate:
    rng = np.random.default_rng(seed)
    return lambda sent: bool(rng.random() >= loss)
