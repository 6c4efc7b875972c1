"""From the rows of the images table to means and intervals (`sim.statistics` says which)."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from channels import read_channel
from channels.theory import (
    LossChain,
    effective_sample_size,
    loss_rate,
    loss_rate_interval,
    losses_in_block,
)
from sim.drivers.record import LOST
from sim.metrics import DEFAULT
from sim.results.files import Row, number
from sim.results.run import LATENCY_PERCENTILES
from sim.scenario.schema import CLEAN
from sim.statistics import CONFIDENCE, Precision, estimate, loss_interval, precision

_COUNTED = ("tokens", "tokens_lost", "packets_sent", "packets_lost", *LOST, "bpp", "bpp_wire")
_PROTECTED = ("recovered", "retransmitted", "latency_s")
_EXACT_PACKETS = 1000

Table = NDArray[np.float64]
"""One column of one concealer: float64[R,I], by repeat and image."""


class PointRows:
    """The rows of one point, by what is made of them.

    Attributes:
        measured: their metrics and the accuracy of tokens.
        repeats: how many they come from.
    """

    def __init__(self, metrics: Sequence[str] = DEFAULT) -> None:
        self.measured = (*metrics, "token_accuracy")
        self.repeats = 0
        self._columns: dict[str, dict[str, array[float]]] = {}

    def add(self, row: Row) -> None:
        """Take a row of images.csv, as text or numbers; in the order of repeats, and in each of
        images."""
        concealer, columns = row["concealer"], (*self.measured, *_COUNTED, *_PROTECTED)
        if concealer not in self._columns:
            self._columns[concealer] = {name: array("d") for name in columns}
        for name, values in self._columns[concealer].items():
            values.append(number(row[name]))

    def table(self, concealer: str, column: str) -> Table:
        """One column of one concealer."""
        values = np.frombuffer(self._columns[concealer][column], np.float64)
        return values.reshape(self.repeats, -1)

    @property
    def concealers(self) -> list[str]:
        """In the order of the rows, the decode without loss among them."""
        return list(self._columns)


def summarize(
    rows: PointRows, channel: Mapping[str, Any] | None, effective: float
) -> dict[str, Any]:
    """Means and intervals of one point.

    Args:
        rows: of all its repeats.
        channel: its channel section; None if packets went through several.
        effective: how many independent packets those of all repeats are worth, by the data alone.

    Returns:
        {"repeats", "images" and how many of them are complete and lost, "loss", "bpp", "bpp_wire",
        "protection", "concealers", "gains", "precision"}; means are NaN where a metric is not
        defined for any image.
    """
    columns = {
        name: {metric: rows.table(name, metric) for metric in rows.measured}
        for name in rows.concealers
    }
    repairs = [name for name in columns if name != CLEAN]
    lost = _token_loss(rows)
    references = (*(["none"] if "none" in repairs else repairs[:1]), CLEAN)
    return {
        "repeats": rows.repeats,
        "images": rows.table(CLEAN, "bpp").size,
        "images_complete": int(np.count_nonzero(lost == 0)),
        "images_lost": int(np.count_nonzero(lost == 1)),
        "loss": _loss(rows, channel, effective),
        "bpp": float(np.mean(rows.table(CLEAN, "bpp"))),
        "bpp_wire": float(np.mean(rows.table(CLEAN, "bpp_wire"))),
        "protection": _protection(rows),
        "concealers": {
            name: {metric: asdict(estimate(values)) for metric, values in metrics.items()}
            for name, metrics in columns.items()
        },
        "gains": {
            f"{name} - {other}": {
                metric: asdict(estimate(values - columns[other][metric]))
                for metric, values in columns[name].items()
            }
            for name in repairs
            for other in references
            if name != other
        },
        "precision": {
            name: {metric: asdict(precision(values)) for metric, values in columns[name].items()}
            for name in repairs
        },
    }


def certainty(rows: PointRows, metric: str) -> list[Precision]:
    """How sure the means of one point are: of every repair, or of the "loss" of tokens.

    Args:
        rows: of all its repeats.
        metric: of those measured, "token_accuracy" or "loss".
    """
    if metric == "loss":
        return [precision(_token_loss(rows))]
    repairs = [name for name in rows.concealers if name != CLEAN]
    return [precision(rows.table(name, metric)) for name in repairs]


def _token_loss(rows: PointRows) -> Table:
    return rows.table(CLEAN, "tokens_lost") / rows.table(CLEAN, "tokens")


def _loss(rows: PointRows, channel: Mapping[str, Any] | None, effective: float) -> dict[str, Any]:
    """Packets lost in each way, and tokens lost. What the loss process took comes with the interval
    of its rate, and with what theory expects of so many packets."""
    totals = {
        name: float(rows.table(CLEAN, name).sum())
        for name in ("packets_sent", "packets_lost", *LOST, "tokens", "tokens_lost")
    }
    sent = int(totals["packets_sent"])
    per_stream = max(1, sent // rows.repeats)
    chain = None if channel is None else read_channel(channel)[0].chain()
    if chain is not None:
        known = rows.repeats * effective_sample_size(chain, per_stream)
        effective = known if np.isfinite(known) else float(sent)
    low, high = loss_interval(totals["erased"] / sent, effective)
    found: dict[str, Any] = {
        "packets_sent": sent,
        "packets": totals["packets_lost"] / sent,
        **{name: totals[name] / sent for name in LOST},
        "low": low,
        "high": high,
        "effective_packets": effective,
        "tokens": totals["tokens_lost"] / totals["tokens"],
        "tokens_precision": asdict(precision(_token_loss(rows))),
    }
    if chain is not None:
        first, last = expected_range(chain, per_stream)
        found |= {"expected": loss_rate(chain), "one_stream_low": first, "one_stream_high": last}
    return found


def _protection(rows: PointRows) -> dict[str, float]:
    """Slices that parity restored, packets sent again, and over images the mean and percentiles of
    the seconds from capture to the last packet that brought or restored anything; NaN if none
    did."""
    recovered, again, latency_s = (rows.table(CLEAN, name) for name in _PROTECTED)
    known = latency_s[np.isfinite(latency_s)]
    known = known if known.size else np.array([np.nan])
    return {
        "recovered": int(recovered.sum()),
        "retransmitted": int(again.sum()),
        "latency_s": float(known.mean()),
        **{f"latency_p{p}_s": float(np.percentile(known, p)) for p in LATENCY_PERCENTILES},
    }


def expected_range(chain: LossChain, packets: int) -> tuple[float, float]:
    """Where the loss rate of one stream falls 95% of the time; exact for short streams."""
    if packets > _EXACT_PACKETS:
        return loss_rate_interval(chain, packets, CONFIDENCE)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.searchsorted(np.cumsum(losses_in_block(chain, packets)), [tail, 1 - tail])
    return float(low / packets), float(high / packets)
