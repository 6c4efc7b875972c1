"""Intervals cover what they claim to, on data whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from channels.gilbert_elliott import GilbertElliott
from channels.theory import effective_sample_size
from sim.statistics import (
    MIN_REPEATS,
    Precision,
    effective_size,
    estimate,
    loss_interval,
    precision,
    ratio,
    repeats_needed,
    repeats_to_go,
)


def covered(spread_repeat: float, spread_image: float, noise: float, trials: int) -> float:
    """Share of bootstrap intervals of 10 repeats x 12 images that hold the true mean, 0."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(trials):
        values = (
            spread_repeat * rng.normal(size=(10, 1))
            + spread_image * rng.normal(size=(1, 12))
            + noise * rng.normal(size=(10, 12))
        )
        found = estimate(values)
        hits += found.low <= 0 <= found.high
    return hits / trials


@pytest.mark.parametrize(
    "spreads", [(1, 0.1, 0.1), (0.1, 1, 0.1), (0.1, 0.1, 1), (1, 1, 1)], ids=str
)
def test_bootstrap_covers_whatever_varies(spreads: tuple[float, float, float]) -> None:
    """Percentile intervals of so few are a little narrow (.89 for ten), and pigeonhole ones wide
    where noise rules; values taken for independent would cover .35 in the first case."""
    assert covered(*spreads, trials=150) >= 0.84  # .89 less two of its standard deviations


def test_bootstrap_of_one_repeat_is_that_of_images() -> None:
    values = np.random.default_rng(3).normal(10, 2, (1, 400))
    found = estimate(values)
    assert found.mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / math.sqrt(400)  # the normal approximation it must be close to
    assert found.low == pytest.approx(found.mean - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.mean + half, abs=0.1 * half)


def test_undefined_values_are_left_out() -> None:
    found = estimate(np.array([[1.0, math.nan, 3.0, math.inf]]))
    assert (found.mean, found.n) == (2.0, 2)
    assert 1 <= found.low <= found.high <= 3
    alone = estimate(np.array([[5.0]]))
    assert alone.mean == 5 and math.isnan(alone.low)
    assert math.isnan(estimate(np.array([[math.nan]])).mean)


def test_differences_see_the_same_draws() -> None:
    first = np.random.default_rng(1).normal(size=(3, 5))
    shifted = estimate(first + 2)
    assert estimate(first).low + 2 == pytest.approx(shifted.low)


def test_precision_over_repeats_ignores_how_images_differ() -> None:
    images = np.array([10.0, 30.0])
    found = precision(images + np.array([[0.0], [1.0], [2.0]]))
    assert found.sd == pytest.approx(1)
    assert found.half_width == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)  # t(2) at 97.5%
    assert math.isnan(precision(images[None]).half_width)


@pytest.mark.parametrize(("sd", "half_width"), [(1.0, 0.5), (1.0, 0.1), (0.02, 0.1), (0.0, 0.1)])
def test_repeats_needed_is_the_least_that_is_enough(sd: float, half_width: float) -> None:
    from scipy.special import stdtrit

    def half(n: int) -> float:
        return float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n)

    count = repeats_needed(sd, half_width)
    assert half(count) <= half_width
    assert count == 2 or half(count - 1) > half_width


def test_the_stopping_rule_covers_too() -> None:
    """Stopped as soon as it seems certain, the interval still holds the truth nearly as often as
    claimed: 95% less what looking several times costs."""
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(300):
        values, done = np.empty((0, 1)), 0
        while (count := repeats_to_go([precision(values)], done, 0.3, 400)) > done:
            values = np.vstack([values, rng.normal(size=(count - done, 1))])
            done = count
        assert done >= MIN_REPEATS and precision(values).half_width <= 0.3
        hits += abs(values.mean()) <= precision(values).half_width
    assert hits / 300 >= 0.90


def test_the_stopping_rule_ends() -> None:
    wild = Precision(100.0, 100.0, 8)
    assert repeats_to_go([wild], 8, 0.1, 20) == 16  # at most twice as many
    assert repeats_to_go([wild], 16, 0.1, 20) == 20
    assert repeats_to_go([wild], 20, 0.1, 20) == 20
    assert repeats_to_go([Precision(0.0, 0.0, 8)], 8, 0.1, 20) == 8


def test_effective_size_of_bursts() -> None:
    """From the data alone, close to the closed form: N/7 at 20% in bursts of five."""
    model = GilbertElliott.from_loss(loss=0.2, mean_burst=5)
    sizes = [
        effective_size(model.sampler(np.random.default_rng(seed)).mask(4000)) for seed in range(40)
    ]
    known = effective_sample_size(model.chain(), 4000)
    assert np.mean(sizes) == pytest.approx(known, rel=0.15)
    independent = np.random.default_rng(1).random(4000) < 0.2
    assert effective_size(independent) > 3000
    assert effective_size(np.zeros(50, bool)) == 50


def test_loss_intervals_cover_under_bursts() -> None:
    model = GilbertElliott.from_loss(loss=0.2, mean_burst=5)
    effective = effective_sample_size(model.chain(), 640)
    hits = 0
    for seed in range(400):
        rate = float(model.sampler(np.random.default_rng(seed)).mask(640).mean())
        low, high = loss_interval(rate, effective)
        hits += low <= 0.2 <= high
    assert 0.92 <= hits / 400 <= 0.98  # 95% +- 3 standard deviations
    naive = loss_interval(0.2, 640)
    assert naive[1] - naive[0] < 0.5 * (high - low)


def test_a_ratio_compares_means_over_the_same_draws() -> None:
    """Images of which each is a tenth more, however much they differ from one another."""
    base = np.random.default_rng(0).uniform(1, 9, (3, 8))
    found = ratio(1.1 * base, base)
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.n == 24
    holes = np.where(base > 8, np.nan, 1.1 * base)
    assert ratio(holes, base).mean == pytest.approx(0.1)
    assert ratio(holes, base).n == int((base <= 8).sum())
    assert ratio(np.full((1, 4), np.nan), np.ones((1, 4))).n == 0
