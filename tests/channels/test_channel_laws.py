"""Simulated losses obey the closed forms, within intervals that know of their correlation."""

import math

import numpy as np
import pytest
from scipy.stats import kstest, norm

from channels import (
    AnyLoss,
    FourState,
    GilbertElliott,
    OrderN,
    SemiMarkov,
    UniformErasure,
    theory,
)

MODELS = {
    "uniform": UniformErasure(0.2),
    "gilbert": GilbertElliott.from_loss(0.2, 5),
    "rare": GilbertElliott.from_loss(0.01, 3),
    "heavy": GilbertElliott.from_loss(0.5, 8),
    "anti-bursty": GilbertElliott(0.6, 0.9),
    "gilbert60": GilbertElliott(0.05, 0.2, 0.0, 0.5),
    "elliott": GilbertElliott(0.05, 0.2, 0.02, 0.7),
    "four-state": FourState(0.04, 0.3, 0.6, 0.4, 0.01),
    "order-3": OrderN((0.05, 0.5, 0.2, 0.6, 0.1, 0.4, 0.3, 0.8)),
    "heavy-tail": SemiMarkov.heavy_tailed(0.1, 4, tail=2.5, longest=300),
    "outages": SemiMarkov.outages(60, 12, spread=0.5),
    "resampled": SemiMarkov.resampled([1, 1, 2, 9], [3, 30]),
    "any": AnyLoss((UniformErasure(0.05), GilbertElliott(0.02, 0.3))),
    "inverted": GilbertElliott(0.1, 0.3, 1.0, 0.1),
}


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", MODELS)
def test_loss_rate(name, z_of_loss):
    model = MODELS[name]
    mask = model.sampler(rng(11)).mask(1_000_000)
    assert abs(z_of_loss(mask, model.chain())) < 3.3


@pytest.mark.parametrize("name", MODELS)
def test_run_lengths(name, p_of_runs):
    model = MODELS[name]
    runs = model.sampler(rng(12)).runs(500_000)
    losses = (runs[:, 1] - runs[:, 0])[:-1]
    gaps = runs[1:, 0] - runs[:-1, 1]
    assert p_of_runs(losses, theory.loss_run_survival(model.chain(), 400)) > 1e-3
    assert p_of_runs(gaps, theory.gap_run_survival(model.chain(), 4000)) > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_autocorrelation(name):
    model = MODELS[name]
    seeds, n, lags = 40, 20_000, 12
    rate = model.chain().loss @ theory.stationary(model.chain())
    estimates = np.empty((seeds, lags))
    for seed in range(seeds):
        x = model.sampler(rng(100 + seed)).mask(n) - rate
        estimates[seed] = [
            (x[k:] * x[:-k]).mean() / (rate * (1 - rate)) for k in range(1, 1 + lags)
        ]
    error = estimates.std(axis=0, ddof=1) / math.sqrt(seeds)
    z = (estimates.mean(axis=0) - theory.autocorrelation(model.chain(), lags)) / error
    assert np.abs(z).max() < 4.0  # t with 39 degrees of freedom, 12 lags


@pytest.mark.parametrize(
    "name",
    ["gilbert", "heavy", "elliott", "inverted", "four-state", "order-3", "heavy-tail", "outages"],
)
def test_the_start_is_stationary(name):
    """The losses of packets 0 ... 9 over many seeds: each at the stationary rate."""
    model = MODELS[name]
    seeds = 1500
    masks = np.array([model.sampler(rng(seed)).mask(10) for seed in range(seeds)])
    rate = theory.loss_rate(model.chain())
    z = (masks.mean(axis=0) - rate) / math.sqrt(rate * (1 - rate) / seeds)  # seeds: independent
    assert np.abs(z).max() < 3.7
    counts = np.bincount(masks.sum(axis=1), minlength=11)
    expected = theory.losses_in_block(model.chain(), 10) * seeds
    assert ((counts - expected) ** 2 / expected).sum() < 35  # chi-square, 10 degrees: p > 1e-4


def test_a_start_in_the_good_state_would_show():
    """The analytic value of the common mistake: 12.5% instead of 20% over 10 packets."""
    chain = GilbertElliott.from_loss(0.2, 5).chain()
    state, mean = np.array([1.0, 0.0]), 0.0
    for _ in range(10):
        mean += float(state @ chain.loss) / 10
        state = state @ chain.transition
    assert mean == pytest.approx(0.1245, abs=1e-3)
    assert theory.losses_in_block(chain, 10) @ np.arange(11) / 10 == pytest.approx(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_p_values_of_many_seeds_are_uniform(name, z_of_loss):
    model = MODELS[name]
    p = [
        2 * norm.sf(abs(z_of_loss(model.sampler(rng(s)).mask(100_000), model.chain())))
        for s in range(300)
    ]
    assert kstest(p, "uniform").pvalue > 1e-3


def autocorrelation_of(mask: np.ndarray, rate: float, lags: int) -> np.ndarray:
    """Sample autocorrelation at lags 1 ... `lags` about the known rate."""
    n = mask.size
    both = np.array([np.count_nonzero(mask[k:] & mask[:-k]) for k in range(1, lags + 1)])
    pairs = n - np.arange(1, lags + 1)
    ends = np.array([mask[k:].mean() + mask[:-k].mean() for k in range(1, lags + 1)])
    return (both / pairs - rate * ends + rate * rate) / (rate * (1 - rate))


@pytest.mark.study
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", MODELS)
def test_ten_million_packets_and_many_seeds(name, z_of_loss, p_of_runs):
    """Loss rate, loss runs, gaps and autocorrelation of 30 streams of 10^7 packets: the p-values of
    the streams are uniform, the mean autocorrelation is the closed form."""
    model, seeds, lags = MODELS[name], 30, 12
    chain = model.chain()
    rate = theory.loss_rate(chain)
    losses = theory.loss_run_survival(chain, 400)
    gaps = theory.gap_run_survival(chain, 4000)
    p = {"loss rate": [], "loss runs": [], "gaps": []}
    correlations = np.empty((seeds, lags))
    for seed in range(seeds):
        mask = model.sampler(rng(7000 + seed)).mask(10_000_000)
        runs = np.flatnonzero(np.diff(mask.view(np.int8), prepend=0, append=0)).reshape(-1, 2)
        p["loss rate"].append(2 * norm.sf(abs(z_of_loss(mask, chain))))
        p["loss runs"].append(p_of_runs((runs[:, 1] - runs[:, 0])[1:-1], losses))
        p["gaps"].append(p_of_runs((runs[1:, 0] - runs[:-1, 1])[1:-1], gaps))
        correlations[seed] = autocorrelation_of(mask, rate, lags)
    uniform = {what: kstest(values, "uniform").pvalue for what, values in p.items()}
    error = correlations.std(axis=0, ddof=1) / math.sqrt(seeds)
    t = (correlations.mean(axis=0) - theory.autocorrelation(chain, lags)) / error
    print(f"\n| {name} | " + " | ".join(f"{v:.2f}" for v in uniform.values()), end=" | ")
    print(f"{np.abs(t).max():.2f} |")
    assert min(uniform.values()) > 1e-3
    assert np.abs(t).max() < 4.2  # t with 29 degrees of freedom, 12 lags
