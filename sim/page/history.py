"""The recent past of a stream, bounded: quality and packet fates of frames, and its losses."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from sim.drivers.record import LOST
from sim.live.monitor import StreamMonitor
from sim.page.engine import Snapshot
from sim.scenario.schema import Scenario

KEPT = 60
"""Frames that the charts show."""

RESTORED = "restored"
"""What became of a packet is its `PacketRecord.outcome`, or this: lost, but what it held was given
back by parity, by a retransmission, or by another copy."""


@dataclass(frozen=True)
class HistoryPoint:
    """One frame in the charts.

    Attributes:
        number: of the frame.
        psnr_db: without loss, repaired, unrepaired.
        fates: of its packets, in sending order.
        change: what was changed before it, in a word; "" if nothing.
    """

    number: int
    psnr_db: tuple[float, float, float]
    fates: tuple[str, ...]
    change: str


def fates(snapshot: Snapshot) -> tuple[str, ...]:
    """The fates of the packets of one frame, in sending order."""
    received, slice_of = snapshot.received, snapshot.slice_of
    found = []
    for packet in snapshot.packets:
        lost = packet.outcome in LOST and packet.kind == "media"
        back = lost and received[slice_of == packet.slice].all()
        found.append(RESTORED if back else packet.outcome)
    return tuple(found)


def fates_of_slices(snapshot: Snapshot) -> dict[int, str]:
    """The fate of the tokens of each slice, by its number."""
    found: dict[int, str] = {}
    for packet, fate in zip(snapshot.packets, fates(snapshot), strict=True):
        if packet.kind == "media" and found.get(packet.slice, LOST[0]) in LOST:
            found[packet.slice] = fate
    return found


class FrameHistory:
    """Takes snapshots; keeps the latest `KEPT` points, and what was lost under the settings of now.

    Attributes:
        monitor: of the packets since the settings last changed; None before the first frame.
    """

    def __init__(self) -> None:
        self._points: deque[HistoryPoint] = deque(maxlen=KEPT)
        self._scenario: Scenario | None = None
        self.monitor: StreamMonitor | None = None

    @property
    def points(self) -> tuple[HistoryPoint, ...]:
        """Oldest first."""
        return tuple(self._points)

    def add(self, snapshot: Snapshot, change: str = "") -> StreamMonitor:
        """Take the next frame, or the latest once more under other settings, which replaces it.

        Args:
            snapshot: the frame.
            change: what was changed before it, in a word; "" if nothing.

        Returns:
            The monitor.
        """
        latest = self._points[-1] if self._points else None
        again = latest is not None and latest.number == snapshot.number
        if latest is not None and again:
            change = change or latest.change
            self._points.pop()
        self._points.append(
            HistoryPoint(snapshot.number, snapshot.psnr_db, fates(snapshot), change)
        )
        scenario = snapshot.scenario
        if self.monitor is None or scenario != self._scenario:
            self._scenario, again = scenario, False
            self.monitor = StreamMonitor(
                scenario.name, scenario.channel, scenario.stream_config(), 0
            )
        for packet in () if again else snapshot.sent:  # again: only the repair is another
            self.monitor.packet(packet)
        return self.monitor
