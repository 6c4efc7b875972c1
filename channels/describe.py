"""Descriptions of a loss model: theory beside a sample, and the data of its figures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from channels.base import LossModel, Streams
from channels.composite import AnyLoss
from channels.erasure import Scripted
from channels.netem import to_netem
from channels.parameters import ChannelParameterError, whole
from channels.samplers import Mask, Runs, runs_of_mask
from channels.theory import (
    Floats,
    LossChain,
    autocorrelation,
    effective_sample_size,
    gap_run_survival,
    loss_rate,
    loss_rate_interval,
    loss_run_survival,
    mean_gap_run,
    mean_loss_run,
)
from channels.trace import LossTrace

CHUNK = 1 << 24
"""Packets handled at once by `sample_chunks` and `sample_to_file`."""

_CONFIDENCE = 0.99
_BATCHES = 100
_Z = NormalDist().inv_cdf(0.5 + _CONFIDENCE / 2.0)
_NO_THEORY = "no theory: it replays given losses, or its exact chain has too many states"


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity: its theoretical value, that of a sample, and the sample's 99% interval.

    nan where there is no theory or no interval. Without theory the interval is the sample's own.
    """

    name: str
    theory: float
    sample: float
    low: float
    high: float

    @property
    def inside(self) -> bool:
        """Whether the sample lies in the interval (True where there is none).

        Rounding is forgiven: a strictly periodic channel has intervals of no width.
        """
        slack = 1e-9 * abs(self.sample)
        return not (self.sample < self.low - slack or self.sample > self.high + slack)


@dataclass(frozen=True, slots=True)
class Description:
    """Theory and sample of a loss model; ``netem`` is the equivalent Linux option, or None."""

    packets: int
    seed: int
    rows: tuple[Row, ...]
    netem: str | None
    warnings: tuple[str, ...]


def sample_chunks(loss: LossModel, packets: int, seed: int, chunk: int = CHUNK) -> Iterator[Mask]:
    """The stream of ``build(loss, seed=seed)`` in masks of at most `chunk` packets, bool[...]."""
    whole("packets", packets, 0)
    sampler = loss.sampler(Streams(seed)["loss"])
    for start in range(0, packets, chunk):
        yield sampler.mask(min(chunk, packets - start))


def sample_to_file(loss: LossModel, packets: int, seed: int, path: str | Path) -> int:
    """Write bool[packets], True = lost, as .npy, in bounded memory; returns how many are lost.

    Raises:
        ChannelParameterError: packets < 0 or a seed that is none.
        OSError: the file cannot be written.
    """
    Streams(seed)
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(np.bool_)),
        "fortran_order": False,
        "shape": (whole("packets", packets, 0),),
    }
    losses = 0
    with open(path, "wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        for mask in sample_chunks(loss, packets, seed):
            file.write(mask.data)
            losses += int(np.count_nonzero(mask))
    return losses


def recorded_packets(loss: LossModel) -> int | None:
    """How many packets a trace or a script tells of, after which it says nothing new; None for a
    random process, which has no end."""
    match loss:
        case LossTrace():
            return len(loss.fates)
        case Scripted():
            return len(loss.script)
        case AnyLoss():
            return min(filter(None, map(recorded_packets, loss.parts)), default=None)
    return None


def describe(loss: LossModel, packets: int = 1_000_000, seed: int = 0) -> Description:
    """Theory beside a sample: loss rate, runs, correlation. Of a trace or a script the sample is at
    most as long as that.

    Intervals are 99% ones that allow for correlation: the exact variance for the loss rate; for
    the rest batch means (A. M. Law, *Simulation Modeling and Analysis*, section 9.5) over 100
    batches, with Student's t. So of the seven rows of a correct channel one lies outside in about
    one description of fifteen.

    Raises:
        ChannelParameterError: packets < 10,000.
    """
    if whole("packets", packets, 1) < 10_000:
        raise ChannelParameterError("packets", f"must be at least 10000 here, got {packets}")
    chain, recorded = loss.chain(), recorded_packets(loss)
    warnings = [*loss.warnings(), *([] if chain else [_NO_THEORY])]
    if recorded is not None and recorded < packets:
        warnings.append(f"only {recorded:,} packets are recorded, so this tells of no more")
        packets = recorded
    mask = np.concatenate(list(sample_chunks(loss, packets, seed)))
    rows = [_loss_row(mask, chain)]
    runs = runs_of_mask(mask)
    losses, gaps = (runs[:, 1] - runs[:, 0]), runs[1:, 0] - runs[:-1, 1]
    for name, lengths, mean in (
        ("mean burst (packets)", losses, mean_loss_run),
        ("mean gap (packets)", gaps, mean_gap_run),
    ):
        rows.append(_batch_row(name, mean(chain) if chain else math.nan, lengths))
    rho = autocorrelation(chain, 10) if chain else np.full(10, math.nan)
    for lag in (1, 2, 5, 10):
        rows.append(_correlation_row(lag, float(rho[lag - 1]), mask))
    if chain and 0.0 < loss_rate(chain) < 1.0:
        n_eff = effective_sample_size(chain, packets)
        rows.append(Row("effective packets", n_eff, math.nan, math.nan, math.nan))
    return Description(packets, seed, tuple(rows), to_netem(loss), tuple(warnings))


def _loss_row(mask: Mask, chain: LossChain | None) -> Row:
    rate = float(mask.mean())
    if chain is not None:
        low, high = loss_rate_interval(chain, mask.size, _CONFIDENCE)
        return Row("loss rate", loss_rate(chain), rate, low, high)
    return _batch_row("loss rate", math.nan, mask)


def _batch_row(
    name: str, expected: float, values: np.ndarray[tuple[int, ...], np.dtype[Any]]
) -> Row:
    """Mean of values float[n] with an interval from the scatter of batch means; nan below 100."""
    size = values.size // _BATCHES
    if size == 0:
        mean = float(values.mean()) if values.size else math.nan
        return Row(name, expected, mean, math.nan, math.nan)
    used = values[: size * _BATCHES].reshape(_BATCHES, size)
    means = used.mean(axis=1)
    mean = float(values.mean())
    half = student_t(_Z, _BATCHES - 1) * float(means.std(ddof=1)) / math.sqrt(_BATCHES)
    centre = mean if math.isnan(expected) else expected
    return Row(name, expected, mean, centre - half, centre + half)


def student_t(z: float, freedom: int) -> float:
    """The quantile of Student's t law where the standard normal one is z (M. Abramowitz, I. A.
    Stegun, *Handbook of Mathematical Functions*, 26.7.5); right to 1e-4 from 30 degrees of
    freedom on."""
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def _correlation_row(lag: int, expected: float, mask: Mask) -> Row:
    rate = float(mask.mean())
    if not 0.0 < rate < 1.0 or mask.size <= lag:
        return Row(f"autocorrelation, lag {lag}", expected, math.nan, math.nan, math.nan)
    centred = mask - rate
    products = centred[lag:] * centred[:-lag] / (rate * (1.0 - rate))
    squares = centred[lag:] ** 2 / (rate * (1.0 - rate))  # mean 1: how the variance scatters too
    linear = products - float(products.mean()) * (squares - 1.0)
    return _batch_row(f"autocorrelation, lag {lag}", expected, linear)


@dataclass(frozen=True, slots=True, eq=False)
class RunHistogram:
    """Run lengths of a sample and of theory.

    Attributes:
        lengths: int64[m], 1 ... m.
        counts: int64[m], runs of each length; the last counts all that are at least m long.
        expected: float64[m], by theory, or None.
    """

    lengths: Runs
    counts: Runs
    expected: Floats | None


def run_histogram(
    mask: Mask, chain: LossChain | None, longest: int = 50, *, gaps: bool = False
) -> RunHistogram:
    """Histogram of loss runs (or of received runs) of a mask bool[n], beside theory."""
    runs = runs_of_mask(~mask if gaps else mask)
    lengths = runs[:, 1] - runs[:, 0]
    counts = np.bincount(np.minimum(lengths, longest), minlength=longest + 1)[1:]
    expected = None
    if chain is not None:
        survival = (gap_run_survival if gaps else loss_run_survival)(chain, longest)
        expected = lengths.size * np.append(survival[:-1] - survival[1:], survival[-1])
    return RunHistogram(np.arange(1, longest + 1), counts, expected)


def sample_autocorrelation(mask: Mask, lags: int) -> Floats:
    """Correlation of the fates of packets k apart, k = 1 ... lags: float64[lags]; nan if alike."""
    rate = float(mask.mean())
    variance = rate * (1.0 - rate)
    if variance == 0.0 or mask.size <= lags:
        return np.full(lags, math.nan)
    centred = mask - rate
    return np.array([float((centred[k:] * centred[:-k]).mean()) for k in range(1, lags + 1)]) / (
        variance
    )


def loss_raster(mask: Mask, width: int) -> Mask:
    """The mask bool[n] in rows of `width` packets, bool[ceil(n/width), width], padded received."""
    rows = -(-mask.size // width)
    raster = np.zeros(rows * width, np.bool_)
    raster[: mask.size] = mask
    return raster.reshape(rows, width)
