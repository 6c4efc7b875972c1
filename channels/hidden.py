"""Maximum likelihood for hidden chains: Gilbert's of 1960, Gilbert-Elliott, four states.

A climb starts from moments (Gilbert 1960, section on estimating the parameters; E. O. Elliott
1963; Hasslinger and Hohlfeld 2008), goes up by Baum-Welch and ends with Newton steps on the logit
scale, where the observed information (T. A. Louis, J. R. Statist. Soc. B 44 (1982) 226) also
gives the covariance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from channels.baum_welch import Counts, Observed, expected_counts
from channels.gilbert_elliott import GilbertElliott
from channels.markov import FourState
from channels.samplers import Mask, runs_of_mask
from channels.theory import Floats

_START_PACKETS, _START_STEPS = 20_000, 15
_EM_STEPS, _NEWTON_STEPS = 25, 12
_LARGEST_STEP = 1.0  # on the logit scale
_EDGE = 1e-7


@dataclass(frozen=True, slots=True)
class Family:
    """A parametric family of hidden chains.

    Attributes:
        names: of the parameters, all of them probabilities.
        make: parameters float64[k] -> model.
        starts: mask -> parameter vectors worth climbing from.
        em: expected counts -> the parameters that maximise their likelihood (M-step).
        score: expected counts, parameters -> gradient of log L by their logits.
    """

    names: tuple[str, ...]
    make: Callable[[Floats], GilbertElliott | FourState]
    starts: Callable[[Mask], list[list[float]]]
    em: Callable[[Counts], list[float]]
    score: Callable[[Counts, Floats], list[float]]


@dataclass(frozen=True, slots=True, eq=False)
class Maximum:
    """Where the likelihood peaks.

    Attributes:
        values: float64[k], in the order of the family's names.
        logit_variance: float64[k], nan where the likelihood is flat or the peak lies on the edge.
        log_likelihood: there.
    """

    values: Floats
    logit_variance: Floats
    log_likelihood: float


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.5


def _ge_em(counts: Counts) -> list[float]:
    t, e = counts.transitions, counts.emissions
    return [
        _share(t[0, 1], t[0].sum()),
        _share(t[1, 0], t[1].sum()),
        _share(e[1, 1], e[1].sum()),
        _share(e[0, 1], e[0].sum()),
    ]


def _ge_score(counts: Counts, x: Floats) -> list[float]:
    """d log L / d logit(x) = successes (1 - x) - failures x, by Fisher's identity."""
    t, e = counts.transitions, counts.emissions
    pairs = [(t[0, 1], t[0, 0]), (t[1, 0], t[1, 1]), (e[1, 1], e[1, 0]), (e[0, 1], e[0, 0])]
    return [yes * (1.0 - q) - no * q for (yes, no), q in zip(pairs, x, strict=False)]


def _ge_starts(mask: Mask) -> list[list[float]]:
    """Gilbert's moments (a = P(1), b = P(1|1), c = P(111)/(P(101) + P(111))), and two guesses."""
    n = mask.size
    a = float(mask.mean())
    b = float((mask[1:] & mask[:-1]).sum() / max(1, mask[:-1].sum()))
    ends = mask[2:] & mask[:-2]
    c = float((ends & mask[1:-1]).sum() / max(1, ends.sum()))
    p01 = float((mask[1:] & ~mask[:-1]).sum() / max(1, n - mask.sum()))
    p, r = min(0.5, max(1e-4, p01)), min(0.9, max(1e-3, 1.0 - b))
    starts = [[p / 2, r / 2, 0.7, 1e-3], [p / 4, r / 4, 0.5, p / 2]]
    denominator = 2 * a * c - b * (a + c)
    if abs(denominator) > 1e-12:
        stay = (a * c - b * b) / denominator
        if 0.0 < stay < 1.0 and b < stay:
            bad = b / stay
            move = a * (1.0 - stay) / (bad - a) if bad > a else 1.0
            if 0.0 < move < 1.0:
                starts.insert(0, [move, 1.0 - stay, min(bad, 0.999), 1e-3])
    return starts


def _four_em(counts: Counts) -> list[float]:
    t = counts.transitions  # states 1, 3, 2, 4
    return [
        _share(t[0, 1], t[0].sum()),
        _share(t[1, 0], t[1].sum()),
        _share(t[1, 2], t[1].sum()),
        _share(t[2, 1], t[2].sum()),
        _share(t[0, 3], t[0].sum()),
    ]


def _four_score(counts: Counts, x: Floats) -> list[float]:
    """As `_ge_score`; p13, p14 and p31, p32 share a row: dL/dx = n_x/x - n_stay/(1 - sum)."""
    t = counts.transitions
    p13, p31, p32, p23, p14 = x
    stay_1, stay_3 = max(1e-12, 1.0 - p13 - p14), max(1e-12, 1.0 - p31 - p32)
    raw = [
        t[0, 1] / p13 - t[0, 0] / stay_1,
        t[1, 0] / p31 - t[1, 1] / stay_3,
        t[1, 2] / p32 - t[1, 1] / stay_3,
        t[2, 1] / p23 - t[2, 2] / (1.0 - p23),
        t[0, 3] / p14 - t[0, 0] / stay_1,
    ]
    return [g * q * (1.0 - q) for g, q in zip(raw, x, strict=True)]


def _four_starts(mask: Mask) -> list[list[float]]:
    runs = runs_of_mask(mask)
    lengths = runs[:, 1] - runs[:, 0]
    p01 = min(0.4, len(runs) / max(1, mask.size - int(mask.sum())))
    r = min(0.9, max(0.02, 1.0 / float(lengths.mean())))
    return [
        [p01 / 2, r / 2, r / 2, 0.5, p01 / 4],
        [p01 / 3, r / 4, 3 * r / 4, 0.3, p01 / 8],
        [p01 / 2, 0.8 * r, 0.1 * r, 0.2, p01 / 2],
    ]


FAMILIES = {
    "gilbert_hidden": Family(
        ("p", "r", "loss_bad"),
        lambda x: GilbertElliott(float(x[0]), float(x[1]), 0.0, float(x[2])),
        lambda mask: [start[:3] for start in _ge_starts(mask)],
        lambda counts: _ge_em(counts)[:3],
        _ge_score,
    ),
    "gilbert_elliott": Family(
        ("p", "r", "loss_bad", "loss_good"),
        lambda x: GilbertElliott(float(x[0]), float(x[1]), float(x[3]), float(x[2])),
        _ge_starts,
        _ge_em,
        _ge_score,
    ),
    "four_state": Family(
        ("p13", "p31", "p32", "p23", "p14"),
        lambda x: FourState(*map(float, x)),
        _four_starts,
        _four_em,
        _four_score,
    ),
}
"""Hidden families by name."""


def maximise(family: Family, mask: Mask, observed: Observed) -> Maximum:
    """Climb to the maximum of the likelihood; `observed` is ``Observed(mask)``."""
    sample = Observed(mask[:_START_PACKETS])
    best = (-math.inf, np.empty(0))
    for start in family.starts(mask):  # a short climb on a part of the trace picks the start
        x = np.array(start)
        counts = expected_counts(family.make(x).chain(), sample)
        for _ in range(_START_STEPS):
            x = _inside(np.array(family.em(counts)))
            counts = expected_counts(family.make(x).chain(), sample)
        if counts.log_likelihood > best[0]:
            best = (counts.log_likelihood, x)
    x = best[1]
    for _ in range(_EM_STEPS):
        x = _inside(np.array(family.em(expected_counts(family.make(x).chain(), observed))))
    return _newton(family, x, observed)


def _newton(family: Family, x: Floats, observed: Observed) -> Maximum:
    """Newton steps; where the likelihood is not concave, curvature counts by its size."""

    def at(z: Floats) -> Counts | None:
        try:
            return expected_counts(family.make(_inside(expit(z))).chain(), observed)
        except ValueError:  # beyond the family's edge: a row would sum to more than 1
            return None

    def slope(counts: Counts, z: Floats) -> Floats:
        return np.array(family.score(counts, _inside(expit(z))))

    z = np.log(x / (1.0 - x))
    counts = at(z)
    assert counts is not None  # x came from an M-step
    for _ in range(_NEWTON_STEPS):
        score = slope(counts, z)
        information = _information(at, slope, z, score)
        if information is None:
            return Maximum(_inside(expit(z)), np.full(z.size, math.nan), counts.log_likelihood)
        curvature, axes = np.linalg.eigh(information)
        size = np.maximum(np.abs(curvature), 1e-3)
        move = axes @ ((axes.T @ score) / size)
        if float(score @ move) < 1e-5:  # about twice the log likelihood still to gain
            break
        move /= max(1.0, float(np.abs(move).max()) / _LARGEST_STEP)
        for _ in range(8):
            gained = at(z + move)
            if gained is not None and gained.log_likelihood > counts.log_likelihood:
                break
            move /= 4.0
        else:
            break
        settled = gained.log_likelihood - counts.log_likelihood < 1e-3
        z, counts = z + move, gained
        if settled:
            break
    assert information is not None
    flat = curvature[0] < 1e-2  # a standard error of 10 on the logit scale says nothing
    variance = np.diag(np.linalg.inv(information)) if not flat else np.full(z.size, math.nan)
    return Maximum(_inside(expit(z)), variance, counts.log_likelihood)


def _information(
    at: Callable[[Floats], Counts | None],
    slope: Callable[[Counts, Floats], Floats],
    z: Floats,
    score: Floats,
) -> Floats | None:
    """Minus the second derivatives of log L by the logits, by differences of the score."""
    rows = []
    for i in range(z.size):
        near = z.copy()
        near[i] += 1e-4
        counts = at(near)
        if counts is None:
            return None
        rows.append((score - slope(counts, near)) / 1e-4)
    information = np.array(rows)
    return np.asarray((information + information.T) / 2.0)


def _inside(x: Floats) -> Floats:
    """Away from 0 and 1, where the likelihood has no slope to climb."""
    return np.clip(x, _EDGE, 1.0 - _EDGE)


def expit(z: Floats) -> Floats:
    """Inverse of the logit."""
    return np.asarray(1.0 / (1.0 + np.exp(-z)))
