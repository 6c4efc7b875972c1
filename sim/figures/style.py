"""The style of every figure: colours, markers, labels, small print, and elements they share.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; markers and heights repeat
what they say, for print in grey.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from codec.files import replacing
from sim.errors import UserError
from sim.metrics import METRICS
from sim.results.files import FAST_PNG, FIGURES, check_kind
from sim.results.run import reading
from sim.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, YELLOW, GREY, BROWN = "#E69F00", "#56B4E9", "#F0E442", "#999999", "#8C510A"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY)
DPI = 160
"""Of figures as PNG files."""
MADE_OF = "Comment"
"""Where a PNG file holds the hash of what it is drawn from."""
SLIDES = "slides"
"""The folder in that of the figures for those of one metric each."""
_SLIDE_INCHES = 6.4
PALE = "#555555"
"""Small print, and what explains a figure rather than belonging to it."""
ERASED, LATE, DELIVERED = VERMILLION, PURPLE, SKY
OVERFLOWED, CORRUPTED = GREEN, ORANGE
LOSS_MARKS = {
    "erased": (ERASED, "o"),
    "overflowed": (OVERFLOWED, "v"),
    "corrupted": (CORRUPTED, "X"),
    "late": (LATE, "D"),
}
"""Colour and marker of each way in which a packet is lost."""

_LOOKS = {
    # repairs
    "none": (GREY, "s"),
    "most_frequent": (ORANGE, "v"),
    "nearest": (SKY, "^"),
    "neighbour_average": (GREEN, "D"),
    "median": (PURPLE, "P"),
    "telea": (VERMILLION, "X"),
    "biharmonic": (BROWN, "*"),
    "inpaint": (BLUE, "o"),
    "previous": (VERMILLION, "<"),
    "previous_or_average": (PURPLE, ">"),
    "inpaint_memory": (ORANGE, "h"),
    # orders in which tokens are sent, and in which they are filled in
    "any": (BLUE, "o"),
    "confidence": (BLUE, "o"),
    "halton": (VERMILLION, "s"),
    "raster": (GREY, "s"),
    "checkerboard": (ORANGE, "D"),
    "low_discrepancy": (BLUE, "o"),
    "random": (GREEN, "^"),
    # kinds of protection
    "unprotected": (GREY, "s"),
    "parity": (BLUE, "o"),
    "ARQ": (VERMILLION, "^"),
    "parity + ARQ": (GREEN, "D"),
    # image formats
    "jpeg": (GREY, "v"),
    "webp": (SKY, "^"),
    "jpeg2000": (YELLOW, "<"),
    "avif": (GREEN, "D"),
    "heic": (PURPLE, "s"),
    "vvc": (VERMILLION, "P"),
    "av1": ("#004D40", "X"),
    "x265": ("#882255", ">"),
}
"""Colour and marker by name."""
_MORE = ((PURPLE, "P"), (VERMILLION, "X"), (ORANGE, "<"), (GREY, ">"))
"""For repairs that have no look of their own, chosen by their names."""

_SCORES = ("psnr_db", "lpips", "ssimulacra2", *METRICS)
"""The first two that were measured are shown beside a picture."""

KEY_LABELS = {
    "channel.loss": "loss rate of packets",
    "channel.mean_burst": "mean burst (packets)",
    "codec.codebook": "codewords in the codebook",
    "codec.patch": "pixels a token stands for, each way",
    "codec.entropy": "entropy coder",
    "stream.interleaver": "interleaver",
    "stream.receivers": "receivers",
    "stream.slices": "packets per image",
    "stream.fps": "images per second",
    "stream.playout_delay_s": "playout delay (s)",
    "stream.packing": "images that share a packet",
    "stream.fec.parity": "parity packets per block",
    "stream.fec.depth": "interleaving depth",
    "stream.arq.retries": "retransmissions of a packet at most",
}
"""Keys of scenarios, for people."""

SETTINGS: dict[Any, object] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.fonttype": "none",
    "svg.hashsalt": "lossy-stream-sim",
    "text.parse_math": False,  # names and titles are text, dollar signs too
}


@contextlib.contextmanager
def drawing(more: Mapping[Any, object] | None = None) -> Iterator[None]:
    """What is drawn in this block looks the same everywhere: in our settings, whatever the user's
    own are. Letters that the font lacks, which ships with matplotlib, are boxes.

    Args:
        more: settings besides.
    """
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**SETTINGS, **(more or {})})
        yield


@contextlib.contextmanager
def drawing_from(folder: Path, kind: str) -> Iterator[None]:
    """Read a folder of finished results in this block, and write its figures.

    Raises:
        UserError: it holds no results of this kind, a table in it is not as it should be, or the
            figures cannot be written.
    """
    check_kind(folder, kind)
    try:
        with reading(folder, kind):
            yield
    except OSError as error:
        raise UserError(f"{folder}: cannot draw ({error})") from None


@contextlib.contextmanager
def drawing_figures(folder: Path, kind: str) -> Iterator[None]:
    """`drawing_from` and `drawing`."""
    with drawing_from(folder, kind), drawing():
        yield


def look(name: str) -> tuple[str, str]:
    """The colour and marker of a repair, an order, a kind of protection or an image format."""
    return _LOOKS.get(name) or _MORE[sum(name.encode()) % len(_MORE)]


def styled(name: str) -> dict[str, Any]:
    """The same as arguments of matplotlib."""
    colour, marker = look(name)
    return {"color": colour, "marker": marker}


def score(quality: Mapping[str, float]) -> str:
    """Some metrics, NaN where one is not defined, in few words: "23.45 dB, LPIPS 0.123"."""
    known = [name for name in dict.fromkeys(_SCORES) if np.isfinite(quality.get(name, np.nan))]
    texts = [(METRICS[name].label, METRICS[name].text(quality[name])) for name in known[:2]]
    return ", ".join(text if text.endswith("dB") else f"{label} {text}" for label, text in texts)


def key_label(key: str) -> str:
    """A swept key in words; the key itself where there are none."""
    return KEY_LABELS.get(key, key)


def origin(what: str, seed: object, manifest: Mapping[str, Any]) -> str:
    """The small print of a figure: where it comes from."""
    revision, weights = manifest.get("revision"), manifest["weights_fingerprint"]
    parts = [what, f"seed {seed}", f"lossy-stream-sim {manifest['version']}"]
    parts += [f"revision {revision[:10]}"] if revision else []
    parts += [f"weights {weights}"] if weights else []
    enhanced = manifest.get("scenario", {}).get("codec", {}).get("enhance")
    parts += ["enlarged by Real-ESRGAN"] if enhanced else []
    return " · ".join(parts)


def line_with_band(
    axes: Axes,
    x: ArrayLike,
    found: Sequence[Estimate],
    *,
    alpha: float = 0.15,
    **style: Any,
) -> None:
    """Means as a line, their intervals as a band of the same colour."""
    mean, low, high = np.array([(e.mean, e.low, e.high) for e in found], np.float64).T
    axes.plot(x, mean, markersize=4, **style)
    axes.fill_between(x, low, high, color=style["color"], alpha=alpha, linewidth=0)


def dot_with_bar(
    axes: Axes,
    found: Estimate,
    row: int,
    color: str,
    marker: str,
    width: float = 2,
    size: float = 7,
) -> None:
    """A mean as a dot and its interval as a bar, in a row of its own; nothing where undefined."""
    if np.isfinite(found.low):
        axes.plot([found.low, found.high], [row, row], color=color, linewidth=width)
    if np.isfinite(found.mean):
        axes.plot(found.mean, row, marker, color=color, markersize=size)


def name_rows(axes: Axes, names: Sequence[str], **style: Any) -> None:
    """Names for rows 0, 1, ..., the first at the top."""
    axes.set_yticks(range(len(names)), names, **style)
    axes.set_ylim(len(names) - 0.5, -0.5)


def legend_outside(figure: Figure, axes: Axes, **style: Any) -> None:
    """One legend for all axes, which show the same as these."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, **{"loc": "outside upper center", "frameon": False, **style})


def picture_panels(
    all_axes: Iterable[Axes], pictures: Iterable[tuple[str, NDArray[np.uint8]]]
) -> None:
    """Pictures below their titles; axes that are left over stay empty."""
    shown = iter(pictures)
    for axes in all_axes:
        axes.axis("off")
        title, pixels = next(shown, (None, None))
        if title is not None and pixels is not None:
            axes.imshow(pixels)
            axes.set_title(title, fontsize=8)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """An image file, uint8[H,W,3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.uint8)


def new_figure(width: float, height: float) -> Figure:
    """A figure, in inches, with room for the small print at its foot."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    foot = 0.16 / height
    return Figure((width, height), layout=ConstrainedLayoutEngine(rect=(0, foot, 1, 1 - foot)))


def save_slide(
    figure: Figure, folder: Path, name: str, small_print: str = "", made_of: str | None = None
) -> Path:
    """Write a figure of one metric into `figures/slides`: 16:9, 1600 pixels across, small in inches
    so that its letters are large."""
    across = max(_SLIDE_INCHES, figure.get_figwidth())
    figure.set_size_inches(across, across * 9 / 16)
    how = ("png",), made_of, 1600 / across
    return save_figure(figure, folder, f"{SLIDES}/{name}", small_print, *how)


def save_figure(
    figure: Figure,
    folder: Path,
    name: str,
    small_print: str = "",
    formats: Sequence[str] = ("png", "svg"),
    made_of: str | None = None,
    dpi: float = DPI,
) -> Path:
    """Write a figure into a run folder's figures, its origin in small print at the foot.

    The same tables give the same bytes: the layout is settled once for all formats, and its last
    bits, which depend on addresses in memory, are rounded away.

    Args:
        figure, folder, name, small_print, formats: what, where, and as what.
        made_of: a hash of what it is drawn from, to be kept in the first format's file, which is
            written last.
        dpi: of PNG files.

    Returns:
        The first format's file.
    """
    figure.text(0.995, 0.004, small_print, ha="right", va="bottom", size=6, color=PALE)
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)
        figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position(original=True).bounds, 6).tolist())
    paths = [folder / FIGURES / f"{name}.{kind}" for kind in formats]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for path in reversed(paths):
        how: dict[str, Any] = {"metadata": {"Date": None}}
        if path.suffix == ".png":
            how["metadata"] = {"Software": None} | ({MADE_OF: made_of} if made_of else {})
            how["pil_kwargs"] = FAST_PNG
        with replacing(path) as partial:
            figure.savefig(partial, dpi=dpi, **how)
    return paths[0]
