"""BD-rate: how many more bytes one codec takes than another for the same quality.

Bjontegaard, *Calculation of average PSNR differences between RD-curves*, ITU-T VCEG-M33, 2001: the
logarithm of the rate as a smooth function of quality, averaged over the qualities that both reach.
In place of the cubic through four points, a piecewise cubic that keeps to the order of the points
(PCHIP; Bjontegaard, VCEG-AI11, 2008), for any number of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sim.metrics import METRICS
from sim.studies.codec_bench.work import OURS

Curve = Sequence[tuple[float, float]]
"""(rate, quality) of points, in any order; more quality is better."""


def bd_rate(ours: Curve, theirs: Curve) -> float:
    """Share of bytes that ours takes more (or, below 0, fewer); NaN where the qualities of the two
    have nothing in common or one has fewer than two points. A point of no more quality than one
    of lower rate counts for nothing."""
    from scipy.interpolate import PchipInterpolator

    curves = [_rising(ours), _rising(theirs)]
    if min(len(quality) for quality, _ in curves) < 2:
        return float("nan")
    low = max(quality[0] for quality, _ in curves)
    high = min(quality[-1] for quality, _ in curves)
    if low >= high:
        return float("nan")
    mine, other = (PchipInterpolator(*curve).integrate(low, high) for curve in curves)
    return float(np.exp((mine - other) / (high - low)) - 1)


def _rising(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Qualities, ascending, and the logarithms of their rates: float64[n] each."""
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(curve):
        if np.isfinite(quality) and (not kept or quality > kept[-1][0]):
            kept.append((quality, float(np.log(rate))))
    table = np.array(kept, np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def bd_rates(
    curves: Mapping[str, Sequence[Mapping[str, float]]], rate: str, metrics: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Ours against each other codec, by its name and metric, from curves of means over images.

    Args:
        curves: by codec, its points: rate and metrics by name.
        rate: the name of what they cost.
        metrics: of `METRICS`.
    """

    def curve(name: str, metric: str) -> Curve:
        sign = METRICS[metric].sign
        return [(point[rate], sign * point[metric]) for point in curves[name]]

    return {
        name: {metric: bd_rate(curve(OURS, metric), curve(name, metric)) for metric in metrics}
        for name in curves
        if name != OURS
    }
