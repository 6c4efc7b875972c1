"""The figure of a search, drawn from its saved tables alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from sim.errors import UserError
from sim.figures.style import drawing, new_figure, save_figure
from sim.metrics import metric as metric_of
from sim.results.files import (
    FIGURES,
    MANIFEST,
    OPTIMISATION,
    check_kind,
    number,
    read_json,
    read_table,
)

_KINDS = {
    "unprotected": ("#999999", "s"),
    "parity": ("#0072B2", "o"),
    "ARQ": ("#D55E00", "^"),
    "parity + ARQ": ("#009E73", "D"),
}


def draw_optimisation(folder: Path) -> Path:
    """Draw what theory expected of every candidate, and what real streams gave of the best.

    Raises:
        UserError: not the folder of a search, or a table in it is missing or unreadable.
    """
    check_kind(folder, OPTIMISATION)
    manifest = read_json(folder / MANIFEST)
    predicted, verified = (read_table(folder / f"{n}.csv") for n in ("candidates", "verified"))
    try:
        metric = manifest["metric"]
        height = max(3.6, 1.6 + 0.34 * len(verified))
        with drawing():
            figure = new_figure(11, height)
            left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
            _all(left, predicted, metric, manifest["bpp_wire"])
            _best(right, verified, metric)
            figure.suptitle(
                f"{len(predicted)} ways to spend {manifest['bpp_wire']:g} bits per pixel on the "
                f"wire; the best by theory, streamed for real, 95% intervals",
                size=9,
            )
            small = f"scenario {manifest['scenario']['name']} · seed {manifest['seed']}"
            small += f" · lossy-stream-sim {manifest['version']}"
            small += f" · weights {manifest['weights_fingerprint']}"
            (folder / FIGURES).mkdir(exist_ok=True)
            return save_figure(figure, folder, "optimise", small)
    except OSError as error:
        raise UserError(f"{folder}: cannot draw ({error})") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: its tables are not those of a search ({error!r})") from None


def _all(axes: Axes, rows: list[dict[str, str]], metric: str, budget: float) -> None:
    for kind, (colour, marker) in _KINDS.items():
        own = [row for row in rows if row["kind"] == kind]
        x = np.array([number(row["residual"]) for row in own])
        y = np.array([number(row["quality"]) for row in own])
        if own:
            axes.plot(x, y, marker, color=colour, markersize=4, alpha=0.7, label=kind)
    axes.set_xlabel("expected share of slices that stay lost")
    axes.set_ylabel(f"expected {metric_of(metric).axis}")
    axes.legend(frameon=False, fontsize=8)
    axes.set_title("theory", loc="left", size=9)


def _best(axes: Axes, rows: list[dict[str, str]], metric: str) -> None:
    labels = []
    for place, row in enumerate(rows):
        colour, marker = _KINDS[row["kind"]]
        mean, low, high = (number(row[f"{metric}{end}"]) for end in ("", "_low", "_high"))
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot(mean, place, marker, color=colour, markersize=7)
        expected: Any = number(row["expected_quality"])
        axes.plot(expected, place, "|", color="black", markersize=11)
        labels.append(f"K = {row['level']}, {row['strategy']}")
    axes.set_yticks(range(len(rows)), labels, size=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"{metric_of(metric).axis} (bar: theory's expectation)")
    axes.set_title("real streams, best first", loc="left", size=9)
