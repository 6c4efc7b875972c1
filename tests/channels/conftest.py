"""Statistics shared by the channel tests. All tests are deterministic: seeds are fixed."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import chi2

from channels.theory import LossChain, loss_rate, loss_rate_variance


def loss_z(mask: np.ndarray, chain: LossChain) -> float:
    """Standard score of a mask's loss rate under the chain, by its exact variance."""
    return (mask.mean() - loss_rate(chain)) / math.sqrt(loss_rate_variance(chain, mask.size))


def runs_p_value(lengths: np.ndarray, survival: np.ndarray) -> float:
    """Chi-square p-value of run lengths against P(length >= k), pooled to expected >= 5."""
    longest = survival.size
    observed = np.bincount(np.minimum(lengths, longest), minlength=longest + 1)[1:]
    pmf = np.append(survival[:-1] - survival[1:], survival[-1])
    expected = pmf * lengths.size
    cells_o, cells_e = [], []
    o = e = 0.0
    for count, mean in zip(observed, expected, strict=True):
        o, e = o + count, e + mean
        if e >= 5.0:
            cells_o.append(o)
            cells_e.append(e)
            o = e = 0.0
    cells_o[-1] += o
    cells_e[-1] += e
    o_, e_ = np.array(cells_o), np.array(cells_e)
    if o_.size < 2:
        return 1.0
    return float(chi2.sf(((o_ - e_) ** 2 / e_).sum(), o_.size - 1))


@pytest.fixture
def z_of_loss() -> Callable[[np.ndarray, LossChain], float]:
    return loss_z


@pytest.fixture
def p_of_runs() -> Callable[[np.ndarray, np.ndarray], float]:
    return runs_p_value
