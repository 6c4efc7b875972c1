"""The two charts: quality and packets over time, as SVG styled by the page.

The lines stretch with the page while texts stay as they are, so the charts read on a phone and on
a wall: lines are SVG without a fixed aspect, texts are spans placed in percent. Colours come from
the style sheet, which knows light from dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby, pairwise

from sim.page.history import OK, HistoryPoint

_FEW = 20  # frames for which room is kept before there are more
_LINES = ("clean", "repaired", "unrepaired")
_NAMES = {"clean": "no loss", "repaired": "repaired", "unrepaired": "unrepaired"}
_APART = 11.0  # percent of the height between two names


def quality_chart(points: Sequence[HistoryPoint]) -> str:
    """PSNR of every frame: without loss, repaired, unrepaired. HTML."""
    if not points:
        return ""
    low, high = _range(points)

    def y(value: float) -> float:
        return 100 - 100 * (min(max(value, low), high) - low) / (high - low)

    def line(which: int) -> list[str]:
        return [f"{x + half:.2f},{y(p.psnr_db[which]):.2f}" for x, p in _placed(points)]

    half = 50 / max(_FEW, len(points))  # to the middle of a column

    step = 5 if high - low > 6 else 2
    ticks = range(math.ceil(low / step) * step, math.floor(high) + 1, step)
    grid = "".join(
        f'<line class="grid" x1="0" x2="100" y1="{y(t):.2f}" y2="{y(t):.2f}"/>' for t in ticks
    )
    band = " ".join(line(1) + line(2)[::-1])
    drawn = "".join(
        f'<polyline class="{name}" points="{" ".join(line(n))}"/>' for n, name in enumerate(_LINES)
    )
    labels = "".join(f'<span class="tick" style="top:{y(t):.2f}%">{t}</span>' for t in ticks)
    latest = points[-1].psnr_db
    tops = _spread([y(value) for value in latest])
    names = "".join(
        f'<span class="name {name}" style="top:{top:.2f}%">{_NAMES[name]} {value:.1f}</span>'
        for name, value, top in zip(_LINES, latest, tops, strict=True)
    )
    description = ", ".join(f"{_NAMES[n]} {v:.1f} dB" for n, v in zip(_LINES, latest, strict=True))
    return _chart(
        f"Quality of the last {len(points)} images; of the latest: {description}",
        f'{_changes_lines(points)}{grid}<polygon class="gain" points="{band}"/>{drawn}',
        _changes_texts(points),
        labels + names,
    )


def packet_chart(points: Sequence[HistoryPoint]) -> str:
    """A column for every frame, its first packet on top: what became of each. HTML."""
    if not points:
        return ""
    width = 84 / max(_FEW, len(points))
    drawn = []
    for x, point in _placed(points):
        drawn.append(f'<rect class="ok" x="{x:.2f}" y="0" width="{width:.2f}" height="100"/>')
        height = 100 / max(1, len(point.fates))
        for start, length, fate in _runs(point.fates):
            if fate != OK:
                drawn.append(
                    f'<rect class="{fate}" x="{x:.2f}" y="{start * height:.2f}" '
                    f'width="{width:.2f}" height="{length * height:.2f}"/>'
                )
    fates = [fate for point in points for fate in point.fates]
    share = 1 - fates.count(OK) / max(1, len(fates))
    return _chart(
        f"Packets of the last {len(points)} images: {share:.0%} did not arrive in time",
        _changes_lines(points) + "".join(drawn),
        "",
        "",
    )


def _chart(description: str, svg: str, marks: str, texts: str) -> str:
    return (
        f'<div class="chart" role="img" aria-label="{escape(description)}">'
        f'<div class="plot"><svg viewBox="0 0 100 100" preserveAspectRatio="none" '
        f'aria-hidden="true">{svg}</svg>{marks}</div>{texts}</div>'
    )


def _placed(points: Sequence[HistoryPoint]) -> Iterator[tuple[float, HistoryPoint]]:
    """Points with the left edge of their column, 0 to 100."""
    slots = max(_FEW, len(points))
    for n, point in enumerate(points):
        yield 100 * n / slots, point


def _changes_lines(points: Sequence[HistoryPoint]) -> str:
    return "".join(
        f'<line class="change" x1="{x:.2f}" x2="{x:.2f}" y1="0" y2="100"/>'
        for x, point in _placed(points)
        if point.change
    )


def _changes_texts(points: Sequence[HistoryPoint]) -> str:
    """What was changed, at its line; of changes close together the latest."""
    texts: list[str] = []
    free_from = math.inf
    for x, point in reversed(list(_placed(points))):
        if point.change and x < free_from - 14:
            texts.append(f'<span class="mark" style="left:{x:.2f}%">{escape(point.change)}</span>')
            free_from = x
    return "".join(texts)


def _runs(fates: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """(start, length, fate) of every run of equal fates."""
    start = 0
    for fate, run in groupby(fates):
        length = len(list(run))
        yield start, length, fate
        start += length


def _range(points: Sequence[HistoryPoint]) -> tuple[float, float]:
    """From the lowest to the highest value, opened to whole decibels."""
    finite = [v for point in points for v in point.psnr_db if math.isfinite(v)] or [0.0]
    low, high = math.floor(min(finite) - 0.5), math.ceil(max(finite) + 0.5)
    return float(low), float(max(high, low + 4))


def _spread(tops: Sequence[float]) -> list[float]:
    """Positions of names, moved apart where they would overlap, kept within the chart."""
    order = sorted(range(len(tops)), key=tops.__getitem__)
    placed = list(tops)
    for above, below in pairwise(order):
        placed[below] = max(placed[below], placed[above] + _APART)
    over = max(0.0, placed[order[-1]] - 97)
    return [top - over for top in placed]
