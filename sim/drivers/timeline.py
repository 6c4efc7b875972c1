"""The order in which the receiver must see a run, whatever carries it.

At equal media times: what the receiver sent back reaches the sender, packets leave, packets
arrive, the receiver's timers ring. `sim.drivers.virtual` keeps the same order.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable

from sim.drivers.ends import SendingEnd
from sim.drivers.wire import DATAGRAM, WATERMARK, Item

_NEVER = math.inf


class Timeline:
    """The sending end's run as `Item`s in the order of media time.

    Drive it so: ``while (when := timeline.next_time()) is not None:`` wait until then, and pass on
    what ``run`` returns. If the stream is ``interactive`` the receiver must see each item before
    the next, and `answered` tells what it said.
    """

    def __init__(self, sending: SendingEnd) -> None:
        self._sending = sending
        self.interactive = sending.interactive
        self._in_flight: list[tuple[float, int, bytes]] = []
        self._coming_back: list[tuple[float, int, bytes]] = []
        self._entered = 0  # numbers whatever is in flight, so that equal times keep their order
        self._timer_s: float | None = None
        self._now = 0.0

    @property
    def in_flight(self) -> int:
        """Packets that the channel has not delivered yet."""
        return len(self._in_flight)

    def next_time(self) -> float | None:
        """When the next event happens, in seconds of media time; None after the last."""
        earliest = min(
            self._coming_back[0][0] if self._coming_back else _NEVER,
            _or_never(self._sending.next_time()),
            self._in_flight[0][0] if self._in_flight else _NEVER,
            self._rings_s(),
        )
        return None if earliest == _NEVER else earliest

    def run(self, until_s: float, items: int, size: int) -> list[Item]:
        """Do what happens up to ``until_s``; what the receiver must be told of it, in order.

        Args:
            until_s: media time.
            items, size: stop at so many items, or bytes in them.
        """
        told: list[Item] = []
        in_flight, sending = self._in_flight, self._sending
        rings_s = self._rings_s()
        while True:
            back_s = self._coming_back[0][0] if self._coming_back else _NEVER
            send_s = _or_never(sending.next_time())
            edge_s = min(rings_s, until_s)
            first_s = min(back_s, send_s)  # goes before what arrives then
            while in_flight and in_flight[0][0] <= edge_s and in_flight[0][0] < first_s:
                now, _, data = heapq.heappop(in_flight)
                told.append((DATAGRAM, now, data))
                self._now = now
                size -= len(data)
                if len(told) == items or size <= 0:
                    return told
            if first_s <= edge_s and first_s != _NEVER:
                self._now = first_s
                if back_s == first_s:
                    sending.hear(first_s, heapq.heappop(self._coming_back)[2])
                else:
                    for arrival_s, data in sending.advance(first_s):
                        heapq.heappush(in_flight, (arrival_s, self._entered, data))
                        self._entered += 1
            elif rings_s <= until_s and rings_s != _NEVER:
                self._now = rings_s
                sending.passed(rings_s)
                self._timer_s = None
                told.append((WATERMARK, rings_s, b""))
                if len(told) == items:
                    return told
                rings_s = self._rings_s()
            else:
                return told

    def answered(self, replies: Iterable[tuple[float, bytes]], timer_s: float | None) -> None:
        """The receiver has seen everything so far, has sent ``replies`` back, each (sent_s,
        bytes), and wants to be woken at ``timer_s``.

        Raises:
            RuntimeError: a reply from before its cause or after now.
        """
        self._timer_s = timer_s
        for sent_s, data in replies:
            if sent_s != self._now:
                raise RuntimeError(f"at {self._now} s the receiver replied at {sent_s} s")
            for arrival_s, copy in self._sending.reply(sent_s, data):
                heapq.heappush(self._coming_back, (arrival_s, self._entered, copy))
                self._entered += 1

    def _rings_s(self) -> float:
        """The receiver's next timer: a playout deadline, or what it asked for."""
        due_s = _or_never(self._sending.next_due())
        return due_s if self._timer_s is None else max(self._now, min(due_s, self._timer_s))


def _or_never(time: float | None) -> float:
    return _NEVER if time is None else time
