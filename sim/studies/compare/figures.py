"""The figures of a comparison, drawn from its saved tables and pictures alone.

quality-*   one budget: each metric against the loss rate, a line per strategy
winners-*   one budget: the best strategy per metric, loss rate and burst length
fec         what parity leaves unrepaired: exact theory and simulated points
strip-*     one budget: what the viewer sees at one cell, a picture per strategy
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from sim.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    VERMILLION,
    count_label,
    drawing_figures,
    line_with_band,
    new_figure,
    origin,
    picture_panels,
    read_picture,
    save_figure,
    score,
)
from sim.metrics import METRICS
from sim.metrics import metric as metric_of
from sim.results.files import (
    COMPARISON,
    MANIFEST,
    PANELS,
    number,
    read_json,
    read_table,
)
from sim.statistics import Estimate

Row = Mapping[str, str]

_TOKEN_COLOURS = (BLUE, SKY, "#004D80", "#00A5A5", "#7A5FD0", "#3D3D9E")
_FILE_COLOURS = (
    *(VERMILLION, ORANGE, PURPLE),
    *("#8C564B", "#B0A000", "#888888", "#7A0019", "#F0806A", "#444444"),
)
_MARKERS = "oDsP^v<>Xphd"
_SSIMULACRA2_CUT = -250


@dataclass(frozen=True)
class _Results:
    """What the figures are drawn from."""

    folder: Path
    manifest: Mapping[str, Any]
    means: Sequence[Row]
    winners: Sequence[Row]
    fec: Sequence[Row]

    @cached_property
    def line_styles(self) -> dict[str, dict[str, Any]]:
        """How every strategy is drawn: blue and solid lines send tokens, the others files."""
        line_styles: dict[str, dict[str, Any]] = {}
        for strategy in self.manifest["strategies"]:
            line = "-" if strategy["coder"] == "tokens" else "--"
            colours = _TOKEN_COLOURS if line == "-" else _FILE_COLOURS
            own = sum(look["linestyle"] == line for look in line_styles.values())
            line_styles[strategy["name"]] = {
                "color": colours[own % len(colours)],
                "marker": _MARKERS[own % len(_MARKERS)],
                "linestyle": line,
            }
        return line_styles

    def bursts(self) -> list[str]:
        """Burst lengths as they are in the tables."""
        return [str(float(b)) if b != "independent" else b for b in self.manifest["bursts"]]

    def rows(self, table: Sequence[Row], budget: float, burst: str) -> list[Row]:
        """Rows of one budget and burst length; no loss belongs to every burst length."""
        return [
            row
            for row in table
            if float(row["budget"]) == budget
            and (float(row["loss"]) == 0 or _burst(row["mean_burst"]) == burst)
        ]


def draw_comparison(folder: Path) -> list[Path]:
    """Draw every figure into `figures/`; returns the PNG files.

    Raises:
        UserError: not a comparison's folder, or a table in it is missing or unreadable.
    """
    with drawing_figures(folder, COMPARISON):
        manifest = read_json(folder / MANIFEST)
        tables = [read_table(folder / f"{name}.csv") for name in ("means", "winners", "fec")]
        small_print = origin(f"comparison {manifest['name']}", manifest["seed"], manifest)
        return [
            save_figure(figure, folder, name, small_print, formats)
            for name, figure, formats in _figures(_Results(folder, manifest, *tables))
        ]


def _figures(results: _Results) -> Iterator[tuple[str, Figure, Sequence[str]]]:
    """Name, figure and formats of each."""
    for budget in results.manifest["bpp_wire"]:
        if any(float(row["budget"]) == budget for row in results.means):
            yield f"quality-{budget:g}", _quality(results, budget), ("png", "svg")
            yield f"winners-{budget:g}", _winners(results, budget), ("png", "svg")
        for image, figure in _strips(results, budget):
            yield f"strip-{budget:g}-{image}", figure, ("png",)
    if results.fec:
        yield "fec", _fec(results), ("png", "svg")


def _burst(text: str) -> str:
    return text if text == "independent" else str(float(text))


def burst_words(burst: str) -> str:
    """A burst length as a heading."""
    return "independent losses" if burst == "independent" else f"mean burst {float(burst):g}"


# Quality


def _quality(results: _Results, budget: float) -> Figure:
    metrics, bursts = results.manifest["metrics"], results.bursts()
    names = {row["strategy"] for row in results.means if float(row["budget"]) == budget}
    columns, width = _layout(len(bursts))
    lines = -(-len(names) // columns)
    figure = new_figure(width, 2.2 * len(metrics) + 0.9 + 0.19 * lines)
    grid = figure.subplots(len(metrics), len(bursts), sharex=True, sharey="row", squeeze=False)
    for column, burst in enumerate(bursts):
        rows = results.rows(results.means, budget, burst)
        for axes, metric in zip(grid[:, column], metrics, strict=True):
            _lines(axes, rows, metric, results.line_styles)
        grid[0, column].set_title(burst_words(burst))
        grid[-1, column].set_xlabel("loss rate of packets")
    for axes, metric in zip(grid[:, 0], metrics, strict=True):
        axes.set_ylabel(metric_of(metric).axis)
        if metric == "ssimulacra2" and axes.get_ylim()[0] < _SSIMULACRA2_CUT:
            axes.set_ylim(bottom=_SSIMULACRA2_CUT)  # ruins go down to -1000 and hide all else
            axes.set_ylabel(f"{metric_of(metric).label}, cut off below")
        if not metric_of(metric).larger_is_better:
            axes.invert_yaxis()
    handles = [
        Line2D([], [], label=name, **look)
        for name, look in results.line_styles.items()
        if name in names
    ]
    _legend(figure, handles, columns)
    images, repeats = len(results.manifest["images"]), results.manifest["base"]["repeats"]
    figure.suptitle(
        f"Every strategy at {budget:g} bits per pixel on the wire; upwards is better\n"
        f"{count_label(images, 'image')} x {count_label(repeats, 'stream')}: means, 95% intervals\n"
        "blue, solid: tokens; others, dashed: files of classical codecs",
        size=9,
    )
    return figure


def _layout(panels: int) -> tuple[int, float]:
    """Columns of the legend and inches across, for so many panels side by side."""
    return (2, 6.6) if panels == 1 else (3, 4.3 * panels + 0.6)


def _legend(figure: Figure, handles: list[Any], columns: int) -> None:
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=8,
        borderaxespad=2,
    )


def _lines(
    axes: Axes, rows: Sequence[Row], metric: str, line_styles: Mapping[str, Mapping[str, Any]]
) -> None:
    for name, look in line_styles.items():
        own = sorted((r for r in rows if r["strategy"] == name), key=lambda r: float(r["loss"]))
        if own:
            columns = _columns(own, metric, f"{metric}_low", f"{metric}_high")
            found = [Estimate(m, low, high, 1) for m, low, high in zip(*columns, strict=True)]
            tokens = look["linestyle"] == "-"
            style = {"linewidth": 2, "zorder": 4} if tokens else {"linewidth": 1.1}
            losses = [float(row["loss"]) for row in own]
            line_with_band(axes, losses, found, alpha=0.10, **look, **style)


# Winners


def _winners(results: _Results, budget: float) -> Figure:
    """A table per burst length: metrics across, loss rates down, the winner's name in its colour;
    pale where the runner-up may be as good."""
    metrics, bursts = results.manifest["metrics"], results.bursts()
    losses = sorted(results.manifest["losses"])
    figure = new_figure(1.3 + 1.5 * len(metrics) * len(bursts), 1.1 + 0.42 * len(losses))
    all_axes = figure.subplots(1, len(bursts), sharey=True, squeeze=False)[0]
    for axes, burst in zip(all_axes, bursts, strict=True):
        for row in results.rows(results.winners, budget, burst):
            x, y = metrics.index(row["metric"]), losses.index(float(row["loss"]))
            look = results.line_styles[row["winner"]]
            sure = number(row["lead_low"]) > 0
            box = Rectangle((x - 0.5, y - 0.5), 1, 1, linewidth=1.5, edgecolor="white")
            box.set_facecolor((*matplotlib.colors.to_rgb(look["color"]), 0.85 if sure else 0.3))
            axes.add_patch(box)
            text = "\n".join(textwrap.wrap(row["winner"], 20)[:2])
            axes.text(
                x, y, text, ha="center", va="center", size=7, color="white" if sure else "black"
            )
        axes.set_xlim(-0.5, len(metrics) - 0.5)
        axes.set_ylim(len(losses) - 0.5, -0.5)
        axes.set_xticks(
            range(len(metrics)), [metric_of(metric).heading for metric in metrics], size=8
        )
        axes.set_yticks(range(len(losses)), [f"{loss:.0%}" for loss in losses])
        axes.set_title(burst_words(burst))
        axes.grid(False)
        axes.tick_params(length=0)
    all_axes[0].set_ylabel("packets lost")
    figure.suptitle(
        f"The best strategy at {budget:g} bits per pixel on the wire; pale where the interval of "
        "its lead over the next holds 0",
        size=9,
    )
    return figure


# Parity


def _fec(results: _Results) -> Figure:
    bursts = results.bursts()
    columns, width = _layout(len(bursts))
    figure = new_figure(width, 3.9)
    all_axes = figure.subplots(1, len(bursts), sharey=True, squeeze=False)[0]
    blocks = list(dict.fromkeys((r["data"], r["parity"], r["depth"]) for r in results.fec))
    colours = [matplotlib.colormaps["viridis"](x) for x in np.linspace(0, 0.85, len(blocks))]
    for axes, burst in zip(all_axes, bursts, strict=True):
        for block, colour in zip(blocks, colours, strict=True):
            own = [
                row
                for row in results.fec
                if (row["data"], row["parity"], row["depth"]) == block
                and _burst(row["mean_burst"]) == burst
            ]
            curve = [row for row in own if row["kind"] == "theory"]
            axes.plot(*_columns(curve, "loss", "residual"), color=colour, linewidth=1.5)
            points = [row for row in own if row["kind"] == "simulated"]
            x, y, low, high = _columns(points, "loss", "residual", "low", "high")
            spans = np.maximum(0, [y - low, high - y])
            axes.errorbar(x, y, spans, fmt="o", color=colour, markersize=4, capsize=2, linewidth=1)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
        axes.set_xlim(-0.01, max(results.manifest["losses"]) + 0.01)
        axes.set_ylim(-0.01, max(results.manifest["losses"]) + 0.05)
        axes.set_title(burst_words(burst))
        axes.set_xlabel("loss rate of packets")
    all_axes[0].set_ylabel("media packets lost after repair")
    labels = [
        f"{data} + {parity} packets" + (f", depth {depth}" if depth != "1" else "")
        for data, parity, depth in blocks
    ]
    handles = [Line2D([], [], color=c, label=t) for c, t in zip(colours, labels, strict=True)]
    handles += [
        Line2D([], [], color=GREY, linestyle=":", label="no parity"),
        Line2D([], [], color=PALE, marker="o", linestyle="", label="simulated, 95% interval"),
    ]
    _legend(figure, handles, columns + 1)
    figure.suptitle("What Reed-Solomon parity leaves lost: exact theory (lines)", size=9)
    return figure


def _columns(rows: Sequence[Row], *names: str) -> list[Any]:
    return [np.array([number(row[name]) for row in rows]) for name in names]


# Strips

_COLUMNS = 5


def _strips(results: _Results, budget: float) -> Iterator[tuple[str, Figure]]:
    """Images by name: the original, and what every strategy leaves of it."""
    panels, cell = results.folder / PANELS, results.manifest["pictured"]
    outcomes = read_table(results.folder / "outcomes.csv")
    burst = _burst(str(cell["mean_burst"]))
    for image in cell["images"]:
        files = {"original": panels / "original" / f"{image}.png"}
        files |= {
            name: panels / f"{budget:g}" / name / f"{image}.png" for name in results.line_styles
        }
        files = {name: path for name, path in files.items() if path.is_file()}
        if len(files) < 2:
            continue
        rows = {
            row["strategy"]: row
            for row in outcomes
            if (row["image"], row["repeat"]) == (image, str(cell["repeat"]))
            and (float(row["budget"]), float(row["loss"])) == (budget, cell["loss"])
            and _burst(row["mean_burst"]) == burst
        }
        pictures = [(_title(n, rows.get(n)), read_picture(path)) for n, path in files.items()]
        height, width = pictures[0][1].shape[:2]
        lines = -(-len(pictures) // _COLUMNS)
        figure = new_figure(2.9 * _COLUMNS, (2.9 * height / width + 0.42) * lines + 0.5)
        picture_panels(figure.subplots(lines, _COLUMNS, squeeze=False).ravel(), pictures)
        figure.suptitle(
            f"{image}: {cell['loss']:.0%} of packets lost, {burst_words(burst)}, {budget:g} bits "
            f"per pixel on the wire; stream {cell['repeat']} of each strategy",
            size=10,
        )
        yield image, figure


def _title(name: str, row: Row | None) -> str:
    """A strategy, how much of its file or tokens arrived, and how good that is."""
    if row is None:
        return f"{name}\n"
    quality = {metric: number(row.get(metric)) for metric in METRICS}
    return f"{name}\n{float(row['source_there']):.0%} there, {score(quality)}"
