"""Statistics shared by the channel tests. All tests are deterministic: seeds are fixed."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import chi2

from channels.theory import LossChain, loss_rate, loss_rate_variance, stationary


def loss_z(mask: np.ndarray, chain: LossChain) -> float:
    """Standard score of a mask's loss rate under the chain, by its exact variance."""
    return (mask.mean() - loss_rate(chain)) / math.sqrt(loss_rate_variance(chain, mask.size))


def pooled_cells(expected: np.ndarray) -> np.ndarray:
    """The cell of each entry: neighbours are pooled until 5 or more are expected in each cell."""
    cells, cell, total = np.empty(expected.size, np.int64), 0, 0.0
    for place, mean in enumerate(expected):
        cells[place] = cell
        total += mean
        if total >= 5.0:
            cell, total = cell + 1, 0.0
    return np.minimum(cells, max(0, cell - 1))


def runs_p_value(lengths: np.ndarray, survival: np.ndarray) -> float:
    """Chi-square p-value of independent run lengths against P(length >= k)."""
    longest = survival.size
    observed = np.bincount(np.minimum(lengths, longest), minlength=longest + 1)[1:]
    expected = np.append(survival[:-1] - survival[1:], survival[-1]) * lengths.size
    cells = pooled_cells(expected)
    o, e = np.bincount(cells, observed), np.bincount(cells, expected)
    return float(chi2.sf(((o - e) ** 2 / e).sum(), o.size - 1)) if o.size > 1 else 1.0


def chain_runs_p_value(lengths: np.ndarray, chain: LossChain, emission: np.ndarray) -> float:
    """As `runs_p_value`, for runs of a chain that may depend on the runs before them.

    `emission` is the probability that a state's packet belongs to a run: e for loss runs, 1 - e
    for gaps. Runs start in states of a chain Q, the sum of K_c, which hold the probabilities of a
    run in cell c with the next one starting in state j. With a = a Q, p_c = a K_c 1 and Z the sum
    over m >= 0 of Q^m - 1 a, the counts of n runs have covariance n (diag p - p p' + M + M'),
    M_cd = a K_c Z K_d 1 (Kemeny and Snell, section 4.6). Independent runs have M = 0.
    """
    inside, outside = chain.transition * emission, chain.transition * (1.0 - emission)
    one, all_ = np.eye(emission.size), np.ones(emission.size)
    onward = outside @ np.linalg.solve(one - outside, inside)  # from a last packet to a first one
    until_end = np.linalg.solve(one - inside, onward)  # Q
    start = (stationary(chain) * (1.0 - emission)) @ inside
    start /= start.sum()
    longest = int(lengths.max())
    reach, ahead = np.empty((longest, emission.size)), np.empty((longest + 1, emission.size))
    reach[0], ahead[0] = start, all_
    for k in range(1, longest):
        reach[k] = reach[k - 1] @ inside
    for k in range(longest):
        ahead[k + 1] = inside @ ahead[k]
    left, right = reach @ onward, ahead[:-1] - ahead[1:]
    left[-1], right[-1] = reach[-1] @ until_end, ahead[-2]  # the last: that long or longer

    n = lengths.size
    cells = pooled_cells(n * left.sum(axis=1))
    count = int(cells[-1]) + 1
    first = np.searchsorted(cells, np.arange(count))
    left, right = np.add.reduceat(left, first), np.add.reduceat(right, first)
    p = left.sum(axis=1)
    later = np.linalg.inv(one - until_end + start) - start
    dependence = left @ later @ right.T
    covariance = n * (np.diag(p) - np.outer(p, p) + dependence + dependence.T)
    excess = np.bincount(cells[lengths - 1], minlength=count) - n * p
    if count == 1:
        return 1.0
    free = slice(0, count - 1)  # counts sum to n
    score = excess[free] @ np.linalg.solve(covariance[free, free], excess[free])
    return float(chi2.sf(score, count - 1))


@pytest.fixture
def z_of_loss() -> Callable[[np.ndarray, LossChain], float]:
    return loss_z


@pytest.fixture
def p_of_runs() -> Callable[[np.ndarray, np.ndarray], float]:
    return runs_p_value


@pytest.fixture
def p_of_chain_runs() -> Callable[[np.ndarray, LossChain, np.ndarray], float]:
    return chain_runs_p_value
