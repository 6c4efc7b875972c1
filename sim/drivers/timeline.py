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
    """The sending end's run as `Item`s in the order of media time, one event at a time.

    Drive it so: ``while (when := timeline.next_time()) is not None:`` wait until then, and pass on
    what ``step()`` returns. If the stream is ``interactive`` the receiver must see each step before
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

    def step(self) -> list[Item]:
        """Do what happens at `next_time`; what the receiver must be told of it, in order."""
        now = self.next_time()
        if now is None:
            return []
        self._now = now
        if self._coming_back and self._coming_back[0][0] == now:
            self._sending.hear(now, heapq.heappop(self._coming_back)[2])
        elif self._sending.next_time() == now:
            for arrival_s, data in self._sending.advance(now):
                heapq.heappush(self._in_flight, (arrival_s, self._entered, data))
                self._entered += 1
        elif self._in_flight and self._in_flight[0][0] == now:
            return [Item(DATAGRAM, now, heapq.heappop(self._in_flight)[2])]
        else:
            self._sending.passed(now)
            self._timer_s = None
            return [Item(WATERMARK, now, b"")]
        return []

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
