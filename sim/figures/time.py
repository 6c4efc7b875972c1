"""The figure of a video: every frame's quality in time, and what it lost below."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from sim.figures.style import GREY, LOSS_MARKS, legend_outside, look, new_figure
from sim.metrics import metric as metric_of
from sim.metrics.temporal import OUTAGE
from sim.results.rows import ImageRow
from sim.results.run import Run
from sim.scenario.labels import count_label, plain_label
from sim.scenario.schema import CLEAN

_ONE_VALUE = ("frozen", "recovery_s")  # no curves, unless there is nothing else


def time_figure(run: Run) -> Figure:
    """A row of axes per metric, a line per repair, frozen frames as dots on the first; outages are
    shaded; below, the share of each frame's packets that was lost, and how."""
    frames = list(run.pictured_images().values())
    fps = float(run.manifest["scenario"]["stream"]["fps"])
    at = np.arange(len(frames)) / fps
    metrics = [name for name in run.metrics if name not in _ONE_VALUE] or run.metrics
    figure = new_figure(9, 1.9 + 1.7 * len(metrics))
    *curves, below = figure.subplots(
        len(metrics) + 1, 1, sharex=True, height_ratios=[*[1.0] * len(metrics), 0.6]
    )
    for axes, metric in zip(curves, metrics, strict=True):
        for name in frames[0]:
            values = np.array([frame[name].metric(metric) for frame in frames])
            colour, style = ("black", "--") if name == CLEAN else (look(name)[0], "-")
            label, width = plain_label(name), 1.0 if name == CLEAN else 1.4
            axes.plot(at, values, style, color=colour, linewidth=width, label=label)
            frozen = np.array([frame[name].frozen for frame in frames]) > 0
            if metric == metrics[0] and frozen.any():
                axes.plot(at[frozen], values[frozen], "o", color=colour, markersize=4)
        axes.set_ylabel(metric_of(metric).axis, size=8)
    clean = [frame[CLEAN] for frame in frames]
    lost = np.zeros(len(frames))
    for way, (colour, _) in LOSS_MARKS.items():
        share = np.array([(getattr(row, way) or 0) / max(1, row.packets_sent) for row in clean])
        if share.any():
            below.bar(at, share, 0.9 / fps, bottom=lost, color=colour, label=way)
        lost += share
    for frame, row in enumerate(clean):
        if row.tokens_lost >= OUTAGE * row.tokens:
            for axes in (*curves, below):
                edges = at[frame] - 0.5 / fps, at[frame] + 0.5 / fps
                axes.axvspan(*edges, color=GREY, alpha=0.2, linewidth=0, zorder=0)
    below.set_ylim(0, 1)
    below.set_xlim(-1 / fps, len(frames) / fps)
    below.yaxis.set_major_formatter(PercentFormatter(1.0))
    below.set_ylabel("packets lost", size=8)
    below.set_xlabel("seconds")
    if lost.any():
        above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0}
        below.legend(ncols=len(LOSS_MARKS), frameon=False, fontsize=7, **above)
    legend_outside(figure, curves[0], ncols=len(frames[0]), title=_title(clean), fontsize=8)
    return figure


def _title(clean: Sequence[ImageRow]) -> str:
    sent = sum(row.packets_sent for row in clean)
    lost = sum(row.packets_lost for row in clean)
    return (
        f"{count_label(len(clean), 'frame')}, {lost} of {count_label(sent, 'packet')} lost; "
        f"shaded: {OUTAGE:.0%} of a frame's tokens or more; dots: frozen"
    )
