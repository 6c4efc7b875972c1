"""The rows of a run's tables, typed: what `finished` reads from images.csv and packets.csv."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from sim.metrics import METRICS


@dataclass(frozen=True)
class ImageRow:
    """A row of images.csv: one image, through one stream, by one repair; NaN where undefined.

    Attributes:
        cell, point, repeat, frame: where it belongs, from 0.
        image: its name.
        width, height: pixels.
        codebook: codewords.
        tokens, tokens_lost, packets_sent, packets_lost: counts.
        recovered, retransmitted: slices that parity restored, packets sent again.
        latency_s: from capture to the last of its packets; NaN if none arrived.
        bpp, bpp_wire: bits per pixel, payload and everything.
        concealer: the repair; "clean": decoded without loss.
        psnr_db to dists: see `sim.metrics.METRICS`; NaN also where it was not measured.
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
    psnr_db: float
    ssim: float
    ms_ssim: float
    ssimulacra2: float
    lpips: float
    lpips_vgg: float
    dists: float
    token_accuracy: float
    values: Mapping[str, str]


@dataclass(frozen=True)
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
    copies: int
    kind: str
    last_frame: int


def typed_row(kind: type[Any], row: Mapping[str, str]) -> Any:
    """A row of a table as a dataclass; columns that it does not know go to its `values`."""
    read: dict[str, Callable[[str], Any]] = {
        "int": int,
        "str": str,
        "bool": lambda text: text == "1",
        "float": _float,
    }
    kinds = {f.name: read[str(f.type)] for f in fields(kind) if str(f.type) in read}
    typed = {
        name: convert(row.get(name, "") if name in METRICS else row[name])
        for name, convert in kinds.items()
    }
    if kind is ImageRow:
        typed["values"] = {key: value for key, value in row.items() if key not in kinds}
    return kind(**typed)


def _float(text: str) -> float:
    return float(text) if text else math.nan


def column(texts: list[str]) -> Any:
    """A column as numbers where it has only such (NaN where it is empty), else text."""
    import numpy as np

    try:
        return np.array([int(text) for text in texts], np.int64)
    except ValueError:
        pass
    try:
        return np.array([_float(text) for text in texts], np.float64)
    except ValueError:
        return np.array(texts, np.str_)
