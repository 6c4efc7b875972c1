"""Fitting finds the model that made a trace, and its intervals keep their promise."""

import numpy as np
import pytest
from scipy.stats import binom

from channels import FourState, GilbertElliott, OrderN, UniformErasure, loss_model
from channels.baum_welch import Observed, expected_counts
from channels.fit import CANDIDATES, fit, wilson
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


@pytest.mark.parametrize("n", [2, 3, 17, 1000])
@pytest.mark.parametrize("name", ["gilbert_elliott", "four_state"])
def test_the_blocked_recursion_is_the_recursion(name, n):
    """Against the plain forward recursion (log likelihood) and posterior smoothing."""
    chain = TRUTH[name].chain()
    mask = trace(name, n, 4)
    emit = np.where(mask[:, None], chain.loss, 1 - chain.loss)
    forward, backward = np.empty((n, chain.loss.size)), np.ones((n, chain.loss.size))
    log_likelihood, state = 0.0, stationary(chain)
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
    counts = expected_counts(chain, Observed(mask))
    assert counts.log_likelihood == pytest.approx(log_likelihood)
    assert np.allclose(counts.emissions[:, 1], posterior[mask].sum(axis=0))
    assert np.allclose(counts.emissions[:, 0], posterior[~mask].sum(axis=0))
    assert counts.transitions.sum() == pytest.approx(n)


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


@pytest.mark.slow
@pytest.mark.parametrize(("name", "trials"), [("uniform", 200), ("gilbert", 200), ("order_2", 200)])
def test_intervals_cover_the_truth_of_visible_models(name, trials):
    truth = truth_of(name)
    hits: dict[str, int] = {}
    for seed in range(trials):
        for estimate in fit(trace(name, 100_000, 100 + seed), [name]).fits[0].estimates:
            inside = estimate.low <= truth[estimate.name] <= estimate.high
            hits[estimate.name] = hits.get(estimate.name, 0) + inside
    assert all(coverage_is_honest(count, trials) for count in hits.values()), hits


@pytest.mark.study
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", ["gilbert_hidden", "gilbert_elliott", "four_state"])
def test_intervals_cover_the_truth_of_hidden_models(name):
    truth, trials = truth_of(name), 60
    hits: dict[str, int] = {}
    for seed in range(trials):
        for estimate in fit(trace(name, 30_000, 500 + seed), [name]).fits[0].estimates:
            inside = estimate.low <= truth[estimate.name] <= estimate.high
            hits[estimate.name] = hits.get(estimate.name, 0) + inside
    assert all(coverage_is_honest(count, trials) for count in hits.values()), hits


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
