"""The receiving side: datagrams in, frames out at their playout deadlines.

Whatever arrives is put to these questions, in this order; the first "no" rejects it:

1. Is it a packet of this stream? (`packet.parse`: malformed_*, foreign_or_corrupt)
2. Is it of a kind known here? (unsupported_kind)
3. Does its sequence number belong to a frame captured by now? Unwrapped next to the packet that
   is being sent at this time: 2**15 numbers either way. (out_of_window)
4. Does it say of the frame what the handshake said? (inconsistent)
5. Is the frame's playout deadline still to come, or now? (late)
6. Is the slice missing? (duplicate)
7. Does the payload decode? (corrupt_payload)

Nothing a datagram says changes state before the last question, so hostile ones can at worst be
counted. Memory is bounded by the frames between capture and deadline.
"""

from __future__ import annotations

from collections import deque

from codec.entropy import CoderFor, CorruptPayload
from sim.protocol.config import StreamKey
from sim.protocol.events import FrameReady, PacketRejected
from sim.protocol.handshake import StreamStart
from sim.protocol.packet import MEDIA, MalformedPacket, parse
from sim.protocol.packetizer import FrameAssembly
from sim.protocol.sequence import unwrap

REJECTIONS = (
    "malformed_truncated",
    "malformed_oversized",
    "malformed_version",
    "malformed_kind",
    "malformed_entropy",
    "malformed_codebook",
    "malformed_slice_count",
    "malformed_slice",
    "foreign_or_corrupt",
    "unsupported_kind",
    "out_of_window",
    "inconsistent",
    "late",
    "duplicate",
    "corrupt_payload",
)
"""Why a datagram is not used."""

_KEPT_REJECTIONS = 1024  # events not yet taken; beyond that they are only counted


class _Rejected(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail


class Receiver:
    """Sorts out datagrams and reports every frame of the stream once, in order.

    ``counters``: "received" = "accepted" + all of `REJECTIONS`; "reordered" counts accepted
    packets that came after one with a higher sequence number.
    """

    def __init__(self, start: StreamStart, key: StreamKey, coders: CoderFor) -> None:
        """Join a stream.

        Raises:
            ForeignStream: the stream's key is not ``key``.
            LookupError: there is no coder for the stream's entropy mode and codebook.
        """
        start.check_key(key)
        self._config = start.config
        self._key = key
        self._seed = key.seed
        self._coders = coders
        self._firsts = start.first_sequences
        self._layouts = start.layouts
        self._captures_s = start.captures_s
        self._dues_s = start.dues_s
        self._frame_of = {first: f for f, first in enumerate(self._firsts[:-1])}
        self._frames: dict[int, tuple[FrameAssembly, float]] = {}  # with their first arrival
        self._next_frame = 0  # to be released
        self._highest = -1  # sequence accepted, unwrapped
        self._events: deque[FrameReady | PacketRejected] = deque()
        self._rejections_kept = 0
        self.counters = dict.fromkeys(("received", "accepted", "reordered", *REJECTIONS), 0)
        for layout in dict.fromkeys(self._layouts):
            FrameAssembly(layout, coders)

    def receive_datagram(self, data: bytes, now: float) -> None:
        """Take what arrived.

        Args:
            data: any bytes.
            now: media time in seconds; frames that are due before must have been released with
                `handle_timer`.
        """
        self.counters["received"] += 1
        try:
            self._accept(data, now)
        except _Rejected as rejected:
            self._reject(rejected.reason, now, rejected.detail)
        except MalformedPacket as error:
            checksum = error.field == "checksum"
            reason = "foreign_or_corrupt" if checksum else f"malformed_{error.field}"
            self._reject(reason, now, str(error))
        else:
            self.counters["accepted"] += 1

    def next_timer(self) -> float | None:
        """The next frame's playout deadline in seconds; None after the last frame."""
        if self._next_frame == len(self._layouts):
            return None
        return self._dues_s[self._next_frame]

    def handle_timer(self, now: float) -> None:
        """Release the frames that are due at ``now`` or before."""
        while (due_s := self.next_timer()) is not None and due_s <= now:
            self._release(self._next_frame, due_s)
            self._next_frame += 1

    def next_event(self) -> FrameReady | PacketRejected | None:
        """The oldest event not yet taken."""
        if not self._events:
            return None
        event = self._events.popleft()
        self._rejections_kept -= isinstance(event, PacketRejected)
        return event

    def _accept(self, data: bytes, now: float) -> None:
        packet = parse(data, self._seed, self._config.mtu)
        if packet.kind != MEDIA:
            raise _Rejected("unsupported_kind", f"kind {packet.kind}")
        sequence = unwrap(packet.sequence, self._sequence_sent_at(now))
        first = sequence - packet.slice
        frame = self._frame_of.get(first)
        if frame is None or self._captures_s[frame] > now:
            raise _Rejected("out_of_window", f"sequence {sequence} slice {packet.slice}")
        layout = self._layouts[frame]
        if packet.layout is not layout and packet.layout != layout:
            raise _Rejected("inconsistent", f"frame {frame} was announced otherwise")
        if frame < self._next_frame or self._dues_s[frame] < now:
            raise _Rejected("late", f"frame {frame} slice {packet.slice}")
        known = self._frames.get(frame)
        assembly = known[0] if known else FrameAssembly(layout, self._coders)
        if assembly.holds(packet.slice):
            raise _Rejected("duplicate", f"frame {frame} slice {packet.slice}")
        try:
            assembly.add(packet)
        except CorruptPayload as error:
            raise _Rejected("corrupt_payload", str(error)) from None
        if known is None:
            self._frames[frame] = assembly, now
        if sequence < self._highest:
            self.counters["reordered"] += 1
        else:
            self._highest = sequence

    def _sequence_sent_at(self, now: float) -> int:
        """About the sequence number that is being sent at this time, unwrapped."""
        latest = min(max(int(now * self._config.fps), 0), len(self._firsts) - 1)
        return self._firsts[latest]

    def _reject(self, reason: str, now: float, detail: str) -> None:
        self.counters[reason] += 1
        if self._rejections_kept < _KEPT_REJECTIONS:
            self._rejections_kept += 1
            self._events.append(PacketRejected(reason, now, detail))

    def _release(self, frame: int, due_s: float) -> None:
        layout = self._layouts[frame]
        assembly, first_arrival_s = self._frames.pop(frame, (None, None))
        grid = (assembly or FrameAssembly(layout, self._coders)).grid()
        self._events.append(
            FrameReady(
                frame=frame,
                key=self._key,
                grid=grid,
                width=layout.width,
                height=layout.height,
                codebook_size=layout.codebook_size,
                complete=bool(grid.received.all()),
                first_arrival_s=first_arrival_s,
                due_s=due_s,
            )
        )
