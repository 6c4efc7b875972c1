"""Streams in virtual time: the protocol driven by a simpy event loop, as fast as it will go.

simpy keeps time by adding delays. With floats that sum is rounded, and two events an ulp apart
could change places; exact fractions keep virtual time equal to the protocol's float seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from fractions import Fraction
from functools import partial

import simpy

from channels.base import Channel
from codec.entropy import CoderFor
from sim.drivers.ends import ReceivingEnd, SendingEnd
from sim.drivers.record import MediaFrame, PacketRecord, StreamRecord
from sim.protocol.config import StreamConfig, StreamKey
from sim.protocol.events import FrameReady

_Process = Generator[simpy.Event, None, None]
_JUST_AFTER = Fraction(1, 1 << 1100)  # later than a time, earlier than any later float


def run_virtual(
    frames: Iterable[MediaFrame],
    config: StreamConfig,
    channel: Channel,
    key: StreamKey,
    coders: CoderFor,
    on_frame: Callable[[FrameReady], object] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> StreamRecord:
    """Stream frames through a channel.

    Args:
        frames: in order; frame f is captured at f / fps.
        config: how to packetize and pace.
        channel: decides each packet's fate; used up by the run.
        key: of the stream.
        coders: (entropy mode id, K) -> slice coder, e.g. `codec.entropy.CoderBook`.
        on_frame: called with each frame at its playout deadline, in order.
        progress: called with (frames out, frames in all) after each frame.

    Raises:
        StreamConfigError: a frame does not fit the settings; raised before anything is sent.
        ValueError: an index map does not fit its image's size or K.
        LookupError: ``coders`` has none for this entropy mode and codebook.
        LedgerError: the account does not close: a bug.
    """
    frames = tuple(frames)
    stream = VirtualStream(frames, config, channel, key, coders)
    ready: list[FrameReady] = []
    while (frame := stream.next_frame()) is not None:
        ready.append(frame)
        if on_frame is not None:
            on_frame(frame)
        if progress is not None:
            progress(len(ready), len(frames))
    return stream.record(ready)


class VirtualStream:
    """A stream that stands still whenever a frame has come out."""

    def __init__(
        self,
        frames: Iterable[MediaFrame],
        config: StreamConfig,
        channel: Channel,
        key: StreamKey,
        coders: CoderFor,
    ) -> None:
        """See `run_virtual` for the arguments and the errors."""
        self._ready: deque[FrameReady] = deque()
        self._sending = SendingEnd(frames, config, channel, key, coders)
        self._receiving = ReceivingEnd(self._sending.start, key, coders, self._ready.append)
        self._world = simpy.Environment(initial_time=Fraction(0))  # type: ignore[arg-type]
        self._world.process(_send(self._world, self._sending, self._receiving))
        self._world.process(_play(self._world, self._receiving))

    @property
    def packets(self) -> list[PacketRecord]:
        """What became of every packet sent so far, in sending order."""
        return self._sending.packets

    def next_frame(self) -> FrameReady | None:
        """Let time pass until the next frame is released; None when the stream is over."""
        while not self._ready:
            try:
                self._world.step()
            except simpy.core.EmptySchedule:
                return None
        return self._ready.popleft()

    def run_until(self, time_s: float) -> None:
        """Let everything happen that happens before ``time_s``; frames wait for `next_frame`."""
        while self._world.peek() < time_s:
            self._world.step()

    def record(self, frames: list[FrameReady]) -> StreamRecord:
        """The whole stream's record, once it is over, with the frames that came out.

        Raises:
            LedgerError: the account does not close: a bug.
        """
        counters, ledger = self._receiving.counters, self._sending.ledger
        ledger.check(counters)
        return StreamRecord(self.packets, frames, counters, ledger)


def _send(world: simpy.Environment, sending: SendingEnd, receiving: ReceivingEnd) -> _Process:
    while (now := sending.next_time()) is not None:
        yield _until(world, Fraction(now))
        for arrival_s, data in sending.advance(now):
            arrival = _until(world, Fraction(arrival_s))
            arrival.callbacks.append(partial(_arrive, receiving, arrival_s, data))


def _arrive(receiving: ReceivingEnd, arrival_s: float, data: bytes, _: simpy.Event) -> None:
    receiving.datagram(arrival_s, data)


def _play(world: simpy.Environment, receiving: ReceivingEnd) -> _Process:
    while (due_s := receiving.next_time()) is not None:
        yield _until(world, Fraction(due_s) + _JUST_AFTER)  # what arrives right then is in time
        receiving.deadline(due_s)


def _until(world: simpy.Environment, time: Fraction) -> simpy.Event:
    return world.timeout(time - world.now)
