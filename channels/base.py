"""The types of this package: a channel takes packets and decides their fates.

A `LossModel` is an immutable, checked set of parameters; its `sampler` is a stateful stream of
fates. A `Channel` carries real packets: `transmit` answers with the deliveries of one packet.
`build` joins the two. Time is always an argument, in seconds; randomness is always a seed.

Every impairment draws from a stream of its own, a child of the channel's seed numbered by its
place in `STREAMS`. Turning jitter on therefore never changes which packets are lost. New
impairments are appended; the order never changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from channels.parameters import ChannelParameterError, at_least
from channels.samplers import Mask, Runs
from channels.theory import LossChain

__all__ = [
    "OVERFLOWED",
    "STREAMS",
    "Channel",
    "ChannelParameterError",
    "ConstantDelay",
    "Deliveries",
    "Delivery",
    "LinkModel",
    "LossModel",
    "LossSampler",
    "LossyChannel",
    "NoDelivery",
    "Perfect",
    "SendingTimes",
    "Streams",
    "build",
    "loss_mask",
]

STREAMS = ("loss", "jitter", "reorder", "duplicate", "corrupt", "delay_loss")
"""Impairments in the order of their SeedSequence children. Append only."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One arrival of one packet.

    ``arrival_s``: seconds on the clock of `transmit`'s ``now_s``, never before it.
    ``data``: None when the bytes are unchanged, else the corrupted copy.
    """

    arrival_s: float
    data: bytes | None = None


class NoDelivery(tuple[Delivery, ...]):
    """No arrivals, like ``()``, where that alone does not say why."""


OVERFLOWED = NoDelivery()
"""What `Channel.transmit` answers for a packet that the link dropped: its queue was full, or it
waited too long (`channels.link.DelayLoss`). It is this very object, and equal to ()."""


@dataclass(frozen=True, slots=True, eq=False)
class Deliveries:
    """The arrivals of several packets, packet by packet in the order of sending.

    ``packet``: int64[m], which packet arrives, 0..n-1, never decreasing.
    ``arrival_s``: float64[m], seconds; see `Delivery`.
    ``changed``: the corrupted copies, by their places in these arrays.
    ``overflowed``: the packets that the link dropped, see `OVERFLOWED`; others that do not arrive
    were erased.
    """

    packet: npt.NDArray[np.int64]
    arrival_s: npt.NDArray[np.float64]
    changed: Mapping[int, bytes]
    overflowed: frozenset[int] = frozenset()

    def without(self, lost: npt.NDArray[np.bool_]) -> Deliveries:
        """Those of the packets that are not lost, by the mask bool[n]."""
        chosen = ~lost[self.packet]
        changed = self.changed
        if changed:
            places = np.cumsum(chosen) - 1
            changed = {int(places[at]): data for at, data in changed.items() if chosen[at]}
        overflowed = frozenset(number for number in self.overflowed if not lost[number])
        return Deliveries(self.packet[chosen], self.arrival_s[chosen], changed, overflowed)


class Channel(Protocol):
    """Carries packets, one by one or several at once; which does not change what happens."""

    def transmit(self, data: bytes, now_s: float) -> tuple[Delivery, ...]:
        """Send one packet.

        Args:
            data: the datagram.
            now_s: time of sending in seconds; never decreases from call to call.

        Returns:
            () if the packet is erased, `OVERFLOWED` if the link dropped it, one Delivery, or two if
            it is duplicated.

        Raises:
            ValueError: now_s is not finite or lies before the previous call's.
        """
        ...

    def transmit_all(
        self, datagrams: Sequence[bytes], times_s: npt.NDArray[np.float64]
    ) -> Deliveries:
        """`transmit` for several packets.

        Args:
            datagrams: n of them.
            times_s: float64[n], when each is sent, in seconds; never decreasing.

        Raises:
            ValueError: as `transmit`.
        """
        sent = zip(datagrams, times_s.tolist(), strict=True)
        answers = [self.transmit(data, now_s) for data, now_s in sent]
        several = [(number, delivery) for number, found in enumerate(answers) for delivery in found]
        return Deliveries(
            np.array([number for number, _ in several], np.int64),
            np.array([delivery.arrival_s for _, delivery in several]),
            {at: one.data for at, (_, one) in enumerate(several) if one.data is not None},
            frozenset(number for number, found in enumerate(answers) if found is OVERFLOWED),
        )


class LossSampler(Protocol):
    """A stream of packet fates; any mix of calls, of any sizes, walks the very same stream."""

    def lost(self) -> bool:
        """Whether the next packet is lost."""
        ...

    def mask(self, n: int) -> Mask:
        """Fates of the next n packets: bool[n], True = lost."""
        ...

    def runs(self, n: int) -> Runs:
        """Lost runs among the next n packets: int64[k, 2], [start, end) within [0, n].

        A run that crosses the edge of two calls is cut there; `samplers.merge_runs` joins it.
        """
        ...


class LossModel(Protocol):
    """An immutable, validated set of parameters of a loss process."""

    def sampler(self, rng: np.random.Generator) -> LossSampler:
        """A stream in its stationary state. The sampler owns `rng` from now on."""
        ...

    def chain(self) -> LossChain | None:
        """The process as a finite chain for `channels.theory`; None if it is none, or too large."""
        ...

    def warnings(self) -> list[str]:
        """One line for each thing about these parameters that may mislead; [] if none."""
        ...


class Streams:
    """The random streams of one channel: `streams["jitter"]` is the same whoever else draws."""

    def __init__(self, seed: int | np.random.SeedSequence) -> None:
        self._seed = seed if isinstance(seed, np.random.SeedSequence) else _sequence(seed)

    def __getitem__(self, impairment: str) -> np.random.Generator:
        """A new Generator (PCG64) at the start of the named stream; names are `STREAMS`."""
        key = (*self._seed.spawn_key, STREAMS.index(impairment))
        child = np.random.SeedSequence(
            self._seed.entropy, spawn_key=key, pool_size=self._seed.pool_size
        )
        return np.random.Generator(np.random.PCG64(child))


def _sequence(seed: int) -> np.random.SeedSequence:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ChannelParameterError("seed", f"must be a whole number >= 0, got {seed!r}")
    return np.random.SeedSequence(int(seed))


class LinkModel(Protocol):
    """Immutable parameters of what happens to a packet besides random loss."""

    def channel(self, streams: Streams) -> Channel:
        """A link at rest, drawing from the given streams."""
        ...


class Perfect:
    """A channel that delivers every packet unchanged after a constant delay."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self._delay_s = at_least("delay_s", delay_s, 0.0)
        self._times = SendingTimes()

    def transmit(self, data: bytes, now_s: float) -> tuple[Delivery, ...]:
        """See `Channel.transmit`."""
        self._times.advance(now_s)
        return (Delivery(now_s + self._delay_s),)

    def transmit_all(
        self, datagrams: Sequence[bytes], times_s: npt.NDArray[np.float64]
    ) -> Deliveries:
        """See `Channel.transmit_all`."""
        self._times.advance_all(times_s)
        return Deliveries(np.arange(times_s.size), times_s + self._delay_s, {})


@dataclass(frozen=True, slots=True)
class ConstantDelay:
    """A link of unlimited rate that delays every packet by ``delay_s`` >= 0 seconds."""

    delay_s: float = 0.0

    def __post_init__(self) -> None:
        at_least("delay_s", self.delay_s, 0.0)

    def channel(self, streams: Streams) -> Perfect:
        """A link at rest; it draws nothing."""
        return Perfect(self.delay_s)


class SendingTimes:
    """The order of sending times: refuses one before the latest."""

    def __init__(self) -> None:
        self._latest_s = -np.inf

    def advance(self, now_s: float) -> None:
        """Accept `now_s`, or raise ValueError if it is not finite or before the latest one."""
        if not self._latest_s <= now_s < np.inf:
            raise ValueError(
                f"now_s must be finite and never decrease: got {now_s!r} after {self._latest_s!r}"
            )
        self._latest_s = now_s

    def advance_all(self, times_s: npt.NDArray[np.float64]) -> None:
        """Accept float64[n] one after the other, or raise ValueError and accept none."""
        if not (times_s[1:] >= times_s[:-1]).all():  # nan fails too
            raise ValueError("times_s must never decrease")
        if times_s.size and not times_s[-1] < np.inf:
            raise ValueError("times_s must be finite")
        if times_s.size:
            self.advance(float(times_s[0]))
            self._latest_s = float(times_s[-1])


class LossyChannel:
    """Random loss, then a link.

    The loss process is asked exactly once per packet, whatever the link does, so queues and
    jitter never change which packets it loses. A lost packet still crosses the link (it takes
    its place in the queue and its draws from the link's streams) and vanishes at the far end,
    as on a radio hop behind a bottleneck; it is erased even if the link would have dropped it.
    """

    def __init__(self, losses: LossSampler, link: Channel) -> None:
        self._losses = losses
        self._link = link

    def transmit(self, data: bytes, now_s: float) -> tuple[Delivery, ...]:
        """See `Channel.transmit`."""
        deliveries = self._link.transmit(data, now_s)  # first: a refused now_s uses up no fate
        return () if self._losses.lost() else deliveries

    def transmit_all(
        self, datagrams: Sequence[bytes], times_s: npt.NDArray[np.float64]
    ) -> Deliveries:
        """See `Channel.transmit_all`."""
        deliveries = self._link.transmit_all(datagrams, times_s)
        return deliveries.without(self._losses.mask(times_s.size))


def build(
    loss: LossModel,
    *,
    seed: int | np.random.SeedSequence,
    link: LinkModel | None = None,
) -> LossyChannel:
    """A channel ready to carry packets.

    Args:
        loss: the loss process, started in its stationary state.
        seed: whole number >= 0 or a SeedSequence; with the same seed and models, the same fates.
            A SeedSequence is read, not changed.
        link: what else happens to packets; None delivers at once.

    Raises:
        ChannelParameterError: the seed is not usable.
    """
    streams = Streams(seed)
    return LossyChannel(loss.sampler(streams["loss"]), (link or ConstantDelay()).channel(streams))


def loss_mask(loss: LossModel, n: int, seed: int | np.random.SeedSequence) -> Mask:
    """Fates of the first n packets of ``build(loss, seed=seed)``: bool[n], True = lost."""
    return loss.sampler(Streams(seed)["loss"]).mask(n)
