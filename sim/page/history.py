"""The recent past of a stream, bounded: quality, packet fates, and losses beside their theory."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from channels import read_channel
from channels.theory import LossChain, loss_rate, loss_rate_interval, mean_loss_run
from sim.drivers.record import PacketRecord
from sim.experiment.summary import expected_range
from sim.page.engine import Snapshot
from sim.scenario.schema import Scenario
from sim.statistics import CONFIDENCE

KEPT = 60
"""Frames that the charts show."""

_FEW_STATES = 8  # more would take too long to sum over exactly

OK, LOST, LATE, RESTORED = "ok", "lost", "late", "restored"
"""What became of a packet, as the page shows it; restored: lost, but what it held was given back by
parity, by a retransmission, or by another copy."""


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


@dataclass(frozen=True)
class LossCount:
    """Losses since the settings last changed, and what the channel's theory says of them.

    Attributes:
        packets, lost, late, bursts: counted; a burst is a maximal run of lost packets.
        expected_loss, expected_burst: long-run loss rate and mean run; NaN where theory has none.
        low, high: where the loss rate of so many packets falls 95% of the time.
    """

    packets: int
    lost: int
    late: int
    bursts: int
    expected_loss: float = math.nan
    expected_burst: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @property
    def loss(self) -> float:
        """Share of packets lost; NaN before the first."""
        return self.lost / self.packets if self.packets else math.nan

    @property
    def burst(self) -> float:
        """Mean run of lost packets; NaN if there is none."""
        return self.lost / self.bursts if self.bursts else math.nan


def fates(snapshot: Snapshot) -> tuple[str, ...]:
    """What became of the packets of one frame, in sending order."""
    received, slice_of = snapshot.received, snapshot.slice_of
    found = []
    for packet in snapshot.packets:
        fate = _fate(packet)
        if fate != OK and packet.kind == "media" and received[slice_of == packet.slice].all():
            fate = RESTORED
        found.append(fate)
    return tuple(found)


def fates_of_slices(snapshot: Snapshot) -> dict[int, str]:
    """What became of the tokens of each slice, by its number."""
    found: dict[int, str] = {}
    for packet, fate in zip(snapshot.packets, fates(snapshot), strict=True):
        if packet.kind == "media" and found.get(packet.slice, LOST) == LOST:
            found[packet.slice] = fate
    return found


def _fate(packet: PacketRecord) -> str:
    if packet.fate != "delivered":
        return LOST
    return LATE if packet.late else OK


class History:
    """Takes snapshots, keeps the latest `KEPT` points and one count."""

    def __init__(self) -> None:
        self._points: deque[HistoryPoint] = deque(maxlen=KEPT)
        self._scenario: Scenario | None = None
        self._chain: LossChain | None = None
        self.count = LossCount(0, 0, 0, 0)
        self._ended_lost = False

    @property
    def points(self) -> tuple[HistoryPoint, ...]:
        """Oldest first."""
        return tuple(self._points)

    def add(self, snapshot: Snapshot, change: str = "") -> None:
        """Take the next frame, or the latest once more under other settings, which replaces it.

        Args:
            snapshot: the frame.
            change: what was changed before it, in a word; "" if nothing.
        """
        latest = self._points[-1] if self._points else None
        again = latest is not None and latest.number == snapshot.number
        if latest is not None and again:
            change = change or latest.change
            self._points.pop()
        self._points.append(
            HistoryPoint(snapshot.number, snapshot.psnr_db, fates(snapshot), change)
        )
        if snapshot.scenario != self._scenario:
            self._scenario = snapshot.scenario
            self._chain = read_channel(snapshot.scenario.channel)[0].chain()
            self.count, self._ended_lost = LossCount(0, 0, 0, 0), False
        elif again:
            return  # only the repair is another
        self.count = self._counted(snapshot.sent)

    def _counted(self, packets: Iterable[PacketRecord]) -> LossCount:
        seen, chain = self.count, self._chain
        sent, lost, late, bursts = seen.packets, seen.lost, seen.late, seen.bursts
        for packet in packets:
            erased = packet.fate == "erased"
            sent += 1
            lost += erased
            late += packet.late
            bursts += erased and not self._ended_lost
            self._ended_lost = erased
        if chain is None or sent == 0:
            return LossCount(sent, lost, late, bursts)
        small = chain.loss.size <= _FEW_STATES
        low, high = (
            expected_range(chain, sent) if small else loss_rate_interval(chain, sent, CONFIDENCE)
        )
        return LossCount(
            sent, lost, late, bursts, loss_rate(chain), mean_loss_run(chain), low, high
        )
