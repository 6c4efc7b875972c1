"""A channel that remembers every datagram and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from channels.base import Channel, Deliveries, Delivery


class Passage(NamedTuple):
    """A datagram's way through a channel.

    Attributes:
        sent_s: when it was sent, in seconds.
        data: as sent.
        arrivals: (seconds, bytes) of every copy that arrived.
    """

    sent_s: float
    data: bytes
    arrivals: tuple[tuple[float, bytes], ...]


class TappedChannel:
    """Another channel, and a list of all that passes through it, in the order of sending."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.passages: list[Passage] = []

    def transmit(self, data: bytes, now_s: float) -> tuple[Delivery, ...]:
        """See `Channel.transmit`."""
        copies = self._channel.transmit(data, now_s)
        self._note(now_s, data, [(copy.arrival_s, copy.data) for copy in copies])
        return copies

    def transmit_all(self, datagrams: Sequence[bytes], times_s: NDArray[np.float64]) -> Deliveries:
        """See `Channel.transmit_all`."""
        found = self._channel.transmit_all(datagrams, times_s)
        copies: list[list[tuple[float, bytes | None]]] = [[] for _ in datagrams]
        for place, (number, arrival_s) in enumerate(
            zip(found.packet.tolist(), found.arrival_s.tolist(), strict=True)
        ):
            copies[number].append((arrival_s, found.changed.get(place)))
        for data, sent_s, arrived in zip(datagrams, times_s.tolist(), copies, strict=True):
            self._note(sent_s, data, arrived)
        return found

    def _note(self, sent_s: float, data: bytes, copies: list[tuple[float, bytes | None]]) -> None:
        arrivals = tuple(
            (arrival_s, data if changed is None else changed) for arrival_s, changed in copies
        )
        self.passages.append(Passage(sent_s, data, arrivals))
