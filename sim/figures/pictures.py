"""The figures of photographs: an image through a stream, and the tokens that the transformer filled
in, by how sure it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from codec.patches import patch_of, spread
from sim.figures.style import DPI, ERASED, score
from sim.results.files import INPAINT
from sim.results.rows import ImageRow
from sim.scenario.labels import plain_label, shown_repairs
from sim.scenario.schema import CLEAN

Pixels = NDArray[np.uint8]
Panel = tuple[str, Pixels]
"""A title, and uint8[H,W,3] below it."""

_SHADE = 0.62
_TICKS = (0, 0.02, 0.1, 0.25, 0.5, 1)


def strip_figure(name: str, rows: Mapping[str, ImageRow], pictures: Mapping[str, Pixels]) -> Figure:
    """One image: original | without loss | lost tokens | unrepaired | repaired.

    Args:
        name: of the image.
        rows: of the table, by repair.
        pictures: see `sim.results.run.Run.pictures`.
    """
    about = rows[CLEAN]
    lost = mark_lost(pictures[CLEAN], pictures["received"] > 0)
    packets = f"{about.packets_lost} of {about.packets_sent} packets lost"
    panels = [
        (f"{name}, original\n{about.width} x {about.height}", pictures["original"]),
        (f"decoded without loss\n{score(about.quality)}", pictures[CLEAN]),
        (f"{about.tokens_lost / about.tokens:.0%} of tokens lost\n{packets}", lost),
    ]
    for kind, repair in zip(("unrepaired", "repaired"), strip_repairs(rows), strict=True):
        title = kind if repair == "none" else f"{kind}: {plain_label(repair)}"
        panels.append((f"{title}\n{score(rows[repair].quality)}", pictures[repair]))
    return _row(panels, across=3.2, head=0.48, foot=0.2, gap=0.04)[0]


def strip_repairs(rows: Mapping[str, ImageRow]) -> tuple[str, str]:
    """Which of the repairs of an image its strip shows, first the one that does least."""
    return shown_repairs([repair for repair in rows if repair != CLEAN])


def invention_figure(
    name: str,
    pictures: Mapping[str, Pixels],
    probability: NDArray[np.float32],
    pixel_error: NDArray[np.float32],
) -> Figure:
    """The repair by the transformer, its filled tokens shaded by how sure it was, and by how far
    off it expects to be where it was calibrated.

    Args:
        name: of the image.
        pictures: see `sim.results.run.Run.pictures`.
        probability, pixel_error: float32[h,w]; see `codec.concealment.Concealed`.
    """
    repaired, lost = pictures[INPAINT], pictures["received"] == 0
    sure = PowerNorm(0.5, 0, 1)  # among many codewords even 10% is a good guess
    mean = float(probability[lost].mean())
    panels = [
        (f"{name}, repaired", repaired),
        (
            f"{lost.mean():.0%} of tokens made up, {mean:.0%} sure on average",
            shade(repaired, lost, sure(probability)),
        ),
    ]
    scales: list[tuple[Normalize, str, tuple[float, ...] | None]] = [
        (sure, "how sure: probability given to the filled token", _TICKS)
    ]
    if np.isfinite(pixel_error).all():
        far = Normalize(0, max(1.0, float(pixel_error.max())))
        panels.append(("how far it may be off", shade(repaired, lost, far(pixel_error))))
        scales.append((far, "expected error of the filled pixels (grey levels of 255)", None))
    across = 4.6
    figure, lefts = _row(panels, across=across, head=0.34, foot=0.72, gap=0.06)
    width, height = figure.get_size_inches()
    for left, (norm, label, ticks) in zip(lefts[1:], scales, strict=True):
        middle = (left + across / 2) / width
        below = (middle - 0.44 * across / width, 0.52 / height, 0.88 * across / width, 0.1 / height)
        bar: Axes = figure.add_axes(below)
        mappable = ScalarMappable(norm, "viridis")
        bars = figure.colorbar(mappable, cax=bar, orientation="horizontal", ticks=ticks)
        bars.set_label(label, size=8, labelpad=1)
        bar.tick_params(labelsize=7)
        bar.grid(False)
    return figure


def _row(
    panels: Sequence[Panel], *, across: float, head: float, foot: float, gap: float
) -> tuple[Figure, list[float]]:
    """Pictures of one size side by side, each so many inches across, below their titles; and where
    each begins, in inches. They are one image at the figure's own resolution."""
    height, width = panels[0][1].shape[:2]
    size = round(across * DPI), round(across * DPI * height / width)  # pixels
    down = size[1] / DPI
    total = (len(panels) * (across + gap), head + down + foot)
    figure = Figure(figsize=total, dpi=DPI)
    canvas = np.full((size[1], round(total[0] * DPI), 3), 255, np.uint8)
    lefts = [column * (across + gap) + gap / 2 for column in range(len(panels))]
    for left, (title, pixels) in zip(lefts, panels, strict=True):
        start = round(left * DPI)
        picture = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
        canvas[:, start : start + size[0]] = picture
        middle, above = (left + across / 2) / total[0], (foot + down + 0.08) / total[1]
        figure.text(middle, above, title, ha="center", va="bottom", size=10)
    figure.add_artist(_Pixels(canvas, round(foot * DPI)))
    return figure, lefts


class _Pixels(Artist):
    """Pixels that go into the figure as they are: matplotlib's own images are all resampled."""

    def __init__(self, pixels: Pixels, bottom: int) -> None:
        """``bottom``: pixels below them."""
        super().__init__()
        opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
        self._pixels = np.concatenate([pixels, opaque], 2)[::-1].copy()
        self._bottom = bottom

    def draw(self, renderer: RendererBase) -> None:
        """See `matplotlib.artist.Artist.draw`."""
        style = renderer.new_gc()
        renderer.draw_image(style, 0, self._bottom, self._pixels)
        style.restore()


def shade(
    image: NDArray[np.uint8], lost: NDArray[np.bool_], value: NDArray[np.floating]
) -> NDArray[np.uint8]:
    """The image in grey with every lost token tinted by its value, 0 dark to 1 light.

    Args:
        image: uint8[H,W,3].
        lost: bool[h,w].
        value: float[h,w], 0 to 1.
    """
    height, width = image.shape[:2]
    colours = 255 * colormaps["viridis"](np.ma.filled(value, 0).astype(np.float64))[..., :3]
    grey = image.mean(2, keepdims=True).repeat(3, 2)
    tinted = (1 - _SHADE) * grey + _SHADE * spread(colours, height, width)
    mixed = np.where(spread(lost, height, width)[..., None], tinted, 0.75 * grey + 50)
    painted: NDArray[np.uint8] = mixed.clip(0, 255).astype(np.uint8)
    return painted


def mark_lost(image: NDArray[np.uint8], received: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image in grey with every lost token painted, and thin lines between tokens."""
    height, width = image.shape[:2]
    grey = image.mean(2, keepdims=True).repeat(3, 2) * 0.8 + 40
    mask = spread(~received, height, width)
    colour = np.array([int(ERASED[i : i + 2], 16) for i in (1, 3, 5)], np.float64)
    grey[mask] = 0.2 * grey[mask] + 0.8 * colour
    patch = patch_of(received.shape, height, width)
    grey[patch - 1 :: patch] *= 0.85
    grey[:, patch - 1 :: patch] *= 0.85
    painted: NDArray[np.uint8] = grey.clip(0, 255).astype(np.uint8)
    return painted
