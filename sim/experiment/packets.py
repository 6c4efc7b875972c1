"""The packets of a cell: what each frame took, and the text of them that the store keeps."""

from __future__ import annotations

import base64
import csv
import io
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.drivers.record import LOST, MediaFrame, PacketRecord, StreamRecord, frame_bytes
from sim.jobs.store import Record
from sim.protocol.config import StreamConfig
from sim.results.files import cell_text

_LINE = "%s,%d,%d,%d,%d,%.9g,%s,%s,%d,%d,%s,%d\n"
"""A packet as `packet_table` writes it: in half the time that the csv module takes."""


@dataclass(frozen=True, slots=True)
class FrameSent:
    """What was sent for one frame. A packet is lost when what it carries was not there at the
    deadline; one that serves several frames counts with the first.

    lost: packets by the way in which they were lost, `LOST`.
    recovered: slices that parity restored. kept: received tokens that were not sent with it but are
    those of an earlier frame. retransmitted: packets. latency_s: from capture to the
    last packet that brought or restored a slice; NaN if none did.
    """

    packets: int
    lost: Mapping[str, int]
    payload_bytes: float
    wire_bytes: float
    recovered: int
    kept: int
    retransmitted: int
    latency_s: float

    @classmethod
    def of_each(cls, record: StreamRecord, config: StreamConfig) -> list[FrameSent]:
        """For every frame of a stream."""
        frames = len(record.frames)
        sent, again = [0] * frames, [0] * frames
        lost = [dict.fromkeys(LOST, 0) for _ in record.frames]
        for packet in record.packets:
            sent[packet.frame] += 1
            again[packet.frame] += packet.kind == "retransmission"
            if (outcome := packet.outcome) != "delivered":
                lost[packet.frame][outcome] += 1
        taken = frame_bytes(record.packets, frames, record.ledger.feedback_bytes)
        return [
            cls(
                sent[n],
                lost[n],
                float(taken.payload[n]),
                float(taken.wire[n]),
                ready.recovered,
                ready.kept,
                again[n],
                math.nan
                if ready.last_arrival_s is None
                else ready.last_arrival_s - config.capture_s(n),
            )
            for n, ready in enumerate(record.frames)
        ]


def packet_lines(record: Record, start: str) -> str:
    """The CSV lines of a cell's packets, in the columns that its record names; every line opens
    with `start`."""
    text = zlib.decompress(base64.b64decode(record["packets"])).decode()
    return (start + text.replace("\n", "\n" + start)).removesuffix(start)


def packet_table(packets: Sequence[PacketRecord], frames: Sequence[MediaFrame]) -> dict[str, Any]:
    """Packets as compressed CSV: they are most of what a cell leaves."""
    names = [_quoted(" ".join(frame.name.splitlines())) for frame in frames]  # one line a packet
    text = "".join(
        [_LINE % (names[p.frame], *p[:6], cell_text(p.arrival_s), *p[7:]) for p in packets]
    )
    packed = base64.b64encode(zlib.compress(text.encode(), 1))
    return {"packet_columns": ["image", *PacketRecord._fields], "packets": packed.decode()}


def _quoted(text: str) -> str:
    """As a field of CSV."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([text])
    return line.getvalue()
