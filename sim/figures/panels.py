"""Quality as curves and dots, from a run's summary alone: panels of `sim.figures.run` and reports.

A point is an element of summary.json's "points". Intervals are those of the drop from the decode
without loss of the same images, so that how images differ does not hide how repairs do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import (
    FixedLocator,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
    ScalarFormatter,
)
from numpy.typing import NDArray

from sim.figures.style import DELIVERED, ERASED, key_label, look
from sim.metrics import metric as metric_of
from sim.results.files import SummaryPoint
from sim.scenario.labels import plain_label, setting_label, value_label
from sim.scenario.schema import CLEAN

_LOG_SPAN = 16
"""A horizontal axis is logarithmic when its values span this factor or more."""


@dataclass(frozen=True, slots=True)
class Curves:
    """A sweep as curves over one of its keys.

    Attributes:
        key: the key of the horizontal axis.
        groups: the points of each curve family, by a title made of all other keys' values.
        ticks: names of the horizontal positions 0, 1, ... where the values are no numbers.
    """

    key: str
    groups: Mapping[str, Sequence[SummaryPoint]]
    ticks: Sequence[str] | None

    def positions(self, members: Sequence[SummaryPoint]) -> list[float]:
        """Where points lie on the horizontal axis."""
        if self.ticks is None:
            return [float(point["values"][self.key]) for point in members]
        return [float(self.ticks.index(value_label(p["values"].get(self.key)))) for p in members]


def curves(points: Sequence[SummaryPoint]) -> Curves:
    """Arrange the points of a sweep: over the loss rate if it is swept, else over the key with the
    most numbers, else over the last key."""
    keys = list(dict.fromkeys(key for point in points for key in point["values"]))
    numbers = [key for key in keys if all(_is_number(p["values"].get(key)) for p in points)]
    if "channel.loss" in numbers:
        key = "channel.loss"
    elif numbers:
        key = max(numbers, key=lambda key: len({p["values"][key] for p in points}))
    else:
        key = keys[-1]
    groups: dict[str, list[SummaryPoint]] = {}
    for point in points:
        others = {k: v for k, v in point["values"].items() if k != key}
        groups.setdefault(setting_label(others), []).append(point)
    if key in numbers:
        return Curves(key, groups, None)
    labels = [value_label(point["values"].get(key)) for point in points]
    return Curves(key, groups, list(dict.fromkeys(labels)))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def estimate(point: SummaryPoint, name: str, metric: str) -> Mapping[str, Any]:
    """{"mean", "low", "high"} of a repair; the interval is of its drop from the decode without
    loss, placed around the mean."""
    own: Mapping[str, Any] = point["concealers"][name][metric]
    drop = point["gains"].get(f"{name} - {CLEAN}", {}).get(metric)
    clean = point["concealers"][CLEAN][metric]["mean"]
    if drop is None or clean is None or drop["low"] is None:
        return own
    return {"mean": own["mean"], "low": clean + drop["low"], "high": clean + drop["high"]}


def dot_panel(axes: Axes, point: SummaryPoint, metric: str) -> None:
    """One point: a row per repair, a dashed line for the decode without loss."""
    repairs = [name for name in point["concealers"] if name != CLEAN]
    for row, name in enumerate(repairs):
        found = estimate(point, name, metric)
        if found["mean"] is None:
            continue
        colour, marker = look(name)
        if found["low"] is not None:
            axes.plot([found["low"], found["high"]], [row, row], color=colour, linewidth=2)
        axes.plot(found["mean"], row, marker, color=colour, markersize=7)
    clean = point["concealers"][CLEAN][metric]["mean"]
    if clean is not None:
        axes.axvline(clean, color="black", linestyle="--", linewidth=1)
        low, high = axes.get_xlim()
        place = (clean - low) / (high - low)
        axes.annotate(
            "no loss",
            (clean, 1.0),
            (0, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            size=7,
            ha="left" if place < 0.2 else "right" if place > 0.8 else "center",  # inside
        )
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.set_ylim(len(repairs) - 0.5, -0.5)
    axes.set_yticks(range(len(repairs)), [plain_label(name) for name in repairs])


def line_panel(axes: Axes, members: Sequence[SummaryPoint], found: Curves, metric: str) -> None:
    """A sweep's quality over its key: a line per repair with its interval as a band."""
    order = np.argsort(found.positions(members), kind="stable")
    members = [members[i] for i in order]
    positions = found.positions(members)
    for name in members[0]["concealers"]:
        estimates = [estimate(point, name, metric) for point in members]
        mean = floats([e["mean"] for e in estimates])
        if np.isnan(mean).all():
            continue
        if name == CLEAN:
            axes.plot(positions, mean, "k--", linewidth=1, label=plain_label(name))
            continue
        colour, marker = look(name)
        low, high = floats([e["low"] for e in estimates]), floats([e["high"] for e in estimates])
        if found.ticks is None:
            axes.plot(
                positions, mean, marker=marker, color=colour, markersize=4, label=plain_label(name)
            )
            axes.fill_between(positions, low, high, color=colour, alpha=0.15, linewidth=0)
        else:
            shift = 0.12 * (list(members[0]["concealers"]).index(name) - 1)
            at = np.array(positions) + shift
            axes.plot(at, mean, marker, color=colour, markersize=6, label=plain_label(name))
            axes.vlines(at, low, high, color=colour, linewidth=2)
    _horizontal(axes, positions, found)


def _horizontal(axes: Axes, positions: Sequence[float], found: Curves) -> None:
    if found.ticks is not None:
        labels = [plain_label(tick).replace(" ", "\n", 1) for tick in found.ticks]
        widest = max(len(line) for label in labels for line in label.split("\n"))
        turned = widest * len(labels) > 48
        axes.set_xticks(
            range(len(labels)),
            labels,
            rotation=20 if turned else 0,
            ha="right" if turned else "center",
            rotation_mode="anchor",
        )
        axes.set_xlim(-0.5, len(found.ticks) - 0.5)
        return
    if min(positions) > 0 and max(positions) >= _LOG_SPAN * min(positions):
        axes.set_xscale("log")
        kept = positions if len(positions) <= 6 else positions[::2]
        axes.xaxis.set_major_locator(FixedLocator(kept))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
    elif all(float(position).is_integer() for position in positions):
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def rates_vary(points: Sequence[SummaryPoint]) -> bool:
    """Whether points repair and differ in their bits on the wire, so that quality can be drawn
    over rate."""
    if set(points[0]["concealers"]) == {CLEAN}:
        return False
    rates = [point["bpp_wire"] for point in points]
    return bool(max(rates) > 1.02 * min(rates))


def rate_panel(axes: Axes, points: Sequence[SummaryPoint], metric: str, repair: str) -> None:
    """Quality of one repair, and without loss, over bits per pixel on the wire; a line per group
    of points that differ only in the key of the horizontal axis of their curves."""
    markers = "osD^vPX"
    for number, (title, members) in enumerate(rate_groups(points).items()):
        ordered = sorted(members, key=lambda point: float(point["bpp_wire"]))
        rates = [point["bpp_wire"] for point in ordered]
        mean = floats([estimate(point, repair, metric)["mean"] for point in ordered])
        colour, marker = _GROUPS[number % len(_GROUPS)], markers[number % len(markers)]
        label = title or plain_label(repair)
        axes.plot(rates, mean, marker=marker, color=colour, markersize=4, label=label)
        low = floats([estimate(point, repair, metric)["low"] for point in ordered])
        high = floats([estimate(point, repair, metric)["high"] for point in ordered])
        axes.fill_between(rates, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("bits per pixel on the wire")


def rate_groups(points: Sequence[SummaryPoint]) -> dict[str, list[SummaryPoint]]:
    """Points that belong on one rate-quality line, by title."""
    found = curves(points)
    if found.ticks is not None:
        return {setting_label(point["values"]): [point] for point in points}
    return {title: list(members) for title, members in found.groups.items()}


_GROUPS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")


def axis_title(found: Curves) -> str:
    """What the horizontal axis of curves shows."""
    return key_label(found.key)


def best_repair(points: Sequence[SummaryPoint], metric: str) -> str:
    """The repair with the best mean over all points, the last of those that tie; without any
    repair, the decode without loss."""
    best, highest = CLEAN, -np.inf
    for name in points[0]["concealers"]:
        means = floats([point["concealers"][name][metric]["mean"] for point in points])
        means *= metric_of(metric).sign
        if name != CLEAN and np.isfinite(means).any() and np.nanmean(means) >= highest:
            best, highest = name, float(np.nanmean(means))
    return best


def finding(points: Sequence[SummaryPoint], metric: str) -> str:
    """What the best repair comes to, in one line: the title of a figure."""
    repair = best_repair(points, metric)

    def mean(members: Sequence[SummaryPoint]) -> float:
        return float(np.nanmean(floats([estimate(p, repair, metric)["mean"] for p in members])))

    about = metric_of(metric)
    if len(points) == 1:
        clean = points[0]["concealers"][CLEAN][metric]["mean"]
        if points[0]["loss"]["tokens"] == 0 or clean is None:
            return "No token was lost"
        reached, best = about.text(mean(points)), about.text(clean)
        return f"{about.label} with {plain_label(repair)}: {reached}, of {best} without loss"
    found = curves(points)
    places: dict[float, list[SummaryPoint]] = {}
    for members in found.groups.values():
        for point, place in zip(members, found.positions(members), strict=True):
            places.setdefault(place, []).append(point)
    means = {place: mean(members) for place, members in sorted(places.items())}
    if found.ticks is None:
        ends = (min(means), max(means))
        told = " to ".join(f"{about.text(means[at])} at {at:g}" for at in ends)
    else:
        ranked = sorted(means, key=lambda at: about.sign * means[at])
        told = " to ".join(
            f"{about.text(means[at])} ({plain_label(found.ticks[int(at)])})"
            for at in (ranked[0], ranked[-1])
        )
    return f"{about.label} with {plain_label(repair)}, over {axis_title(found)}: {told}"


def floats(values: Sequence[float | None]) -> NDArray[np.float64]:
    """float64[n], None as NaN."""
    return np.array([np.nan if value is None else value for value in values], np.float64)


def loss_panel(axes: Axes, members: Sequence[SummaryPoint], found: Curves | None) -> None:
    """Shares lost, each with its 95% interval, and what theory expects of the packets.

    Args:
        axes: to draw on.
        members: points of one curve family.
        found: what it is drawn over; None for a single point.
    """
    positions = [0.0] if found is None else found.positions(members)
    order = np.argsort(positions, kind="stable")
    at = np.array(positions)[order]
    losses = [members[i]["loss"] for i in order]
    packets = floats([loss["packets"] for loss in losses])
    low, high = (floats([loss[end] for loss in losses]) for end in ("low", "high"))
    tokens = floats([loss["tokens"] for loss in losses])
    half = floats([loss["tokens_precision"]["half_width"] for loss in losses])
    line = "-" if found is not None and found.ticks is None else "none"
    expected = floats([loss.get("expected") for loss in losses])
    axes.plot(at, expected, "k_" if line == "none" else "k--", linewidth=1, label="theory, packets")
    for values, below, above, colour, marker, label in (
        (packets, packets - low, high - packets, ERASED, "o", "packets lost"),
        (tokens, half, half, DELIVERED, "s", "tokens lost"),
    ):
        errors = np.nan_to_num(np.array([below, above]))
        style: dict[str, Any] = {
            "color": colour,
            "marker": marker,
            "markersize": 9 if values is packets else 4,  # where they agree, both are seen
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
