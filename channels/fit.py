"""Fits of loss models to a trace: estimates, intervals, and a ranking by BIC.

Visible chains (Bernoulli, Gilbert, order n) have closed forms: a transition probability is a
proportion, with Wilson's interval (E. B. Wilson, J. Amer. Statist. Assoc. 22 (1927) 209). Hidden
ones (Gilbert's of 1960, Gilbert-Elliott, four-state) are climbed in `channels.hidden`; their
intervals come from the observed information on the logit scale.
BIC = k log n - 2 log L: G. Schwarz, Ann. Statist. 6 (1978) 461.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from channels.base import LossModel
from channels.baum_welch import Observed
from channels.erasure import UniformErasure
from channels.gilbert_elliott import GilbertElliott
from channels.hidden import FAMILIES, expit, maximise
from channels.markov import OrderN
from channels.parameters import ChannelParameterError
from channels.samplers import Mask
from channels.spec import loss_spec, to_yaml
from channels.theory import Floats

MAX_PACKETS = 1 << 22
"""Longer traces are cut here, for every candidate alike."""

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class FittedParameter:
    """A fitted parameter with its 95% interval (nan, nan where the data do not determine one)."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Fit:
    """One candidate: the model at its maximum likelihood."""

    name: str
    model: LossModel
    estimates: tuple[FittedParameter, ...]
    log_likelihood: float
    bic: float

    def yaml(self) -> str:
        """The model as a ready ``loss:`` section."""
        return to_yaml({"loss": loss_spec(self.model)})


@dataclass(frozen=True, slots=True)
class FitReport:
    """All candidates, best (least BIC) first; ``packets`` used and ``losses`` among them;
    ``left_out`` are (name, reason) of those that could not be fitted."""

    packets: int
    losses: int
    fits: tuple[Fit, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def best(self) -> Fit:
        """The candidate of least BIC."""
        return self.fits[0]


CANDIDATES = (
    "uniform",
    "gilbert",
    "gilbert_hidden",
    "gilbert_elliott",
    "four_state",
    "order_2",
    "order_3",
    "order_4",
)


def fit(mask: Mask, candidates: Sequence[str] = CANDIDATES) -> FitReport:
    """Fit the candidates to a trace and rank them.

    Args:
        mask: bool[n], True = lost. At least 100 packets, some lost and some received.
        candidates: names among `CANDIDATES`; also "order_5" ... "order_10".

    Raises:
        ChannelParameterError: the trace is too short or all alike, a name is unknown, or none of
            the candidates can be fitted.
    """
    mask = np.asarray(mask, np.bool_)[:MAX_PACKETS]
    losses = int(mask.sum())
    if mask.size < 100 or not 0 < losses < mask.size:
        raise ChannelParameterError(
            "mask",
            f"has {mask.size} packets with {losses} lost; a fit needs 100 or more, of both kinds",
        )
    observed = Observed(mask)
    fits, left_out = [], []
    for name in candidates:
        try:
            found = _fit_one(name, mask, observed)
            if not math.isfinite(found.bic):
                raise ArithmeticError("its likelihood is not finite")
            fits.append(found)
        except ChannelParameterError as error:
            if error.parameter == "candidates":
                raise
            left_out.append((name, str(error)))
        except (ArithmeticError, ValueError, AssertionError, np.linalg.LinAlgError) as error:
            left_out.append((name, f"its likelihood has no peak here ({error or 'no slope'})"))
    if not fits:
        raise ChannelParameterError("mask", "; ".join(": ".join(pair) for pair in left_out))
    fits.sort(key=lambda found: found.bic)
    return FitReport(mask.size, losses, tuple(fits), tuple(left_out))


def _fit_one(name: str, mask: Mask, observed: Observed) -> Fit:
    if name == "uniform":
        return _uniform(mask)
    if name in FAMILIES:
        return _hidden(name, mask, observed)
    orders = {"gilbert": 1} | {f"order_{n}": n for n in range(2, 11)}
    if name not in orders:
        raise ChannelParameterError(
            "candidates", f"{name!r} is unknown; choose among {', '.join(CANDIDATES)}"
        )
    return _visible(name, mask, orders[name])


def wilson(successes: float, trials: float, confidence: float = _CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval for a proportion; (0, 1) without trials."""
    if trials <= 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = (
        z
        / (1 + z * z / trials)
        * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    )
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _bic(log_likelihood: float, parameters: int, n: int) -> float:
    return parameters * math.log(n) - 2.0 * log_likelihood


def _entropy_sum(ones: Floats, totals: Floats) -> float:
    """Sum of k log(k/n) + (n - k) log(1 - k/n), 0 log 0 = 0."""
    zeros = totals - ones
    result = 0.0
    for part in (ones, zeros):
        used = part > 0
        result += float((part[used] * np.log(part[used] / totals[used])).sum())
    return result


def _uniform(mask: Mask) -> Fit:
    losses, n = float(mask.sum()), mask.size
    log_likelihood = _entropy_sum(np.array([losses]), np.array([float(n)]))
    estimate = FittedParameter("loss", losses / n, *wilson(losses, n))
    return Fit(
        "uniform",
        UniformErasure(losses / n),
        (estimate,),
        log_likelihood,
        _bic(log_likelihood, 1, n),
    )


def _visible(name: str, mask: Mask, order: int) -> Fit:
    """Order-n chain: counts of each fate after each history; the first history by its share."""
    n, size = mask.size, 1 << order
    history = np.zeros(n - order, np.int64)
    for back in range(order):
        history = 2 * history + mask[back : n - order + back]
    totals = np.bincount(history, minlength=size).astype(np.float64)
    ones: Floats = np.bincount(history, weights=mask[order:], minlength=size).astype(np.float64)
    log_likelihood = _entropy_sum(ones, totals) + math.log(totals[history[0]] / totals.sum())
    shares = np.where(totals > 0, ones / np.maximum(totals, 1.0), mask.mean())
    estimates = tuple(
        FittedParameter(f"loss_after[{i:0{order}b}]", float(shares[i]), *wilson(ones[i], totals[i]))
        for i in range(size)
    )
    model: LossModel
    if name == "gilbert":
        model = GilbertElliott(float(shares[0]), float(1.0 - shares[1]))
        low, high = wilson(totals[1] - ones[1], totals[1])
        estimates = (
            FittedParameter("p", model.p, *wilson(ones[0], totals[0])),
            FittedParameter("r", model.r, low, high),
        )
    else:
        model = OrderN(tuple(map(float, shares)))
    return Fit(name, model, estimates, log_likelihood, _bic(log_likelihood, size, n))


def _hidden(name: str, mask: Mask, observed: Observed) -> Fit:
    family = FAMILIES[name]
    peak = maximise(family, mask, observed)
    z = NormalDist().inv_cdf(0.5 + _CONFIDENCE / 2.0)
    logit = np.log(peak.values / (1.0 - peak.values))
    half = z * np.sqrt(peak.logit_variance)
    low, high = expit(logit - half), expit(logit + half)
    return Fit(
        name,
        family.make(peak.values),
        tuple(
            FittedParameter(parameter, float(peak.values[i]), float(low[i]), float(high[i]))
            for i, parameter in enumerate(family.names)
        ),
        peak.log_likelihood,
        _bic(peak.log_likelihood, len(family.names), mask.size),
    )
