"""From the images table to means and intervals.

Intervals are percentile bootstraps (Efron 1979; 2,000 resamples, 95%) over the (image, repeat)
pairs of a point. All concealers of a point are resampled together, so a gain (the difference
between two concealers, or between one and the decode without loss) is a paired comparison: the
same images through the same losses. Images of one stream share its bursts, so with one repeat the
interval is narrower than what other streams would show; the range of the loss rate beside it comes
from the channel's own theory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from channels import read_channel
from channels.theory import LossChain, loss_rate, loss_rate_interval, losses_in_block
from sim.metrics import METRICS
from sim.results import Row
from sim.scenario import CLEAN

RESAMPLES = 2000
CONFIDENCE = 0.95
_EXACT_PACKETS = 1000


def summarize(rows: Sequence[Row], channels: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Means and intervals of every point.

    Args:
        rows: of images.csv: point, repeat, frame, concealer, the metrics, tokens, tokens_lost,
            packets_sent, packets_lost, bpp, bpp_wire.
        channels: channel section by point.

    Returns:
        {"points": [{"point", "images", "loss", "bpp", "bpp_wire", "concealers", "gains"}]}; means
        are null where a metric is not defined for any image.
    """
    points = sorted({row["point"] for row in rows})
    return {
        "points": [
            _point(number, [row for row in rows if row["point"] == number], channels[number])
            for number in points
        ]
    }


def _point(number: int, rows: Sequence[Row], channel: Mapping[str, Any]) -> dict[str, Any]:
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row["concealer"], []).append(row)
    clean = by_name[CLEAN]
    picks = np.random.default_rng(0).integers(len(clean), size=(RESAMPLES, len(clean)))
    columns = {
        name: {m: _column(group, m) for m in (*METRICS, "token_accuracy")}
        for name, group in by_name.items()
    }
    repairs = [name for name in by_name if name != CLEAN]
    reference = "none" if "none" in repairs else repairs[0]
    return {
        "point": number,
        "images": len(clean),
        "loss": _loss(clean, channel),
        "bpp": float(np.mean(_column(clean, "bpp"))),
        "bpp_wire": float(np.mean(_column(clean, "bpp_wire"))),
        "concealers": {
            name: {m: estimate(values, picks) for m, values in metrics.items()}
            for name, metrics in columns.items()
        },
        "gains": {
            f"{name} - {other}": {
                m: estimate(values - columns[other][m], picks)
                for m, values in columns[name].items()
            }
            for name in repairs
            for other in dict.fromkeys((reference, CLEAN))
            if name != other
        },
    }


def _column(rows: Sequence[Row], name: str) -> NDArray[np.float64]:
    return np.array([row[name] for row in rows], np.float64)


def estimate(values: NDArray[np.float64], picks: NDArray[np.int64]) -> dict[str, Any]:
    """Mean and bootstrap interval of float64[n], leaving out NaN and infinities.

    Args:
        values: one per (image, repeat).
        picks: int64[resamples,n], row numbers of each resample.

    Returns:
        {"mean", "low", "high", "n"}; without two defined values there is no interval.
    """
    defined = np.isfinite(values)
    count = int(defined.sum())
    mean = float(values[defined].mean()) if count else math.nan
    if count < 2:
        return {"mean": mean, "low": math.nan, "high": math.nan, "n": count}
    present = defined[picks]
    totals = np.where(present, np.where(defined, values, 0.0)[picks], 0.0).sum(1)
    counts = present.sum(1)
    means = totals[counts > 0] / counts[counts > 0]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return {"mean": mean, "low": float(low), "high": float(high), "n": count}


def _loss(rows: Sequence[Row], channel: Mapping[str, Any]) -> dict[str, Any]:
    """Packets and tokens lost, beside what the channel's theory expects of so many packets."""
    sent = sum(row["packets_sent"] for row in rows)
    found: dict[str, Any] = {
        "packets_sent": sent,
        "packets": sum(row["packets_lost"] for row in rows) / sent,
        "tokens": sum(row["tokens_lost"] for row in rows) / sum(row["tokens"] for row in rows),
    }
    chain = read_channel(channel)[0].chain()
    if chain is not None:
        per_stream = sent // len({row["repeat"] for row in rows})
        low, high = expected_range(chain, per_stream)
        found |= {"expected": loss_rate(chain), "one_stream_low": low, "one_stream_high": high}
    return found


def expected_range(chain: LossChain, packets: int) -> tuple[float, float]:
    """Where the loss rate of one stream falls 95% of the time; exact for short streams."""
    if packets > _EXACT_PACKETS:
        return loss_rate_interval(chain, packets, CONFIDENCE)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.searchsorted(np.cumsum(losses_in_block(chain, packets)), [tail, 1 - tail])
    return float(low / packets), float(high / packets)
