"""The packets that a receiver may use now, by their headers.

The terms of a stream say everything of a packet but its payload, so a receiver knows the headers
that are to come by heart. A datagram that begins with one of them is of this stream, of a frame
captured by now and not due yet, and brings a slice that is missing; whether it is sound, its
checksum says.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import repeat

from sim.protocol.handshake import StreamStart
from sim.protocol.packet import FIELDS, HEADER_BYTES, checksum, headers

_HEAD_BYTES = FIELDS.size

Slice = tuple[int, int]
"""What a header stands for: its frame and slice."""


class ReceivedSlices:
    """Slices that have come, in their order, and are not decoded yet.

    Attributes:
        times_s: when each came.
        slices: which each is.
        payloads: theirs.
    """

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self.slices: list[Slice] = []
        self.payloads: list[bytes] = []


class HeaderIndex:
    """The slices that are missing of the frames between capture and deadline.

    For streams without protection, whose frames do not share packets. ``received``: what has come
    of them.
    """

    def __init__(self, start: StreamStart) -> None:
        self._start, self._seed, self._most = start, start.key.seed, start.config.mtu
        self._slices: dict[bytes, Slice] = {}
        self._frames: deque[tuple[int, list[bytes]]] = deque()
        self._next = 0
        self._opens_s = start.pack_starts_s[0] if start.packs else math.inf
        self.received = ReceivedSlices()

    def __len__(self) -> int:
        """Slices that are expected."""
        return len(self._slices)

    def _open(self, now: float, released: int) -> None:
        """Expect the frames captured by ``now``, but for those below ``released``."""
        start = self._start
        while self._opens_s <= now:
            frame = self._next
            if frame >= released:
                heads = headers(start.layouts[frame], start.first_sequences[frame])
                slices = zip(repeat(frame), range(len(heads)), strict=False)
                self._slices.update(zip(heads, slices, strict=True))
                self._frames.append((frame, heads))
            self._next += 1
            ended = self._next == len(start.packs)
            self._opens_s = math.inf if ended else start.pack_starts_s[self._next]

    def release(self, frame: int) -> None:
        """Expect no more of this frame or of any before it."""
        while self._frames and self._frames[0][0] <= frame:
            for head in self._frames.popleft()[1]:
                self._slices.pop(head, None)

    def take(
        self,
        times_s: Sequence[float],
        datagrams: Sequence[bytes],
        first: int,
        released: int,
        due_s: float,
    ) -> int:
        """Take sound datagrams that are expected, up to one that is not; none is expected again.

        Args:
            times_s, datagrams: what arrived, see `Receiver.receive`.
            first: where to begin.
            released: frames below this one have been released.
            due_s: up to when nothing else falls due.

        Returns:
            Where it stopped.
        """
        slices, taken, seed, most = self._slices, self.received, self._seed, self._most
        at, stop = first, bisect_right(times_s, due_s, first)
        while at < stop:
            if times_s[at] >= self._opens_s:
                self._open(times_s[at], released)
            data = datagrams[at]
            head = data[:_HEAD_BYTES]
            if head not in slices or len(data) > most:
                break
            payload = data[HEADER_BYTES:]
            if checksum(head, payload, seed) != data[_HEAD_BYTES:HEADER_BYTES]:
                break
            taken.slices.append(slices.pop(head))
            taken.payloads.append(payload)
            at += 1
        taken.times_s += times_s[first:at]
        return at

    def miss(self, found: Slice) -> None:
        """Expect it again: the payload was of no use."""
        for frame, heads in self._frames:
            if frame == found[0]:
                self._slices[heads[found[1]]] = found

    def drop(self, data: bytes) -> None:
        """This datagram has been used without `take`."""
        self._slices.pop(data[:_HEAD_BYTES], None)
