"""From outcomes to means, intervals and winners.

Intervals are those of `sim.statistics.estimate`: all strategies of a cell see the same draws of
images and repeats, so that a difference is a paired comparison: the same images through the same
loss processes. The frames of a video are no sample of anything: of a stream their mean counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sim.drivers.record import LOST
from sim.metrics import metric as metric_of
from sim.results.files import Row, number
from sim.statistics import Estimate, Floats, estimate, finite_mean
from sim.studies.compare.config import TOKENS
from sim.studies.measurements import grouped

_MIN_REPEATS = 3


def mean_rows(rows: Sequence[Row], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """One row per strategy and cell: bytes, losses and every metric with its interval."""
    found = []
    for key, group in _cells(rows):
        for name, own in _strategies(group):
            sent = sum(row["packets_sent"] for row in own)
            about: dict[str, Any] = {
                **key,
                "strategy": name,
                "coder": own[0]["coder"],
                "level": own[0]["level"],
                "outcomes": len(own),
                "bpp_wire": float(np.mean([row["bpp_wire"] for row in own])),
                "packets_lost": sum(row[f"packets_{how}"] for row in own for how in LOST) / sent,
                "source_there": float(np.mean([row["source_there"] for row in own])),
            }
            for metric in metrics:
                about |= _with_interval(metric, _table(own, metric))
            found.append(about)
    return found


def winner_rows(rows: Sequence[Row], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """One row per cell and metric: who is best and by how much, and how the best strategy that
    sends tokens stands against the best that sends files ("tokens", "files", or "open" where the
    interval of their difference holds 0); "tokens_better" is the share of (image, stream) pairs in
    which it is better. There is none of a metric that a strategy has no value of, such as the time
    to recover of one that had no outage."""
    found = []
    for key, group in _cells(rows):
        by_name = dict(_strategies(group))
        for metric in metrics:
            sign = metric_of(metric).sign
            tables = {name: sign * _table(own, metric) for name, own in by_name.items()}
            if np.isnan([finite_mean(table) for table in tables.values()]).any():
                continue
            ranked = sorted(tables, key=lambda name: -finite_mean(tables[name]))
            second = ranked[1] if ranked[1:] else None
            best = {by_name[name][0]["coder"] == TOKENS: name for name in reversed(ranked)}
            ahead = _difference(tables, best.get(True), best.get(False))
            known = ahead[np.isfinite(ahead)]
            found.append(
                {
                    **key,
                    "metric": metric,
                    "winner": ranked[0],
                    "mean": sign * finite_mean(tables[ranked[0]]),
                    "over": second,
                    **_with_interval("lead", _difference(tables, ranked[0], second)),
                    "tokens_best": best.get(True),
                    "files_best": best.get(False),
                    **_with_interval("tokens_lead", ahead),
                    # A mean may rest on a few ruined pictures; a share of all pairs does not.
                    "tokens_better": float(np.mean(known > 0)) if known.size else float("nan"),
                    "verdict": _verdict(ahead),
                }
            )
    return found


def paired_difference(rows: Sequence[Row], metric: str, name: str, other: str) -> Estimate:
    """How far a strategy is from another, on the same images and losses, in the rows of a cell."""
    by_name = dict(_strategies(rows))
    values = _table(by_name[name], metric) - _table(by_name[other], metric)
    return Estimate(finite_mean(values), *_interval(values), values.size)


def _difference(tables: Mapping[str, Floats], first: str | None, second: str | None) -> Floats:
    """How much better the first is, float64[repeats, images]; empty where there are not two."""
    if first is None or second is None:
        return np.empty((0, 0))
    return tables[first] - tables[second]


def _verdict(ahead: Floats) -> str:
    low, high = _interval(ahead)
    if not ahead.size:
        return ""
    return "tokens" if low > 0 else "files" if high < 0 else "open"


def _with_interval(name: str, values: Floats) -> dict[str, float]:
    """The mean, under this name, and its interval."""
    low, high = _interval(values)
    return {name: finite_mean(values), f"{name}_low": low, f"{name}_high": high}


def _interval(values: Floats) -> tuple[float, float]:
    """Of the mean of float64[repeats, images]; NaN for fewer than three repeats, which tell next to
    nothing of how streams differ."""
    if len(values) < _MIN_REPEATS:
        return float("nan"), float("nan")
    found = estimate(values)
    return found.low, found.high


def _table(rows: Sequence[Row], metric: str) -> Floats:
    """float64[repeats, images]; of a video [repeats, 1], means over its frames."""
    repeats = sorted({row["repeat"] for row in rows})
    images = list(dict.fromkeys(row.get("video") or row["image"] for row in rows))
    cells: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        at = repeats.index(row["repeat"]), images.index(row.get("video") or row["image"])
        cells.setdefault(at, []).append(number(row[metric]))
    table = np.full((len(repeats), len(images)), np.nan)
    for at, values in cells.items():
        table[at] = values[0] if len(values) == 1 else finite_mean(values)
    return table


def _cells(rows: Sequence[Row]) -> Iterator[tuple[dict[str, Any], list[Row]]]:
    keys = ("budget", "mean_burst", "loss")
    for values, group in grouped(rows, keys).items():
        yield dict(zip(keys, values, strict=True)), group


def _strategies(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    for (name,), group in grouped(rows, ["strategy"]).items():
        yield name, group
