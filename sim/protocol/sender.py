"""The sending side: frames in, paced datagrams out."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from codec.entropy import CoderFor
from sim.protocol.config import StreamConfig, StreamKey
from sim.protocol.events import PacketSent
from sim.protocol.packet import pack
from sim.protocol.packetizer import Packetizer


class Sender:
    """Packetizes frames and spreads each one's packets evenly over its frame interval.

    Slice i of n leaves ``i / n`` frame intervals after the frame was submitted. Drive it so::

        sender.submit(index_map, width, height, now)       # whenever a frame is captured
        while (timer := sender.next_timer()) is not None:  # wait until then, and
            for datagram in sender.datagrams_to_send(timer): ...
    """

    def __init__(self, config: StreamConfig, key: StreamKey, coders: CoderFor) -> None:
        """Raises LookupError if there is no coder for the configured entropy mode and codebook."""
        self._packetizer = Packetizer(config, coders)
        self._interval_s = 1 / config.fps
        self._key = key.seed
        self._sequence = config.first_sequence  # of the next packet, not wrapped
        self._frame = 0
        self._waiting: deque[tuple[PacketSent, bytes]] = deque()
        self._events: deque[PacketSent] = deque()

    def submit(self, index_map: NDArray[np.int64], width: int, height: int, now: float) -> None:
        """Take the next frame.

        Args:
            index_map, width, height: as for `Packetizer.split`, whose errors this raises.
            now: media time in seconds; never decreases.
        """
        packets = self._packetizer.split(index_map, width, height, self._sequence)
        step_s = self._interval_s / len(packets)
        for packet in packets:
            data = pack(packet, self._key)
            sent = PacketSent(
                packet.sequence, self._frame, packet.slice, len(data), now + packet.slice * step_s
            )
            self._waiting.append((sent, data))
        self._sequence += len(packets)
        self._frame += 1

    def next_timer(self) -> float | None:
        """When the next packet wants to leave, in seconds; None if none is waiting."""
        return self._waiting[0][0].sent_s if self._waiting else None

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """The datagrams whose time has come, in order; a `PacketSent` event for each."""
        datagrams = []
        while self._waiting and self._waiting[0][0].sent_s <= now:
            sent, data = self._waiting.popleft()
            self._events.append(sent)
            datagrams.append(data)
        return datagrams

    def next_event(self) -> PacketSent | None:
        """The oldest event not yet taken."""
        return self._events.popleft() if self._events else None
