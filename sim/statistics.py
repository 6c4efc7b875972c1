"""How sure a number is, for measurements that hang together.

A point is measured on I images in each of R repeats. Images of one repeat share its bursts, and
one image in several repeats is still one image, so the R x I values are not R x I independent ones.

Means over images and repeats: the pigeonhole bootstrap (Owen, Annals of Applied Statistics 1,
2007), which draws repeats and images with replacement, independently of one another, and keeps
whole rows and columns together. It is paired: every column of a point sees the same draws, so a
gain is the difference on the same images through the same losses. It errs towards wide intervals.
With one repeat only images are drawn, and nothing speaks of what other streams would show.

Means over repeats for these very images: a repeat's mean is one value, repeats are independent
streams, and Student's t gives the interval; from it follow the repeats that a wanted precision
needs, and when to stop.

Loss rates: packets in a burst share their fate, so n packets tell as much as a smaller number of
independent ones (`channels.theory.effective_sample_size`, or from the data: Geyer, Statistical
Science 7, 1992); Wilson's interval is taken with that number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 2000
CONFIDENCE = 0.95
MIN_PAIRS = 6
"""Pairs needed to decide anything at 95%: fewer can all agree by chance more than once in twenty
(2 * 0.5**5 = 0.06, the sign test of five)."""

MIN_REPEATS = 8
"""Before a stopping rule looks for the first time: two or three values can agree by luck."""

_BLOCK = 100  # resamples whose draws are made at once


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95% interval; NaN where too few values are defined.

    ``n``: how many values are.
    """

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Precision:
    """How sure the mean over repeats is, for these images.

    Attributes:
        sd: standard deviation of the repeats' means; NaN below two repeats.
        half_width: of the 95% interval; NaN below two repeats.
        repeats: with a defined mean.
    """

    sd: float
    half_width: float
    repeats: int


@lru_cache(maxsize=4)
def _draws(what: int, size: int) -> NDArray[np.float32]:
    """How often each of `size` is drawn in every resample: float32[RESAMPLES,size]; one alone is
    always there. Repeats (`what` = 0) and images (1) have random streams of their own."""
    if size == 1:
        return np.ones((RESAMPLES, 1), np.float32)
    rng = np.random.default_rng((what, size))
    counts = np.empty((RESAMPLES, size), np.float32)
    for start in range(0, RESAMPLES, _BLOCK):
        picks = rng.integers(size, size=(_BLOCK, size))
        picks += size * np.arange(_BLOCK)[:, None]
        block = np.bincount(picks.ravel(), minlength=_BLOCK * size).reshape(_BLOCK, size)
        counts[start : start + _BLOCK] = block
    return counts


def estimate(values: Floats) -> Estimate:
    """Mean and bootstrap interval of float64[R,I] (repeats, images), leaving out NaN and
    infinities. Equal shapes see equal draws, so differences may be given for paired gains."""
    defined = np.isfinite(values)
    count = int(defined.sum())
    mean = float(values[defined].mean()) if count else math.nan
    if count < 2:
        return Estimate(mean, math.nan, math.nan, count)
    if count == values.size:
        means = mean + _drawn(values - mean) / count  # small numbers keep sums exact
    else:
        totals = _drawn(np.where(defined, values - mean, 0.0))
        counts = _drawn(defined.astype(np.float64))
        means = mean + totals[counts > 0] / counts[counts > 0]
    return Estimate(mean, *_middle(means), count)


def _middle(means: Floats) -> tuple[float, float]:
    """Where the middle 95% of the resamples' means begin and end."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def ratio(values: Floats, base: Floats) -> Estimate:
    """How much more one mean is than another, as a share: mean(values) / mean(base) - 1, both over
    the same draws of float64[R,I] where both are defined."""
    defined = np.isfinite(values) & np.isfinite(base)
    count = int(defined.sum())
    if not count:
        return Estimate(math.nan, math.nan, math.nan, 0)
    more = float(values[defined].sum() / base[defined].sum()) - 1
    if count < 2:
        return Estimate(more, math.nan, math.nan, count)
    above, below = (_drawn(np.where(defined, table, 0.0)) for table in (values, base))
    return Estimate(more, *_middle(above[below != 0] / below[below != 0] - 1), count)


def finite_mean(values: Iterable[float] | Floats) -> float:
    """Over what is finite, of any shape; NaN if nothing is."""
    known = np.array([*values], np.float64)
    known = known[np.isfinite(known)]
    return float(known.mean()) if known.size else float("nan")


def _drawn(values: Floats) -> Floats:
    """Sum of float64[R,I] in every resample, float64[RESAMPLES]. Not by BLAS, whose last digits
    may depend on the number of threads."""
    repeats, images = _draws(0, values.shape[0]), _draws(1, values.shape[1])
    sums: Floats = np.einsum("bi,bi->b", np.einsum("br,ri->bi", repeats, values), images)
    return sums


def precision(values: Floats) -> Precision:
    """Of the mean over repeats of float64[R,I], each repeat's mean taken over its defined
    images."""
    defined = np.isfinite(values)
    counts = defined.sum(1)
    totals = np.where(defined, values, 0.0).sum(1)
    means = totals[counts > 0] / counts[counts > 0]
    if len(means) < 2:
        return Precision(math.nan, math.nan, len(means))
    sd = float(means.std(ddof=1))
    return Precision(sd, _t(len(means)) * sd / math.sqrt(len(means)), len(means))


def _t(repeats: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(repeats - 1, 0.5 + CONFIDENCE / 2))


def repeats_needed(sd: float, half_width: float) -> int:
    """The fewest repeats, at least 2, whose 95% interval is expected to reach at most
    +-half_width, for repeats whose means have standard deviation `sd`: the smallest n with
    t(n-1) sd / sqrt(n) <= half_width.

    Raises:
        ValueError: half_width is not above 0, or sd is negative or no number.
    """
    if not half_width > 0 or not sd >= 0:
        raise ValueError(f"need half_width > 0 and sd >= 0, got {half_width} and {sd}")
    normal = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    count = max(2, math.ceil((normal * sd / half_width) ** 2))  # t is wider: this is a lower bound
    while _t(count) * sd / math.sqrt(count) > half_width:
        count += 1
    return count


def repeats_to_go(found: Iterable[Precision], done: int, half_width: float, most: int) -> int:
    """How many repeats a point should have in all; `done` when that is enough.

    The rule: stop when every interval is at most +-half_width, or at `most`. Looking often would
    stop on lucky streaks, so it first looks after `MIN_REPEATS` and then at the number that the
    spread so far calls for, but at least a quarter more and at most twice as many.

    Args:
        found: the precision of everything that must be certain, over `done` repeats.
        done: repeats so far.
        half_width: wanted.
        most: repeats at most.
    """
    if done >= most:
        return done
    if done < MIN_REPEATS:
        return min(most, MIN_REPEATS)
    spreads = [part.sd for part in found if part.half_width > half_width]
    if not spreads:
        return done
    wanted = repeats_needed(max(spreads), half_width)
    return min(most, max(wanted, math.ceil(1.25 * done)), 2 * done)


def effective_size(lost: NDArray[np.bool_]) -> float:
    """How many independent packets tell as much about the loss rate as these, bool[n] in order.

    n / (1 + 2 sum rho), the sum cut where adjacent pairs of autocorrelations stop being positive
    (Geyer 1992, initial positive sequence), and never above n: a short stream cannot show that
    losses avoid each other.
    """
    count = len(lost)
    centred = lost - lost.mean()
    variance = float(centred @ centred)
    if count < 4 or variance == 0:
        return float(count)
    spectrum = np.fft.rfft(centred, 2 * count)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:count] / variance
    pairs = correlation[0 : count - 1 : 2] + correlation[1:count:2]
    stop = np.argmax(pairs <= 0) if (pairs <= 0).any() else len(pairs)
    inflation = max(1.0, 2 * float(pairs[:stop].sum()) - 1)
    return count / inflation


def loss_interval(rate: float, effective: float) -> tuple[float, float]:
    """Where the true loss rate lies with 95% confidence (Wilson, JASA 22, 1927), given the
    measured one and how many independent packets it is worth."""
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    shrink = 1 + z * z / effective
    middle = (rate + z * z / (2 * effective)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / effective + (z / (2 * effective)) ** 2)
    return max(0.0, middle - half), min(1.0, middle + half)
