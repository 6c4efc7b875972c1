"""The figures of studies and of the paper check, drawn from their saved summaries alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sim.figures.style import drawing, look, new_figure, save_figure
from sim.metrics import METRICS
from sim.metrics import metric as metric_of
from sim.results.files import FIGURES, MANIFEST, SUMMARY, read_json
from sim.scenario.schema import CLEAN

_ORDERS = {
    "any": ("#0072B2", "o"),
    "confidence": ("#0072B2", "o"),
    "halton": ("#D55E00", "s"),
    "raster": ("#999999", "s"),
    "checkerboard": ("#E69F00", "D"),
    "low_discrepancy": ("#0072B2", "o"),
    "random": ("#009E73", "^"),
}
_VERDICTS = {"holds": "#009E73", "undecided": "#E69F00", "does not hold": "#D55E00"}


def draw_study(folder: Path) -> list[Path]:
    """Draw a study's figures into its `figures/`; returns the files."""
    about, summary = read_json(folder / MANIFEST), read_json(folder / SUMMARY)
    with drawing():
        if about["kind"] == "schedules":
            figures = _schedules(summary)
        elif about["kind"] == "baselines":
            figures = _baselines(summary)
        else:
            figures = _interleavers(summary)
        return [_save(figure, folder, name, about) for name, figure in figures.items()]


def draw_check(folder: Path) -> Path:
    """Draw the paper check's figure."""
    about, summary = read_json(folder / MANIFEST), read_json(folder / SUMMARY)
    with drawing():
        return _save(_check(summary), folder, "paper-check", about)


def _save(figure: Figure, folder: Path, name: str, about: Mapping[str, Any]) -> Path:
    seed = about["settings"].get("seed", 1)
    text = (
        f"{about['kind']} · seed {seed} · lossy-stream-sim {about['version']} · "
        f"weights {about['weights_fingerprint']}"
    )
    (folder / FIGURES).mkdir(exist_ok=True)
    return save_figure(figure, folder, name, text)


def _values(points: Sequence[Mapping[str, Any]], metric: str, part: str) -> NDArray[np.float64]:
    found = [point[metric][part] for point in points]
    return np.array([np.nan if value is None else value for value in found], np.float64)


def _line(
    axes: Axes, x: Sequence[float], points: Sequence[Mapping[str, Any]], metric: str, **style: Any
) -> None:
    band = style.pop("band", True)
    axes.plot(x, _values(points, metric, "mean"), markersize=4, **style)
    if band:
        low, high = _values(points, metric, "low"), _values(points, metric, "high")
        axes.fill_between(x, low, high, color=style["color"], alpha=0.12, linewidth=0)


def _defined(points: Sequence[Mapping[str, Any]], *more: str) -> list[str]:
    """The metrics, and of ``more``, that have values: some are not defined for small images."""
    there = [name for name in (*METRICS, *more) if name in points[0]]
    return [name for name in there if np.isfinite(_values(points, name, "mean")).any()]


def _unique(points: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    return list(dict.fromkeys(point[key] for point in points))


# Schedules


def _schedules(summary: Mapping[str, Any]) -> dict[str, Figure]:
    points = summary["points"]
    return {
        f"schedules-{level}": _schedule_figure(
            [point for point in points if point["codebook"] == level], level, summary["images"]
        )
        for level in _unique(points, "codebook")
    }


def _schedule_figure(points: list[Mapping[str, Any]], level: int, images: int) -> Figure:
    metrics = _defined(points, "seconds")
    conditions = _unique(points, "condition")
    figure = new_figure(2.6 * len(metrics), 0.8 + 2.1 * len(conditions))
    grid = figure.subplots(len(conditions), len(metrics), sharex=True, squeeze=False)
    for line, condition in zip(grid, conditions, strict=True):
        here = [point for point in points if point["condition"] == condition]
        for axes, metric in zip(line, metrics, strict=True):
            for order in ("confidence", "halton"):
                for words, style in (("soft", "-"), ("argmax", ":")):
                    chosen = [p for p in here if p["order"] in ("any", order)]
                    chosen = [p for p in chosen if p["words"] == words]
                    colour, marker = _ORDERS[order]
                    _line(
                        axes,
                        [p["passes"] for p in chosen],
                        chosen,
                        metric,
                        color=colour,
                        marker=marker,
                        linestyle=style,
                        label=f"{order}, {words} words",
                        band=False,
                    )
            clean = next(p for p in here if p["order"] == CLEAN)[metric]["mean"]
            if clean is not None:
                axes.axhline(clean, color="black", linestyle="--", linewidth=1, label="no loss")
            axes.set_xscale("log", base=2)
            ticks = sorted({p["passes"] for p in here if p["passes"]})
            axes.set_xticks(ticks, [str(t) for t in ticks])
            axes.minorticks_off()
        line[0].set_ylabel(f"{condition} lost")
    for axes in grid[-1]:
        axes.set_xlabel("passes")
    titles = [metric_of(metric).axis for metric in metrics]
    _head(figure, grid, titles, f"K = {level}; means of {_count(images)}")
    return figure


def _count(images: int) -> str:
    return f"{images} image" + "s" * (images != 1)


# Baselines


_RUIN = "most_frequent"


def _baselines(summary: Mapping[str, Any]) -> dict[str, Figure]:
    points = summary["points"]
    return {
        f"baselines-{level}": _baseline_figure(
            [point for point in points if point["codebook"] == level], level, summary["images"]
        )
        for level in _unique(points, "codebook")
    }


def _baseline_figure(points: list[Mapping[str, Any]], level: int, images: int) -> Figure:
    """What each repair reaches, beside the decode without loss."""
    metrics = _defined(points)
    kinds = _unique(points, "kind")
    figure = new_figure(2.9 * len(metrics), 0.9 + 2.3 * len(kinds))
    grid = figure.subplots(len(kinds), len(metrics), sharex=True, sharey="col", squeeze=False)
    for line, kind in zip(grid, kinds, strict=True):
        here = [point for point in points if point["kind"] == kind]
        for axes, metric in zip(line, metrics, strict=True):
            for name in _unique(here, "concealer"):
                chosen = [p for p in here if p["concealer"] == name]
                x = [p["loss"] for p in chosen]
                if name == CLEAN:
                    style = {"color": "black", "linestyle": "--", "linewidth": 1}
                    _line(axes, x, chosen, metric, label="no loss", band=False, **style)
                    continue
                colour, marker = look(name)
                width = 2.2 if name == "inpaint" else 1
                style = {"color": colour, "marker": marker, "linewidth": width}
                _line(axes, x, chosen, metric, label=name.replace("_", " "), band=False, **style)
        line[0].set_ylabel(f"{kind} lost")
    for axes in grid[-1]:
        axes.set_xlabel("loss rate")
    for axes, metric in zip(grid[0], metrics, strict=True):  # one ruin would hide all differences
        values = _values([p for p in points if p["concealer"] != _RUIN], metric, "mean")
        low, high = np.nanmin(values), np.nanmax(values)
        margin = 0.06 * (high - low) or 1
        axes.set_ylim(low - margin, high + margin)
    titles = [metric_of(metric).axis for metric in metrics]
    told = f"K = {level}; means of {_count(images)}; {_RUIN.replace('_', ' ')} leaves the frame"
    _head(figure, grid, titles, told)
    return figure


def _head(figure: Figure, grid: Any, titles: Sequence[str], told: str) -> None:
    """A title above each column, and above them all what is shown, over the legend."""
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, size=9)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, title=told, loc="outside upper center", ncols=5, frameon=False)


# Interleavers


def _interleavers(summary: Mapping[str, Any]) -> dict[str, Figure]:
    figures = {
        name: _interleaver_figure(summary, metric)
        for name, metric in (("quality", "psnr_drop_db"), ("accuracy", "token_accuracy"))
    }
    return {**figures, "bits": _bits_figure(summary)}


def _interleaver_figure(summary: Mapping[str, Any], metric: str) -> Figure:
    points = summary["points"]
    kinds, slices = _unique(points, "kind"), _unique(points, "slices")
    figure = new_figure(2.4 * len(slices), 0.9 + 2.2 * len(kinds))
    grid = figure.subplots(len(kinds), len(slices), sharex=True, sharey="row", squeeze=False)
    for line, kind in zip(grid, kinds, strict=True):
        for axes, count in zip(line, slices, strict=True):
            here = [p for p in points if p["kind"] == kind and p["slices"] == count]
            for order in _unique(here, "interleaver"):
                chosen = [p for p in here if p["interleaver"] == order]
                colour, marker = _ORDERS[order]
                label, x = order.replace("_", " "), [p["loss"] for p in chosen]
                style = {"color": colour, "marker": marker, "label": label, "linewidth": 1.2}
                _line(axes, x, chosen, metric, band=False, **style)
        line[0].set_ylabel(f"{metric_of(metric).heading},\n{kind} lost")
    for axes in grid[-1]:
        axes.set_xlabel("loss rate of packets")
    told = f"Repaired by the transformer; means of {_count(summary['images'])}"
    _head(figure, grid, [f"{count} slices" for count in slices], told)
    return figure


def _bits_figure(summary: Mapping[str, Any]) -> Figure:
    points = summary["bits"]
    modes = _unique(points, "entropy")
    figure = new_figure(3.2 * len(modes), 3.2)
    line = figure.subplots(1, len(modes), sharey=True, squeeze=False)[0]
    for axes, mode in zip(line, modes, strict=True):
        for order in _unique(points, "interleaver"):
            chosen = [p for p in points if p["entropy"] == mode and p["interleaver"] == order]
            colour, marker = _ORDERS[order]
            x = [p["slices"] for p in chosen]
            style = {"color": colour, "marker": marker, "label": order.replace("_", " ")}
            _line(axes, x, chosen, "bits_per_token", band=False, **style)
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [str(v) for v in x])
        axes.set_title(f"{mode} coder", size=9)
        axes.set_xlabel("slices per image")
    line[0].set_ylabel("payload bits per token")
    handles, labels = line[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    return figure


# Paper check


def _check(summary: Mapping[str, Any]) -> Figure:
    """A row of axes per level: PSNR lost, and more distance; a line per condition and repair."""
    levels, limits = summary["levels"], summary["limits"]
    measures = ["psnr_db", *summary["distances"]]
    entries = [(c, r) for c, repairs in levels[0]["conditions"].items() for r in repairs]
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
                low, mean, high = (
                    scale * (np.nan if part[k] is None else part[k])
                    for k in ("low", "mean", "high")
                )
                axes.plot([low, high], [row, row], color=colour, linewidth=2.5)
                axes.plot(mean, row, "o", color=colour, markersize=5)
            axes.set_ylim(len(entries) - 0.5, -0.5)
            axes.set_xlim(left=min(0, axes.get_xlim()[0]))
            lost, more = METRICS["psnr_drop_db"].heading, f"more {METRICS[measure].label} (%)"
            axes.set_xlabel(lost if measure == "psnr_db" else more)
        names = [f"{c}, {r.replace('_', ' ')}" for c, r in entries]
        line[0].set_yticks(range(len(entries)), names)
        line[0].set_title(
            f"K = {level['codebook']}, {_count(level['images'])}: {level['verdict']}",
            size=9,
            loc="left",
        )
    figure.suptitle(
        "20% lost, restored with minimal perceptual loss?\ngreen: holds, orange: undecided, "
        "red: does not hold, grey: beside the claim; dashed: the limit",
        size=8,
    )
    return figure
