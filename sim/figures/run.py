"""The figures of a run, drawn from its saved tables and pictures alone.

    losses     instead of quality, where nothing is repaired: packets and tokens lost
    quality    each metric: by concealer for one point, or against the swept value
    rate       each metric against bits on the wire, where a sweep changes them
    invented-* one image as repaired | how sure the transformer was | how far it may be off
    strip-*    one image: original | without loss | lost tokens | unrepaired | repaired
    time       of a video: each frame's quality in time, and the packets that it lost
    packets    every packet of the pictured stream in time: delivered, or lost in which way
    slides/*   quality and rate again, a figure a metric, 16:9 and in large letters

The same tables give the same bytes.
"""

from __future__ import annotations

import itertools
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

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
    rates_vary,
)
from sim.figures.pictures import invention_figure, strip_figure
from sim.figures.style import (
    CORRUPTED,
    DELIVERED,
    ERASED,
    LATE,
    OVERFLOWED,
    drawing_figures,
    key_label,
    legend_outside,
    new_figure,
    origin,
    save_figure,
    save_slide,
)
from sim.figures.time import time_figure
from sim.metrics import metric as metric_of
from sim.results.files import PANELS, RUN
from sim.results.run import PointSummary, Run
from sim.scenario.labels import with_label
from sim.scenario.schema import CLEAN

_MAX_ROWS = 40


def draw_figures(folder: Path) -> list[Path]:
    """Draw every figure of a run folder into its `figures/`; returns the PNG files.

    Raises:
        UserError: not a run folder, or a table in it is missing or unreadable.
    """
    with drawing_figures(folder, RUN):
        run = Run.load(folder)
        metrics = [*run.metrics, "token_accuracy"]
        small_print = origin(f"scenario {run.name}", run.seed, run.manifest)
        drawn = [
            save_figure(figure, folder, name, small_print)
            for name, figure in (*_quality(run, metrics), *_time(run), ("packets", _packets(run)))
        ]
        for name, figure in _photographs(run):
            drawn.append(save_figure(figure, folder, name, small_print, ("png",)))
        for metric in metrics if _repairs(run) else metrics[:1]:
            for name, figure in _quality(run, [metric]):
                name = name if name == "losses" else f"{name}-{metric}"
                drawn.append(save_slide(figure, folder, name, small_print))
    return drawn


# Quality


def _quality(run: Run, metrics: Sequence[str]) -> Iterator[tuple[str, Figure]]:
    points = run.points
    if not _repairs(run):
        yield "losses", _losses(points)
    elif len(points) == 1:
        yield "quality", _dots(points[0], metrics)
    else:
        yield "quality", _lines(points, metrics)
        images = [metric for metric in metrics if metric != "token_accuracy"]
        if images and rates_vary(points):
            yield "rate", _rate(points, images)


def _repairs(run: Run) -> bool:
    return any(set(point.concealers) != {CLEAN} for point in run.points)


def _losses(points: Sequence[PointSummary]) -> Figure:
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


def losses_label(points: Sequence[PointSummary]) -> str:
    """The smallest and the largest share of packets lost: "5.0% to 20.1%"."""
    shares = [point.loss.packets for point in points]
    return " to ".join(dict.fromkeys(f"{share:.1%}" for share in (min(shares), max(shares))))


def _dots(point: PointSummary, metrics: Sequence[str]) -> Figure:
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


def _lines(points: Sequence[PointSummary], metrics: Sequence[str]) -> Figure:
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


def _rate(points: Sequence[PointSummary], metrics: Sequence[str]) -> Figure:
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


# Photographs


def _photographs(run: Run) -> Iterator[tuple[str, Figure]]:
    for name, rows in run.pictured_images().items():
        if (run.folder / PANELS / name).is_dir():
            pictures = run.pictures(name)
            yield f"strip-{name}", strip_figure(name, rows, pictures)
            certainty = run.certainty(name)
            if certainty and not pictures["received"].all():
                yield f"invented-{name}", invention_figure(name, pictures, *certainty)


# Packets


def _time(run: Run) -> Iterator[tuple[str, Figure]]:
    if run.manifest["scenario"].get("video") is not None:
        yield "time", time_figure(run)


def _packets(run: Run) -> Figure:
    """A row per image, read like text: left to right and down is the order of sending."""
    rows = run.pictured_packets()
    interval = 1 / float(run.manifest["scenario"]["stream"]["fps"])
    frames = sorted({row.frame for row in rows})[:_MAX_ROWS]
    names = {row.frame: row.image for row in rows}
    counts = Counter(row.frame for row in rows)
    figure = new_figure(9, 1.3 + 0.32 * len(frames))
    axes = figure.subplots()
    looks = {
        "delivered": (DELIVERED, 0.3),
        "late": (LATE, 0.55),
        "corrupted": (CORRUPTED, 0.65),
        "overflowed": (OVERFLOWED, 0.72),
        "erased": (ERASED, 0.8),
    }
    for outcome, (colour, height) in looks.items():
        for frame in frames:
            chosen = [row for row in rows if row.frame == frame and row.outcome == outcome]
            width = 0.8 * interval / counts[frame]
            spans = [(row.sent_s - frame * interval, width) for row in chosen]
            axes.broken_barh(spans, (frame - height / 2, height), color=colour, linewidth=0)
    axes.set_yticks(frames, [names[frame] for frame in frames])
    axes.set_ylim(len(frames) - 0.4, -0.6)
    axes.set_xlim(0, interval)
    axes.set_xlabel("seconds since the image was captured (time of sending)")
    axes.grid(False)
    totals = Counter(row.outcome for row in rows)
    handles = [Patch(color=looks[o][0], label=f"{o}: {totals[o]}") for o in looks if totals[o]]
    gone = [row.outcome != "delivered" for row in rows]
    runs = [len(list(run)) for lost, run in itertools.groupby(gone) if lost]
    title = f"{sum(gone)} of {len(rows)} packets lost, at most {max(runs, default=0)} in a row"
    axes.set_title(title if runs else "No packet was lost", size=9, loc="left")
    figure.legend(handles=handles, loc="outside upper right", ncols=3, frameon=False)
    return figure
