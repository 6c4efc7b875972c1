"""Quality as curves and dots, drawn from the points of a run: the panels of its figures.

Intervals are those of the drop from the decode without loss of the same images, so that how images
differ does not hide how repairs do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.figures.style import (
    DELIVERED,
    LOSS_MARKS,
    PALETTE,
    dot_with_bar,
    key_label,
    line_with_band,
    look,
    name_rows,
    styled,
)
from sim.metrics import metric as metric_of
from sim.results.run import PointSummary, ways_lost
from sim.scenario.labels import plain_label, setting_label, value_label, with_label
from sim.scenario.schema import CLEAN
from sim.statistics import Estimate, finite_mean

if TYPE_CHECKING:  # answers ask for curves, and draw none
    from matplotlib.axes import Axes

_LOG_SPAN = 16
"""A horizontal axis is logarithmic when its values span this factor or more."""


LOSS, CODEBOOK = "channel.loss", "codec.codebook"
"""The keys of a loss rate and of the number of codewords."""


@dataclass(frozen=True, slots=True)
class Curves:
    """A sweep as curves over one of its keys.

    Attributes:
        key: the key of the horizontal axis.
        groups: the points of each curve family, by a title made of all other keys' values.
        ticks: names of the horizontal positions 0, 1, ... where the values are no numbers.
    """

    key: str
    groups: Mapping[str, Sequence[PointSummary]]
    ticks: Sequence[str] | None

    def positions(self, members: Sequence[PointSummary]) -> list[float]:
        """Where points lie on the horizontal axis."""
        if self.ticks is None:
            return [float(point.values[self.key]) for point in members]
        return [float(self.ticks.index(value_label(p.values.get(self.key)))) for p in members]

    @property
    def measured(self) -> bool:
        """Whether points are drawn where they came to lie: over the packets lost in fact."""
        return self.key == LOSS

    def drawn_at(self, members: Sequence[PointSummary]) -> list[float]:
        """As `positions`, or what was measured there."""
        return [p.loss.packets for p in members] if self.measured else self.positions(members)


def curves(points: Sequence[PointSummary]) -> Curves:
    """Arrange the points of a sweep: over the loss rate if it is swept, else over the key with the
    most numbers, else over the last key."""
    keys = list(dict.fromkeys(key for point in points for key in point.values))
    numbers = [key for key in keys if all(_is_number(p.values.get(key)) for p in points)]
    if LOSS in numbers:
        key = LOSS
    elif numbers:
        key = max(numbers, key=lambda key: len({p.values[key] for p in points}))
    else:
        key = keys[-1]
    groups: dict[str, list[PointSummary]] = {}
    for point in points:
        others = {k: v for k, v in point.values.items() if k != key}
        groups.setdefault(setting_label(others), []).append(point)
    if key in numbers:
        return Curves(key, groups, None)
    labels = [value_label(point.values.get(key)) for point in points]
    return Curves(key, groups, list(dict.fromkeys(labels)))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def estimate(point: PointSummary, name: str, metric: str) -> Estimate:
    """A repair's mean; the interval is of its drop from the decode without loss, placed around the
    mean."""
    own = point.concealers[name][metric]
    drop = point.gains.get(f"{name} - {CLEAN}", {}).get(metric)
    clean = point.concealers[CLEAN][metric].mean
    if drop is None or not np.isfinite([clean, drop.low]).all():
        return own
    return Estimate(own.mean, clean + drop.low, clean + drop.high, own.n)


def dot_panel(axes: Axes, point: PointSummary, metric: str) -> None:
    """One point: a row per repair, a dashed line for the decode without loss."""
    from matplotlib.ticker import MaxNLocator

    repairs = [name for name in point.concealers if name != CLEAN]
    for row, name in enumerate(repairs):
        dot_with_bar(axes, estimate(point, name, metric), row, *look(name))
    clean = point.concealers[CLEAN][metric].mean
    if np.isfinite(clean):
        axes.axvline(clean, color="black", linestyle="--", linewidth=1)
        low, high = axes.get_xlim()
        place = (clean - low) / (high - low)
        side = "left" if place < 0.2 else "right" if place > 0.8 else "center"  # inside
        above: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "size": 7, "ha": side}
        axes.annotate("no loss", (clean, 1.0), (0, 3), textcoords="offset points", **above)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    name_rows(axes, [plain_label(name) for name in repairs])


def line_panel(axes: Axes, members: Sequence[PointSummary], found: Curves, metric: str) -> None:
    """A sweep's quality over its key: a line per repair with its interval as a band."""
    order = np.argsort(found.drawn_at(members), kind="stable")
    members = [members[i] for i in order]
    positions = found.drawn_at(members)
    for place, name in enumerate(members[0].concealers):
        estimates = [estimate(point, name, metric) for point in members]
        mean, low, high = np.array([(e.mean, e.low, e.high) for e in estimates]).T
        label, style = plain_label(name), styled(name)
        if np.isnan(mean).all():
            continue
        if name == CLEAN:
            axes.plot(positions, mean, "k--", linewidth=1, label=label)
        elif found.ticks is None:
            line_with_band(axes, positions, estimates, label=label, **style)
        else:
            at = np.array(positions) + 0.12 * (place - 1)
            axes.plot(at, mean, linestyle="none", markersize=6, label=label, **style)
            axes.vlines(at, low, high, color=style["color"], linewidth=2)
    _horizontal(axes, positions, found)


def _horizontal(axes: Axes, positions: Sequence[float], found: Curves) -> None:
    from matplotlib.ticker import (
        FixedLocator,
        MaxNLocator,
        NullLocator,
        PercentFormatter,
        ScalarFormatter,
    )

    if found.ticks is not None:
        labels = [plain_label(tick).replace(" ", "\n", 1) for tick in found.ticks]
        widest = max(len(line) for label in labels for line in label.split("\n"))
        turned = widest * len(labels) > 48
        how: dict[str, Any] = {"rotation": 20, "ha": "right"} if turned else {"ha": "center"}
        axes.set_xticks(range(len(labels)), labels, rotation_mode="anchor", **how)
        axes.set_xlim(-0.5, len(found.ticks) - 0.5)
        return
    if found.measured:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    elif min(positions) > 0 and max(positions) >= _LOG_SPAN * min(positions):
        axes.set_xscale("log")
        kept = positions if len(positions) <= 6 else positions[::2]
        axes.xaxis.set_major_locator(FixedLocator(kept))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
    elif all(float(position).is_integer() for position in positions):
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def rate_panel(axes: Axes, points: Sequence[PointSummary], metric: str, repair: str) -> None:
    """Quality of one repair, and without loss, over bits per pixel on the wire; a line per group
    of points that differ only in the key of the horizontal axis of their curves."""
    from matplotlib.ticker import MaxNLocator

    labelled: set[object] = set()
    for number, (title, members) in enumerate(rate_groups(points).items()):
        ordered = sorted(members, key=lambda point: point.bpp_wire)
        colour, marker = _GROUPS[number % len(_GROUPS)]
        line_with_band(
            axes,
            [point.bpp_wire for point in ordered],
            [estimate(point, repair, metric) for point in ordered],
            color=colour,
            marker=marker,
            label=title or with_label(repair),
        )
        sizes = [point.values.get(CODEBOOK) for point in ordered]
        for point, size in zip(ordered, sizes, strict=True):
            if len(set(sizes)) > 1 and size not in labelled:
                labelled.add(size)
                place = point.bpp_wire, point.concealers[repair][metric].mean
                axes.annotate(f"K={size}", place, (3, -9), textcoords="offset points", size=7)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("bits per pixel on the wire")


def rate_groups(points: Sequence[PointSummary]) -> dict[str, list[PointSummary]]:
    """Points that belong on one rate-quality line, by title."""
    found = curves(points)
    if found.ticks is not None:
        return {setting_label(point.values): [point] for point in points}
    return {title: list(members) for title, members in found.groups.items()}


_GROUPS = list(zip(PALETTE, "osD^vPX", strict=True))


def axis_title(found: Curves) -> str:
    """What the horizontal axis of curves shows."""
    return "share of packets lost, measured" if found.measured else key_label(found.key)


def best_repair(points: Sequence[PointSummary], metric: str) -> str:
    """The repair with the best mean over all points, the last of those that tie; without any
    repair, the decode without loss."""
    best, highest = CLEAN, -np.inf
    for name in points[0].concealers:
        means = [point.concealers[name][metric].mean for point in points]
        mean = metric_of(metric).sign * finite_mean(means)
        if name != CLEAN and mean >= highest:
            best, highest = name, mean
    return best


def finding(points: Sequence[PointSummary], metric: str) -> str:
    """What the best repair comes to, in one line: the title of a figure."""
    about, repair = metric_of(metric), best_repair(points, metric)
    head = f"{about.label} {with_label(repair)}"
    if len(points) == 1:
        (point,) = points
        clean, mean = (point.concealers[name][metric].mean for name in (CLEAN, repair))
        if point.loss.tokens == 0 or np.isnan(clean):
            return "No token was lost"
        return f"{head}: {about.text(mean)}, of {about.text(clean)} without loss"
    found = curves(points)
    places: dict[float, list[float]] = {}
    for members in found.groups.values():
        for point, place in zip(members, found.positions(members), strict=True):
            places.setdefault(place, []).append(point.concealers[repair][metric].mean)
    means = {place: finite_mean(values) for place, values in sorted(places.items())}
    if found.ticks is None:
        ends = [f"{about.text(means[at])} at {at:g}" for at in (min(means), max(means))]
    else:
        ranked = sorted(means, key=lambda at: about.sign * means[at])
        ends = [
            f"{about.text(means[at])} ({plain_label(found.ticks[int(at)])})"
            for at in (ranked[0], ranked[-1])
        ]
    return f"{head}, over {key_label(found.key)}: {' to '.join(ends)}"


def loss_panel(axes: Axes, members: Sequence[PointSummary], found: Curves | None) -> None:
    """Shares lost; what the loss process erased, and tokens, with 95% intervals; and theory.

    Args:
        axes: to draw on.
        members: points of one curve family.
        found: what it is drawn over; None for a single point.
    """
    from matplotlib.ticker import PercentFormatter

    positions = [0.0] if found is None else found.positions(members)
    order = np.argsort(positions, kind="stable")
    at = np.array(positions)[order]
    losses = [members[i].loss for i in order]
    erased, low, high, tokens, half, expected = np.array(
        [
            (o.erased, o.low, o.high, o.tokens, o.tokens_precision.half_width, o.expected)
            for o in losses
        ]
    ).T
    line = "-" if found is not None and found.ticks is None else "none"
    axes.plot(at, expected, "k_" if line == "none" else "k--", linewidth=1, label="theory, erased")
    series = [(erased, erased - low, high - erased, *LOSS_MARKS["erased"], "erased packets")]
    for how in ways_lost(members)[1:]:
        values = np.array([getattr(o, how) for o in losses])
        series.append((values, at * 0, at * 0, *LOSS_MARKS[how], f"{how} packets"))
    series.append((tokens, half, half, DELIVERED, "s", "tokens lost"))
    for values, below, above, colour, marker, label in series:
        errors = np.nan_to_num(np.array([np.minimum(below, values), np.minimum(above, 1 - values)]))
        style: dict[str, Any] = {
            "color": colour,
            "marker": marker,
            "markersize": 9 if values is erased else 4,  # where they agree, both are seen
            "linestyle": line,
        }
        axes.errorbar(at, values, errors.clip(0), capsize=3, label=label, **style)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(bottom=0)
    if found is None:
        axes.set_xticks([])
        axes.set_xlim(-1, 1)
    elif found.ticks is not None:
        axes.set_xticks(range(len(found.ticks)), found.ticks, rotation=20, ha="right")
