"""The two charts, loss of quality and packets over time, as SVG styled by the page.

The lines stretch with the page while texts stay as they are, so the charts read on a phone and on
a wall: lines are SVG without a fixed aspect, texts are spans placed in percent. Colours come from
the style sheet, which knows light from dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby, pairwise

from sim.drivers.record import LOST
from sim.page.history import RESTORED, HistoryPoint

_FEW = 20  # frames for which room is kept before there are more
_LINES = ("clean", "repaired", "unrepaired")
_APART = 16.0  # percent of the height between two names
_FLAGS = 3  # changes that are told, each in a line of its own


def gap_chart(points: Sequence[HistoryPoint]) -> str:
    """How far every image, repaired and unrepaired, is below its own ceiling: what the codec makes
    of it without loss. What was changed when stands above. HTML."""
    if not points:
        return ""
    gaps = [_gaps(point) for point in points]
    finite = [value for three in gaps for value in three if math.isfinite(value)]
    low, high = min(math.floor(min(finite) - 0.5), -4), max(0.5, max(finite))

    def y(value: float) -> float:
        return 100 - 100 * (min(max(value, low), high) - low) / (high - low)

    def line(which: int) -> list[str]:
        return [
            f"{x + half:.2f},{y(three[which]):.2f}"
            for (x, _), three in zip(_placed(points), gaps, strict=True)
        ]

    half = 50 / max(_FEW, len(points))  # to the middle of a column
    step = 5 if high - low > 8 else 2
    ticks = range(math.ceil(low / step) * step, 1, step)
    grid = "".join(
        f'<line class="grid" x1="0" x2="100" y1="{y(t):.2f}" y2="{y(t):.2f}"/>' for t in ticks
    )
    band = " ".join(line(1) + line(2)[::-1])
    drawn = "".join(
        f'<polyline class="{name}" points="{" ".join(line(n))}"/>' for n, name in enumerate(_LINES)
    )
    labels = "".join(f'<span class="tick" style="top:{y(t):.2f}%">{t}</span>' for t in ticks)
    _, repaired, unrepaired = gaps[-1]
    told = (
        f"no loss {points[-1].psnr_db[0]:.1f}",
        f"repaired {repaired:+.1f}",
        f"unrepaired {unrepaired:+.1f}",
    )
    names = "".join(
        f'<span class="name {name}" style="top:{top:.2f}%">{text}</span>'
        for name, text, top in zip(_LINES, told, _spread([y(g) for g in gaps[-1]]), strict=True)
    )
    return _flags(points) + _chart(
        f"The last {len(points)} pictures; of the latest, in dB: {', '.join(told)}",
        f'{_changes_lines(points)}{grid}<polygon class="gain" points="{band}"/>{drawn}',
        labels + names,
    )


def packet_chart(points: Sequence[HistoryPoint]) -> str:
    """A column for every frame, its first packet on top: what became of each. HTML."""
    if not points:
        return ""
    width = 84 / max(_FEW, len(points))
    drawn = []
    for x, point in _placed(points):
        height = 100 / max(1, len(point.fates))
        for start, length, fate in _runs(point.fates):
            drawn.append(
                f'<rect class="{fate}" x="{x:.2f}" y="{start * height:.2f}" '
                f'width="{width:.2f}" height="{length * height:.2f}"/>'
            )
    fates = [fate for point in points for fate in point.fates]
    told = [f"{fates.count(how)} {how}" for how in (*LOST, RESTORED) if how in fates]
    what = ", ".join(told) or "none lost"
    return _chart(
        f"Of {len(fates)} packets of the last {len(points)} pictures: {what}",
        _changes_lines(points) + "".join(drawn),
    )


def _chart(description: str, svg: str, texts: str = "") -> str:
    return (
        f'<div class="chart" role="img" aria-label="{escape(description)}">'
        f'<div class="plot"><svg viewBox="0 0 100 100" preserveAspectRatio="none" '
        f'aria-hidden="true">{svg}</svg></div>{texts}</div>'
    )


def _gaps(point: HistoryPoint) -> tuple[float, float, float]:
    """Decibels from the ceiling to itself, repaired and unrepaired; an image that the codec gives
    back exactly has no finite ceiling."""
    clean, repaired, unrepaired = point.psnr_db
    below = [0.0 if value == clean else value - clean for value in (repaired, unrepaired)]
    return 0.0, below[0], below[1]


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


def _flags(points: Sequence[HistoryPoint]) -> str:
    """What was changed last, a line each, on the side of its place in time that has more room; of
    changes of one setting the latest."""
    told: dict[str, tuple[float, str]] = {}
    for x, point in _placed(points):
        setting = point.change.partition(":")[0]
        told.pop(setting, None)
        if point.change:
            told[setting] = x, point.change
    lines = "".join(
        f'<p class="{"after" if x < 50 else "before"}" style="--x:{x:.2f}%">{escape(change)}</p>'
        for x, change in list(told.values())[-_FLAGS:]
    )
    return f'<div class="flags">{lines}</div>'


def _runs(fates: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """(start, length, fate) of every run of equal fates."""
    start = 0
    for fate, run in groupby(fates):
        length = len(list(run))
        yield start, length, fate
        start += length


def _spread(tops: Sequence[float]) -> list[float]:
    """Positions of names, moved apart where they would overlap, kept within the chart."""
    order = sorted(range(len(tops)), key=tops.__getitem__)
    placed = list(tops)
    for above, below in pairwise(order):
        placed[below] = max(placed[below], placed[above] + _APART)
    over = max(0.0, placed[order[-1]] - 97)
    return [top - over for top in placed]
