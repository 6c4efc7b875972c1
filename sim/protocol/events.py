"""The events that sender and receiver report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.protocol.config import StreamKey

REJECTIONS = (
    "malformed_truncated",
    "malformed_oversized",
    "malformed_version",
    "malformed_entropy",
    "malformed_codebook",
    "malformed_slice_count",
    "malformed_slice",
    "malformed_block",
    "foreign_or_corrupt",
    "unsupported_kind",
    "out_of_window",
    "inconsistent",
    "late",
    "duplicate",
    "corrupt_payload",
)
"""Why a datagram is not used."""


@dataclass(frozen=True)
class ReceivedGrid:
    """A frame's tokens as far as they arrived.

    Attributes:
        indices: int64[h, w], token indices 0..K-1; -1 where the token is lost.
        received: bool[h, w], True where the token arrived, or has not changed by what a packet
            said that did.
    """

    indices: NDArray[np.int64]
    received: NDArray[np.bool_]


@dataclass(frozen=True)
class FrameReady:
    """A frame has reached its playout deadline; every frame does, whatever was lost.

    Attributes:
        frame: its number in the stream, from 0.
        key: the stream it belongs to.
        grid: its tokens.
        width, height: of the image, in pixels.
        codebook_size: K.
        complete: True if every token was received.
        first_arrival_s: when its first usable packet arrived; None if none did.
        due_s: its playout deadline.
        last_arrival_s: when the last packet arrived that brought or restored one of its slices;
            None if none did. All three in seconds of media time.
        recovered: how many of its slices parity restored.
        kept: how many of the received tokens were not sent with this frame but are those of an
            earlier one (`replenishment`), which is another than the sender's if one was lost since.
    """

    frame: int
    key: StreamKey
    grid: ReceivedGrid
    width: int
    height: int
    codebook_size: int
    complete: bool
    first_arrival_s: float | None
    due_s: float
    last_arrival_s: float | None = None
    recovered: int = 0
    kept: int = 0


@dataclass(frozen=True)
class PacketRejected:
    """A datagram was not used.

    Attributes:
        reason: one of `REJECTIONS`.
        now_s: when it arrived, in seconds of media time.
        detail: one line.
    """

    reason: str
    now_s: float
    detail: str


class PacketSent(NamedTuple):
    """A packet has been handed out for sending.

    Attributes:
        sequence: 0..2**16-1, as on the wire; of a parity packet, its group's first.
        frame, slice: what it carries; of a parity packet, the first frame that it protects and
            its number in its block.
        size_bytes: of the datagram, header included.
        sent_s: in seconds of media time.
        kind: "media", "parity" or "retransmission".
        last_frame: it serves the frames from ``frame`` to this one.
    """

    sequence: int
    frame: int
    slice: int
    size_bytes: int
    sent_s: float
    kind: str = "media"
    last_frame: int = 0
