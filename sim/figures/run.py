"""The figures of a run, drawn from its saved tables and pictures alone.

    losses     instead of quality, where nothing is repaired: packets and tokens lost
    quality    each metric: by concealer for one point, or against the swept value
    rate       each metric against bits on the wire, where a sweep changes them
    invented-* one image as repaired | how sure the transformer was | how far it may be off
    strip-*    one image: original | without loss | lost tokens | unrepaired | repaired
    packets    every packet of the pictured stream in time: delivered, erased, late

The same tables give the same bytes.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from codec.patches import patch_of, spread
from sim.errors import UserError
from sim.figures.invention import invention_figure, load_maps
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
from sim.figures.style import (
    DELIVERED,
    ERASED,
    LATE,
    drawing,
    new_figure,
    save_figure,
    score,
)
from sim.metrics import metric as metric_of
from sim.results.files import (
    FIGURES,
    IMAGES,
    INPAINT,
    MANIFEST,
    PACKETS,
    PANELS,
    PIXEL_ERROR,
    PROBABILITY,
    RUN,
    SUMMARY,
    check_kind,
    read_json,
    read_table,
)
from sim.scenario.labels import plain_label
from sim.scenario.schema import CLEAN

_MAX_ROWS = 40


@dataclass(frozen=True, slots=True)
class _SavedRun:
    """What the figures are drawn from."""

    folder: Path
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]

    @property
    def small_print(self) -> str:
        """Where a figure comes from."""
        what = self.manifest
        parts = [
            f"scenario {self.summary['scenario']}",
            f"seed {self.summary['seed']}",
            f"lossy-stream-sim {what['version']}",
            f"weights {what['weights_fingerprint']}",
        ]
        if what["revision"]:
            parts.insert(3, f"revision {what['revision'][:10]}")
        return " · ".join(parts)

    def save(self, figure: Figure, name: str, formats: Sequence[str] = ("png", "svg")) -> Path:
        """Write a figure with its small print; returns the first file."""
        return save_figure(figure, self.folder, name, self.small_print, formats)


def draw_figures(folder: Path) -> list[Path]:
    """Draw every figure of a run folder into its `figures/`; returns the PNG files.

    Raises:
        UserError: not a run folder, or a table in it is missing or unreadable.
    """
    check_kind(folder, RUN)
    run = _SavedRun(folder, read_json(folder / MANIFEST), read_json(folder / SUMMARY))
    try:
        (folder / FIGURES).mkdir(exist_ok=True)
        with drawing():
            return [_quality(run), *_rate(run), *_strips(run), *_invented(run), _packets(run)]
    except OSError as error:
        raise UserError(f"{folder}: cannot draw ({error})") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: its tables are not those of a run ({error!r})") from None


# Quality


def _quality(run: _SavedRun) -> Path:
    points = run.summary["points"]
    if all(set(point["concealers"]) == {CLEAN} for point in points):
        return run.save(_losses(points), "losses")
    metrics = [*run.summary["metrics"], "token_accuracy"]
    figure = _dots(points[0], metrics) if len(points) == 1 else _lines(points, metrics)
    return run.save(figure, "quality")


def _losses(points: Sequence[Mapping[str, Any]]) -> Figure:
    """A study of the channel alone: a column per setting of all but one swept key."""
    found = curves(points) if len(points) > 1 else None
    groups = {"": points} if found is None else found.groups
    figure = new_figure(1.0 + 3.4 * len(groups), 3.4)
    all_axes = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, (title, members) in zip(all_axes, groups.items(), strict=True):
        loss_panel(axes, members, found)
        axes.set_title(title or " ", size=9)
        axes.set_xlabel("" if found is None else axis_title(found))
    all_axes[0].set_ylabel("share lost, with 95% interval")
    handles, labels = all_axes[0].get_legend_handles_labels()
    shares = sorted(point["loss"]["packets"] for point in points)
    told = " to ".join(dict.fromkeys(f"{share:.1%}" for share in (shares[0], shares[-1])))
    title = f"{told} of the packets lost"
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, title=title)
    return figure


def _dots(point: Mapping[str, Any], metrics: Sequence[str]) -> Figure:
    """One point: an axis per metric, a row per concealer."""
    figure = new_figure(2.5 * len(metrics), 0.92 + 0.38 * len(point["concealers"]))
    all_axes = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(all_axes, metrics, strict=True):
        dot_panel(axes, point, metric)
        axes.set_xlabel(metric_of(metric).axis)
    loss, images = point["loss"], point["images"]
    about = f"{loss['packets']:.1%} of {loss['packets_sent']} packets lost"
    if images > 1:
        about += f"; means of {images} images, bars: 95% intervals of what the loss took"
    figure.suptitle(f"{finding([point], metrics[0])}\n{about}", size=9)
    return figure


def _lines(points: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> Figure:
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
    handles, labels = grid[0, 0].get_legend_handles_labels()
    title = textwrap.fill(finding(points, metrics[0]), 62 * len(found.groups))
    style: dict[str, Any] = {"ncols": 3 * len(found.groups), "frameon": False, "title": title}
    figure.legend(handles, labels, loc="outside upper center", **style)
    return figure


def _rate(run: _SavedRun) -> list[Path]:
    """Quality over bits on the wire, where they differ between the points of a sweep."""
    points = run.summary["points"]
    if len(points) == 1 or not rates_vary(points):
        return []
    metrics = run.summary["metrics"]
    figure = new_figure(3.3 * len(metrics), 3.6)
    all_axes = figure.subplots(1, len(metrics), squeeze=False)[0]
    repair = best_repair(points, metrics[0])
    for axes, metric in zip(all_axes, metrics, strict=True):
        rate_panel(axes, points, metric, repair)
        axes.set_title(metric_of(metric).axis, size=9)
    handles, labels = all_axes[0].get_legend_handles_labels()
    title = f"repaired by {plain_label(repair)}; up and to the left is better"
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, title=title)
    return [run.save(figure, "rate")]


# Strips


def _strips(run: _SavedRun) -> list[Path]:
    rows = read_table(run.folder / IMAGES, run.manifest["pictured_cell"])
    by_image: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        by_image.setdefault(row["image"], {})[row["concealer"]] = row
    folders = [(name, run.folder / PANELS / name) for name in by_image]
    return [_strip(run, n, by_image[n], folder) for n, folder in folders if folder.is_dir()]


def _invented(run: _SavedRun) -> list[Path]:
    """What the transformer made up, where the run kept how sure it was."""
    drawn = []
    for folder in sorted((run.folder / PANELS).glob("*/")):
        maps = load_maps(folder, PROBABILITY, PIXEL_ERROR)
        received = _read(folder / "received.png") > 0
        if maps and not received.all():
            pixels = _read(folder / f"{INPAINT}.png")
            figure = invention_figure(folder.name, pixels, received, *maps)
            drawn.append(run.save(figure, f"invented-{folder.name}", ("png",)))
    return drawn


def _strip(run: _SavedRun, name: str, rows: Mapping[str, Mapping[str, str]], folder: Path) -> Path:
    repairs = [repair for repair in rows if repair != CLEAN]
    unrepaired = "none" if "none" in repairs else repairs[0]
    repaired = "inpaint" if "inpaint" in repairs else repairs[-1]
    original, clean = _read(folder / "original.png"), _read(folder / f"{CLEAN}.png")
    received = _read(folder / "received.png") > 0
    about = rows[CLEAN]
    lost, tokens = int(about["tokens_lost"]), int(about["tokens"])
    packets = f"{about['packets_lost']} of {about['packets_sent']} packets lost"
    panels = [
        (f"{name}, original", f"{about['width']} x {about['height']}", original),
        ("decoded without loss", score(about), clean),
        (f"{lost / tokens:.0%} of tokens lost", packets, mark_lost(clean, received)),
    ]
    for kind, repair in (("unrepaired", unrepaired), ("repaired", repaired)):
        pixels = _read(folder / f"{repair}.png")
        title = kind if repair == "none" else f"{kind}: {plain_label(repair)}"
        panels.append((title, score(rows[repair]), pixels))
    height, width = original.shape[:2]
    across, gap, head, foot = 3.2, 0.04, 0.48, 0.2  # inches
    down = across * height / width
    total = (5 * (across + gap), head + down + foot)
    figure = Figure(figsize=total)
    for column, (title, below, pixels) in enumerate(panels):
        left = (column * (across + gap) + gap / 2) / total[0]
        axes = figure.add_axes((left, foot / total[1], across / total[0], down / total[1]))
        axes.imshow(pixels, interpolation="antialiased", aspect="auto")
        axes.set_title(f"{title}\n{below}", size=10)
        axes.set_axis_off()
    return run.save(figure, f"strip-{name}", ("png",))


def _read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image, np.uint8)


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


# Packets


def _packets(run: _SavedRun) -> Path:
    """A row per image, read like text: left to right and down is the order of sending."""
    rows = read_table(run.folder / PACKETS, run.manifest["pictured_cell"])
    stream = run.manifest["scenario"]["stream"]
    interval = 1 / float(stream["fps"])
    frames = sorted({int(row["frame"]) for row in rows})[:_MAX_ROWS]
    names = {int(row["frame"]): row["image"] for row in rows}
    counts = {frame: sum(int(row["frame"]) == frame for row in rows) for frame in frames}
    figure = new_figure(9, 1.3 + 0.32 * len(frames))
    axes = figure.subplots()
    looks = {"delivered": (DELIVERED, 0.3), "late": (LATE, 0.55), "erased": (ERASED, 0.8)}
    for fate, (colour, height) in looks.items():
        for frame in frames:
            chosen = [r for r in rows if int(r["frame"]) == frame and fate_of(r) == fate]
            width = 0.8 * interval / counts[frame]
            spans = [(float(r["sent_s"]) - frame * interval, width) for r in chosen]
            axes.broken_barh(spans, (frame - height / 2, height), color=colour, linewidth=0)
    axes.set_yticks(frames, [names[frame] for frame in frames])
    axes.set_ylim(len(frames) - 0.4, -0.6)
    axes.set_xlim(0, interval)
    axes.set_xlabel("seconds since the image was captured (time of sending)")
    axes.grid(False)
    totals = {fate: sum(fate_of(row) == fate for row in rows) for fate in looks}
    handles = [Patch(color=looks[f][0], label=f"{f}: {totals[f]}") for f in looks if totals[f]]
    gone = [fate_of(row) != "delivered" for row in rows]
    runs = [len(list(run)) for lost, run in itertools.groupby(gone) if lost]
    told = f"{sum(gone)} of {len(rows)} packets lost, at most {max(runs, default=0)} in a row"
    axes.set_title(told if runs else "No packet was lost", size=9, loc="left")
    figure.legend(handles=handles, loc="outside upper right", ncols=3, frameon=False)
    return run.save(figure, "packets")


def fate_of(row: Mapping[str, str]) -> str:
    """ "delivered" in time, "late", or "erased" (which here includes corrupted)."""
    if row["fate"] != "delivered":
        return "erased"
    return "late" if row["late"] == "1" else "delivered"
