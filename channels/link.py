"""What a path does to packets besides random loss.

In the order of a real bottleneck: enqueue or tail-drop, serialise, propagate and jitter, keep
order (or be held back), be lost for being late, be duplicated, have bits flipped.

A FIFO queue needs no event loop: with departures d and arrivals t, d_i = max(t_i, d_(i-1)) +
size_i * 8 / rate (D. V. Lindley, "The theory of queues with a single server", Proc. Cambridge
Phil. Soc. 48 (1952) 277), and packet i is dropped if the buffer is full at t_i.

Each impairment draws from its own stream, in an amount that depends on the packets and never on
other impairments: dropped packets use up their draws too.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from channels.base import (
    OVERFLOWED,
    Deliveries,
    Delivery,
    LossSampler,
    SendingTimes,
    Streams,
)
from channels.jitter import Jitter
from channels.parameters import ChannelParameterError, above, at_least, probability, whole
from channels.trace import CapacitySchedule, CapacityTrace

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_DRAWS = 1024  # random numbers drawn at once, in both forms, so that they agree to the last bit


@dataclass(frozen=True, slots=True)
class DelayLoss:
    """Loss coupled to delay: certain from ``full_s`` of extra delay on, none up to ``start_s``.

    In between it grows linearly. Extra delay is waiting, serialisation and jitter: everything but
    propagation. 0 <= start_s < full_s, seconds.
    """

    start_s: float
    full_s: float

    def __post_init__(self) -> None:
        at_least("start_s", self.start_s, 0.0)
        if above("full_s", self.full_s, 0.0) <= self.start_s:
            raise ChannelParameterError(
                "full_s", f"must exceed start_s = {self.start_s:g}, got {self.full_s!r}"
            )

    @overload
    def loses(self, extra_s: float, u: float) -> bool: ...
    @overload
    def loses(self, extra_s: Floats, u: Floats) -> Bools: ...
    def loses(self, extra_s: float | Floats, u: float | Floats) -> bool | Bools:
        """Whether packets of that extra delay are lost, u being uniform in [0, 1)."""
        return u * (self.full_s - self.start_s) < extra_s - self.start_s


@dataclass(frozen=True, slots=True)
class Link:
    """Parameters of a link; the default delivers everything at once.

    Attributes:
        delay_s: propagation delay, seconds >= 0.
        rate_bps: bottleneck rate in bits per second > 0; None is unlimited.
        capacity: a delivery schedule instead of a rate.
        queue_packets: packets that fit in the buffer, the one being sent included, >= 1; None is
            unlimited. Needs a rate or a capacity.
        queue_bytes: the same in bytes; a packet larger than this never passes.
        jitter: law of the extra delay; it stretches or shrinks gaps but never reorders.
        reorder: probability that a packet is held back, so that later ones overtake it.
        reorder_s: by how much, seconds > 0 if reorder > 0.
        duplicate: probability that a packet arrives twice, at the same time.
        bit_error: probability of each bit to flip, independently.
        delay_loss: loss coupled to the extra delay.

    Raises:
        ChannelParameterError: a value out of range or parameters that exclude each other.
    """

    delay_s: float = 0.0
    rate_bps: float | None = None
    capacity: CapacityTrace | None = None
    queue_packets: int | None = None
    queue_bytes: int | None = None
    jitter: Jitter | None = None
    reorder: float = 0.0
    reorder_s: float = 0.0
    duplicate: float = 0.0
    bit_error: float = 0.0
    delay_loss: DelayLoss | None = None

    def __post_init__(self) -> None:
        at_least("delay_s", self.delay_s, 0.0)
        for name in ("reorder", "duplicate", "bit_error"):
            probability(name, getattr(self, name))
        if self.rate_bps is not None:
            above("rate_bps", self.rate_bps, 0.0)
            if self.capacity is not None:
                raise ChannelParameterError("capacity", "excludes rate_bps: drop one or the other")
        for name in ("queue_packets", "queue_bytes"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), 1)
                if self.rate_bps is None and self.capacity is None:
                    raise ChannelParameterError(
                        name, "has no effect without rate_bps or capacity; give one of them"
                    )
        at_least("reorder_s", self.reorder_s, 0.0)
        if self.reorder > 0.0 and self.reorder_s == 0.0:
            raise ChannelParameterError("reorder_s", "is 0: held-back packets need a delay")

    def channel(self, streams: Streams) -> LinkChannel:
        """A link at rest with an empty buffer."""
        return LinkChannel(self, streams)


@dataclass(frozen=True, slots=True, eq=False)
class Fates:
    """What became of n packets.

    Attributes:
        arrival_s: float64[n], seconds; nan where nothing arrived.
        copies: int64[n], 0 (erased), 1 or 2.
        flipped_bits: int64[n], bits flipped on the way (also counted for erased packets).
    """

    arrival_s: Floats
    copies: Ints
    flipped_bits: Ints


class _Draws:
    """A stream of random numbers, read one by one or in rows."""

    def __init__(self, draw: Callable[[int], Floats]) -> None:
        self._draw = draw
        self._block: Floats = np.empty(0)
        self._used = 0

    def one(self) -> float:
        if self._used == self._block.size:
            self._block, self._used = self._draw(_DRAWS), 0
        self._used += 1
        return float(self._block[self._used - 1])

    def take(self, n: int) -> Floats:
        head = self._block[self._used :]
        blocks = [self._draw(_DRAWS) for _ in range(-(-max(0, n - head.size) // _DRAWS))]
        drawn = np.concatenate([head, *blocks])
        self._block, self._used = drawn[n:], 0
        return drawn[:n]


class _Unlimited(tuple[float, ...]):
    """The departures that an unlimited buffer needs to remember: none."""

    def append(self, departure_s: float) -> None:
        pass


_Departures = deque[float] | _Unlimited  # the latest ones, as many as the buffer holds


class _BitErrors:
    """Positions of flipped bits in the concatenation of all packets, by geometric gaps."""

    def __init__(self, probability_: float, rng: np.random.Generator) -> None:
        self._gaps = _Draws(lambda n: rng.geometric(probability_, n).astype(np.float64))
        self._next = self._gaps.one() - 1.0  # counted from the start of the next packet

    def of_packet(self, bits: int) -> list[int]:
        """Positions of the flipped bits in the next packet of that many bits."""
        found = []
        while self._next < bits:
            found.append(int(self._next))
            self._next += self._gaps.one()
        self._next -= bits
        return found


class LinkChannel:
    """A running link. `transmit` and `carry` walk along the same packets and agree exactly."""

    def __init__(self, model: Link, streams: Streams) -> None:
        self._model = model
        self._times = SendingTimes()
        self._latest_arrival_s = -math.inf
        self._serves = model.rate_bps is not None or model.capacity is not None
        self._recent: _Departures = (
            deque([-math.inf] * model.queue_packets, model.queue_packets)
            if model.queue_packets
            else _Unlimited([-math.inf])
        )
        self._queue: deque[tuple[float, int]] = deque()  # (departure, bytes) of the buffered
        self._queued_bytes = 0
        self._last_departure_s = -math.inf
        self._schedule = CapacitySchedule(model.capacity) if model.capacity else None
        law = model.jitter
        jitter, reorder, duplicate, late = (
            streams[name] for name in ("jitter", "reorder", "duplicate", "delay_loss")
        )
        self._jitter = _Draws(lambda n: law.draw(jitter, n)) if law else None
        self._reorder = _Draws(reorder.random) if model.reorder else None
        self._duplicate = _Draws(duplicate.random) if model.duplicate else None
        self._late = _Draws(late.random) if model.delay_loss else None
        self._errors = _BitErrors(model.bit_error, streams["corrupt"]) if model.bit_error else None
        self._sized = self._serves or self._errors is not None  # sizes matter
        impairments = self._jitter, self._reorder, self._duplicate, self._late
        self._only_delays = not self._sized and impairments == (None,) * len(impairments)

    def transmit(self, data: bytes, now_s: float) -> tuple[Delivery, ...]:
        """See `Channel.transmit`."""
        self._times.advance(now_s)
        departure_s = self._depart([len(data)], [now_s])[0] if self._serves else now_s
        arrival_s, copies = self._leave(now_s, departure_s)
        flipped = self._errors.of_packet(8 * len(data)) if self._errors else []
        if not copies:
            return OVERFLOWED
        return (Delivery(arrival_s, flip_bits(data, flipped) if flipped else None),) * copies

    def carry(self, sizes: Ints, times_s: Floats) -> Fates:
        """`transmit` for many packets at once.

        Args:
            sizes: int64[n], bytes of each packet, >= 0.
            times_s: float64[n], sending times in seconds; never decreasing.

        Raises:
            ValueError: shapes differ, or time runs backwards; nothing is sent then.
        """
        if sizes.shape != times_s.shape or sizes.ndim != 1:
            raise ValueError(f"need sizes[n] and times[n], got {sizes.shape}, {times_s.shape}")
        arrival_s, copies, flipped = self._carry(sizes.tolist() if self._sized else [], times_s)
        flips = np.array([len(bits) for bits in flipped], np.int64)
        return Fates(arrival_s, copies, flips if self._errors else np.zeros_like(copies))

    def transmit_all(self, datagrams: Sequence[bytes], times_s: Floats) -> Deliveries:
        """See `Channel.transmit_all`."""
        if self._only_delays:  # so that arrivals never decrease either
            self._times.advance_all(times_s)
            return Deliveries(np.arange(times_s.size), times_s + self._model.delay_s, {})
        sizes = [len(data) for data in datagrams] if self._sized else []
        arrival_s, copies, flipped = self._carry(sizes, times_s)
        packet = np.repeat(np.arange(copies.size), copies)
        changed = {
            int(place): flip_bits(datagrams[number], bits)
            for number, bits in enumerate(flipped)
            if bits
            for place in np.flatnonzero(packet == number)
        }
        overflowed = frozenset(np.flatnonzero(copies == 0).tolist())
        return Deliveries(packet, arrival_s[packet], changed, overflowed)

    def _carry(self, sizes: list[int], times_s: Floats) -> tuple[Floats, Ints, list[list[int]]]:
        """Arrivals float64[n], copies int64[n], and each packet's flipped bits, if there are bit
        errors. ``sizes``: in bytes, if they matter."""
        self._times.advance_all(times_s)
        if not times_s.size:
            return np.empty(0), np.empty(0, np.int64), []
        departures_s = times_s
        if self._serves:
            departures_s = np.array(self._depart(sizes, times_s.tolist()))
        arrival_s, copies = self._leave_all(times_s, departures_s)
        if self._errors is None:
            return arrival_s, copies, []
        return arrival_s, copies, [self._errors.of_packet(8 * size) for size in sizes]

    def _depart(self, sizes: list[int], times_s: list[float]) -> list[float]:
        """When each packet has left the bottleneck; inf if it was dropped."""
        model, schedule = self._model, self._schedule
        if not self._serves:
            return times_s
        if model.queue_bytes is not None:
            return self._depart_by_bytes(sizes, times_s, model.queue_bytes)
        seconds_per_byte = 8.0 / model.rate_bps if model.rate_bps else 0.0
        recent, last = self._recent, self._last_departure_s
        departures = []
        for size, now in zip(sizes, times_s, strict=True):
            if recent[0] > now:  # as many packets as the buffer holds are still in it
                departures.append(math.inf)
                continue
            start = last if last > now else now
            last = schedule.serve(size, start) if schedule else start + size * seconds_per_byte
            recent.append(last)
            departures.append(last)
        self._last_departure_s = last
        return departures

    def _depart_by_bytes(
        self, sizes: list[int], times_s: list[float], most_bytes: int
    ) -> list[float]:
        """`_depart` where the buffer is limited in bytes, and perhaps in packets too."""
        model, schedule = self._model, self._schedule
        seconds_per_byte = 8.0 / model.rate_bps if model.rate_bps else 0.0
        most_packets = model.queue_packets or math.inf
        queue, queued, last = self._queue, self._queued_bytes, self._last_departure_s
        departures = []
        for size, now in zip(sizes, times_s, strict=True):
            while queue and queue[0][0] <= now:
                queued -= queue.popleft()[1]
            if len(queue) >= most_packets or queued + size > most_bytes:
                departures.append(math.inf)
                continue
            start = last if last > now else now
            last = schedule.serve(size, start) if schedule else start + size * seconds_per_byte
            queue.append((last, size))
            queued += size
            departures.append(last)
        self._queued_bytes, self._last_departure_s = queued, last
        return departures

    def _leave(self, now_s: float, departure_s: float) -> tuple[float, int]:
        """From the bottleneck to the far end, for one packet: (arrival, copies)."""
        model = self._model
        extra = departure_s - now_s
        if self._jitter:
            extra += self._jitter.one()
        arrival = max(now_s + (model.delay_s + extra), now_s)
        passed = departure_s < math.inf
        held = self._reorder is not None and self._reorder.one() < model.reorder
        if passed and not held:
            self._latest_arrival_s = max(self._latest_arrival_s, arrival)
        arrival = max(arrival, self._latest_arrival_s) + held * model.reorder_s
        if self._late and model.delay_loss:
            passed &= not model.delay_loss.loses(extra, self._late.one())
        twice = self._duplicate is not None and self._duplicate.one() < model.duplicate
        return arrival, passed * (1 + twice)

    def _leave_all(self, times_s: Floats, departures_s: Floats) -> tuple[Floats, Ints]:
        """`_leave` for n packets, the same operations in the same order: float64[n], int64[n]."""
        model, n = self._model, times_s.size
        extra = departures_s - times_s
        if self._jitter:
            extra += self._jitter.take(n)
        arrival = np.maximum(times_s + (model.delay_s + extra), times_s)
        passed = departures_s < math.inf
        held = self._reorder.take(n) < model.reorder if self._reorder else None
        in_order = np.where(passed if held is None else passed & ~held, arrival, -math.inf)
        in_order[0] = max(in_order[0], self._latest_arrival_s)
        latest = np.maximum.accumulate(in_order)
        self._latest_arrival_s = float(latest[-1])
        arrival = np.maximum(arrival, latest)
        if held is not None:
            arrival += held * model.reorder_s
        if self._late and model.delay_loss:
            passed &= ~model.delay_loss.loses(extra, self._late.take(n))
        copies = passed.astype(np.int64)
        if self._duplicate:
            copies += passed & (self._duplicate.take(n) < model.duplicate)
        arrival[~passed] = math.nan
        return arrival, copies


def flip_bits(data: bytes, positions: list[int]) -> bytes:
    """`data` with the given bits flipped; bit i is bit 7 - i % 8 of byte i // 8."""
    changed = bytearray(data)
    for position in positions:
        changed[position // 8] ^= 0x80 >> (position % 8)
    return bytes(changed)


def carry(losses: LossSampler, link: LinkChannel, sizes: Ints, times_s: Floats) -> Fates:
    """The vectorised twin of `LossyChannel`: n packets through a loss process and a link.

    Args:
        losses: decides once per packet.
        link: carries every packet, lost ones too (see `LossyChannel`).
        sizes: int64[n], bytes.
        times_s: float64[n], seconds, never decreasing.
    """
    fates = link.carry(sizes, times_s)
    lost: Bools = losses.mask(times_s.size)
    return Fates(
        np.where(lost, math.nan, fates.arrival_s),
        np.where(lost, 0, fates.copies),
        fates.flipped_bits,
    )
