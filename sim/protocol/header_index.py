"""The packets that a receiver may use now, by their headers.

The terms of a stream say everything of a packet but its payload, so a receiver knows the headers
that are to come by heart. A datagram that begins with one of them is of this stream, of a frame
captured by now and not due yet, and brings a slice that is missing; whether it is sound, its
checksum says.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import repeat
from typing import NamedTuple
from zlib import crc32

from sim.protocol.handshake import StreamStart
from sim.protocol.packet import FIELDS, HEADER_BYTES, checksum, headers

_HEAD_BYTES = FIELDS.size


class Slice(NamedTuple):
    """What a header stands for.

    Attributes:
        head: the header, without its checksum.
        begun: its CRC-32, with which `packet.checksum` goes on.
        frame, slice: what its packet brings.
        sequence: unwrapped.
    """

    head: bytes
    begun: int
    frame: int
    slice: int
    sequence: int


class HeaderIndex:
    """The slices that are missing of the frames between capture and deadline.

    For streams without protection, whose frames do not share packets. ``opens_s``: when the next
    frame is captured; infinite after the last.
    """

    def __init__(self, start: StreamStart) -> None:
        self._start, self._seed, self._most = start, start.key.seed, start.config.mtu
        self._slices: dict[bytes, Slice] = {}
        self._frames: deque[tuple[int, list[bytes]]] = deque()
        self._next = 0
        self.opens_s = start.pack_starts_s[0] if start.packs else math.inf

    def __len__(self) -> int:
        """Slices that are expected."""
        return len(self._slices)

    def open(self, now: float, released: int) -> None:
        """Expect the frames captured by ``now``, but for those below ``released``."""
        start = self._start
        while self.opens_s <= now:
            frame, first = self._next, start.first_sequences[self._next]
            if frame >= released:
                heads = headers(start.layouts[frame], first)
                sums = [crc32(head, self._seed) for head in heads]
                numbers = range(len(heads)), range(first, first + len(heads))
                slices = map(Slice, heads, sums, repeat(frame), *numbers)
                self._slices.update(zip(heads, slices, strict=True))
                self._frames.append((frame, heads))
            self._next += 1
            ended = self._next == len(start.packs)
            self.opens_s = math.inf if ended else start.pack_starts_s[self._next]

    def release(self, frame: int) -> None:
        """Expect no more of this frame or of any before it."""
        while self._frames and self._frames[0][0] <= frame:
            for head in self._frames.popleft()[1]:
                self._slices.pop(head, None)

    def take(self, data: bytes) -> tuple[Slice, bytes] | None:
        """The slice in a sound datagram that is expected, and its payload; it is not expected
        again."""
        found = self._slices.get(data[:_HEAD_BYTES])
        if found is None or len(data) > self._most:
            return None
        payload = data[HEADER_BYTES:]
        if checksum(payload, found[1]) != data[_HEAD_BYTES:HEADER_BYTES]:
            return None
        del self._slices[found[0]]
        return found, payload

    def miss(self, found: Slice) -> None:
        """Expect it again: the payload was of no use."""
        self._slices[found.head] = found

    def drop(self, data: bytes) -> None:
        """This datagram has been used without `take`."""
        self._slices.pop(data[:_HEAD_BYTES], None)
