"""The receiving side: datagrams in, frames out at their playout deadlines.

Whatever arrives is put to these questions, in this order; the first "no" rejects it:

1. Is it a packet of this stream? (`packet.parse`: malformed_*, foreign_or_corrupt)
2. Is it of a kind that this stream has? (unsupported_kind)
3. Does its sequence number belong to a frame captured by now? Unwrapped next to the packet that
   is being sent at this time: 2**15 numbers either way. (out_of_window)
4. Does it say of the frame what the handshake said? (inconsistent)
5. Is the frame's playout deadline still to come, or now? (late)
6. Is the slice missing? (duplicate)
7. Does the payload decode? (corrupt_payload)

A packet for several frames is used if it passes the last three for any of them. Parity is asked
the first four, whether any frame that it protects is still to come (late), and whether it fits
what its group is known to be (duplicate, inconsistent). What parity restores must carry its own
right checksum and then passes the same questions.

Nothing a datagram says changes state before the last question, so hostile ones can at worst be
counted. Memory is bounded by the frames between capture and deadline.

All but the last question are answered at once for a datagram that is expected (`header_index`), and
the last waits until the answer matters: so all of a frame is decoded in one pass. Only the others
are asked one by one. With protection or shared packets none is expected: there, what one brings
decides how the next is taken.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from codec.entropy import CoderFor
from codec.range_coder import CorruptPayload
from sim.protocol.config import StreamKey
from sim.protocol.events import REJECTIONS, FrameReady, PacketRejected
from sim.protocol.feedback import pack_requests
from sim.protocol.handshake import StreamStart
from sim.protocol.header_index import HeaderIndex, ReceivedSlices
from sim.protocol.packet import (
    FIELDS,
    MEDIA,
    PACK,
    PARITY,
    MalformedPacket,
    Packet,
    header,
    parse,
)
from sim.protocol.packing import split_parts
from sim.protocol.parity import parse_parity
from sim.protocol.plan import Group, walk
from sim.protocol.reassembly import ReassemblyBuffer
from sim.protocol.repair import ParityMismatch, Repair, Restored
from sim.protocol.replenishment import ReceivedTokens
from sim.protocol.requests import Requests
from sim.protocol.sequence import SEQUENCES, unwrap

_NAMES = {"checksum": "foreign_or_corrupt", "kind": "unsupported_kind"}
_KEPT_REJECTIONS = 1024  # events not yet taken; beyond that they are only counted


class _Rejected(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail


class Receiver:
    """Sorts out datagrams and reports every frame of the stream once, in order.

    ``counters``: "received" = "accepted" + all of `REJECTIONS`; "reordered" counts accepted
    packets that came after one with a higher sequence number, "recovered" packets that parity
    restored in time, "requested" packets that were asked for again, each time.
    """

    def __init__(self, start: StreamStart, key: StreamKey, coders: CoderFor) -> None:
        """Join a stream.

        Raises:
            ForeignStream: the stream's key is not ``key``.
            LookupError: there is no coder for the stream's entropy mode and codebook.
        """
        start.check_key(key)
        config = start.config
        self._config = config
        self._key = key
        self._seed = key.seed
        self._kind = MEDIA if config.packing == 1 else PACK
        self._packs = start.packs
        self._firsts = start.first_sequences
        self._pack_layouts = start.pack_layouts
        self._layouts = start.layouts
        self._starts_s = start.pack_starts_s
        self._dues_s = start.dues_s
        self._pack_of = {first: number for number, first in enumerate(self._firsts[:-1])}
        self._frames = ReassemblyBuffer(start.layouts, coders)
        self._memory = ReceivedTokens()
        self._next_frame = 0  # to be released
        self._latest_s = -math.inf
        self._highest = -1  # sequence accepted, unwrapped
        self._events: deque[FrameReady | PacketRejected] = deque()
        self._rejections_kept = 0
        self._repair = Repair(config.fec) if config.fec is not None else None
        self._requests = None
        if config.arq is not None:
            self._requests = Requests(config, self._repair.wanted if self._repair else None)
        self._protected = config.fec is not None or config.arq is not None
        plain = not self._protected and config.packing == 1
        self._expected = HeaderIndex(start) if plain else None
        self._plan = walk(start) if self._protected else iter(())
        self._next_pack = next(self._plan, None)
        self._feedback: list[bytes] = []
        names = ("received", "accepted", "reordered", "recovered", "requested", *REJECTIONS)
        self._counters = dict.fromkeys(names, 0)

    def receive_datagram(self, data: bytes, now: float) -> None:
        """`receive` for one datagram."""
        self.receive((now,), (data,))

    def receive(self, times_s: Sequence[float], datagrams: Sequence[bytes]) -> None:
        """Take what arrived.

        Args:
            times_s: when each arrived, in seconds of media time, never decreasing; frames that are
                due before must have been released with `handle_timer`.
            datagrams: any bytes.
        """
        self._counters["received"] += len(datagrams)
        due_s = self._dues_s[self._next_frame] if self._next_frame < len(self._dues_s) else -1.0
        at = 0
        while at < len(datagrams):
            if self._expected is not None:
                at = self._expected.take(times_s, datagrams, at, self._next_frame, due_s)
                if at == len(datagrams):
                    break
                self._decode()
            self._receive_any(datagrams[at], times_s[at])
            at += 1

    def _receive_any(self, data: bytes, now: float) -> None:
        """Take a datagram that was not expected: ask all the questions."""
        self._latest_s = now
        if self._next_pack is not None:
            self._look_ahead(now)
        try:
            self._accept(data, now)
        except _Rejected as rejected:
            self._reject(rejected.reason, now, rejected.detail)
        except MalformedPacket as error:
            reason = _NAMES.get(error.field, f"malformed_{error.field}")
            self._reject(reason, now, str(error))

    def _decode(self) -> None:
        """Decode what was taken."""
        expected = self._expected
        if expected is None or not expected.received.slices:
            return
        taken, expected.received = expected.received, ReceivedSlices()
        errors = self._frames.put_all(taken)
        for place, error in errors.items():
            expected.miss(taken.slices[place])
            self._reject("corrupt_payload", taken.times_s[place], str(error))
        firsts = self._firsts
        sequences = [firsts[frame] + slice_ for frame, slice_ in taken.slices]
        self._accepted([one for n, one in enumerate(sequences) if n not in errors])

    def _accepted(self, sequences: Sequence[int]) -> None:
        highest, reordered = self._highest, 0
        for sequence in sequences:
            if sequence < highest:
                reordered += 1
            else:
                highest = sequence
        self._highest = highest
        self._counters["accepted"] += len(sequences)
        self._counters["reordered"] += reordered

    @property
    def counters(self) -> dict[str, int]:
        """Counts, by the names above; the same object every time, up to date when asked for."""
        self._decode()
        return self._counters

    def feedback_to_send(self) -> list[bytes]:
        """Control datagrams for the sender, made since this was last called."""
        feedback, self._feedback = self._feedback, []
        return feedback

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, in seconds; None after the last frame.

        An arrival may move it, either way.
        """
        if self._next_frame == len(self._layouts):
            return None
        due_s = self._dues_s[self._next_frame]
        if self._requests is None:
            return due_s
        return min(due_s, max(self._latest_s, self._requests.next_time()))

    def handle_timer(self, now: float) -> None:
        """Ask for what is missing, and release the frames that are due at ``now`` or before."""
        self._latest_s = now
        self._decode()
        self._look_ahead(now)
        if self._requests is not None:
            missing = self._requests.due(now)
            self._counters["requested"] += len(missing)
            self._feedback += pack_requests(missing, self._seed)
        while self._next_frame < len(self._layouts) and self._dues_s[self._next_frame] <= now:
            self._release(self._next_frame, self._dues_s[self._next_frame])
            self._next_frame += 1
        self._look_ahead(now)

    def next_event(self) -> FrameReady | PacketRejected | None:
        """The oldest event not yet taken."""
        self._decode()
        if not self._events:
            return None
        event = self._events.popleft()
        self._rejections_kept -= isinstance(event, PacketRejected)
        return event

    def _look_ahead(self, now: float) -> None:
        """Take note of the packs that are being sent, and of the next if no other is awaited."""
        while (pack := self._next_pack) is not None and (
            pack.start_s <= now or (self._requests is not None and self._requests.idle)
        ):
            if self._repair is not None:
                for step in pack.steps:
                    if isinstance(step, Group):
                        self._repair.open(step)
            if self._requests is not None:
                self._requests.expect(pack)
            self._next_pack = next(self._plan, None)

    def _accept(self, data: bytes, now: float) -> None:
        if self._repair is not None and data and data[0] >> 4 & 3 == PARITY:
            self._accept_parity(self._repair, data, now)
            self._counters["accepted"] += 1
            return
        packet = parse(data, self._seed, self._config.mtu)
        if packet.kind != self._kind:
            raise _Rejected("unsupported_kind", f"kind {packet.kind}")
        sequence = unwrap(packet.sequence, self._sequence_sent_at(now))
        pack = self._pack_of.get(sequence - packet.slice)
        if pack is None or self._starts_s[pack] > now:
            raise _Rejected("out_of_window", f"sequence {sequence} slice {packet.slice}")
        layout = self._pack_layouts[pack]
        if packet.layout is not layout and packet.layout != layout:
            raise _Rejected("inconsistent", f"pack {pack} was announced otherwise")
        try:
            self._deliver(pack, packet, now, restored=False)
        except _Rejected as rejected:
            if self._protected and rejected.reason != "corrupt_payload":
                self._note(sequence, data, now)
            raise
        if self._expected is not None:
            self._expected.drop(data)
        if self._protected:
            self._note(sequence, data, now)
        self._accepted((sequence,))

    def _note(self, sequence: int, data: bytes, now: float) -> None:
        """A genuine media packet, even if it comes too late for its own frame."""
        if self._requests is not None:
            self._requests.arrived(sequence, now)
        if self._repair is not None:
            self._restore(self._repair.media(sequence, data[FIELDS.size :]), now)

    def _accept_parity(self, repair: Repair, data: bytes, now: float) -> None:
        packet = parse_parity(data, self._seed, self._config.mtu)
        first = unwrap(packet.sequence, self._sequence_sent_at(now))
        group = repair.group(first)
        if group is None:
            passed = (
                self._firsts[0] <= first < self._firsts[self._next_frame // self._config.packing]
            )
            reason = "late" if passed else "out_of_window"
            raise _Rejected(reason, f"parity of group {first}")
        if self._dues_s[group.last_frame] < now:
            raise _Rejected("late", f"parity of group {first}")
        try:
            restored = repair.parity(first, packet)
        except ParityMismatch as error:
            raise _Rejected("inconsistent", str(error)) from None
        if restored is None:
            raise _Rejected("duplicate", f"parity {packet.number} of group {first}")
        self._restore(restored, now)

    def _restore(self, restored: Sequence[Restored], now: float) -> None:
        """Use what parity says was in lost packets, if their checksums agree."""
        for sequence, sealed in restored:
            pack = bisect_right(self._firsts, sequence) - 1
            number = sequence - self._firsts[pack]
            bare = Packet(sequence % SEQUENCES, number, self._pack_layouts[pack], b"", self._kind)
            try:
                packet = parse(header(bare) + sealed, self._seed, self._config.mtu)
                self._deliver(pack, packet, now, restored=True)
            except (MalformedPacket, _Rejected):
                continue  # forged parity, or too late
            self._counters["recovered"] += 1
            if self._requests is not None:
                self._requests.settled(sequence)
            if self._repair is not None:
                self._repair.media(sequence, sealed)

    def _deliver(self, pack: int, packet: Packet, now: float, *, restored: bool) -> None:
        """Put a packet's slices into their frames.

        Raises:
            _Rejected: none of them can be used.
        """
        if self._kind == MEDIA:
            self._put(pack, packet.slice, packet.payload, now, restored)
            return
        frames = [f for f in self._packs[pack] if self._layouts[f].slice_count > packet.slice]
        try:
            parts = split_parts(packet.payload, len(frames))
        except CorruptPayload as error:
            raise _Rejected("corrupt_payload", str(error)) from None
        rejected, used = None, False
        for frame, part in zip(frames, parts, strict=True):
            try:
                self._put(frame, packet.slice, part, now, restored)
                used = True
            except _Rejected as reason:
                rejected = reason
        if not used and rejected is not None:
            raise rejected

    def _put(self, frame: int, slice_: int, part: bytes, now: float, restored: bool) -> None:
        if frame < self._next_frame or self._dues_s[frame] < now:
            raise _Rejected("late", f"frame {frame} slice {slice_}")
        if self._frames.holds(frame, slice_):
            raise _Rejected("duplicate", f"frame {frame} slice {slice_}")
        try:
            self._frames.put(frame, slice_, part, now, restored)
        except CorruptPayload as error:
            raise _Rejected("corrupt_payload", str(error)) from None

    def _sequence_sent_at(self, now: float) -> int:
        """About the sequence number that is being sent at this time, unwrapped."""
        size = self._config.packing
        latest = (int(now * self._config.fps) - size + 1) // size
        return self._firsts[min(max(latest, 0), len(self._firsts) - 1)]

    def _reject(self, reason: str, now: float, detail: str) -> None:
        self._counters[reason] += 1
        if self._rejections_kept < _KEPT_REJECTIONS:
            self._rejections_kept += 1
            self._events.append(PacketRejected(reason, now, detail))

    def _release(self, frame: int, due_s: float) -> None:
        if self._expected is not None:
            self._expected.release(frame)
        layout, arriving = self._layouts[frame], self._frames.release(frame)
        grid, kept = arriving.grid, 0
        if layout.replenished:
            grid, kept = self._memory.fill(grid)
        self._events.append(
            FrameReady(
                frame=frame,
                key=self._key,
                grid=grid,
                width=layout.width,
                height=layout.height,
                codebook_size=layout.codebook_size,
                complete=bool(grid.received.all()),
                first_arrival_s=arriving.first_s,
                due_s=due_s,
                last_arrival_s=arriving.last_s,
                recovered=arriving.recovered,
                kept=kept,
            )
        )
        if self._repair is not None:
            self._repair.close(frame)
        pack = frame // self._config.packing
        if self._requests is not None and frame == self._packs[pack][-1]:
            for sequence in range(self._firsts[pack], self._firsts[pack + 1]):
                self._requests.settled(sequence)
