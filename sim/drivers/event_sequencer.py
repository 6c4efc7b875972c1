"""The order of a run's events for the receiver, which is the same over every link.

At equal media times: what the receiver sent back reaches the sender, packets leave, packets
arrive, the receiver's timers fire. `sim.drivers.virtual` keeps the same order.

What happens between two of the receiver's timers happens at once: first all packets leave, then
all arrive, sorted. None arrives before it leaves, so the receiver sees no difference.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import accumulate

from sim.drivers.endpoints import SenderEndpoint
from sim.drivers.wire import DATAGRAM, MAX_ITEMS, WATERMARK, Items

_NEVER = math.inf
_DATAGRAMS = bytes([DATAGRAM]) * MAX_ITEMS


class EventSequencer:
    """The sender endpoint's run as `Items` in the order of media time.

    Drive it so: ``while (when := sequencer.next_time()) is not None:`` wait until then, and pass on
    what ``run`` returns. If the stream is ``interactive`` the receiver must see each item before
    the next, and `answered` tells what it said.
    """

    def __init__(self, sending: SenderEndpoint) -> None:
        self._sending = sending
        self.interactive = sending.interactive
        self._arrivals_s: list[float] = []  # of packets in flight, sorted; equal ones as they left
        self._data: list[bytes] = []  # of the same packets
        self._coming_back: list[tuple[float, int, bytes]] = []
        self._entered = 0  # numbers what comes back, so that equal times keep their order
        self._timer_s: float | None = None
        self._now = 0.0

    @property
    def in_flight(self) -> int:
        """Packets that the channel has not delivered yet."""
        return len(self._data)

    def next_time(self) -> float | None:
        """The time of the next event, in seconds of media time; None after the last."""
        earliest = min(
            self._coming_back[0][0] if self._coming_back else _NEVER,
            _or_never(self._sending.next_time()),
            self._arrivals_s[0] if self._arrivals_s else _NEVER,
            self._next_timer_s(),
        )
        return None if earliest == _NEVER else earliest

    def run(self, until_s: float, items: int, size: int) -> Items:
        """Process the events up to ``until_s``; returns those that the receiver must see, in order.

        Args:
            until_s: media time.
            items, size: stop at so many items (at most `MAX_ITEMS`), or bytes in them.
        """
        told, sending = Items(), self._sending
        while True:
            back_s = self._coming_back[0][0] if self._coming_back else _NEVER
            send_s = _or_never(sending.next_time())
            timer_s = self._next_timer_s()
            edge_s = timer_s if timer_s < until_s else until_s
            next_s = back_s if back_s < send_s else send_s
            if self._arrivals_s and self._arrivals_s[0] <= edge_s:
                self._arrive(told, edge_s if edge_s < next_s else _before(next_s), items, size)
                if len(told.kinds) == items or told.size >= size:
                    return told
            if back_s == next_s <= edge_s and back_s != _NEVER:
                self._now = back_s
                sending.receive_feedback(back_s, heapq.heappop(self._coming_back)[2])
            elif send_s <= edge_s and send_s != _NEVER:
                self._now = send_s
                self._leave(edge_s if edge_s < back_s else _before(back_s))
            elif timer_s <= until_s and timer_s != _NEVER:
                self._now = timer_s
                sending.deadlines_passed(timer_s)
                self._timer_s = None
                told.add(WATERMARK, timer_s, b"")
                if len(told.kinds) == items:
                    return told
            else:
                return told

    def _leave(self, until_s: float) -> None:
        """Take the packets that leave up to then from the sender."""
        times_s, data = self._sending.send_until(until_s)
        arrivals_s = self._arrivals_s
        crossing = arrivals_s and times_s and times_s[0] < arrivals_s[-1]
        if crossing or times_s != sorted(times_s):
            times_s, data = arrivals_s + times_s, self._data + data
            order = sorted(range(len(times_s)), key=times_s.__getitem__)
            self._arrivals_s = [times_s[n] for n in order]
            self._data = [data[n] for n in order]
        else:
            arrivals_s += times_s
            self._data += data

    def _arrive(self, told: Items, until_s: float, items: int, size: int) -> None:
        """Add what arrives up to then to the items, within the limits of `run`."""
        arrivals_s = self._arrivals_s
        count = min(bisect_right(arrivals_s, until_s), items - len(told.kinds))
        data = self._data[:count]
        if told.size + (total := sum(map(len, data))) > size:
            sizes = accumulate(map(len, data), initial=told.size)
            del data[bisect_left(list(sizes), size) :]  # up to the packet that reaches the limit
            count, total = len(data), sum(map(len, data))
        if not count:
            return
        self._now = arrivals_s[count - 1]
        told.kinds += _DATAGRAMS[:count]
        told.times += arrivals_s[:count]
        told.contents += data
        told.size += total
        del arrivals_s[:count], self._data[:count]

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

    def _next_timer_s(self) -> float:
        """The receiver's next timer: a playout deadline, or what it asked for."""
        due_s = _or_never(self._sending.next_due())
        return due_s if self._timer_s is None else max(self._now, min(due_s, self._timer_s))


def _before(time: float) -> float:
    """The latest time before this one."""
    return math.nextafter(time, -math.inf)


def _or_never(time: float | None) -> float:
    return _NEVER if time is None else time
