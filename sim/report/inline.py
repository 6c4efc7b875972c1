"""Pictures of a run inside an HTML page: its figures in the page's colours, its photographs as WebP
data, its packets as a raster of plain shapes. The same run gives the same bytes."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path

from PIL import Image

from sim.drivers.record import LOST
from sim.errors import UserError
from sim.figures.pictures import strip_repairs
from sim.figures.style import score
from sim.results.files import PANELS
from sim.results.run import ImageRow, PacketRow, Run
from sim.scenario.labels import plain_label
from sim.scenario.schema import CLEAN

MAX_IMAGES, MAX_FRAMES = 6, 48
"""A page should stay under a megabyte."""
_WIDTHS = {"strip": 1500, "invented": 960, "panel": 360}
_QUALITY = 72

_COLOURS = {
    "#000000": "currentColor",
    "#ffffff": "var(--card)",
    "#b0b0b0": "var(--rule)",
    "#555555": "var(--soft)",
    "#0072b2": "var(--blue)",
    "#d55e00": "var(--vermillion)",
    "#009e73": "var(--green)",
    "#cc79a7": "var(--purple)",
    "#e69f00": "var(--orange)",
    "#56b4e9": "var(--sky)",
    "#999999": "var(--grey)",
}
"""Colours of the figures, and the variables of the style sheet that replace them."""
_TAGS = frozenset({"g", "path", "defs", "use", "text", "tspan", "clipPath", "rect"})
_UNSAFE = r"""\son\w+\s*=|href=["'](?!#)|url\((?!#)"""
"""The elements of a run's figures, and attributes that could run or load something."""


def figure(run: Run, name: str, prefix: str, alt: str) -> str:
    """One of a run's figures as SVG for HTML.

    Args:
        run: whose.
        name: of the figure.
        prefix: makes its identifiers unique in the page.
        alt: what it shows, for those who do not see it.

    Raises:
        UserError: the run has no such figure.
    """
    path = run.figure(name)
    if path is None:
        raise UserError(f"{run.folder}: has no figures/{name}.svg; draw it: sim plot {run.folder}")
    svg = path.read_text(encoding="utf-8")
    box = re.search(r'viewBox="([^"]+)"', svg)
    if box is None:
        raise UserError(f"{path}: not a figure; draw it again: sim plot {run.folder}")
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    useless = r"<metadata>.*?</metadata>|<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>"
    body = re.sub(useless, "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*">', "<g>", body)
    body = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-{name}-", body)
    body = body.replace("xlink:href", "href")
    body = re.sub(r"#[0-9a-f]{6}\b", lambda found: _COLOURS.get(found[0], found[0]), body)
    body = re.sub(r" font-family: [^;\"]*;?", "", body)
    body = re.sub(r"\n\s*", "\n", body)
    if set(re.findall(r"<([^\s/>]+)", body)) - _TAGS or re.search(_UNSAFE, body):
        raise UserError(f"{path}: is changed; draw it again: sim plot {run.folder}")
    head = f'<svg viewBox="{box[1]}" style="--width: {float(box[1].split()[2]):g}" role="img"'
    return f'{head} aria-label="{escape(alt)}"><title>{escape(alt)}</title>{body}'


@dataclass(frozen=True, slots=True)
class Picture:
    """A photograph for HTML: WebP as a data URI, its size, and what it is."""

    uri: str
    width: int
    height: int
    alt: str
    title: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Strip:
    """One image through a stream: the run's own figures of it, pictures of the repairs that these
    leave out, and how good each of them is."""

    name: str
    caption: str
    figures: Sequence[Picture]
    others: Sequence[Picture]


def strips(run: Run) -> list[Strip]:
    """The pictured images of a run, `MAX_IMAGES` at most.

    Raises:
        UserError: it has no figures of them.
    """
    images = run.pictured_images().items()
    there = [(name, rows) for name, rows in images if (run.folder / PANELS / name).is_dir()]
    return [_strip(run, name, rows) for name, rows in there[:MAX_IMAGES]]


def _strip(run: Run, name: str, rows: Mapping[str, ImageRow]) -> Strip:
    scores = {repair: (plain_label(repair), score(row.quality)) for repair, row in rows.items()}
    lost = f"{rows[CLEAN].tokens_lost} of {rows[CLEAN].tokens} tokens"
    shown = " and ".join(plain_label(repair) for repair in dict.fromkeys(strip_repairs(rows)))
    alt = {
        "strip": f"{name}: the original, decoded without loss, in grey with {lost} marked as lost, "
        f"and repaired by {shown}",
        "invented": f"{name} as repaired, and in grey with the tokens filled in yellow where the "
        "guess is sure, violet where it is not",
    }
    figures = []
    for kind, text in alt.items():
        path = run.figure(f"{kind}-{name}", "png")
        if path is not None:
            figures.append(_picture(path, kind, text))
        elif kind == "strip":
            raise UserError(f"{run.folder}: has no {kind}-{name}; draw it: sim plot {run.folder}")
    others = [
        _picture(run.folder / PANELS / name / f"{repair}.png", "panel", " ".join(words), *words)
        for repair, words in scores.items()
        if repair not in (CLEAN, *strip_repairs(rows))
    ]
    caption = "; ".join([f"{lost} lost", *(": ".join(words) for words in scores.values())])
    return Strip(name, caption, figures, others)


def _picture(path: Path, kind: str, alt: str, title: str = "", note: str = "") -> Picture:
    width = _WIDTHS[kind]
    with Image.open(path) as source:
        image = source.convert("RGB")
    if image.width > width:
        height = max(1, round(image.height * width / image.width))
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    data = BytesIO()
    image.save(data, "webp", quality=_QUALITY, method=6)
    uri = "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode("ascii")
    return Picture(uri, image.width, image.height, alt, title, note)


@dataclass(frozen=True, slots=True)
class PacketRaster:
    """One image's packets in the order of sending: an SVG path for each look, and its summary."""

    name: str
    count: int
    paths: Mapping[str, str]
    alt: str


PACKET_LOOKS = {
    "delivered": ("delivered", 3),
    "parity": ("parity, delivered", 3),
    "resent": ("sent again, delivered", 3),
    "late": ("late", 6),
    "corrupted": ("corrupted", 7),
    "overflowed": ("overflowed", 8.5),
    "erased": ("erased", 10),
}
"""Classes of the raster's shapes: what they stand for, and their heights; taller is worse."""


def packet_rows(packets: Sequence[PacketRow]) -> list[PacketRaster]:
    """The packets of a stream, a row per image, `MAX_FRAMES` at most."""
    frames: dict[int, list[PacketRow]] = {}
    for packet in packets:
        frames.setdefault(packet.frame, []).append(packet)
    return [_packet_row(frames[frame]) for frame in sorted(frames)[:MAX_FRAMES]]


def packet_counts(packets: Sequence[PacketRow]) -> dict[str, int]:
    """How many packets have each look; only looks that occur."""
    looks = [_look(packet) for packet in packets]
    return {name: looks.count(name) for name in PACKET_LOOKS if name in looks}


def _look(packet: PacketRow) -> str:
    kinds = {"parity": "parity", "retransmission": "resent"}
    outcome = packet.outcome
    return kinds.get(packet.kind, outcome) if outcome == "delivered" else outcome


def _packet_row(packets: Sequence[PacketRow]) -> PacketRaster:
    looks = [_look(packet) for packet in packets]
    paths = {}
    for name, (_, height) in PACKET_LOOKS.items():
        top = (10 - height) / 2
        places = [place for place, look in enumerate(looks) if look == name]
        if places:
            paths[name] = "".join(f"M{x + 0.1:g} {top:g}h.8v{height}h-.8z" for x in places)
    lost = sum(packet.outcome in LOST for packet in packets)
    image = packets[0].image
    alt = f"{image}: {lost} of {len(packets)} packets lost"
    return PacketRaster(image, len(packets), paths, alt)
