"""Fitting finds the model that made a trace, and its intervals keep their promise."""

import numpy as np
import pytest
from scipy.stats import binom

from channels import FourState, GilbertElliott, OrderN, UniformErasure, loss_model
from channels.baum_welch import Observed, expected_counts
from channels.fit import CANDIDATES, fit, wilson
from channels.hidden import FAMILIES, expit
from channels.parameters import ChannelParameterError
from channels.theory import stationary

TRUTH = {
    "uniform": UniformErasure(0.1),
    "gilbert": GilbertElliott(0.05, 0.2),
    "gilbert_hidden": GilbertElliott(0.03, 0.1, 0.0, 0.6),
    "gilbert_elliott": GilbertElliott(0.05, 0.2, 0.02, 0.7),
    "four_state": FourState(0.04, 0.3, 0.6, 0.4, 0.01),
    "order_2": OrderN((0.05, 0.5, 0.2, 0.9)),
}


def trace(name: str, n: int, seed: int) -> np.ndarray:
    return TRUTH[name].sampler(np.random.default_rng(seed)).mask(n)


def truth_of(name: str) -> dict[str, float]:
    model = TRUTH[name]
    if isinstance(model, OrderN):
        return {f"loss_after[{i:02b}]": p for i, p in enumerate(model.loss_after)}
    return {
        key: getattr(model, key)
        for key in ("loss", "p", "r", "loss_bad", "loss_good", "p13", "p31", "p32", "p23", "p14")
        if hasattr(model, key)
    }


MASKS = {
    "all received": np.zeros(9, bool),
    "all lost": np.ones(9, bool),
    "lost first": np.array([1, 1, 0, 0, 0, 1, 0], bool),
    "lost last": np.array([0, 0, 1, 0, 1, 1], bool),
    "long runs": np.repeat([False, True, False, True], [700, 40, 900, 3]),
    **{f"{n} packets": trace("four_state", n, 4) for n in (2, 3, 17, 1000, 5000)},
}


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("name", ["gilbert_hidden", "gilbert_elliott", "four_state"])
def test_recursion_by_runs_is_recursion_by_packets(name, kind):
    """Against the plain forward recursion (log likelihood) and posterior smoothing."""
    chain = GilbertElliott(0.3, 0.4, 0.0, 0.9).chain() if "long" in kind else TRUTH[name].chain()
    mask = MASKS[kind]
    n = mask.size
    emit = np.where(mask[:, None], chain.loss, 1 - chain.loss)
    forward, backward = np.empty((n, chain.loss.size)), np.ones((n, chain.loss.size))
    log_likelihood, state = 0.0, stationary(chain)
    moves = np.zeros_like(chain.transition)
    for t in range(n):
        state = (state @ chain.transition) * emit[t]
        log_likelihood += np.log(state.sum())
        state = state / state.sum()
        forward[t] = state
    for t in range(n - 2, -1, -1):
        backward[t] = chain.transition @ (emit[t + 1] * backward[t + 1])
        backward[t] /= backward[t].sum()
    posterior = forward * backward
    posterior /= posterior.sum(axis=1, keepdims=True)
    for t in range(n):
        before = forward[t - 1] if t else stationary(chain)
        joint = before[:, None] * chain.transition * (emit[t] * backward[t])
        moves += joint / joint.sum()
    counts = expected_counts(chain, Observed(mask))
    assert counts.log_likelihood == pytest.approx(log_likelihood)
    assert np.allclose(counts.emissions[:, 1], posterior[mask].sum(axis=0))
    assert np.allclose(counts.emissions[:, 0], posterior[~mask].sum(axis=0))
    assert np.allclose(counts.transitions, moves)


@pytest.mark.parametrize("name", ["uniform", "gilbert", "order_2"])
def test_visible_models_are_recognised(name):
    visible = [c for c in CANDIDATES if c in ("uniform", "gilbert") or c.startswith("order")]
    report = fit(trace(name, 100_000, 1), visible)
    assert report.best.name == name
    truth = truth_of(name)
    for estimate in report.best.estimates:
        assert estimate.low < truth[estimate.name] < estimate.high


@pytest.mark.parametrize("name", ["gilbert_hidden", "gilbert_elliott", "four_state"])
def test_hidden_models_are_recognised(name):
    report = fit(trace(name, 40_000, 2), ["uniform", "gilbert", "order_2", "order_3", name])
    assert report.best.name == name
    truth = truth_of(name)
    for estimate in report.best.estimates:
        margin = 0.5 * (estimate.high - estimate.low)  # 99.99%: twice the 95% interval
        assert estimate.low - margin < truth[estimate.name] < estimate.high + margin


@pytest.mark.slow
@pytest.mark.parametrize("name", TRUTH)
def test_all_candidates_compete(name):
    assert fit(trace(name, 60_000, 3)).best.name == name


def test_the_answer_is_ready_to_use():
    report = fit(trace("gilbert", 20_000, 5), ["uniform", "gilbert"])
    text = report.best.yaml()
    assert text.startswith("loss:\n  type: gilbert\n  p: 0.0")
    from ruamel.yaml import YAML

    spec = YAML(typ="safe").load(text)["loss"]
    assert loss_model(spec) == report.best.model
    assert report.packets == 20_000


def coverage_is_honest(hits: int, trials: int) -> bool:
    """Whether `hits` of `trials` is what 95% intervals give (two-sided, 1 in 1000)."""
    return binom.cdf(hits, trials, 0.95) > 5e-4 and binom.sf(hits - 1, trials, 0.95) > 5e-4


def coverage(name: str, trials: int) -> dict[str, int]:
    """How many of `trials` fits to 10^5 packets have the true parameter in its 95% interval."""
    truth, hits = truth_of(name), {}
    for seed in range(trials):
        for estimate in fit(trace(name, 100_000, 100 + seed), [name]).fits[0].estimates:
            inside = estimate.low <= truth[estimate.name] <= estimate.high
            hits[estimate.name] = hits.get(estimate.name, 0) + inside
    print(f"\n| {name} | " + ", ".join(f"{k} {v / trials:.1%}" for k, v in hits.items()) + " |")
    return hits


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uniform", "gilbert", "order_2"])
def test_intervals_cover_the_truth_of_visible_models(name):
    hits = coverage(name, 200)
    assert all(coverage_is_honest(count, 200) for count in hits.values()), hits


@pytest.mark.study
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", ["gilbert_hidden", "gilbert_elliott", "four_state"])
def test_intervals_cover_the_truth_of_hidden_models(name):
    hits = coverage(name, 600)
    assert all(coverage_is_honest(count, 600) for count in hits.values()), hits


def scores(name: str, masks: list[np.ndarray], logits: np.ndarray) -> np.ndarray:
    """Gradient of log L by the logits of the parameters for each mask: float64[len(masks), k]."""
    family, x = FAMILIES[name], expit(logits)
    chain = family.make(x).chain()
    return np.array([family.score(expected_counts(chain, Observed(m)), x) for m in masks])


@pytest.mark.study
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", ["gilbert_hidden", "gilbert_elliott", "four_state"])
def test_the_score_scatters_as_the_intervals_assume(name):
    """One Newton step from the truth, on 2000 traces: the errors have mean 0 and, in units of the
    information, variance 1 (both within 4 standard errors). Sharper than coverage, and cheaper."""
    truth, trials, n = truth_of(name), 2000, 100_000
    x = np.array([truth[key] for key in FAMILIES[name].names])
    z, step = np.log(x / (1 - x)), 1e-3
    long = [trace(name, 40 * n, 7)]
    slopes = [
        (scores(name, long, z - step * unit) - scores(name, long, z + step * unit))[0]
        for unit in np.eye(z.size)
    ]
    covariance = np.linalg.inv(np.array(slopes) / (2 * step * 40))  # of one trace's estimate
    found = np.concatenate([scores(name, [trace(name, n, 9000 + s)], z) for s in range(trials)])
    errors = found @ covariance / np.sqrt(np.diag(covariance))
    inside = (np.abs(errors) < 1.96).mean(axis=0)
    print(f"\n| {name} | sd {errors.std(axis=0).round(3)}, in 95%: {inside.round(3)} |")
    assert np.abs(errors.mean(axis=0)).max() < 4 / np.sqrt(trials)
    assert np.abs((errors**2).mean(axis=0) - 1).max() < 4 * np.sqrt(2 / trials)


def test_wilson():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


@pytest.mark.parametrize("mask", [np.zeros(500, bool), np.ones(500, bool), np.array([True, False])])
def test_traces_without_news_are_refused(mask):
    with pytest.raises(ChannelParameterError, match="100 or more"):
        fit(mask)


def test_unknown_candidates_are_refused():
    with pytest.raises(ChannelParameterError, match="choose among uniform"):
        fit(trace("uniform", 1000, 1), ["order_x"])


@pytest.mark.parametrize("places", [(7,), (100, 300, 500), range(3, 997, 100), (0,), (999,)])
def test_losses_that_never_touch_are_fitted(places):
    """A model whose likelihood has no peak there is left out, with its reason."""
    mask = np.zeros(1000, np.bool_)
    mask[list(places)] = True
    report = fit(mask)
    assert len(report.fits) + len(report.left_out) == len(CANDIDATES)
    assert {"uniform", "gilbert"} <= {found.name for found in report.fits}
    assert all(np.isfinite(found.bic) for found in report.fits)
    assert all(reason for _, reason in report.left_out)
