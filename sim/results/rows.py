"""A run's tables by row, typed; whatever was not measured is NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from sim.drivers.record import outcome
from sim.metrics import METRICS
from sim.results.files import number


@dataclass(frozen=True, slots=True)
class ImageRow:
    """A row of images.csv: one image, through one stream, by one repair.

    Attributes:
        cell, point, repeat, frame: where it belongs, from 0.
        image: its name.
        width, height: pixels.
        codebook: codewords.
        tokens, tokens_lost, tokens_kept, packets_sent, packets_lost: counts.
        recovered, retransmitted: slices that parity restored, packets sent again.
        erased, overflowed, corrupted, late: the packets lost, by `sim.drivers.record.LOST`; None in
            runs of versions that did not tell them apart.
        latency_s: from capture to the last of its packets; NaN if none arrived.
        bpp, bpp_wire: bits per pixel, payload and everything.
        concealer: the repair; "clean": decoded without loss.
        psnr_db to recovery_s: see `sim.metrics.METRICS`.
        token_accuracy: share of lost tokens that were guessed exactly.
        values: every other column as text: what the sweep sets.
    """

    cell: int
    point: int
    repeat: int
    frame: int
    image: str
    width: int
    height: int
    codebook: int
    tokens: int
    tokens_lost: int
    packets_sent: int
    packets_lost: int
    recovered: int
    retransmitted: int
    latency_s: float
    bpp: float
    bpp_wire: float
    concealer: str
    tokens_kept: int = 0
    erased: int | None = None
    overflowed: int | None = None
    corrupted: int | None = None
    late: int | None = None
    psnr_db: float = math.nan
    ssim: float = math.nan
    ms_ssim: float = math.nan
    ssimulacra2: float = math.nan
    lpips: float = math.nan
    lpips_vgg: float = math.nan
    dists: float = math.nan
    flicker: float = math.nan
    frozen: float = math.nan
    recovery_s: float = math.nan
    token_accuracy: float = math.nan
    values: Mapping[str, str] = field(default_factory=dict)

    def metric(self, name: str) -> float:
        """One of its metrics, also one that only another version measured; NaN where none did."""
        if name in self.values:
            return number(self.values[name])
        return float(getattr(self, name, math.nan))

    @property
    def quality(self) -> dict[str, float]:
        """The metrics that are defined, by name."""
        found = {name: self.metric(name) for name in METRICS}
        return {name: value for name, value in found.items() if not math.isnan(value)}


@dataclass(frozen=True, slots=True)
class PacketRow:
    """A row of packets.csv; see `sim.drivers.record.PacketRecord`. ``arrival_s`` is NaN for a
    packet that never arrived."""

    cell: int
    repeat: int
    image: str
    sequence: int
    frame: int
    slice: int
    size_bytes: int
    sent_s: float
    fate: str
    arrival_s: float
    late: bool
    copies: int = 1
    kind: str = "media"
    last_frame: int = -1

    @property
    def outcome(self) -> str:
        """ "delivered" in time, or one of `sim.drivers.record.LOST`."""
        return outcome(self.fate, self.late)
