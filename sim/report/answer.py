"""The answer to a scenario's question in one sentence, computed from the tables of its run.

Estimates are paired (same images, same repeats), come with 95% intervals, and are called not
decided when zero lies inside or when there are too few pairs to tell
(`sim.statistics.MIN_PAIRS`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sim.figures.panels import Curves, best_repair, curves
from sim.figures.style import key_label
from sim.metrics import Metric
from sim.metrics import metric as metric_of
from sim.results.run import PointSummary, Run, Values, losses_label, ways_lost
from sim.scenario.labels import plain_label, value_label, with_label
from sim.scenario.schema import CLEAN
from sim.statistics import MIN_PAIRS, MIN_REPEATS, Estimate, estimate, finite_mean, precision


def answer(run: Run, name: str) -> str:
    """One sentence about a run, by the metric of that name."""
    metric = metric_of(name)
    repair = best_repair(run.points, name)
    if repair == CLEAN:
        lost = losses_label(run.points)
        ways = [
            f"{max(getattr(point.loss, how) for point in run.points):.1%} {how}"
            for how in ways_lost(run.points)
        ]
        most = f" (at most {', '.join(ways)})" if len(ways) > 1 else ""
        return f"{lost} of the packets were lost{most}; no repair was asked for."
    if len(run.points) == 1:
        return _one_point(run, run.points[0], repair, metric)
    return _sweep(run, repair, metric)


def _one_point(run: Run, point: PointSummary, repair: str, metric: Metric) -> str:
    values = {name: run.values[point.index][name, metric.name] for name in point.concealers}
    means = {name: finite_mean(found.values()) for name, found in values.items()}
    loss, mean = point.loss, metric.text(means[repair])
    if loss.tokens == 0:
        return (
            f"Nothing was lost: a mean {metric.label} of {mean} is what the codec makes of "
            f"the images at {point.bpp:.4f} bits per pixel, {point.bpp_wire:.4f} on the wire."
        )
    cost = difference(values[repair], values[CLEAN])
    ways = [f"{getattr(loss, how):.1%} {how}" for how in ways_lost([point])]
    how = f" ({', '.join(ways)})" if len(ways) > 1 else ""
    text = (
        f"With {loss.packets:.1%} of {loss.packets_sent} packets lost{how}, mean {metric.label} "
        f"{with_label(repair)} is {mean}, {_apart(cost, metric)} the "
        "same images without loss"
    )
    others = [name for name in point.concealers if name not in (CLEAN, repair)]
    if others:
        nearest = max(others, key=lambda name: metric.sign * means[name])
        compared = ["none"] if "none" in others and nearest != "none" else []
        gains = {name: difference(values[repair], values[name]) for name in (*compared, nearest)}
        few = {_verdict(gain) for gain in gains.values()} == {_too_few(point.images)}
        text += ", " + " and ".join(
            f"{_apart(gain, metric)} "
            f"{'leaving the holes' if name == 'none' else plain_label(name)}"
            f"{'' if few else _verdict(gain)}"
            for name, gain in gains.items()
        )
        text += _too_few(point.images) if few else ""
    return text + "."


def _sweep(run: Run, repair: str, metric: Metric) -> str:
    found = curves(run.points)
    by_place: dict[float, list[Values]] = {}
    for members in found.groups.values():
        for point, place in zip(members, found.positions(members), strict=True):
            by_place.setdefault(place, []).append(run.values[point.index][repair, metric.name])
    levels = {place: averaged(by_place[place]) for place in sorted(by_place)}
    if len(levels) > 1 and not any(_differ(levels[a], levels[b]) for a, b in pairwise(levels)):
        return _equal_pictures(run, found, repair, metric)
    names = {
        place: plain_label(found.ticks[int(place)]) if found.ticks else f"{place:g}"
        for place in levels
    }
    text = _over_places(levels, names, key_label(found.key), found.ticks is None, repair, metric)
    if len(found.groups) > 1:
        text += _between_groups(run, repair, metric)
    if run.points[0].repeats >= MIN_REPEATS and len(levels) > 1:
        spreads = {place: precision(_table(values)).sd for place, values in levels.items()}
        least, most = (
            f"{names[place]} ({metric.text(spreads[place])})"
            for place in (
                min(spreads, key=spreads.__getitem__),
                max(spreads, key=spreads.__getitem__),
            )
        )
        text += f"; the means of single streams scatter least at {least} and most at {most}"
    return text + "."


def _differ(a: Values, b: Values) -> bool:
    """Whether any picture is another; where none is, the two are equal by construction."""
    return any(a[key] != b[key] for key in a if key in b)


def _equal_pictures(run: Run, found: Curves, repair: str, metric: Metric) -> str:
    """What a sweep costs that changes no picture: the bits of its points."""
    bits: dict[str, list[float]] = {}
    for point in run.points:
        value = plain_label(value_label(point.values.get(found.key)))
        bits.setdefault(value, []).append(point.bpp_wire)
    means = {value: float(np.mean(rates)) for value, rates in bits.items()}
    rates = ", ".join(f"{rate:.4f} with {value}" for value, rate in means.items())
    mean = metric.text(run.points[0].concealers[repair][metric.name].mean)
    same = f"The pictures are the same at every {key_label(found.key)}"
    about = f"mean {metric.label} {mean}" if len(found.groups) == 1 else "bit for bit"
    return f"{same} ({about}); bits per pixel on the wire are {rates}."


def _over_places(
    levels: Mapping[float, Values],
    names: Mapping[float, str],
    key: str,
    ordered: bool,
    repair: str,
    metric: Metric,
) -> str:
    given = with_label(repair).capitalize()
    means = {place: finite_mean(values.values()) for place, values in levels.items()}
    first, last = next(iter(levels)), list(levels)[-1]
    steps = np.diff(list(means.values()))
    if len(levels) == 1:
        return f"{given}, mean {metric.label} is {metric.text(means[first])}"
    if ordered and len(levels) > 2 and ((steps > 0).all() or (steps < 0).all()):
        change = difference(levels[last], levels[first])
        verb = "rises" if change.mean > 0 else "falls"
        return (
            f"{given}, mean {metric.label} {verb} with {key}: from "
            f"{metric.text(means[first])} at {names[first]} to {metric.text(means[last])} at "
            f"{names[last]}, {_size(change, metric)} {'more' if change.mean > 0 else 'less'}"
            f"{_verdict(change)}"
        )
    ranked = sorted(levels, key=lambda place: -metric.sign * means[place])
    best, second, worst = ranked[0], ranked[1], ranked[-1]
    lead = difference(levels[best], levels[second])
    text = (
        f"{given}, mean {metric.label} is {_best(metric)} with {key}: {names[best]} "
        f"({metric.text(means[best])}), {_apart(lead, metric)} "
        f"{names[second]}{_verdict(lead)}"
    )
    if worst != second:
        range_ = difference(levels[best], levels[worst])
        text += f" and {_apart(range_, metric)} {names[worst]}{_verdict(range_)}"
    return text


def _between_groups(run: Run, repair: str, metric: Metric) -> str:
    """The best and the worst group, averaged over the axis where all have values."""
    groups = {
        title: averaged([run.values[point.index][repair, metric.name] for point in members])
        for title, members in curves(run.points).groups.items()
    }
    ranked = _ranked(groups, metric)
    best, worst = ranked[0], ranked[-1]
    if not _differ(groups[best], groups[worst]):
        members = curves(run.points).groups
        bits = [
            f"{finite_mean([p.bpp_wire for p in members[title]]):.4f} with {title}"
            for title in groups
        ]
        return (
            f"; the choice changes no picture, only bits per pixel on the wire: {', '.join(bits)}"
        )
    gap = difference(groups[best], groups[worst])
    return f"; on average, {ranked[0]} is {_apart(gap, metric)} {ranked[-1]}{_verdict(gap)}"


def comparison(runs: Mapping[str, Run], name: str) -> str:
    """One sentence about several runs, by title, and the metric of that name."""
    metric = metric_of(name)
    levels = {}
    for title, run in runs.items():
        repair = best_repair(run.points, name)
        levels[title] = averaged([values[repair, name] for values in run.values.values()])
    ranked = _ranked(levels, metric)
    best, second = ranked[0], ranked[1]
    lead = difference(levels[best], levels[second])
    text = (
        f"Each at its best repair, {best} gives the {_best(metric)} mean {metric.label}, "
        f"{metric.text(finite_mean(levels[best].values()))}"
    )
    other = f"{second} with {metric.text(finite_mean(levels[second].values()))}"
    if not lead.n:
        return f"{text}, ahead of {other}; they share no images, so nothing is decided."
    if len(runs) > 2:
        other = f"the next best, {other}"
    return f"{text}, {_apart(lead, metric)} {other}{_verdict(lead)}."


def _ranked(found: Mapping[str, Values], metric: Metric) -> list[str]:
    """Names by their means, the best first."""
    return sorted(found, key=lambda name: -metric.sign * finite_mean(found[name].values()))


def _best(metric: Metric) -> str:
    return "highest" if metric.larger_is_better else "lowest"


def _apart(found: Estimate, metric: Metric) -> str:
    """How far the first is from the second: "1.20 dB (0.31 to 2.05) above"."""
    return f"{_size(found, metric)} {'below' if found.mean < 0 else 'above'}"


def _size(found: Estimate, metric: Metric) -> str:
    """A difference without its sign: "1.20 dB (0.31 to 2.05)"."""
    sign = -1 if found.mean < 0 else 1
    ends = sorted((sign * found.low, sign * found.high))
    text = metric.text(sign * found.mean)
    if not np.isfinite(ends[0]):
        return text
    low, high = (metric.text(end, unit=False) for end in ends)
    return f"{text} ({low} to {high})"


def _verdict(found: Estimate) -> str:
    if decided(found):
        return ""
    if found.n and (found.low > 0 or found.high < 0):
        return _too_few(found.n)
    return " (not decided)"


def _too_few(pairs: int) -> str:
    return f", though {pairs} pictures are too few to be sure" if pairs > 1 else " (one picture)"


def difference(a: Values, b: Values) -> Estimate:
    """a - b over the images and repeats that both have; see `sim.statistics.estimate`."""
    with np.errstate(invalid="ignore"):
        return estimate(_table({key: np.subtract(a[key], b[key]) for key in a if key in b}))


def _table(values: Values) -> NDArray[np.float64]:
    """float64[repeats, images]; NaN where there is no value."""
    images = {image: n for n, image in enumerate(dict.fromkeys(image for image, _ in values))}
    repeats = {repeat: n for n, repeat in enumerate(dict.fromkeys(repeat for _, repeat in values))}
    table = np.full((len(repeats), len(images)), np.nan)
    for (image, repeat), value in values.items():
        table[repeats[repeat], images[image]] = value
    return table


def decided(found: Estimate) -> bool:
    """Whether the sign of a difference is beyond doubt at 95%."""
    return found.n >= MIN_PAIRS and (found.low > 0 or found.high < 0)


def averaged(parts: Sequence[Values]) -> dict[tuple[str, int], float]:
    """The mean over parts, for the images and repeats that all of them have."""
    shared = [key for key in parts[0] if all(key in part for part in parts)]
    return {key: float(np.mean([part[key] for part in parts])) for key in shared}
