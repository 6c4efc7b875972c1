"""The figures of a run's tables: quality, losses, rate, packets."""

from __future__ import annotations

import itertools
import textwrap
from collections import Counter
from collections.abc import Sequence

from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sim.figures.panels import (
    axis_title,
    best_repair,
    curves,
    dot_panel,
    finding,
    line_panel,
    loss_panel,
    rate_panel,
)
from sim.figures.style import DELIVERED, LOSS_MARKS, key_label, legend_outside, new_figure
from sim.metrics import metric as metric_of
from sim.results.rows import PacketRow
from sim.results.run import PointSummary, losses_label
from sim.scenario.labels import with_label

_MAX_ROWS = 40


def losses_figure(points: Sequence[PointSummary]) -> Figure:
    """A study of the channel alone: a column per setting of all but one swept key."""
    found = curves(points) if len(points) > 1 else None
    groups = {"": points} if found is None else found.groups
    figure = new_figure(1.0 + 3.4 * len(groups), 3.4)
    all_axes = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, (title, members) in zip(all_axes, groups.items(), strict=True):
        loss_panel(axes, members, found)
        axes.set_title(title or " ", size=9)
        axes.set_xlabel("" if found is None else key_label(found.key))
    all_axes[0].set_ylabel("share lost, with 95% interval")
    title = f"{losses_label(points)} of the packets lost"
    legend_outside(figure, all_axes[0], ncols=3, title=title)
    return figure


def dots_figure(point: PointSummary, metrics: Sequence[str]) -> Figure:
    """One point: an axis per metric, a row per concealer."""
    figure = new_figure(2.5 * len(metrics), 0.92 + 0.38 * len(point.concealers))
    all_axes = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(all_axes, metrics, strict=True):
        dot_panel(axes, point, metric)
        axes.set_xlabel(metric_of(metric).axis)
    about = f"{point.loss.packets:.1%} of {point.loss.packets_sent} packets lost"
    if point.images > 1:
        about += f"; means of {point.images} images, bars: 95% intervals of what the loss took"
    width = max(85, 37 * len(metrics))
    lines = (textwrap.fill(line, width) for line in (finding([point], metrics[0]), about))
    figure.suptitle("\n".join(lines), size=9)
    return figure


def lines_figure(points: Sequence[PointSummary], metrics: Sequence[str]) -> Figure:
    """A sweep: a row of axes per metric, a column per setting of the other swept keys."""
    found = curves(points)
    figure = new_figure(1.0 + 3.4 * len(found.groups), 0.8 + 2.1 * len(metrics))
    shape = len(metrics), len(found.groups)
    grid = figure.subplots(*shape, sharex=True, sharey="row", squeeze=False)
    for column, (title, members) in enumerate(found.groups.items()):
        for axes, metric in zip(grid[:, column], metrics, strict=True):
            line_panel(axes, members, found, metric)
        grid[0, column].set_title(title, size=9)
        grid[-1, column].set_xlabel(axis_title(found))
    for axes, metric in zip(grid[:, 0], metrics, strict=True):
        axes.set_ylabel(metric_of(metric).axis)
    title = textwrap.fill(finding(points, metrics[0]), 62 * len(found.groups))
    legend_outside(figure, grid[0, 0], ncols=3 * len(found.groups), title=title)
    return figure


def rate_figure(points: Sequence[PointSummary], metrics: Sequence[str]) -> Figure:
    """Quality over bits on the wire."""
    figure = new_figure(3.3 * len(metrics), 3.6)
    all_axes = figure.subplots(1, len(metrics), squeeze=False)[0]
    repair = best_repair(points, metrics[0])
    for axes, metric in zip(all_axes, metrics, strict=True):
        rate_panel(axes, points, metric, repair)
        axes.set_title(metric_of(metric).axis, size=9)
    title = f"{with_label(repair)}; up and to the left is better"
    legend_outside(figure, all_axes[0], ncols=4, title=title)
    return figure


def packets_figure(rows: Sequence[PacketRow], interval: float) -> Figure:
    """A row per image, read like text: left to right and down is the order of sending.

    Args:
        rows: of packets.csv.
        interval: from image to image, in seconds.
    """
    frames = sorted({row.frame for row in rows})[:_MAX_ROWS]
    names = {row.frame: row.image for row in rows}
    counts = Counter(row.frame for row in rows)
    figure = new_figure(9, 1.3 + 0.32 * len(frames))
    axes = figure.subplots()
    heights = {"delivered": 0.3, "late": 0.55, "corrupted": 0.65, "overflowed": 0.72, "erased": 0.8}
    colour = {"delivered": DELIVERED} | {how: look[0] for how, look in LOSS_MARKS.items()}
    boxes, colours = [], []
    for outcome, height in heights.items():  # what was lost lies above
        for row in [row for row in rows if row.frame in frames and row.outcome == outcome]:
            left, top = row.sent_s - row.frame * interval, row.frame - height / 2
            right, bottom = left + 0.8 * interval / counts[row.frame], row.frame + height / 2
            boxes.append(((left, top), (right, top), (right, bottom), (left, bottom)))
            colours.append(colour[outcome])
    axes.add_collection(PolyCollection(boxes, facecolors=colours, linewidths=0))
    axes.set_yticks(frames, [names[frame] for frame in frames])
    axes.set_ylim(len(frames) - 0.4, -0.6)
    axes.set_xlim(0, interval)
    axes.set_xlabel("seconds since the image was captured (time of sending)")
    axes.grid(False)
    totals = Counter(row.outcome for row in rows)
    handles = [Patch(color=colour[o], label=f"{o}: {totals[o]}") for o in heights if totals[o]]
    gone = [row.outcome != "delivered" for row in rows]
    runs = [len(list(run)) for lost, run in itertools.groupby(gone) if lost]
    title = f"{sum(gone)} of {len(rows)} packets lost, at most {max(runs, default=0)} in a row"
    axes.set_title(title if runs else "No packet was lost", size=9, loc="left")
    figure.legend(handles=handles, loc="outside upper right", ncols=3, frameon=False)
    return figure
