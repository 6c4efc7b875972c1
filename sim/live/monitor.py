"""What a view of a running stream shows: packets, losses beside theory, rates, quality.

A sender, a receiver or the live page fills one `StreamMonitor` from its own thread, in media time;
views read it from another. Nothing here asks the time or decides anything.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from channels import read_channel
from channels.theory import loss_rate, loss_rate_interval, mean_loss_run
from sim.drivers.record import LOST, PacketRecord
from sim.experiment.summary import expected_range
from sim.protocol.config import StreamConfig
from sim.protocol.events import FrameReady
from sim.statistics import CONFIDENCE

KEPT_FRAMES = 64
"""Images whose packets are kept; of older ones only the totals are."""
_FEW_STATES = 8  # of a loss chain; more would take too long to sum over exactly


@dataclass(frozen=True, slots=True)
class TheoreticalLoss:
    """A loss process by theory: its long-run rate, and the mean length of a burst in packets."""

    loss: float
    burst: float


@dataclass
class FrameFate:
    """The packets of one image, and what of it arrived.

    Attributes:
        marks: by packet in the order of sending: its `PacketRecord.outcome`.
        ready: whether its deadline has passed.
        complete: whether everything arrived.
        tokens_lost: 0..1, of its tokens; NaN until ready.
    """

    marks: list[str] = field(default_factory=list)
    ready: bool = False
    complete: bool = False
    tokens_lost: float = math.nan


class StreamMonitor:
    """Counts and recent history of one stream.

    Attributes:
        name, total: of the scenario; images in all.
        config: of the stream.
        sent, bytes: of all packets.
        lost: packets by `sim.drivers.record.LOST`.
        bursts: maximal runs of erased packets.
        expected: by theory; None where there is none.
        images_due, images_complete, pixels: of the images whose deadline has passed.
        frames: the latest images by number.
        pictures: uint8[H,W,3] by caption, of the latest image shown.
        quality: latest value by repair; `means` has the running means.
        quality_is: what ``quality`` measures, in words.
        anomalies: by name.
        waiting: what waits in which buffer, by its name.
        state: what the driver is doing, in words.
    """

    def __init__(
        self, name: str, channel: Mapping[str, Any], config: StreamConfig, total: int
    ) -> None:
        self.name, self.config, self.total = name, config, total
        self._chain = read_channel(channel)[0].chain()
        self.expected = (
            None
            if self._chain is None
            else TheoreticalLoss(loss_rate(self._chain), mean_loss_run(self._chain))
        )
        self.frames: dict[int, FrameFate] = {}
        self.pictures: dict[str, NDArray[np.uint8]] = {}
        self.quality: dict[str, float] = {}
        self.quality_is = "PSNR"
        self._sums: dict[str, tuple[float, int]] = {}
        self.anomalies: dict[str, int] = {}
        self.state = ""
        self.sent = self.bursts = self.bytes = 0
        self.lost = dict.fromkeys(LOST, 0)
        self.images_due = self.images_complete = self.pixels = 0
        self._bytes_due, self._bytes_ahead = 0, dict[int, int]()  # the latter by image
        self._latest_due = -1
        self.media_s = 0.0
        self.waiting: dict[str, int] = {}
        self._in_burst = False
        self._recent: deque[tuple[float, int]] = deque()

    def packet(self, record: PacketRecord) -> None:
        """Count a packet, whose fate in the channel is known."""
        outcome, erased = record.outcome, record.fate == "erased"
        self.sent += 1
        self.bytes += record.size_bytes
        ahead = self._bytes_ahead
        ahead[record.last_frame] = ahead.get(record.last_frame, 0) + record.size_bytes
        self._count_due(self._latest_due)
        if outcome in self.lost:
            self.lost[outcome] += 1
        self.bursts += erased and not self._in_burst
        self._in_burst = erased
        self.media_s = max(self.media_s, record.sent_s)
        self._recent.append((record.sent_s, record.size_bytes))
        while self._recent[0][0] < record.sent_s - 2.0:
            self._recent.popleft()
        self._frame(record.frame).marks.append(outcome)

    def image(self, ready: FrameReady) -> None:
        """Count an image whose deadline has passed."""
        fate = self._frame(ready.frame)
        fate.ready, fate.complete = True, ready.complete
        fate.tokens_lost = float(1 - ready.grid.received.mean())
        self.images_due += 1
        self.images_complete += ready.complete
        self.pixels += ready.width * ready.height
        self._count_due(ready.frame)
        self.media_s = max(self.media_s, ready.due_s)

    def measured(self, quality: Mapping[str, float]) -> None:
        """Add the quality of an image by repair."""
        self.quality = dict(quality)
        for name, value in quality.items():
            if math.isfinite(value):
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = total + value, count + 1

    @property
    def means(self) -> dict[str, float]:
        """Mean quality so far by repair."""
        return {name: total / count for name, (total, count) in self._sums.items()}

    @property
    def bpp_wire(self) -> float:
        """Bits per pixel on the wire of the images whose deadline has passed; NaN before that."""
        return 8 * self._bytes_due / self.pixels if self.pixels else math.nan

    def _count_due(self, frame: int) -> None:
        """The images up to this one are due, and so are the bytes sent for them."""
        self._latest_due = frame
        for number in [number for number in self._bytes_ahead if number <= frame]:
            self._bytes_due += self._bytes_ahead.pop(number)

    @property
    def loss(self) -> float:
        """Packets erased per packet sent so far; NaN before the first."""
        return self.lost["erased"] / self.sent if self.sent else math.nan

    @property
    def burst(self) -> float:
        """Mean burst of erased packets so far; NaN before the first."""
        return self.lost["erased"] / self.bursts if self.bursts else math.nan

    @property
    def likely(self) -> tuple[float, float] | None:
        """Where the loss of so many packets lies 95% of the time, by theory; None where there is
        none, and before the first packet."""
        if self._chain is None or not self.sent:
            return None
        if self._chain.loss.size <= _FEW_STATES:
            return expected_range(self._chain, self.sent)
        low, high = loss_rate_interval(self._chain, self.sent, CONFIDENCE)
        return max(0.0, low), min(1.0, high)

    @property
    def kilobits_per_s(self) -> float:
        """What went on the wire in the last two seconds of media time."""
        if not self._recent:
            return 0.0
        span = max(1 / self.config.fps, self._recent[-1][0] - self._recent[0][0])
        return sum(size for _, size in self._recent) * 8 / 1000 / span

    def _frame(self, number: int) -> FrameFate:
        if number not in self.frames:
            self.frames[number] = FrameFate()
            while len(self.frames) > KEPT_FRAMES:
                del self.frames[next(iter(self.frames))]
        return self.frames[number]
