"""The drawings of the lessons: `python -m docs.lessons.figures` writes them all anew.

All but the index map come from theory alone and are the same bytes on every machine with the
libraries of constraints.txt; the index map shows the weights that ship.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as MplPath
from PIL import Image

from channels import read_channel
from channels.theory import LossChain, block_failure, losses_in_block
from sim.figures.style import drawing
from sim.protocol.interleaver import slice_positions

FOLDER = Path(__file__).parent / "figures"
BLUE, RED, GREEN, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9"


def chain(**channel: Any) -> LossChain:
    """The theory of a channel section."""
    found = read_channel(channel)[0].chain()
    assert found is not None, "the lessons use channels that have a theory"
    return found


def bits(axes: Axes) -> None:
    """Lesson 2: bits per pixel over K, alone and with headers of 32 packets (600 x 400 pixels)."""
    sizes = 2 ** np.arange(3, 12)
    tokens = 38 * 25 * np.log2(sizes) / (600 * 400)
    headers = 32 * 12 * 8 / (600 * 400)
    axes.plot(sizes, tokens, "o-", color=BLUE, label="tokens: log2(K) bits each")
    axes.plot(sizes, tokens + headers, "s-", color=RED, label="and 32 headers of 12 bytes")
    axes.fill_between(sizes, tokens, tokens + headers, color=RED, alpha=0.12, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_ylim(0)
    axes.set_xlabel("codewords K")
    axes.set_ylabel("bits per pixel")
    axes.legend(frameon=False)


def slices(axes: Axes) -> None:
    """Lesson 3: P(at most so much of an image is lost), 20% independent loss."""
    alone = chain(type="uniform", loss=0.2)
    for count, colour in ((1, RED), (4, ORANGE), (16, SKY), (64, BLUE)):
        known = np.cumsum(losses_in_block(alone, count))
        share = np.arange(count + 1) / count
        axes.step(
            [0, *share, 1],
            [0, *known, 1],
            where="post",
            color=colour,
            label=f"{count} packet{'s' * (count > 1)}",
        )
    axes.set_xlabel("share of the image that is lost")
    axes.set_ylabel("images that lose no more than that")
    axes.legend(frameon=False, loc="lower right")


def bursts(axes: Axes) -> None:
    """Lesson 4: how many of 32 packets are lost."""
    lost = np.arange(33)
    alone = losses_in_block(chain(type="uniform", loss=0.2), 32)
    bursty = losses_in_block(chain(type="gilbert", loss=0.2, mean_burst=5), 32)
    axes.bar(lost, bursty, width=0.9, color=RED, alpha=0.75, label="bursts of 5 on average")
    axes.plot(lost, alone, "o-", color=BLUE, markersize=3.5, label="each alone")
    axes.axvline(6.4, color="black", linestyle="--", linewidth=1)
    axes.annotate("average of both", (6.8, 0.172), size=8)
    axes.set_xlabel("packets lost of 32")
    axes.set_ylabel("probability")
    axes.legend(frameon=False)


def interleaving(left: Axes, right: Axes) -> None:
    """Lesson 5: where the tokens of packets 12 to 19 of 32 lie."""
    for axes, name in ((left, "raster"), (right, "low_discrepancy")):
        lost = np.concatenate(
            [slice_positions((19, 29), 32, name)[number] for number in range(12, 20)]
        )
        squares = [_square(place % 29, place // 29, 0.92) for place in np.sort(lost).tolist()]
        axes.add_patch(Rectangle((0, 0), 29, 19, color="#DCE9F2", linewidth=0))
        axes.add_patch(PathPatch(MplPath.make_compound_path(*squares), facecolor=RED, linewidth=0))
        axes.set_xlim(0, 29)
        axes.set_ylim(0, 19)
        axes.invert_yaxis()
        axes.set_aspect("equal")
        axes.set_title(name.replace("_", " "), size=9)
        axes.grid(False)
        axes.set_axis_off()


def _square(x: float, y: float, side: float) -> MplPath:
    corners = [(x, y), (x + side, y), (x + side, y + side), (x, y + side), (x, y)]
    return MplPath(corners, closed=True)


def parity(axes: Axes) -> None:
    """Lesson 6: blocks of 16 + 4 that cannot be restored."""
    rates = np.linspace(0.005, 0.5, 60)
    looks = {
        "each alone": (BLUE, "-"),
        "bursts of 5": (RED, "--"),
        "bursts of 5, depth 10": (GREEN, "-."),
    }
    for name, (colour, line) in looks.items():
        failures = []
        for rate in rates:
            found = chain(type="uniform", loss=float(rate))
            if name != "each alone":
                found = chain(type="gilbert", loss=float(rate), mean_burst=5)
            failures.append(block_failure(found, 20, 4, 10 if "depth" in name else 1))
        axes.plot(rates, failures, color=colour, linestyle=line, label=name)
    axes.plot(
        rates,
        np.where(rates < 0.2, 0, 1),
        color="black",
        linewidth=0.8,
        linestyle=":",
        label="an endless block",
    )
    axes.set_xlabel("loss rate of packets")
    axes.set_ylabel("blocks not restored")
    axes.legend(frameon=False)


def deadlines(axes: Axes) -> None:
    """Lesson 7: loss left after all tries that fit, 20% independent loss, 10 ms of patience."""
    times = np.linspace(0, 1.2, 1201)
    looks = {
        "20 ms one way": (0.02, BLUE, "-"),
        "50 ms": (0.05, GREEN, "--"),
        "280 ms": (0.28, RED, "-."),
    }
    for name, (way, colour, line) in looks.items():
        tries = np.floor((times - way) / (0.01 + 2 * way) + 1e-9) + 1
        left = np.where(times < way, 1.0, 0.2 ** np.maximum(tries, 0))
        axes.plot(times, left, color=colour, linestyle=line, label=name)
    axes.set_yscale("log")
    axes.set_ylim(1e-4, 1.3)
    axes.set_xlabel("playout deadline (s after sending)")
    axes.set_ylabel("packets still missing")
    axes.legend(frameon=False)


def links(axes: Axes) -> None:
    """Lesson 10: airtime of one image of 451 x 300 pixels at 5,470 bit/s."""
    sizes = 2 ** np.arange(3, 12)
    for packets, colour, mark in ((4, BLUE, "o"), (12, GREEN, "D"), (32, RED, "s")):
        seconds = (551 * np.log2(sizes) + packets * 96) / 5470
        axes.plot(sizes, seconds, mark + "-", color=colour, label=f"{packets} packets")
    axes.axhline(1, color="black", linewidth=1, linestyle="--")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_ylim(0)
    axes.set_xlabel("codewords K")
    axes.set_ylabel("seconds on the air")
    axes.legend(frameon=False)


FINDINGS = {
    "bits": "Headers cost the same for every codebook: half of all bits for the smallest",
    "slices": "In one packet an image is whole or gone; in many, none is either",
    "bursts": "The same average: bursts take nothing, or far more",
    "parity": "Parity of 4 per 16 fails around one loss in five; bursts spread out this edge",
    "deadlines": "Each try that fits before the deadline leaves a fifth of what was missing",
    "links": "In one second of LoRa, fewer packets leave room for a larger codebook",
}
"""What each drawing shows; that of interleaving names its halves instead."""

THEORY: dict[str, Callable[..., None]] = {
    "bits": bits,
    "slices": slices,
    "bursts": bursts,
    "interleaving": interleaving,
    "parity": parity,
    "deadlines": deadlines,
    "links": links,
}


def draw(name: str, folder: Path = FOLDER) -> Path:
    """Draw one of `THEORY`; returns the file."""
    with drawing({"savefig.facecolor": "white", "text.parse_math": True}):
        wide = name == "interleaving"
        figure = Figure(figsize=(6.4, 2.6 if wide else 3.4))
        figure.subplots_adjust(left=0.11, right=0.98, bottom=0.15, top=0.92)
        if wide:
            figure.subplots_adjust(left=0.02, bottom=0.02, top=0.9, wspace=0.05)
        all_axes = figure.subplots(1, 2 if wide else 1, squeeze=False)[0]
        THEORY[name](*all_axes)
        if not wide:
            all_axes[0].set_title(FINDINGS[name], size=9, loc="left")
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None})
    return path


def index_map(folder: Path = FOLDER) -> Path:
    """Lesson 1: a photograph, its index map in false colours, and its decode."""
    from sim.media.frames import load_model
    from sim.media.images import load_images

    (image,) = load_images(["samples/chelsea"], Path())
    model = load_model(None)
    tokens = model.encode(image.pixels, 1024)
    colours = np.random.default_rng(1).integers(40, 230, (1024, 3)).astype(np.uint8)
    false = colours[tokens].repeat(16, 0).repeat(16, 1)[: image.height, : image.width]
    decoded = model.decode(tokens, 1024, image.height, image.width)
    gap = np.full((image.height, 12, 3), 255, np.uint8)
    joined = np.concatenate([image.pixels, gap, false, gap, decoded], axis=1)
    path = folder / "index-map.webp"
    Image.fromarray(joined).resize((1100, 240)).save(path, quality=80, method=6)
    return path


if __name__ == "__main__":
    for each in THEORY:
        print(draw(each))
    print(index_map())
