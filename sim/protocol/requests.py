"""Retransmission requests: which packets the receiver asks for again, and when.

The receiver knows when each packet was to leave (`plan`). It estimates how long packets travel
the way RFC 6298 estimates a round trip (section 2: smoothed delay + 4 times its smoothed
deviation), from packets it has not asked for (section 3, Karn's algorithm). A packet that has not
come by then, and ``wait_s`` more, is asked for; and again when an answer should have come. It is
given up when no answer could come before its deadline, or after as many requests as are allowed.
Nothing is asked before anything has arrived.

With parity, a packet counts as missed only when all parity of its group has left; with the order
"hardest", when all of its pack has: then the sender can choose among all that is missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from sim.protocol.config import StreamConfig
from sim.protocol.plan import Group, Pack

_GAIN, _DEVIATION_GAIN, _DEVIATIONS = 1 / 8, 1 / 4, 4  # RFC 6298, section 2


class DelayEstimate:
    """Running estimate of a delay in seconds."""

    def __init__(self) -> None:
        self._smoothed: float | None = None
        self._deviation = 0.0

    def add(self, sample_s: float) -> None:
        """One measured delay."""
        if self._smoothed is None:
            self._smoothed, self._deviation = sample_s, sample_s / 2
            return
        change = abs(self._smoothed - sample_s)
        self._deviation += _DEVIATION_GAIN * (change - self._deviation)
        self._smoothed += _GAIN * (sample_s - self._smoothed)

    @property
    def usual_s(self) -> float:
        """The smoothed delay; infinite before the first sample."""
        return float("inf") if self._smoothed is None else self._smoothed

    @property
    def latest_s(self) -> float:
        """When to give up waiting; infinite before the first sample."""
        return self.usual_s + _DEVIATIONS * self._deviation


@dataclass(slots=True)
class _Awaited:
    left_s: float  # when it left first
    due_s: float  # of the last frame that it serves
    missed_s: float = float("inf")  # when all has left that could bring it; infinite: not known yet
    ask_s: float = float("inf")  # when to ask again, once asked for
    asked: int = 0


class Requests:
    """The packets that have not arrived."""

    def __init__(
        self, config: StreamConfig, wanted: Callable[[list[int]], list[int]] | None
    ) -> None:
        """``wanted``: keeps those of the missing packets that parity cannot restore."""
        if config.arq is None:
            raise ValueError("the stream has no retransmission")
        self._arq = config.arq
        self._whole = config.arq.order == "hardest"
        self._config = config
        self._wanted = wanted
        self._delay = DelayEstimate()
        self._awaited: dict[int, _Awaited] = {}
        self._open: list[int] = []  # packets for which more is to come
        self._fresh: dict[int, _Awaited] = {}  # not asked for yet, by rising missed_s
        self._asked: dict[int, _Awaited] = {}

    @property
    def idle(self) -> bool:
        """Whether all that is awaited has been asked for: `expect` may tell the next pack."""
        return not self._fresh

    def expect(self, pack: Pack) -> None:
        """Expect the packets of a pack; packs in order."""
        config, fec = self._config, self._config.fec
        leave_s = [pack.start_s + after for after in pack.departures(fec, config.passes)]
        due_s = config.due_s(pack.frames[-1])
        at, last_pass = 0, len(leave_s) - len(leave_s) // config.passes
        ended = 0  # of the open packets, those for which nothing more is to come
        for step in pack.steps:
            if isinstance(step, Group):
                at += step.parity(fec) if fec is not None else 0
            else:
                self._awaited[step] = _Awaited(leave_s[at], due_s)
                self._open.append(step)
                at += 1
            if fec is None or isinstance(step, Group):
                ended = len(self._open)
                if not self._whole:
                    self._missed(ended, leave_s[last_pass + at - 1])
        if self._whole:
            self._missed(ended, leave_s[-1])

    def _missed(self, count: int, from_s: float) -> None:
        """The first ``count`` open packets are missed from this time on."""
        for sequence in self._open[:count]:
            awaited = self._awaited.get(sequence)
            if awaited is not None:
                awaited.missed_s = from_s
                self._fresh[sequence] = awaited
        del self._open[:count]

    def arrived(self, sequence: int, now: float) -> None:
        """Note that this packet has arrived."""
        awaited = self._awaited.get(sequence)
        if awaited is not None:
            if not awaited.asked:
                self._delay.add(max(0.0, now - awaited.left_s))
            self.settled(sequence)

    def settled(self, sequence: int) -> None:
        """Stop waiting for this packet."""
        self._awaited.pop(sequence, None)
        self._fresh.pop(sequence, None)
        self._asked.pop(sequence, None)

    def next_time(self) -> float:
        """When to ask next, in seconds; infinite if nothing is to be asked."""
        times = [awaited.ask_s for awaited in self._asked.values()]
        times += [self._ripe_s(awaited) for awaited in itertools.islice(self._fresh.values(), 1)]
        return min(times, default=float("inf"))

    def _ripe_s(self, awaited: _Awaited) -> float:
        return awaited.missed_s + self._patience_s

    @property
    def _patience_s(self) -> float:
        return self._delay.latest_s + self._arq.wait_s

    def due(self, now: float) -> list[int]:
        """The sequence numbers to ask for at ``now``, ascending."""
        ripe: list[int] = []
        for sequence, awaited in self._fresh.items():
            if self._ripe_s(awaited) > now:
                break
            ripe.append(sequence)
        ripe += [sequence for sequence, awaited in self._asked.items() if awaited.ask_s <= now]
        answer_s = now + self._arq.delay_s + self._delay.usual_s
        hopeful = []
        for sequence in sorted(ripe):
            awaited = self._awaited[sequence]
            if answer_s <= awaited.due_s and awaited.asked < self._arq.retries:
                hopeful.append(sequence)
                self._fresh.pop(sequence, None)
                # Also for those that parity may yet restore: by then it has, or it cannot.
                awaited.ask_s = now + self._arq.delay_s + self._patience_s
                self._asked[sequence] = awaited
            else:
                self.settled(sequence)
        asking = self._wanted(hopeful) if self._wanted else hopeful
        for sequence in asking:
            self._awaited[sequence].asked += 1
        return asking
