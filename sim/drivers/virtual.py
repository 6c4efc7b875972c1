"""Streams in virtual time: the protocol driven by a simpy event loop, as fast as it will go.

simpy keeps time by adding delays. With floats that sum is rounded, and two events an ulp apart
could change places; exact fractions keep virtual time equal to the protocol's float seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import partial

import simpy

from channels.base import Channel
from codec.entropy import CoderFor
from sim.drivers.endpoints import ReceiverEndpoint, SenderEndpoint
from sim.drivers.record import MediaFrame, PacketRecord, StreamRecord
from sim.protocol.config import StreamConfig, StreamKey
from sim.protocol.events import FrameReady

_TICK = Fraction(1, 1 << 1100)  # later than a time, earlier than any later float
_HEAR, _SEND, _ARRIVE, _TIMER = (n * _TICK for n in range(4))
"""The order within one instant: feedback reaches the sender, packets leave, packets arrive, the
receiver's timers fire (so what arrives right then is in time)."""


def run_virtual(
    frames: Iterable[MediaFrame],
    config: StreamConfig,
    channel: Channel,
    key: StreamKey,
    coders: CoderFor,
    on_frame: Callable[[FrameReady], object] | None = None,
    progress: Callable[[int, int], object] | None = None,
    feedback: Channel | None = None,
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
        feedback: carries what the receiver sends back; see `SenderEndpoint`.

    Raises:
        StreamConfigError: a frame does not fit the settings; raised before anything is sent.
        ValueError: an index map does not fit its image's size or K.
        LookupError: ``coders`` has none for this entropy mode and codebook.
        LedgerError: the account does not close: a bug.
    """
    frames = tuple(frames)
    stream = VirtualStream(frames, config, channel, key, coders, feedback)
    ready: list[FrameReady] = []
    while (frame := stream.next_frame()) is not None:
        ready.append(frame)
        if on_frame is not None:
            on_frame(frame)
        if progress is not None:
            progress(len(ready), len(frames))
    return stream.record(ready)


class VirtualStream:
    """A stream that pauses after each frame."""

    def __init__(
        self,
        frames: Iterable[MediaFrame],
        config: StreamConfig,
        channel: Channel,
        key: StreamKey,
        coders: CoderFor,
        feedback: Channel | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """See `run_virtual` for the arguments and the errors, `SenderEndpoint` for ``sizes``."""
        self._ready: deque[FrameReady] = deque()
        self._sending = SenderEndpoint(frames, config, channel, key, coders, sizes, feedback)
        self._receiving = ReceiverEndpoint(self._sending.start, key, coders, self._ready.append)
        self._world = simpy.Environment(initial_time=Fraction(0))  # type: ignore[arg-type]
        self._timers: dict[Fraction, float] = {}  # by moment, the timer that counts
        self._set_timers()

    @property
    def packets(self) -> list[PacketRecord]:
        """The records of all packets sent so far, in sending order."""
        return self._sending.packets

    def next_frame(self) -> FrameReady | None:
        """Run until the next frame is released; None when the stream is over."""
        while not self._ready:
            try:
                self._world.step()
            except simpy.core.EmptySchedule:
                return None
        return self._ready.popleft()

    def run_until(self, time_s: float) -> None:
        """Process all events before ``time_s``; frames wait for `next_frame`."""
        while self._world.peek() < time_s:
            self._world.step()

    def record(self, frames: list[FrameReady]) -> StreamRecord:
        """The whole stream's record, once it is over, with the frames that came out.

        Raises:
            LedgerError: the account does not close: a bug.
        """
        counters, ledger = self._receiving.counters, self._sending.ledger
        ledger.check(counters, self._sending.heard)
        return StreamRecord(self.packets, frames, counters, ledger)

    def _set_timers(self) -> None:
        """Set a timer for either endpoint's next event; earlier timers find nothing to do."""
        for end, moment, act in (
            (self._sending, _SEND, self._send),
            (self._receiving, _TIMER, self._fire),
        ):
            when = end.next_time()
            if when is not None and self._timers.get(moment) != when:
                self._timers[moment] = when
                self._at(when, moment, partial(act, when))

    def _send(self, now: float) -> None:
        if self._timers.get(_SEND) != now:
            return
        del self._timers[_SEND]
        for arrival_s, data in zip(*self._sending.send_until(now), strict=True):
            self._at(arrival_s, _ARRIVE, partial(self._arrive, arrival_s, data))
        self._set_timers()

    def _arrive(self, now: float, data: bytes) -> None:
        self._receiving.datagrams((now,), (data,))
        self._carry_back()

    def _fire(self, now: float) -> None:
        if self._timers.get(_TIMER) != now:
            return
        del self._timers[_TIMER]
        self._receiving.deadline(now)
        self._carry_back()

    def _carry_back(self) -> None:
        for sent_s, data in self._receiving.replies():
            for arrival_s, copy in self._sending.reply(sent_s, data):
                self._at(arrival_s, _HEAR, partial(self._receive_feedback, arrival_s, copy))
        self._set_timers()

    def _receive_feedback(self, now: float, data: bytes) -> None:
        self._sending.receive_feedback(now, data)
        self._set_timers()

    def _at(self, when: float, moment: Fraction, act: Callable[[], None]) -> None:
        event = self._world.timeout(Fraction(when) + moment - self._world.now)
        event.callbacks.append(lambda _: act())
