"""The figures of studies and of the paper check, drawn from their saved summaries alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sim.figures.style import (
    GREEN,
    ORANGE,
    VERMILLION,
    dot_with_bar,
    drawing,
    legend_outside,
    name_rows,
    new_figure,
    origin,
    save_figure,
    styled,
)
from sim.metrics import METRICS
from sim.metrics import metric as metric_of
from sim.results.files import MANIFEST, SUMMARY, read_json
from sim.scenario.labels import count_label, plain_label
from sim.scenario.schema import CLEAN
from sim.statistics import Estimate

Point = Mapping[str, Any]
"""An element of a study's summary: what it is of, and by metric its "mean", "low" and "high"."""

_VERDICTS = {"holds": GREEN, "undecided": ORANGE, "does not hold": VERMILLION}


def draw_study(folder: Path) -> list[Path]:
    """Draw a study's figures into its `figures/`; returns the files."""
    about, summary = read_json(folder / MANIFEST), read_json(folder / SUMMARY)
    with drawing():
        if about["kind"] == "schedules":
            figures = _by_level(summary, "schedules", _schedules)
        elif about["kind"] == "baselines":
            figures = _by_level(summary, "baselines", _baselines)
        else:
            figures = {
                "quality": _interleavers(summary, "psnr_drop_db"),
                "accuracy": _interleavers(summary, "token_accuracy"),
                "bits": _bits(summary["bits"]),
            }
        return [_save(figure, folder, name, about) for name, figure in figures.items()]


def draw_check(folder: Path) -> Path:
    """Draw the paper check's figure."""
    about, summary = read_json(folder / MANIFEST), read_json(folder / SUMMARY)
    with drawing():
        return _save(_check(summary), folder, "paper-check", about)


def _save(figure: Figure, folder: Path, name: str, about: Mapping[str, Any]) -> Path:
    small_print = origin(about["kind"], about["settings"].get("seed", 1), about)
    return save_figure(figure, folder, name, small_print)


def _means(points: Sequence[Point], metric: str) -> NDArray[np.float64]:
    found = [point[metric]["mean"] for point in points]
    return np.array([np.nan if value is None else value for value in found], np.float64)


def _line(axes: Axes, points: Sequence[Point], over: str, metric: str, **style: Any) -> None:
    x = [point[over] for point in points]
    axes.plot(x, _means(points, metric), markersize=4, **style)


def _defined(points: Sequence[Point], *more: str) -> list[str]:
    """The metrics, and of ``more``, that have values: some are not defined for small images."""
    there = [name for name in (*METRICS, *more) if name in points[0]]
    return [name for name in there if np.isfinite(_means(points, name)).any()]


def _unique(points: Sequence[Point], key: str) -> list[Any]:
    return list(dict.fromkeys(point[key] for point in points))


def _by_level(
    summary: Mapping[str, Any], name: str, draw: Callable[[list[Point], str], Figure]
) -> dict[str, Figure]:
    """A figure per codebook; ``draw`` is given its points and the first words of its title."""
    images = count_label(summary["images"], "image")
    return {
        f"{name}-{level}": draw(
            [point for point in summary["points"] if point["codebook"] == level],
            f"K = {level}; means of {images}",
        )
        for level in _unique(summary["points"], "codebook")
    }


def _head(grid: Any, titles: Sequence[str], below: str, title: str) -> Figure:
    """Titles above the columns, what the horizontal axes show below, and above all of it what is
    shown, over the legend."""
    for axes, name in zip(grid[0], titles, strict=True):
        axes.set_title(name, size=9)
    for axes in grid[-1]:
        axes.set_xlabel(below)
    figure: Figure = grid[0, 0].figure
    legend_outside(figure, grid[0, 0], title=title, ncols=5)
    return figure


def _schedules(points: list[Point], title: str) -> Figure:
    """Each metric over the number of passes, a row per loss."""
    metrics, conditions = _defined(points, "seconds"), _unique(points, "condition")
    figure = new_figure(2.6 * len(metrics), 0.8 + 2.1 * len(conditions))
    grid = figure.subplots(len(conditions), len(metrics), sharex=True, squeeze=False)
    for line, condition in zip(grid, conditions, strict=True):
        here = [point for point in points if point["condition"] == condition]
        ticks = sorted({p["passes"] for p in here if p["passes"]})
        for axes, metric in zip(line, metrics, strict=True):
            for order in ("confidence", "halton"):
                for words, linestyle in (("soft", "-"), ("argmax", ":")):
                    chosen = [p for p in here if p["order"] in ("any", order)]
                    chosen = [p for p in chosen if p["words"] == words]
                    style = {**styled(order), "linestyle": linestyle}
                    label = f"{order}, {words} words"
                    _line(axes, chosen, "passes", metric, label=label, **style)
            clean = next(p for p in here if p["order"] == CLEAN)[metric]["mean"]
            if clean is not None:
                axes.axhline(clean, color="black", linestyle="--", linewidth=1, label="no loss")
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [str(t) for t in ticks])
            axes.minorticks_off()
        line[0].set_ylabel(f"{condition} lost")
    return _head(grid, [metric_of(metric).axis for metric in metrics], "passes", title)


_RUIN = "most_frequent"


def _baselines(points: list[Point], title: str) -> Figure:
    """What each repair reaches, beside the decode without loss: a row per kind of loss."""
    metrics, kinds = _defined(points), _unique(points, "kind")
    figure = new_figure(2.9 * len(metrics), 0.9 + 2.3 * len(kinds))
    grid = figure.subplots(len(kinds), len(metrics), sharex=True, sharey="col", squeeze=False)
    for line, kind in zip(grid, kinds, strict=True):
        here = [point for point in points if point["kind"] == kind]
        for axes, metric in zip(line, metrics, strict=True):
            for name in _unique(here, "concealer"):
                chosen = [p for p in here if p["concealer"] == name]
                style = {**styled(name), "linewidth": 2.2 if name == "inpaint" else 1}
                if name == CLEAN:
                    style = {"color": "black", "linestyle": "--", "linewidth": 1}
                _line(axes, chosen, "loss", metric, label=plain_label(name), **style)
        line[0].set_ylabel(f"{kind} lost")
    for axes, metric in zip(grid[0], metrics, strict=True):  # one ruin would hide all differences
        values = _means([p for p in points if p["concealer"] != _RUIN], metric)
        low, high = np.nanmin(values), np.nanmax(values)
        margin = 0.06 * (high - low) or 1
        axes.set_ylim(low - margin, high + margin)
    title += f"; {plain_label(_RUIN)} leaves the frame"
    return _head(grid, [metric_of(metric).axis for metric in metrics], "loss rate", title)


def _interleavers(summary: Mapping[str, Any], metric: str) -> Figure:
    """A metric over the loss rate: a row per kind of loss, a column per number of slices."""
    points = summary["points"]
    kinds, slices = _unique(points, "kind"), _unique(points, "slices")
    figure = new_figure(2.4 * len(slices), 0.9 + 2.2 * len(kinds))
    grid = figure.subplots(len(kinds), len(slices), sharex=True, sharey="row", squeeze=False)
    for line, kind in zip(grid, kinds, strict=True):
        for axes, count in zip(line, slices, strict=True):
            here = [p for p in points if p["kind"] == kind and p["slices"] == count]
            for order in _unique(here, "interleaver"):
                chosen = [p for p in here if p["interleaver"] == order]
                style = {**styled(order), "label": plain_label(order), "linewidth": 1.2}
                _line(axes, chosen, "loss", metric, **style)
        line[0].set_ylabel(f"{metric_of(metric).heading},\n{kind} lost")
    title = f"Repaired by the transformer; means of {count_label(summary['images'], 'image')}"
    return _head(grid, [f"{count} slices" for count in slices], "loss rate of packets", title)


def _bits(points: Sequence[Point]) -> Figure:
    """Payload over the number of slices, a panel per entropy coder."""
    modes, slices = _unique(points, "entropy"), _unique(points, "slices")
    figure = new_figure(3.2 * len(modes), 3.2)
    line = figure.subplots(1, len(modes), sharey=True, squeeze=False)[0]
    for axes, mode in zip(line, modes, strict=True):
        for order in _unique(points, "interleaver"):
            chosen = [p for p in points if p["entropy"] == mode and p["interleaver"] == order]
            style = {**styled(order), "label": plain_label(order)}
            _line(axes, chosen, "slices", "bits_per_token", **style)
        axes.set_xscale("log", base=2)
        axes.set_xticks(slices, [str(v) for v in slices])
        axes.set_title(f"{mode} coder", size=9)
        axes.set_xlabel("slices per image")
    line[0].set_ylabel("payload bits per token")
    legend_outside(figure, line[0], ncols=4)
    return figure


# Paper check


def _check(summary: Mapping[str, Any]) -> Figure:
    """A row of axes per level: PSNR lost, and more distance; a line per condition and repair."""
    levels, limits = summary["levels"], summary["limits"]
    measures = ["psnr_db", *summary["distances"]]
    entries = [(c, r) for c, repairs in levels[0]["conditions"].items() for r in repairs]
    names = [f"{condition}, {plain_label(repair)}" for condition, repair in entries]
    figure = new_figure(3.3 * len(measures) + 1.4, 0.7 + (0.7 + 0.26 * len(entries)) * len(levels))
    grid = figure.subplots(len(levels), len(measures), sharey=True, squeeze=False)
    for line, level in zip(grid, levels, strict=True):
        for axes, measure in zip(line, measures, strict=True):
            scale = 1 if measure == "psnr_db" else 100
            limit = limits["less_psnr_db" if measure == "psnr_db" else "more_distance"]
            if measure in summary["judged_by"]:
                axes.axvline(scale * limit, color="black", linestyle="--", linewidth=1)
            for row, (condition, repair) in enumerate(entries):
                found = level["conditions"][condition][repair]
                part = found["less_psnr_db"] if measure == "psnr_db" else None
                part = part or found["more_distance"][measure]
                colour = _VERDICTS.get(found.get("verdicts", {}).get(measure), "#888888")
                mean, low, high = (
                    scale * (np.nan if part[k] is None else part[k])
                    for k in ("mean", "low", "high")
                )
                dot_with_bar(axes, Estimate(mean, low, high, 1), row, colour, "o", 2.5, 5)
            name_rows(axes, names)
            axes.set_xlim(left=min(0, axes.get_xlim()[0]))
            lost, more = METRICS["psnr_drop_db"].heading, f"more {METRICS[measure].label} (%)"
            axes.set_xlabel(lost if measure == "psnr_db" else more)
        line[0].set_title(
            f"K = {level['codebook']}, {count_label(level['images'], 'image')}: {level['verdict']}",
            size=9,
            loc="left",
        )
    figure.suptitle(
        "20% lost, restored with minimal perceptual loss?\ngreen: holds, orange: undecided, "
        "red: does not hold, grey: beside the claim; dashed: the limit",
        size=8,
    )
    return figure
