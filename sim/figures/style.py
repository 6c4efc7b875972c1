"""How every figure looks: one colour, marker and name for each repair and metric.

Colours are Okabe and Ito's, told apart by colour-blind readers; markers and heights repeat what
they say, for print in grey.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from codec.files import replacing
from sim.metrics import METRICS
from sim.results.files import FIGURES, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERASED, LATE, DELIVERED = "#D55E00", "#CC79A7", "#56B4E9"

_STYLES = {
    "none": ("#999999", "s"),
    "most_frequent": ("#E69F00", "v"),
    "nearest": ("#56B4E9", "^"),
    "neighbour_average": ("#009E73", "D"),
    "median": ("#CC79A7", "P"),
    "telea": ("#D55E00", "X"),
    "biharmonic": ("#8C510A", "*"),
    "inpaint": ("#0072B2", "o"),
}
_MORE = (("#CC79A7", "P"), ("#D55E00", "X"), ("#E69F00", "<"), ("#999999", ">"))
"""For repairs that have no look of their own, in the order of their names."""

_SCORES = ("psnr_db", "lpips", "ssimulacra2", *METRICS)
"""The first two that there are say how good a picture is."""

KEY_LABELS = {
    "channel.loss": "loss rate of packets",
    "channel.mean_burst": "mean burst (packets)",
    "codec.codebook": "codewords in the codebook",
    "codec.patch": "pixels a token stands for, each way",
    "channel": "channel",
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


def look(repair: str) -> tuple[str, str]:
    """The colour and marker of a repair."""
    return _STYLES.get(repair) or _MORE[sum(repair.encode()) % len(_MORE)]


def score(row: Mapping[str, str]) -> str:
    """The quality that a row of a table tells, in few words: "23.45 dB, LPIPS 0.123"."""
    there = [METRICS[name] for name in dict.fromkeys(_SCORES) if row.get(name)]
    told = [(m.label, m.text(number(row[m.name]))) for m in there[:2]]
    return ", ".join(text if text.endswith("dB") else f"{label} {text}" for label, text in told)


def key_label(key: str) -> str:
    """A swept key in words; the key itself where there are none."""
    return KEY_LABELS.get(key, key)


def new_figure(width: float, height: float) -> Figure:
    """A figure, in inches, with room for the small print at its foot."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    foot = 0.16 / height
    return Figure((width, height), layout=ConstrainedLayoutEngine(rect=(0, foot, 1, 1 - foot)))


def save_figure(
    figure: Figure,
    folder: Path,
    name: str,
    small_print: str = "",
    formats: Sequence[str] = ("png", "svg"),
) -> Path:
    """Write a figure into a run folder's figures, its origin in small print at the foot.

    The same tables give the same bytes: the layout is settled once for all formats, and its last
    bits, which depend on addresses in memory, are rounded away.

    Returns:
        The first format's file.
    """
    figure.text(0.995, 0.004, small_print, ha="right", va="bottom", size=6, color="#555555")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position(original=True).bounds, 6).tolist())
    paths = [folder / FIGURES / f"{name}.{kind}" for kind in formats]
    for path in paths:
        nothing = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        with replacing(path) as partial:
            figure.savefig(partial, dpi=160, metadata=nothing)
    return paths[0]
