"""Pictures of the stages of a frame, from photograph to repaired image.

Pictures of the grid have transparent gaps between their cells, so they suit light and dark pages.
What matters is told by shape or lightness as well as by colour; the colours are those of Okabe and
Ito (2008), which people with any colour vision tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from codec.patches import patch_of
from sim.drivers.record import LOST
from sim.figures.style import BLUE, LOSS_MARKS, VERMILLION
from sim.page.engine import Snapshot
from sim.page.history import RESTORED, fates_of_slices

Pixels = NDArray[np.uint8]

STAGES = ("photograph", "index map", "packets", "lost", "unrepaired", "filled", "repaired")
"""In the order in which they are stepped through."""

FATE_MARKS = {**LOSS_MARKS, RESTORED: (BLUE, "P")}
"""Colour and marker of what may become of a packet, other than to be delivered in time."""
_DARK, _LIGHT = (24, 32, 44), (244, 246, 248)
_WIDTH = 960  # pixels, about, of a grid's picture
_GAP = 2  # pixels between cells, where cells are large enough
_READABLE_CELL = 26  # pixels; smaller cells hold no number


def picture(snapshot: Snapshot, stage: str) -> tuple[bytes, str]:
    """One stage of a frame.

    Returns:
        An image file, and its media type: photographs as lossless WebP, grids as PNG.
    """
    match stage:
        case "photograph":
            return _webp(snapshot.photo.pixels)
        case "index map":
            return _png(_index_map(snapshot))
        case "packets":
            return _png(_packets(snapshot))
        case "lost":
            return _png(_lost(snapshot))
        case "unrepaired":
            return _webp(snapshot.unrepaired)
        case "filled":
            return _png(_filled(snapshot))
        case "repaired":
            return _webp(snapshot.repaired)
    raise ValueError(f"no stage {stage!r}")


def cell_side(grid: tuple[int, int]) -> int:
    """Pixels of a cell in the picture of a grid (h, w)."""
    return int(np.clip(_WIDTH // max(grid[1], 1), 6, 60))


def _index_map(snapshot: Snapshot) -> Image.Image:
    """Each token's cell in the colour of what it decodes to, with its number where it fits."""
    indices = snapshot.coded.frame.index_map
    shades = _shades(snapshot.coded.decoded, indices.shape)
    image = _cells(shades)
    side = cell_side(indices.shape)
    if side < _READABLE_CELL:
        return image
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(side * 0.36)
    for (row, column), index in np.ndenumerate(indices):
        centre = (column * side + (side - _GAP) / 2, row * side + (side - _GAP) / 2)
        draw.text(centre, str(index), _ink(shades[row, column]), font, anchor="mm")
    return image


def _packets(snapshot: Snapshot) -> Image.Image:
    """Cells by packet, from dark (sent first) to light; those of the first stand out."""
    slice_of = snapshot.slice_of
    last = max(int(slice_of.max()), 1)
    colours = _viridis()[(slice_of * 255 // last)].astype(np.float64)
    muted = (0.55 * colours + 0.45 * 128).astype(np.uint8)
    return _marked(muted, [(slice_of == 0, VERMILLION, "*")])


def _lost(snapshot: Snapshot) -> Image.Image:
    """Received cells in their grey; the others marked by what became of their packets."""
    found = fates_of_slices(snapshot)
    names = np.array([found.get(n, LOST[0]) for n in range(int(snapshot.slice_of.max()) + 1)])
    kinds = names[snapshot.slice_of]
    grey = np.repeat(snapshot.coded.decoded.mean(2, keepdims=True).astype(np.uint8), 3, 2)
    colours = (0.45 * _shades(grey, kinds.shape) + 0.55 * 150).astype(np.uint8)
    return _marked(colours, [(kinds == fate, *look) for fate, look in FATE_MARKS.items()])


def _filled(snapshot: Snapshot) -> Image.Image:
    """The repaired image in pale grey; over it the filled cells, the lighter the surer: by the
    square root of the probability, because among many codewords even 10% is a good guess."""
    received, probability = snapshot.received, snapshot.probability
    side = cell_side(received.shape)
    height, width = snapshot.repaired.shape[:2]
    patch = patch_of(received.shape, height, width)
    grey = snapshot.repaired.astype(np.float64).mean(2)
    pale = np.repeat((0.5 * grey + 0.5 * 140)[..., None], 3, 2).astype(np.uint8)
    scaled = Image.fromarray(pale).resize(
        (round(width * side / patch), round(height * side / patch)), Image.Resampling.BILINEAR
    )
    base = Image.new("RGBA", (received.shape[1] * side, received.shape[0] * side))
    base.paste(scaled)
    colours = _viridis()[(np.sqrt(np.nan_to_num(probability)) * 255).astype(np.int64)]
    if np.isnan(probability[~received]).any():  # a repair that gives no probability
        colours = np.broadcast_to(_rgb(BLUE), colours.shape)
    cells = _cells(colours)
    hidden = np.repeat(np.repeat(received, side, 0), side, 1)
    alpha = np.array(cells.getchannel("A"))
    alpha[hidden] = 0
    cells.putalpha(Image.fromarray(alpha))
    base.alpha_composite(cells)
    return base


def _shades(image: Pixels, grid: tuple[int, ...]) -> Pixels:
    """The mean colour of each cell of a grid (h, w): uint8[H,W,3] -> uint8[h,w,3]."""
    height, width = image.shape[:2]
    (rows, columns), patch = grid, patch_of(grid, height, width)
    margins = ((0, rows * patch - height), (0, columns * patch - width), (0, 0))
    padded = np.pad(image.astype(np.float64), margins, mode="edge")
    means: Pixels = padded.reshape(rows, patch, columns, patch, 3).mean((1, 3)).astype(np.uint8)
    return means


def _cells(colours: Pixels) -> Image.Image:
    """uint8[h,w,3] as squares with transparent gaps."""
    side = cell_side((colours.shape[0], colours.shape[1]))
    gap = _GAP if side >= 12 else 1
    big = np.repeat(np.repeat(colours, side, 0), side, 1)
    inside = np.arange(side) < side - gap
    rows, columns = np.tile(inside, colours.shape[0]), np.tile(inside, colours.shape[1])
    alpha = (rows[:, None] & columns[None]).astype(np.uint8) * 255
    return Image.fromarray(np.dstack([big, alpha]), "RGBA")


def _marked(colours: Pixels, marks: Sequence[tuple[NDArray[np.bool_], str, str]]) -> Image.Image:
    """The cells; those of each mask bool[h,w] in its colour and with its marker."""
    for where, colour, _ in marks:
        colours[where] = _rgb(colour)
    image = _cells(colours)
    side = cell_side((colours.shape[0], colours.shape[1]))
    for where, colour, marker in marks:
        for row, column in np.argwhere(where):
            corner = (int(column) * side, int(row) * side)
            image.paste(_ink(_rgb(colour)), corner, _stencil(marker, side - _GAP))
    return image


def _rgb(colour: str) -> Pixels:
    return np.array(ImageColor.getrgb(colour), np.uint8)


def _ink(colour: Pixels) -> tuple[int, int, int]:
    """What can be read on a colour."""
    return _DARK if colour @ (0.299, 0.587, 0.114) > 120 else _LIGHT


@lru_cache
def _stencil(marker: str, side: int) -> Image.Image:
    """A marker of matplotlib's in the middle of a cell, as a mask with smooth edges."""
    from matplotlib.markers import MarkerStyle
    from matplotlib.transforms import Affine2D

    style, fine = MarkerStyle(marker), 4 * side
    place = style.get_transform() + Affine2D().scale(0.45 * fine, -0.45 * fine)
    (outline,) = style.get_path().to_polygons(place)
    mask = Image.new("L", (fine, fine))
    ImageDraw.Draw(mask).polygon((np.asarray(outline) + fine / 2).ravel().tolist(), 255)
    return mask.resize((side, side), Image.Resampling.BOX)


@lru_cache(maxsize=1)
def _viridis() -> Pixels:
    """uint8[256,3]: viridis, even in lightness from dark to light."""
    from matplotlib import colormaps

    table: Pixels = (colormaps["viridis"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    return table


def viridis_stops(count: int) -> list[str]:
    """Hexadecimal colours from the dark end of the scale to the light one, for a legend."""
    table = _viridis()[np.linspace(0, 255, count).astype(int)]
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in table]


def _png(image: Image.Image) -> tuple[bytes, str]:
    buffer = BytesIO()
    image.save(buffer, "png", compress_level=1)
    return buffer.getvalue(), "image/png"


def _webp(pixels: Pixels) -> tuple[bytes, str]:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "webp", lossless=True, method=0)
    return buffer.getvalue(), "image/webp"
