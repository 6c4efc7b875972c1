"""Figures inside a page: one small SVG per panel, in the page's own colours, light and dark.

Matplotlib draws them; afterwards its fixed colours become CSS variables, its identifiers become
unique in the page, and all that a browser does not need is dropped. The same tables give the same
bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sim.figures.panels import (
    axis_title,
    best_repair,
    curves,
    dot_panel,
    estimate,
    line_panel,
    loss_panel,
    rate_groups,
    rate_panel,
    rates_vary,
)
from sim.figures.style import DELIVERED, ERASED, drawing, look
from sim.metrics import metric as metric_of
from sim.results.files import SummaryPoint
from sim.scenario.labels import plain_label
from sim.scenario.schema import CLEAN

_SIZE = (4.4, 2.9)  # inches; about as wide as a phone, so that text stays readable there
_COLOURS = {
    "#000000": "currentColor",
    "#b0b0b0": "var(--rule)",
    "#0072b2": "var(--blue)",
    "#d55e00": "var(--vermillion)",
    "#009e73": "var(--green)",
    "#cc79a7": "var(--purple)",
    "#e69f00": "var(--orange)",
    "#56b4e9": "var(--sky)",
    "#999999": "var(--grey)",
}
_GLYPHS = {
    "s": "■", "v": "▼", "^": "▲", "D": "◆", "o": "●", "P": "✚", "X": "✖", "<": "◀", ">": "▶"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure of a page.

    Attributes:
        title: above it.
        svg: the drawing, to be put into HTML as it is.
    """

    title: str
    svg: str


@dataclass(frozen=True, slots=True)
class Legend:
    """One entry of a legend: a mark in a CSS colour, and what it stands for."""

    glyph: str
    colour: str
    text: str


@dataclass(frozen=True, slots=True)
class Block:
    """Panels that share one legend."""

    legend: Sequence[Legend]
    panels: Sequence[Panel]


def quality_blocks(
    points: Sequence[SummaryPoint], metrics: Sequence[str], prefix: str
) -> list[Block]:
    """Every metric of a run, one block per metric with a panel per group of its curves; a run of
    one point has a single block."""
    if len(points) == 1:
        drawn = [_dots(points[0], metric, prefix) for metric in metrics]
        return [Block([], [panel for panel in drawn if panel is not None])]
    blocks = []
    found = curves(points)
    for metric in metrics:
        if all(_mean(p, name, metric) is None for p in points for name in p["concealers"]):
            continue
        bounds = _bounds(points, metric)
        panels = []
        for number, (title, members) in enumerate(found.groups.items()):

            def draw(
                axes: Axes,
                members: Sequence[SummaryPoint] = members,
                metric: str = metric,
                bounds: tuple[float, float] = bounds,
            ) -> None:
                line_panel(axes, members, found, metric)
                axes.set_xlabel(axis_title(found))
                axes.set_ylabel(metric_of(metric).axis)
                axes.set_ylim(*bounds)

            name, told = f"{prefix}-{metric}-{number}", _alt_text(members, metric, title)
            room = 0.0 if found.ticks is None else 0.3  # for names of two lines
            panels.append(Panel(title, _svg(name, told, draw, foot=0.46 + room)))
        blocks.append(Block(_repairs(points), panels))
    return blocks


def loss_blocks(points: Sequence[SummaryPoint], prefix: str) -> list[Block]:
    """What the channel took, for a study that repairs nothing: a panel per group of its curves."""
    found = curves(points) if len(points) > 1 else None
    groups = {"": points} if found is None else found.groups
    panels = []
    for number, (title, members) in enumerate(groups.items()):

        def draw(axes: Axes, members: Sequence[SummaryPoint] = members) -> None:
            loss_panel(axes, members, found)
            axes.set_xlabel("" if found is None else axis_title(found))
            axes.set_ylabel("share lost")

        shares = ", ".join(f"{point['loss']['packets']:.1%}" for point in members)
        told = f"share of packets lost{', ' + title if title else ''}: {shares}"
        room = 0.0 if found is None or found.ticks is None else 0.3
        panels.append(Panel(title, _svg(f"{prefix}-losses-{number}", told, draw, foot=0.46 + room)))
    legend = [
        Legend("●", _COLOURS[ERASED.lower()], "packets lost"),
        Legend("■", _COLOURS[DELIVERED.lower()], "tokens lost"),
        Legend("┄", "currentColor", "packets, by theory"),
    ]
    return [Block(legend, panels)]


def rate_blocks(points: Sequence[SummaryPoint], metrics: Sequence[str], prefix: str) -> list[Block]:
    """Quality over bits on the wire, where these differ."""
    if len(points) == 1 or not rates_vary(points):
        return []
    repair = best_repair(points, metrics[0])
    panels = []
    for metric in metrics:
        if all(_mean(point, repair, metric) is None for point in points):
            continue

        def draw(axes: Axes, metric: str = metric) -> None:
            rate_panel(axes, points, metric, repair)
            axes.set_ylabel(metric_of(metric).axis)

        told = f"{metric_of(metric).heading} with {plain_label(repair)}"
        told += " over bits per pixel on the wire"
        panels.append(Panel("", _svg(f"{prefix}-rate-{metric}", told, draw)))
    colours = list(_COLOURS.values())
    order = [colours[i] for i in (2, 3, 4, 5, 6, 7, 8)]
    titles = list(rate_groups(points))
    legend = [
        Legend("●■◆▼▲✚✖"[i % 7], order[i % 7], title or plain_label(repair))
        for i, title in enumerate(titles)
    ]
    return [Block(legend, panels)]


def _dots(point: SummaryPoint, metric: str, prefix: str) -> Panel | None:
    if all(_mean(point, name, metric) is None for name in point["concealers"]):
        return None

    def draw(axes: Axes) -> None:
        dot_panel(axes, point, metric)
        axes.set_xlabel(metric_of(metric).axis)

    rows = sum(name != CLEAN for name in point["concealers"])
    height = 0.95 + 0.34 * rows
    told = _alt_text([point], metric, "")
    return Panel("", _svg(f"{prefix}-{metric}", told, draw, (_SIZE[0], height), left=0.29))


def _repairs(points: Sequence[SummaryPoint]) -> list[Legend]:
    names = [name for name in points[0]["concealers"] if name != CLEAN]
    legend = []
    for name in names:
        colour, marker = look(name)
        legend.append(Legend(_GLYPHS[marker], _COLOURS[colour.lower()], plain_label(name)))
    return [*legend, Legend("┄", "currentColor", "no loss")]


def _mean(point: SummaryPoint, name: str, metric: str) -> float | None:
    mean: float | None = point["concealers"][name][metric]["mean"]
    return mean


def _bounds(points: Sequence[SummaryPoint], metric: str) -> tuple[float, float]:
    """One vertical range for all panels of a metric."""
    ends = [
        value
        for point in points
        for found in (point["concealers"][name][metric] for name in point["concealers"])
        for value in (found["mean"], *_drop_ends(point, metric))
        if value is not None
    ]
    room = 0.05 * (max(ends) - min(ends)) or 0.5
    return min(ends) - room, max(ends) + room


def _drop_ends(point: SummaryPoint, metric: str) -> list[float]:
    found = [estimate(point, name, metric) for name in point["concealers"] if name != CLEAN]
    return [e[end] for e in found for end in ("low", "high") if e.get(end) is not None]


def _alt_text(points: Sequence[SummaryPoint], metric: str, title: str) -> str:
    """What a figure shows, for those who do not see it."""
    parts = []
    for name in points[0]["concealers"]:
        means = [mean for point in points if (mean := _mean(point, name, metric)) is not None]
        if means:
            shown = [f"{means[0]:.3g}", f"{means[-1]:.3g}"][: 1 + (len(means) > 1)]
            parts.append(f"{plain_label(name)} {' to '.join(shown)}")
    head = f"{metric_of(metric).heading}{', ' + title if title else ''}"
    return f"{head}: {', '.join(parts)}"


def _svg(
    name: str,
    told: str,
    draw: Callable[[Axes], None],
    size: tuple[float, float] = _SIZE,
    left: float = 0.18,
    foot: float = 0.46,
) -> str:
    """One axes as SVG for HTML."""
    with drawing():
        figure = Figure(figsize=size)  # placed by hand: an automatic layout varies in bits
        bottom, top = foot / size[1], 1 - 0.17 / size[1]
        figure.subplots_adjust(left=left, right=0.975, bottom=bottom, top=top)
        draw(figure.subplots())
        text = StringIO()
        nothing: Mapping[str, None] = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(text, format="svg", transparent=True, metadata=dict(nothing))
    return _for_html(text.getvalue(), name, told)


def _for_html(svg: str, name: str, told: str) -> str:
    box = re.search(r'viewBox="([^"]+)"', svg)
    assert box is not None, "matplotlib writes a viewBox"
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    useless = r"<metadata>.*?</metadata>|<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>"
    body = re.sub(useless, "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*">', "<g>", body)
    body = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", body).replace("xlink:href", "href")
    body = re.sub(r"#[0-9a-f]{6}\b", lambda found: _COLOURS.get(found[0], found[0]), body)
    body = re.sub(r" font-family: [^;\"]*;?", "", body)
    body = re.sub(r"\n\s*", "\n", body)
    head = f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(told)}">'
    return f"{head}<title>{escape(told)}</title>{body}"
