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
            tables = {metric: _table(own, metric) for metric in metrics}
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
            for metric, values in tables.items():
                low, high = _interval(values)
                about |= {metric: finite_mean(values), f"{metric}_low": low, f"{metric}_high": high}
            found.append(about)
    return found


def winner_rows(rows: Sequence[Row], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """One row per cell and metric: who is best and by how much, and how the best strategy that
    sends tokens stands against the best that sends files ("tokens", "files", or "open" where the
    interval of their difference holds 0)."""
    found = []
    for key, group in _cells(rows):
        by_name = dict(_strategies(group))
        for metric in metrics:
            sign = metric_of(metric).sign
            tables = {name: sign * _table(own, metric) for name, own in by_name.items()}
            ranked = sorted(
                (name for name in tables if not np.isnan(finite_mean(tables[name]))),
                key=lambda name: -finite_mean(tables[name]),
            )
            if not ranked:
                continue
            files = [name for name in ranked if by_name[name][0]["coder"] != TOKENS]
            tokens = [name for name in ranked if by_name[name][0]["coder"] == TOKENS]
            found.append(
                {
                    **key,
                    "metric": metric,
                    "winner": ranked[0],
                    "mean": sign * finite_mean(tables[ranked[0]]),
                    **_lead("", tables, ranked[:2]),
                    **_lead("tokens_", tables, [*tokens[:1], *files[:1]]),
                    "tokens_better": _share_better(tables, tokens, files),
                    "verdict": _verdict(tables, tokens, files),
                }
            )
    return found


def paired_difference(rows: Sequence[Row], metric: str, name: str, other: str) -> Estimate:
    """How far a strategy is from another, on the same images and losses, in the rows of a cell."""
    by_name = dict(_strategies(rows))
    values = _table(by_name[name], metric) - _table(by_name[other], metric)
    return Estimate(finite_mean(values), *_interval(values), values.size)


def _lead(prefix: str, tables: Mapping[str, Floats], names: Sequence[str]) -> dict[str, Any]:
    """By how much the first is better than the second; with the interval."""
    lead = low = high = float("nan")
    first, second = (*names, None, None)[:2]
    if first is not None and second is not None:
        difference = tables[first] - tables[second]
        lead, (low, high) = finite_mean(difference), _interval(difference)
    whom: dict[str, Any] = {"over": second} if not prefix else {"best": first, "files_best": second}
    return {
        **{f"{prefix}{key}" if key != "files_best" else key: v for key, v in whom.items()},
        f"{prefix}lead": lead,
        f"{prefix}lead_low": low,
        f"{prefix}lead_high": high,
    }


def _share_better(
    tables: Mapping[str, Floats], tokens: Sequence[str], files: Sequence[str]
) -> float:
    """Share of the (image, stream) pairs in which the best tokens beat the best files. A mean may
    rest on a few ruined pictures; this does not."""
    if not tokens or not files:
        return float("nan")
    return float(np.mean(tables[tokens[0]] > tables[files[0]]))


def _verdict(tables: Mapping[str, Floats], tokens: Sequence[str], files: Sequence[str]) -> str:
    if not tokens or not files:
        return ""
    low, high = _interval(tables[tokens[0]] - tables[files[0]])
    return "tokens" if low > 0 else "files" if high < 0 else "open"


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
