"""The figures of a comparison, drawn from its saved tables and pictures alone.

quality-*   one budget: each metric against the loss rate, a line per strategy; of those that send
            tokens, the first
differences-*   how the others that send tokens differ from that one, image by image
winners-*   one budget: the best strategy per metric, loss rate and burst length
fec         what parity leaves unrepaired: exact theory and simulated points
strip-*     one budget: what the viewer sees at one cell, a picture per strategy
slides/*    quality and differences, a figure a metric, 16:9 and in large letters
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
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
    drawing_figures,
    line_with_band,
    new_figure,
    origin,
    picture_panels,
    read_picture,
    save_figure,
    save_slide,
    score,
)
from sim.metrics import METRICS
from sim.metrics import metric as metric_of
from sim.results.files import COMPARISON, MANIFEST, PANELS, number, read_json, read_table
from sim.scenario.labels import count_label
from sim.statistics import Estimate
from sim.studies.compare.config import TOKENS
from sim.studies.compare.summary import paired_difference
from sim.studies.measurements import grouped

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
            line = "-" if strategy["coder"] == TOKENS else "--"
            colours = _TOKEN_COLOURS if line == "-" else _FILE_COLOURS
            own = sum(look["linestyle"] == line for look in line_styles.values())
            line_styles[strategy["name"]] = {
                "color": colours[own % len(colours)],
                "marker": _MARKERS[own % len(_MARKERS)],
                "linestyle": line,
            }
        return line_styles

    def budgets(self) -> list[float]:
        """Those that any strategy reached."""
        reached = {float(row["budget"]) for row in self.means}
        return [budget for budget in self.manifest["bpp_wire"] if budget in reached]

    def bursts(self) -> list[str]:
        """Burst lengths as they are in the tables."""
        return [str(float(b)) if b != "independent" else b for b in self.manifest["bursts"]]

    @cached_property
    def outcomes(self) -> list[dict[str, str]]:
        """Every strategy's outcome of every image in every stream."""
        return read_table(self.folder / "outcomes.csv")

    def rows(self, table: Sequence[Row], burst: str) -> list[Row]:
        """Rows of one burst length; no loss belongs to every burst length."""
        return [
            row for row in table if float(row["loss"]) == 0 or _burst(row["mean_burst"]) == burst
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
        results = _Results(folder, manifest, *tables)
        drawn = [
            save_figure(figure, folder, name, small_print, formats)
            for name, figure, formats in _figures(results)
        ]
        for budget, metric in itertools.product(results.budgets(), manifest["metrics"]):
            drawn += [
                save_slide(figure, folder, f"{name}-{metric}", small_print)
                for name, figure in _quality(results, budget, [metric])
            ]
        return drawn


def _figures(results: _Results) -> Iterator[tuple[str, Figure, Sequence[str]]]:
    """Name, figure and formats of each."""
    for budget in results.budgets():
        for name, figure in _quality(results, budget, results.manifest["metrics"]):
            yield name, figure, ("png", "svg")
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


def _quality(
    results: _Results, budget: float, metrics: Sequence[str]
) -> Iterator[tuple[str, Figure]]:
    """Every strategy; of several that send tokens the first, and how the others differ from it."""
    at_budget = [row for row in results.means if float(row["budget"]) == budget]
    there = {row["strategy"] for row in at_budget}
    names = [name for name in results.line_styles if name in there]
    tokens = [name for name in names if results.line_styles[name]["linestyle"] == "-"]
    images, repeats = len(results.manifest["images"]), results.manifest["base"]["repeats"]
    what = "frame" if results.manifest["base"].get("video") else "image"
    counts = f"{count_label(images, what)} x {count_label(repeats, 'stream')}"
    foot = f"{counts}: means, 95% intervals; upwards is better"

    def means(name: str, metric: str, rows: Sequence[Row]) -> Estimate:
        (row,) = (row for row in rows if row["strategy"] == name)
        mean, low, high = (number(row[f"{metric}{end}"]) for end in ("", "_low", "_high"))
        return Estimate(mean, low, high, 1)

    def differences(name: str, metric: str, rows: Sequence[Row]) -> Estimate:
        return paired_difference(rows, metric, name, tokens[0])

    shown = [name for name in names if name not in tokens[1:]]
    title = f"Strategies at {budget:g} bits per pixel on the wire\n{foot}"
    if tokens and len(shown) > 1:
        title += "\nsolid: tokens; dashed: files of classical codecs"
    yield f"quality-{budget:g}", _lines(results, at_budget, metrics, shown, means, title)
    if tokens[1:]:
        outcomes = [row for row in results.outcomes if float(row["budget"]) == budget]
        title = f"Difference from {tokens[0]} at {budget:g} bits per pixel on the wire\n{foot}"
        title += "; same images, same losses"
        figure = _lines(results, outcomes, metrics, tokens, differences, title)
        yield f"differences-{budget:g}", figure


def _lines(
    results: _Results,
    table: Sequence[Row],
    metrics: Sequence[str],
    names: Sequence[str],
    found: Callable[[str, str, Sequence[Row]], Estimate],
    title: str,
) -> Figure:
    """A row of axes per metric, a column per burst length: what is found of each strategy in the
    rows of a loss rate, over the loss rates."""
    bursts = results.bursts()
    columns, width = _layout(len(bursts))
    lines = -(-len(names) // columns)
    figure = new_figure(width, 2.2 * len(metrics) + 0.9 + 0.19 * lines)
    grid = figure.subplots(len(metrics), len(bursts), sharex=True, sharey="row", squeeze=False)
    for column, burst in enumerate(bursts):
        rows = results.rows(table, burst)
        by_loss = grouped(sorted(rows, key=lambda row: float(row["loss"])), ["loss"])
        for name in names:
            there = {
                float(loss): own
                for (loss,), own in by_loss.items()
                if any(row["strategy"] == name for row in own)
            }
            look = results.line_styles[name]
            style = (
                {"linewidth": 2, "zorder": 4} if look["linestyle"] == "-" else {"linewidth": 1.1}
            )
            for axes, metric in zip(grid[:, column], metrics, strict=True):
                estimates = [found(name, metric, own) for own in there.values()]
                if estimates:
                    line_with_band(axes, list(there), estimates, alpha=0.10, **look, **style)
        grid[0, column].set_title(burst_words(burst))
        grid[-1, column].set_xlabel("loss rate of packets")
    for axes, metric in zip(grid[:, 0], metrics, strict=True):
        axes.set_ylabel(metric_of(metric).axis)
        if metric == "ssimulacra2" and axes.get_ylim()[0] < _SSIMULACRA2_CUT:
            axes.set_ylim(bottom=_SSIMULACRA2_CUT)  # ruins go down to -1000 and hide all else
            axes.set_ylabel(f"{metric_of(metric).label}, cut off below")
        if not metric_of(metric).larger_is_better:
            axes.invert_yaxis()
    handles = [Line2D([], [], label=name, **results.line_styles[name]) for name in names]
    _legend(figure, handles, columns)
    figure.suptitle(title, size=9)
    return figure


def _layout(panels: int) -> tuple[int, float]:
    """Columns of the legend and inches across, for so many panels side by side."""
    return (2, 6.6) if panels == 1 else (3, 4.3 * panels + 0.6)


def _legend(figure: Figure, handles: list[Any], columns: int) -> None:
    style: dict[str, Any] = {"frameon": False, "fontsize": 8, "borderaxespad": 2}
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, **style)


# Winners


def _winners(results: _Results, budget: float) -> Figure:
    """A table per burst length: metrics across, loss rates down, the winner's name in its colour;
    pale where the runner-up may be as good."""
    metrics, bursts = results.manifest["metrics"], results.bursts()
    losses = sorted(results.manifest["losses"])
    at_budget = [row for row in results.winners if float(row["budget"]) == budget]
    figure = new_figure(1.3 + 1.5 * len(metrics) * len(bursts), 1.1 + 0.42 * len(losses))
    all_axes = figure.subplots(1, len(bursts), sharey=True, squeeze=False)[0]
    for axes, burst in zip(all_axes, bursts, strict=True):
        for row in results.rows(at_budget, burst):
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
            for row in results.outcomes
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
