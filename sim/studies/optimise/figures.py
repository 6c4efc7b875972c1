"""The figure of a search, drawn from its saved tables alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from sim.figures.style import (
    dot_with_bar,
    drawing_figures,
    look,
    name_rows,
    new_figure,
    origin,
    save_figure,
    styled,
)
from sim.metrics import metric as metric_of
from sim.results.files import MANIFEST, OPTIMISATION, number, read_json, read_table
from sim.statistics import Estimate

_KINDS = ("unprotected", "parity", "ARQ", "parity + ARQ")


def draw_optimisation(folder: Path) -> Path:
    """Draw what theory expected of every candidate, and what real streams gave of the best.

    Raises:
        UserError: not the folder of a search, or a table in it is missing or unreadable.
    """
    with drawing_figures(folder, OPTIMISATION):
        manifest = read_json(folder / MANIFEST)
        predicted, verified = (read_table(folder / f"{n}.csv") for n in ("candidates", "verified"))
        metric, budget = manifest["metric"], manifest["bpp_wire"]
        figure = new_figure(11, max(3.6, 1.6 + 0.34 * len(verified)))
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
        _all(left, predicted, metric)
        _best(right, verified, metric)
        figure.suptitle(
            f"{len(predicted)} ways to spend {budget:g} bits per pixel on the wire; the best by "
            "theory, streamed for real, 95% intervals",
            size=9,
        )
        what = f"scenario {manifest['scenario']['name']}"
        small_print = origin(what, manifest["seed"], manifest)
        return save_figure(figure, folder, "optimise", small_print)


def _all(axes: Axes, rows: list[dict[str, str]], metric: str) -> None:
    for kind in _KINDS:
        own = [row for row in rows if row["kind"] == kind]
        x = np.array([number(row["residual"]) for row in own])
        y = np.array([number(row["quality"]) for row in own])
        if own:
            axes.plot(x, y, linestyle="", markersize=4, alpha=0.7, label=kind, **styled(kind))
    axes.set_xlabel("expected share of slices that stay lost")
    axes.set_ylabel(f"expected {metric_of(metric).axis}")
    axes.legend(frameon=False, fontsize=8)
    axes.set_title("theory", loc="left", size=9)


def _best(axes: Axes, rows: list[dict[str, str]], metric: str) -> None:
    labels = []
    for place, row in enumerate(rows):
        mean, low, high = (number(row[f"{metric}{end}"]) for end in ("", "_low", "_high"))
        dot_with_bar(axes, Estimate(mean, low, high, 1), place, *look(row["kind"]))
        axes.plot(number(row["expected_quality"]), place, "|", color="black", markersize=11)
        labels.append(f"K = {row['level']}, {row['strategy']}")
    name_rows(axes, labels, size=8)
    axes.set_xlabel(f"{metric_of(metric).axis} (bar: theory's expectation)")
    axes.set_title("real streams, best first", loc="left", size=9)
