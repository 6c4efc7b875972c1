"""The input and the outcome of a streaming run, the same for every driver."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.protocol.events import FrameReady
from sim.protocol.ledger import Ledger
from sim.protocol.packet import HEADER_BYTES


@dataclass(frozen=True)
class MediaFrame:
    """A tokenized image to be streamed.

    Attributes:
        name: for people.
        index_map: int64[h, w], h = ceil(height / patch), w = ceil(width / patch), values 0..K-1.
        width, height: of the image, in pixels, 1..8192.
        token_importance: float[h, w] >= 0, what losing each costs in spite of concealment, in any
            unit; None if that is not known.
    """

    name: str
    index_map: NDArray[np.int64]
    width: int
    height: int
    token_importance: NDArray[np.floating] | None = None


class PacketRecord(NamedTuple):
    """The fate of one packet.

    Attributes:
        sequence: as on the wire, 0..2**16-1.
        frame, slice: which part of the stream it carries.
        size_bytes: of the whole datagram, header included.
        sent_s: when the sender handed it to the channel, in seconds of media time.
        fate: "delivered", "corrupted" (its first copy arrived with changed bytes), "erased" (by the
            loss process) or "overflowed" (the link dropped it).
        arrival_s: of the first copy, None if there is none.
        late: True if that was after the frame's playout deadline.
        copies: how many copies arrived (0 if erased or overflowed, 2 if duplicated).
        kind: "media", "parity" or "retransmission".
        last_frame: it serves the frames from ``frame`` to this one.
    """

    sequence: int
    frame: int
    slice: int
    size_bytes: int
    sent_s: float
    fate: str
    arrival_s: float | None
    late: bool
    copies: int
    kind: str
    last_frame: int

    @property
    def outcome(self) -> str:
        """The fate, or "late" for a delivered packet that was: one of `LOST`, or "delivered"."""
        return outcome(self.fate, self.late)


LOST = ("erased", "overflowed", "corrupted", "late")
"""The ways in which a packet is lost; each lost packet is counted in one of them."""


def outcome(fate: str, late: bool) -> str:
    """ "late" for what was delivered too late, else the fate."""
    return "late" if late and fate == "delivered" else fate


@dataclass(frozen=True)
class FrameBytes:
    """Bytes by frame; their sums are the ledger's.

    Attributes:
        payload: float64[frames], media without headers.
        wire: float64[frames], everything in either direction.
    """

    payload: NDArray[np.float64]
    wire: NDArray[np.float64]


@dataclass
class StreamRecord:
    """A run's outcome.

    Attributes:
        packets: one record per packet, in sending order.
        frames: one `FrameReady` per frame, in order.
        counters: what the receiver did with the datagrams that arrived, by kind.
        ledger: the account of packets and bytes, already checked.
    """

    packets: list[PacketRecord]
    frames: list[FrameReady]
    counters: dict[str, int]
    ledger: Ledger


def frame_bytes(packets: Iterable[PacketRecord], frames: int, feedback: int = 0) -> FrameBytes:
    """How many bytes each frame took; what serves several is split evenly among them.

    Args:
        packets: of the whole stream.
        frames: how many it has.
        feedback: bytes of the way back, split evenly among all frames.
    """
    payload, wire = [0.0] * frames, [feedback / max(frames, 1)] * frames
    for packet in packets:
        share = packet.last_frame + 1 - packet.frame
        for frame in range(packet.frame, packet.last_frame + 1):
            wire[frame] += packet.size_bytes / share
            if packet.kind == "media":
                payload[frame] += (packet.size_bytes - HEADER_BYTES) / share
    return FrameBytes(np.array(payload), np.array(wire))
