"""Pictures inside a page: photographs as small WebP data, packets as a raster of plain shapes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.colors import PowerNorm
from numpy.typing import NDArray
from PIL import Image

from sim.figures.invention import shade
from sim.figures.run import fate_of, mark_lost
from sim.figures.style import score
from sim.results.files import INPAINT, PANELS, PROBABILITY
from sim.results.run import RunTables
from sim.scenario.labels import plain_label
from sim.scenario.schema import CLEAN

WIDTH = 360
"""Pixels; a page holds about thirty pictures and should stay under a megabyte."""

MAX_IMAGES, MAX_FRAMES = 6, 48
_QUALITY = 72


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a strip: WebP as a data URI, its size, what it is, and how good."""

    uri: str
    width: int
    height: int
    title: str
    note: str
    alt: str


@dataclass(frozen=True, slots=True)
class Strip:
    """One image through a stream."""

    name: str
    pictures: Sequence[Picture]


@dataclass(frozen=True, slots=True)
class PacketRaster:
    """One image's packets in the order of sending: an SVG path for each look, and what is told."""

    name: str
    count: int
    paths: Mapping[str, str]
    told: str


def strips(run: RunTables) -> list[Strip]:
    """The pictured images of a run, `MAX_IMAGES` at most."""
    rows: dict[str, dict[str, Mapping[str, str]]] = {}
    for row in run.images:
        rows.setdefault(row["image"], {})[row["concealer"]] = row
    there = [name for name in rows if (run.folder / PANELS / name).is_dir()][:MAX_IMAGES]
    return [_strip(run.folder / PANELS / name, name, rows[name]) for name in there]


def _strip(folder: Path, name: str, rows: Mapping[str, Mapping[str, str]]) -> Strip:
    clean, received = _pixels(folder / f"{CLEAN}.png"), _pixels(folder / "received.png") > 0
    about = rows[CLEAN]
    lost, tokens = int(about["tokens_lost"]), int(about["tokens"])
    holes = mark_lost(clean, received)
    share = f"{lost} of {tokens} tokens"
    pictures = [
        _picture(_pixels(folder / "original.png"), "original", "", f"{name}, the original"),
        _picture(clean, "no loss", score(about), f"{name} decoded without loss"),
        _picture(holes, "lost tokens", share, f"{name} in grey with {share} marked as lost"),
    ]
    for repair in rows:
        if repair != CLEAN and (folder / f"{repair}.png").is_file():
            told = f"{name} repaired by {plain_label(repair)}"
            told = f"{name} with its holes left open" if repair == "none" else told
            shown = _pixels(folder / f"{repair}.png")
            pictures.append(_picture(shown, plain_label(repair), score(rows[repair]), told))
    if (folder / PROBABILITY).is_file() and lost:
        sure = PowerNorm(0.5, 0, 1)(np.load(folder / PROBABILITY, allow_pickle=False))
        doubt = shade(_pixels(folder / f"{INPAINT}.png"), ~received, sure)
        told = f"{name} in grey; tokens filled in are yellow where the guess is sure, violet if not"
        pictures.append(_picture(doubt, "how sure", "yellow: sure", told))
    return Strip(name, pictures)


def _pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image, np.uint8)


def _picture(pixels: NDArray[np.uint8], title: str, note: str, alt: str) -> Picture:
    image = Image.fromarray(pixels)
    if image.width > WIDTH:
        height = max(1, round(image.height * WIDTH / image.width))
        image = image.resize((WIDTH, height), Image.Resampling.LANCZOS)
    data = BytesIO()
    image.save(data, "webp", quality=_QUALITY, method=6)
    uri = "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode("ascii")
    return Picture(uri, image.width, image.height, title, note, alt)


PACKET_LOOKS = {
    "delivered": "delivered",
    "parity": "parity, delivered",
    "resent": "sent again, delivered",
    "late": "late",
    "erased": "lost",
}
"""Classes of the raster's shapes, and what they stand for; taller is worse."""

_HEIGHTS = {"delivered": 3, "parity": 3, "resent": 3, "late": 6, "erased": 10}


def packet_rows(run: RunTables) -> list[PacketRaster]:
    """The packets of the pictured stream, a row per image, `MAX_FRAMES` at most."""
    frames = sorted({int(row["frame"]) for row in run.packets})[:MAX_FRAMES]
    return [
        _packet_row([row for row in run.packets if int(row["frame"]) == frame]) for frame in frames
    ]


def packet_counts(run: RunTables) -> dict[str, int]:
    """How many packets of the pictured stream have each look; only looks that occur."""
    looks = [_look(row) for row in run.packets]
    return {name: looks.count(name) for name in PACKET_LOOKS if name in looks}


def _look(row: Mapping[str, str]) -> str:
    fate = fate_of(row)
    kinds = {"parity": "parity", "retransmission": "resent"}
    return kinds.get(row.get("kind", ""), fate) if fate == "delivered" else fate


def _packet_row(rows: Sequence[Mapping[str, str]]) -> PacketRaster:
    looks = [_look(row) for row in rows]
    paths = {}
    for name in PACKET_LOOKS:
        height = _HEIGHTS[name]
        top = (10 - height) / 2
        places = [place for place, look in enumerate(looks) if look == name]
        if places:
            paths[name] = "".join(f"M{x + 0.1:g} {top:g}h.8v{height}h-.8z" for x in places)
    lost = sum(look in ("late", "erased") for look in looks)
    image = rows[0]["image"]
    return PacketRaster(image, len(rows), paths, f"{image}: {lost} of {len(rows)} packets lost")
