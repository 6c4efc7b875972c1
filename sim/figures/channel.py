"""The pictures of a channel: which packets it loses, its bursts, how long it remembers.

Colours are Okabe and Ito's; what a sample shows is drawn with areas or dots, what theory says with
lines, so that print in grey tells them apart. The same channel and seed give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from channels.describe import loss_raster, run_histogram, sample_autocorrelation
from channels.samplers import Mask
from channels.theory import LossChain, autocorrelation
from sim.figures.style import BLUE, DPI, PALE, SKY, VERMILLION, drawing

FORMATS = (".png", ".svg", ".pdf")

_RASTER = (100, 200)  # rows, packets in a row
_LONGEST, _LAGS = 50, 50
_LOST, _THEORY, _SAMPLE = VERMILLION, BLUE, SKY


def draw_channel(
    mask: Mask, chain: LossChain | None, path: Path, kind: str, title: str, small_print: str
) -> None:
    """Draw a sample beside theory.

    Args:
        mask: bool[n], n >= 1, True = lost.
        chain: theory; None where there is none.
        path: where to write.
        kind: the format, among `FORMATS`.
        title: one line above.
        small_print: one line below, saying where the figure comes from.

    Raises:
        OSError: it cannot be written.
    """
    with drawing({"axes.grid": False}):
        figure = Figure(figsize=(11, 3.6))  # placed by hand: an automatic layout varies in bits
        figure.subplots_adjust(left=0.055, right=0.985, bottom=0.17, top=0.83, wspace=0.27)
        raster, runs, memory = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
        _raster(raster, mask)
        _runs(runs, mask, chain)
        _memory(memory, mask, chain)
        figure.suptitle(title, size=10)
        figure.text(0.995, 0.006, small_print, ha="right", va="bottom", size=6, color=PALE)
        nothing = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
        metadata = nothing.get(kind, {"Software": None})
        figure.savefig(path, format=kind.removeprefix("."), dpi=DPI, metadata=metadata)


def _raster(axes: Axes, mask: Mask) -> None:
    rows, width = _RASTER
    shown = mask[: rows * width]
    image = loss_raster(shown, min(width, shown.size))
    colours = ListedColormap(["#F4F4F4", _LOST])
    axes.imshow(image, cmap=colours, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_title(f"the first {shown.size:,} packets, lost ones coloured", size=9)
    axes.set_xlabel("packet in its row")
    axes.set_ylabel(f"row of {image.shape[1]} packets")


def _runs(axes: Axes, mask: Mask, chain: LossChain | None) -> None:
    found = run_histogram(mask, chain, _LONGEST)
    axes.set_title("lengths of bursts", size=9)
    axes.set_xlabel(f"packets lost in a row ({_LONGEST} = that many or more)")
    axes.set_ylabel("bursts")
    axes.grid(True)
    if not found.counts.any():
        _nothing(axes, "nothing lost")
        return
    axes.bar(found.lengths, found.counts, width=0.9, color=_SAMPLE, label="sample")
    if found.expected is not None:
        theory, rest = found.expected[:-1], found.expected[-1:]  # rest: that long or longer
        axes.plot(found.lengths[:-1], theory, color=_THEORY, linewidth=1.4, label="theory")
        axes.plot(found.lengths[-1:], rest, "_", color=_THEORY, markersize=5)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(bottom=0.5)
    _legend(axes)


def _memory(axes: Axes, mask: Mask, chain: LossChain | None) -> None:
    axes.set_title("autocorrelation of losses", size=9)
    axes.set_xlabel("lag (packets)")
    axes.grid(True)
    lags = np.arange(1, _LAGS + 1)
    sample = sample_autocorrelation(mask, _LAGS)
    if np.isnan(sample).all():
        _nothing(axes, "all packets fare alike")
        return
    axes.plot(lags, sample, "o", color=_SAMPLE, markersize=3.5, label="sample")
    if chain is not None:
        theory: Sequence[float] = autocorrelation(chain, _LAGS).tolist()
        axes.plot(lags, theory, color=_THEORY, linewidth=1.4, label="theory")
    axes.axhline(0, color="black", linewidth=0.6)
    _legend(axes)


def _legend(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=labels.__getitem__)
    named = [handles[i] for i in order], [labels[i] for i in order]
    axes.legend(*named, edgecolor="none", framealpha=0.85)


def _nothing(axes: Axes, why: str) -> None:
    axes.grid(False)
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color=PALE)
