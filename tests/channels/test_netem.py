"""Our models against loss masks recorded from the Linux kernel's sch_netem.

The masks (``tests/fixtures/netem``) were made by Linux 6.1 with the tc options in index.json.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

from channels import FourState, GilbertElliott, UniformErasure, theory
from channels.lint import lint_netem
from channels.netem import from_netem, to_netem
from channels.parameters import ChannelParameterError

FOLDER = Path(__file__).parents[1] / "fixtures" / "netem"
INDEX = json.loads((FOLDER / "index.json").read_text())["masks"]
RIGHT = ("ge_20_5", "ge_hk", "state4", "rand20")  # those whose options do what they say
BROKEN = ("rand20c25", "rand20c50", "rand5c25", "rand5c75")  # correlated loss


def kernel_mask(name: str) -> np.ndarray:
    packed = np.load(FOLDER / INDEX[name]["file"])
    return np.unpackbits(packed)[: INDEX[name]["packets"]].astype(np.bool_)


def options(name: str) -> str:
    return INDEX[name]["tc_netem"]


@pytest.mark.parametrize("name", INDEX)
def test_fixtures_are_what_their_index_says(name):
    mask = kernel_mask(name)
    assert mask.size == INDEX[name]["packets"]
    assert mask.sum() == INDEX[name]["lost"]


@pytest.mark.parametrize("name", RIGHT)
def test_the_kernel_has_our_loss_rate(name, z_of_loss):
    assert abs(z_of_loss(kernel_mask(name), from_netem(options(name)).chain())) < 2.6


@pytest.mark.parametrize("name", RIGHT)
def test_the_kernel_has_our_run_lengths(name, p_of_runs):
    chain = from_netem(options(name)).chain()
    mask = kernel_mask(name)
    edges = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    lengths, lost = np.diff(edges), mask[edges[:-1]]
    assert p_of_runs(lengths[lost], theory.loss_run_survival(chain, 300)) > 0.01
    assert p_of_runs(lengths[~lost], theory.gap_run_survival(chain, 2000)) > 0.01


@pytest.mark.parametrize("name", RIGHT)
def test_the_kernel_has_our_autocorrelation(name):
    """Batch means of the lagged products, 100 batches, 10 lags."""
    chain = from_netem(options(name)).chain()
    mask, rate = kernel_mask(name), theory.loss_rate(chain)
    x = (mask - rate) / math.sqrt(rate * (1 - rate))
    expected = theory.autocorrelation(chain, 10)
    for lag in range(1, 11):
        products = x[lag:] * x[:-lag]
        means = products[: products.size // 100 * 100].reshape(100, -1).mean(axis=1)
        z = (means.mean() - expected[lag - 1]) / (means.std(ddof=1) / 10)
        assert abs(z) < 3.9


@pytest.mark.parametrize("name", RIGHT)
def test_order_of_losses(name):
    """Two-sample likelihood-ratio test: next fate given the last four, kernel against our sample.

    A hidden chain is no chain of order 4, but the counts of two samples of one process must agree;
    the statistic sums over 16 histories, each nearly a two-by-two table of independent trials.
    """
    ours = from_netem(options(name)).sampler(np.random.default_rng(3)).mask(400_000)
    statistic = 0.0
    tables = []
    for mask in (kernel_mask(name), ours):
        codes = np.zeros(mask.size - 4, np.int64)
        for i in range(5):
            codes = 2 * codes + mask[i : mask.size - 4 + i]
        tables.append(np.bincount(codes, minlength=32).reshape(16, 2).astype(float))
    used = 0
    for history in range(16):
        table = np.array([tables[0][history], tables[1][history]])
        expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
        if expected.min() < 5:
            continue
        used += 1
        statistic += 2 * (table * np.log(np.maximum(table, 1e-300) / expected)).sum()
    assert used >= 8
    assert chi2.sf(statistic, used) > 0.005


@pytest.mark.parametrize("name", BROKEN)
def test_correlated_loss_of_the_kernel_is_not_what_it_says(name):
    promised = float(options(name).split()[2].rstrip("%")) / 100
    assert kernel_mask(name).mean() < 0.6 * promised
    with pytest.raises(ChannelParameterError, match="gemodel"):
        from_netem(options(name))
    assert any("correlation" in f.message for f in lint_netem(options(name)))


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("loss random 20%", UniformErasure(0.2)),
        ("loss 20%", UniformErasure(0.2)),
        ("loss random 20% 0%", UniformErasure(0.2)),
        ("loss gemodel 5% 20%", GilbertElliott(0.05, 0.2)),
        ("loss gemodel 5%", GilbertElliott(0.05, 0.95)),
        ("loss gemodel 5 20 70 2", GilbertElliott(0.05, 0.2, 0.02, 0.7)),
        ("loss state 4% 30% 60% 40% 1%", FourState(0.04, 0.3, 0.6, 0.4, 0.01)),
        ("loss state 10%", FourState(0.1, 0.9)),
    ],
)
def test_options_and_models(text, model):
    assert from_netem(text) == model
    assert from_netem(to_netem(model)) == model


@pytest.mark.parametrize("text", ["loss", "loss gemodel", "loss many", "loss 120%", "loss 1 2 3"])
def test_options_that_are_none(text):
    with pytest.raises(ChannelParameterError, match="netem"):
        from_netem(text)


def test_the_kernels_mistake_with_four_states_is_known():
    assert any("p31 > p32" in line for line in FourState(0.04, 0.6, 0.3, 0.4).warnings())
