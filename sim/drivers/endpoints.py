"""The two endpoints of a run, the same under every driver, which only carries between them.

`SenderEndpoint` is everything before the wire: frames, sender, channel. `ReceiverEndpoint` is
everything after it: receiver and sink. All their times are media time; neither knows what drives
it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Sequence
from itertools import accumulate

import numpy as np

from channels.base import OVERFLOWED, Channel, Perfect
from codec.entropy import CoderFor
from codec.patches import grid_of
from sim.drivers.record import MediaFrame, PacketRecord
from sim.protocol.config import StreamConfig, StreamKey
from sim.protocol.events import FrameReady, PacketSent
from sim.protocol.handshake import StreamStart
from sim.protocol.ledger import Ledger
from sim.protocol.packet import HEADER_BYTES
from sim.protocol.receiver import Receiver
from sim.protocol.sender import Sender


class SenderEndpoint:
    """Captures frames on time, sends their packets and asks the channel for their fates."""

    def __init__(
        self,
        frames: Iterable[MediaFrame],
        config: StreamConfig,
        channel: Channel,
        key: StreamKey,
        coders: CoderFor,
        sizes: Sequence[tuple[int, int]] | None = None,
        feedback: Channel | None = None,
    ) -> None:
        """``sizes``: (width, height) of every frame to come, if ``frames`` are to be asked for one
        by one, each when it is captured; None: all are asked for now.

        ``feedback``: carries what the receiver sends back; None: nothing is lost, and delayed by
        the ``delay_s`` of `ArqConfig`.

        Raises StreamConfigError if a frame does not fit the settings, ValueError if its map
        does not fit its size, LookupError if there is no coder."""
        if sizes is None:
            frames = tuple(frames)
            sizes = [(frame.width, frame.height) for frame in frames]
            for frame in frames:
                _check_shape(frame, config.patch)
        self._frames = iter(frames)
        self._sizes = tuple(sizes)
        self._config = config
        self._channel = channel
        self._captured = 0
        self._passed = 0
        self._count = len(self._sizes)
        start = StreamStart(config, key, self._sizes)
        self._sender = Sender(start, coders)
        self._feedback = feedback or Perfect(config.arq.delay_s if config.arq else 0.0)
        self._latest_s = -math.inf  # when a packet was sent
        self._dues_s = start.dues_s
        self.start = start.pack()
        self.packets: list[PacketRecord] = []
        self.ledger = Ledger(control_bytes=len(self.start), pixels=0)

    @property
    def interactive(self) -> bool:
        """Whether the receiver sends feedback."""
        return self._config.arq is not None

    @property
    def heard(self) -> int:
        """Control datagrams that have reached the sender."""
        return self._sender.counters["feedback"]

    @property
    def captured(self) -> int:
        """Frames captured so far."""
        return self._captured

    def stop(self) -> None:
        """Capture no more frames; what has been captured is sent to its end."""
        self._count = self._captured

    def next_due(self) -> float | None:
        """The next playout deadline not passed to `deadlines_passed`; None after the last."""
        return None if self._passed == self._count else self._config.due_s(self._passed)

    def deadlines_passed(self, now: float) -> None:
        """Note that every deadline up to ``now`` has passed."""
        while (due_s := self.next_due()) is not None and due_s <= now:
            self._passed += 1

    def reply(self, sent_s: float, data: bytes) -> list[tuple[float, bytes]]:
        """Take a control datagram that the receiver sent at ``sent_s`` through the return path.

        Returns:
            (arrival_s, bytes) of every copy that will reach the sender.
        """
        copies = self._feedback.transmit(data, sent_s)
        ledger = self.ledger
        ledger.feedback += 1
        ledger.feedback_lost += not copies
        ledger.feedback_copies += max(0, len(copies) - 1)
        ledger.feedback_bytes += len(data)
        ledger.wire_bytes += len(data)
        return [(copy.arrival_s, data if copy.data is None else copy.data) for copy in copies]

    def receive_feedback(self, now: float, data: bytes) -> None:
        """Give the sender a control datagram."""
        self._sender.receive_feedback(data, now)

    def next_time(self) -> float | None:
        """The time of the next event, in seconds; None when all is sent."""
        timer = self._sender.next_timer()
        if self._captured >= self._count:
            return timer
        capture_s = self._config.capture_s(self._captured)
        return capture_s if timer is None else min(timer, capture_s)

    def send_until(self, until_s: float) -> tuple[list[float], list[bytes]]:
        """Process the events from `next_time` up to ``until_s``.

        Returns:
            Of every copy that will arrive, in the order of sending: when, not before it was sent,
            and its bytes.
        """
        while self._captured < self._count:
            now = self._config.capture_s(self._captured)
            if now > until_s:
                break
            frame = next(self._frames)
            _check_shape(frame, self._config.patch)
            if (frame.width, frame.height) != self._sizes[self._captured]:
                raise ValueError(f"{frame.name}: not of the size that was announced")
            self._sender.submit(
                frame.index_map, frame.width, frame.height, now, frame.token_importance
            )
            self.ledger.pixels += frame.width * frame.height
            self._captured += 1
        datagrams = self._sender.datagrams_to_send(until_s)
        if not datagrams:
            return [], []
        sent = self._sender.events()
        leave_s = [packet.sent_s for packet in sent]
        arrivals_s, arrived, edges, overflowed = self._carry(datagrams, leave_s)
        for number, (packet, data) in enumerate(zip(sent, datagrams, strict=True)):
            copies = slice(edges[number], edges[number + 1])
            lost = "overflowed" if number in overflowed else "erased"
            self._record(packet, data, arrivals_s[copies], arrived[copies], lost)
        return arrivals_s, arrived

    def _carry(
        self, datagrams: list[bytes], leave_s: list[float]
    ) -> tuple[list[float], list[bytes], list[int], Container[int]]:
        """The fates of datagrams in the channel.

        Returns:
            (arrivals_s, arrived, edges, overflowed): when each copy arrives, and as what; those of
            datagram i are ``edges[i]`` to ``edges[i + 1]``; which ones the link dropped.
        """
        times_s = list(accumulate(leave_s, max, initial=self._latest_s))[1:]  # never back
        self._latest_s = times_s[-1]
        if len(datagrams) == 1:  # as in virtual time; arrays would cost more than they save
            copies = self._channel.transmit(datagrams[0], self._latest_s)
            arrived = [datagrams[0] if copy.data is None else copy.data for copy in copies]
            overflowed = (0,) if copies is OVERFLOWED else ()
            return [copy.arrival_s for copy in copies], arrived, [0, len(copies)], overflowed
        deliveries = self._channel.transmit_all(datagrams, np.array(times_s))
        arrived = [datagrams[number] for number in deliveries.packet.tolist()]
        for place, data in deliveries.changed.items():
            arrived[place] = data
        edges = np.searchsorted(deliveries.packet, np.arange(len(datagrams) + 1))
        return deliveries.arrival_s.tolist(), arrived, edges.tolist(), deliveries.overflowed

    def _record(
        self,
        sent: PacketSent,
        data: bytes,
        arrivals_s: list[float],
        copies: list[bytes],
        lost: str,
    ) -> None:
        """``lost``: the packet's fate if there are no copies."""
        ledger, size = self.ledger, len(data)
        ledger.sent += 1
        ledger.wire_bytes += size
        if sent.kind == "media":
            ledger.payload_bytes += size - HEADER_BYTES
        elif sent.kind == "parity":
            ledger.parity += 1
            ledger.parity_bytes += size
        else:
            ledger.retransmitted += 1
            ledger.retransmitted_bytes += size
        arrival_s: float | None = None
        fate, late = lost, False
        if not copies:
            ledger.erased += lost == "erased"
            ledger.overflowed += lost == "overflowed"
        else:
            arrival_s = min(arrivals_s)
            first = copies[arrivals_s.index(arrival_s)]
            late = arrival_s > self._dues_s[sent.last_frame]
            fate = "delivered" if first == data else "corrupted"
            ledger.delivered += 1
            ledger.late += late
            if len(copies) > 1 or fate == "corrupted":
                ledger.duplicated += len(copies) - 1
                ledger.corrupted += sum(copy != data for copy in copies)
        self.packets.append(
            PacketRecord(
                sent.sequence,
                sent.frame,
                sent.slice,
                sent.size_bytes,
                sent.sent_s,
                fate,
                arrival_s,
                late,
                len(copies),
                sent.kind,
                sent.last_frame,
            )
        )


class ReceiverEndpoint:
    """Feeds one receiver in the order of media time and hands its frames to the sink."""

    def __init__(
        self,
        start: bytes,
        key: StreamKey,
        coders: CoderFor,
        on_frame: Callable[[FrameReady], object],
    ) -> None:
        """``start``: the handshake's bytes.

        Raises MalformedPacket, ForeignStream or LookupError if the stream cannot be received.
        """
        self._terms = StreamStart.parse(start)
        self._receiver = Receiver(self._terms, key, coders)
        self._on_frame = on_frame
        self._replies: list[tuple[float, bytes]] = []

    @property
    def counters(self) -> dict[str, int]:
        """The receiver's counters."""
        return self._receiver.counters

    def datagrams(self, arrivals_s: Sequence[float], data: Sequence[bytes]) -> None:
        """Take datagrams that arrive in order; no timer fires before the last of them."""
        self._receiver.receive(arrivals_s, data)

    def next_time(self) -> float | None:
        """The receiver's next timer, in seconds; None after the last playout deadline.

        Whatever happens to the receiver may move it, either way.
        """
        return self._receiver.next_timer()

    def deadline(self, now: float) -> None:
        """Fire the timer at ``now`` = `next_time`; everything that arrives by now has arrived."""
        self._receiver.handle_timer(now)
        self._drain(now)

    def watermark(self, now: float) -> None:
        """Fire every timer due by ``now``; everything that arrives by then has arrived."""
        while (timer := self._receiver.next_timer()) is not None and timer <= now:
            self.deadline(timer)

    def replies(self) -> list[tuple[float, bytes]]:
        """Control datagrams for the sender since last asked, with the time each was sent."""
        replies, self._replies = self._replies, []
        return replies

    def _drain(self, now: float) -> None:
        self._replies += ((now, data) for data in self._receiver.feedback_to_send())
        while (event := self._receiver.next_event()) is not None:
            if isinstance(event, FrameReady):
                self._on_frame(event)


def _check_shape(frame: MediaFrame, patch: int) -> None:
    grid = grid_of(frame.height, frame.width, patch)
    if frame.index_map.shape != grid:
        raise ValueError(
            f"{frame.name}: a {frame.width}x{frame.height} image has a grid of {grid}, "
            f"not {frame.index_map.shape}"
        )
