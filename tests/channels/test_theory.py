"""Closed forms against enumeration of every loss pattern, and against published values."""

import itertools
import math

import numpy as np
import pytest

from channels import GilbertElliott, theory
from channels.theory import LossChain

CHAINS = {
    "uniform": LossChain([[1.0]], [0.3]),
    "gilbert": GilbertElliott(0.05, 0.2).chain(),
    "elliott": GilbertElliott(0.15, 0.3, 0.02, 0.7).chain(),
    "anti": GilbertElliott(0.9, 0.8).chain(),
    "three": LossChain([[0.8, 0.15, 0.05], [0.3, 0.3, 0.4], [0.0, 0.5, 0.5]], [0.0, 0.4, 1.0]),
    "periodic": LossChain([[0, 1, 0], [0, 0, 1], [1, 0, 0]], [0.0, 0.0, 1.0]),
}
N = 9


def pattern_probabilities(chain: LossChain, n: int) -> dict[tuple[int, ...], float]:
    result = {}
    for pattern in itertools.product((0, 1), repeat=n):
        weight = theory.stationary(chain)
        for i, lost in enumerate(pattern):
            if i:
                weight = weight @ chain.transition
            weight = weight * (chain.loss if lost else 1 - chain.loss)
        result[pattern] = float(weight.sum())
    return result


@pytest.fixture(scope="module", params=CHAINS)
def enumerated(request):
    chain = CHAINS[request.param]
    return chain, pattern_probabilities(chain, N)


def test_block_losses(enumerated):
    chain, patterns = enumerated
    expected = np.zeros(N + 1)
    for pattern, probability in patterns.items():
        expected[sum(pattern)] += probability
    assert np.allclose(theory.losses_in_block(chain, N), expected, atol=1e-14)


def test_variance_of_the_loss_rate(enumerated):
    chain, patterns = enumerated
    rate = theory.loss_rate(chain)
    expected = sum(p * (sum(x) / N - rate) ** 2 for x, p in patterns.items())
    assert theory.loss_rate_variance(chain, N) == pytest.approx(expected, abs=1e-14)


def test_autocorrelation(enumerated):
    chain, patterns = enumerated
    rate = theory.loss_rate(chain)
    for lag, value in enumerate(theory.autocorrelation(chain, N - 1), start=1):
        both = sum(p for x, p in patterns.items() if x[0] and x[lag])
        assert value == pytest.approx((both - rate**2) / (rate * (1 - rate)), abs=1e-12)


def test_run_laws(enumerated):
    chain, patterns = enumerated
    for fate, law in ((1, theory.loss_run_survival), (0, theory.gap_run_survival)):
        starts = sum(p for x, p in patterns.items() if x[0] != fate and x[1] == fate)
        for k, value in enumerate(law(chain, N - 1), start=1):
            run = sum(
                p for x, p in patterns.items() if x[0] != fate and x[1 : k + 1] == (fate,) * k
            )
            assert value == pytest.approx(run / starts, abs=1e-12)


def test_mean_runs_are_the_sums_of_their_laws(enumerated):
    chain, _ = enumerated
    assert theory.mean_loss_run(chain) == pytest.approx(theory.loss_run_survival(chain, 3000).sum())
    assert theory.mean_gap_run(chain) == pytest.approx(theory.gap_run_survival(chain, 3000).sum())


def test_gilbert_closed_forms():
    model = GilbertElliott.from_loss(0.2, 5)
    chain = model.chain()
    assert (model.p, model.r) == pytest.approx((0.05, 0.2))
    assert theory.loss_rate(chain) == pytest.approx(0.2)
    assert theory.mean_loss_run(chain) == pytest.approx(5)
    assert theory.mean_gap_run(chain) == pytest.approx(20)
    assert np.allclose(theory.autocorrelation(chain, 20), 0.75 ** np.arange(1, 21))
    assert np.allclose(theory.loss_run_survival(chain, 20), 0.8 ** np.arange(20))
    n = 10**7
    assert theory.effective_sample_size(chain, n) == pytest.approx(n / 7, rel=1e-5)
    # One run of 50 packets: a standard deviation of 14 points.
    assert math.sqrt(theory.loss_rate_variance(chain, 50)) == pytest.approx(0.14, abs=0.005)


def test_elliott_autocorrelation_formula():
    p, r, good, bad = 0.05, 0.2, 0.02, 0.7
    model = GilbertElliott(p, r, good, bad)
    share, rate = model.bad_share, model.loss
    lags = np.arange(1, 30)
    expected = share * (1 - share) * (bad - good) ** 2 / (rate * (1 - rate)) * (1 - p - r) ** lags
    assert np.allclose(theory.autocorrelation(model.chain(), 29), expected)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [(0.05, (0.0026, 0.044, 0.085)), (0.1, (0.043, 0.125, 0.175)), (0.2, (0.370, 0.382, 0.368))],
)
def test_failure_of_16_plus_4_blocks(loss, expected):
    burst_1 = theory.block_failure(LossChain([[1.0]], [loss]), 20, 4)
    burst_2 = theory.block_failure(GilbertElliott.from_loss(loss, 2).chain(), 20, 4)
    burst_5 = theory.block_failure(GilbertElliott.from_loss(loss, 5).chain(), 20, 4)
    assert (burst_1, burst_2, burst_5) == pytest.approx(expected, abs=6e-4)


def test_failure_falls_with_interleaving_depth():
    chain = GilbertElliott.from_loss(0.05, 5).chain()
    failures = [theory.block_failure(chain, 20, 4, depth) for depth in (1, 2, 5, 10, 20)]
    assert failures == pytest.approx([0.085, 0.066, 0.024, 0.0068, 0.0029], rel=0.02)


def test_sample_size_for_a_claim():
    chain = GilbertElliott.from_loss(0.2, 5).chain()
    n = theory.packets_for_half_width(chain, 0.01, 0.95)
    assert 1.95996 * math.sqrt(theory.loss_rate_variance(chain, n)) <= 0.01
    assert 1.95 * math.sqrt(theory.loss_rate_variance(chain, n - 100)) > 0.0099
    low, high = theory.loss_rate_interval(chain, n, 0.95)
    assert (low, high) == pytest.approx((0.19, 0.21), abs=1e-5)


def test_chains_that_are_none_are_refused():
    with pytest.raises(ValueError, match="sum to 1"):
        LossChain([[0.5, 0.4], [0.5, 0.5]], [0, 1])
    with pytest.raises(ValueError, match="need P"):
        LossChain([[1.0]], [0, 1])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        LossChain([[1.0]], [1.5])
    with pytest.raises(ValueError, match="unique"):
        theory.stationary(LossChain([[1, 0], [0, 1]], [0, 1]))
