"""Likelihoods and maximum-likelihood estimates of hidden chains from a loss mask.

A mask is alternating runs: gaps of received packets, bursts of lost ones. With A0 = P diag(1 - e)
and A1 = P diag(e), a gap of g packets is the matrix A0^g and a burst of k is A1^k, so the
recursions go run by run, not packet by packet, and each power is taken once per length that
occurs. A burst ends in a state that can lose, so only those states link the runs; many blocks of
runs are walked side by side. The result is exact.

Sources: L. E. Baum, T. Petrie, G. Soules, N. Weiss, Ann. Math. Statist. 41 (1970) 164; L. R.
Rabiner, "A tutorial on hidden Markov models", Proc. IEEE 77 (1989) 257, section III (scaling);
T. A. Louis, J. R. Statist. Soc. B 44 (1982) 226 and R. A. Fisher's identity, for the score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from channels.samplers import Mask, runs_of_mask
from channels.theory import Floats, LossChain, stationary

_RESCALE = 8  # runs between rescalings
_Lengths = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Expected counts under the posterior of a chain given a mask.

    Attributes:
        log_likelihood: natural logarithm of P(mask).
        transitions: float64[s, s], expected moves from i to j.
        emissions: float64[s, 2], expected packets received (0) and lost (1) in each state.
    """

    log_likelihood: float
    transitions: Floats
    emissions: Floats


class Observed:
    """A mask as runs: gap, burst, gap, ..., burst, gap; the outer gaps may be empty.

    Attributes:
        gap_lengths, burst_lengths: int64[u], the lengths that occur, ascending; in what follows
            a gap or a burst stands for its place here.
        gap_counts, burst_counts: int64[u], how many there are of each length.
        head: the first gap and, unless nothing is lost, the first burst.
        tail: the last gap.
        pairs: int64[p, 2], the different (gap, burst) that follow one another in between.
        steps: int64[m], the place in `pairs` of each of those, in order.
    """

    def __init__(self, mask: Mask) -> None:
        """From a mask bool[n], True = lost, n >= 1."""
        runs = runs_of_mask(mask)
        edges = np.concatenate(([0], runs.reshape(-1), [mask.size]))
        self.gap_lengths, gaps, self.gap_counts = _lengths(edges[1::2] - edges[::2])
        self.burst_lengths, bursts, self.burst_counts = _lengths(runs[:, 1] - runs[:, 0])
        self.head, self.tail = (gaps[0], *bursts[:1]), gaps[-1]
        kinds = max(1, self.burst_lengths.size)
        codes, self.steps = np.unique(gaps[1:-1] * kinds + bursts[1:], return_inverse=True)
        self.pairs = np.column_stack(np.divmod(codes, kinds))


def _lengths(runs: _Lengths) -> tuple[_Lengths, _Lengths, _Lengths]:
    return np.unique(runs, return_inverse=True, return_counts=True)


def expected_counts(chain: LossChain, observed: Observed) -> Counts:
    """E-step of Baum-Welch (Rabiner eqs. 36-38), the chain starting in its stationary law.

    Per run there is only a small matrix between the states that can lose; the weights before and
    behind the runs are summed over all runs of a kind before anything else is done with them.
    """
    pi, losing = stationary(chain), np.flatnonzero(chain.loss > 0.0)
    received, lost = chain.transition * (1.0 - chain.loss), chain.transition * chain.loss
    gap, gap_logs = _powers(received, observed.gap_lengths)
    log_likelihood = float(gap_logs @ observed.gap_counts)
    gap_weights = np.zeros_like(gap)  # sum of (weight before i) (weight behind j) / likelihood
    if len(observed.head) == 1:  # nothing is lost
        total = float((pi @ gap[0]).sum())
        gap_weights[0] = pi[:, None] / total
        moves = _uses(received, observed.gap_lengths, gap, gap_weights)
        emissions = np.column_stack((moves.sum(axis=0), np.zeros_like(pi)))
        return Counts(log_likelihood + math.log(total), moves, emissions)

    burst, burst_logs = _powers(lost, observed.burst_lengths)
    log_likelihood += float(burst_logs @ observed.burst_counts)
    burst_weights = np.zeros_like(burst)
    starts, ends = gap[:, losing], burst[:, :, losing]  # a gap starts, a burst ends in a loser
    head_gap, head_burst = observed.head
    pair_gap, pair_burst = observed.pairs.T
    entered = pi @ gap[head_gap]
    passes = np.moveaxis(starts[pair_gap] @ ends[pair_burst], 0, 2)[:, :, observed.steps]
    last = starts[observed.tail].sum(axis=1)
    before, behind, log_scale = _chained(entered @ ends[head_burst], passes, last)
    log_likelihood += log_scale

    outer = before[:, None, :-1] * behind[None, :, 1:]
    outer /= (outer * passes).sum(axis=(0, 1))
    weights = _summed(np.moveaxis(outer, 2, 0), observed.steps, len(observed.pairs))
    gap_weights[:, losing] = _summed(
        weights @ ends[pair_burst].transpose(0, 2, 1), pair_gap, len(gap)
    )
    burst_weights[:, :, losing] = _summed(
        starts[pair_gap].transpose(0, 2, 1) @ weights, pair_burst, len(burst)
    )
    ahead = ends[head_burst] @ behind[:, 0]
    gap_weights[head_gap] += np.outer(pi, ahead) / (entered @ ahead)
    burst_weights[head_burst][:, losing] += np.outer(entered, behind[:, 0]) / (entered @ ahead)
    gap_weights[observed.tail][losing] += (before[:, -1] / (before[:, -1] @ last))[:, None]

    in_gaps = _uses(received, observed.gap_lengths, gap, gap_weights)
    in_bursts = _uses(lost, observed.burst_lengths, burst, burst_weights)
    emissions = np.column_stack((in_gaps.sum(axis=0), in_bursts.sum(axis=0)))
    return Counts(log_likelihood, in_gaps + in_bursts, emissions)


def _summed(matrices: Floats, which: _Lengths, count: int) -> Floats:
    """float64[m, i, j], of the kinds `which` int64[m] -> float64[count, i, j], sums per kind."""
    rows, columns = matrices.shape[1:]
    sums = np.empty((count, rows, columns))
    for i in range(rows):
        for j in range(columns):
            sums[:, i, j] = np.bincount(which, matrices[:, i, j], count)
    return sums


def _powers(matrix: Floats, lengths: _Lengths) -> tuple[Floats, Floats]:
    """Powers by repeated squaring: (float64[u, s, s], float64[u]), the second their log scale."""
    powers = np.repeat(np.eye(len(matrix))[None], lengths.size, axis=0)
    logs = np.zeros(lengths.size)
    base, base_log = matrix, 0.0
    for bit in range(int(lengths[-1]).bit_length()):
        chosen = np.flatnonzero(lengths >> bit & 1)
        product = powers[chosen] @ base
        scale = product.sum(axis=(1, 2))
        powers[chosen] = product / scale[:, None, None]
        logs[chosen] += base_log + np.log(scale)
        base = base @ base
        total = float(base.sum())
        base, base_log = base / total, 2.0 * base_log + math.log(total)
    return powers, logs


def _chained(first: Floats, steps: Floats, last: Floats) -> tuple[Floats, Floats, float]:
    """Forward and backward vectors of a long product of small matrices.

    Args:
        first: float64[l], the row vector at the start.
        steps: float64[l, l, m], the matrices in order.
        last: float64[l], the column vector at the end.

    Returns:
        (float64[l, m + 1], float64[l, m + 1], log of first steps[0] ... steps[m - 1] last): row
        vectors before each step and the end, column vectors after each, both of sum 1.
    """
    size, count = len(first), steps.shape[2]
    width = max(1, math.isqrt(count))
    blocks = max(1, -(-count // width))
    padded = np.repeat(np.eye(size)[:, :, None], width * blocks, axis=2)
    padded[:, :, :count] = steps
    walk = np.ascontiguousarray(padded.reshape(size, size, blocks, width).transpose(3, 0, 1, 2))

    products, logs = np.repeat(np.eye(size)[:, :, None], blocks, axis=2), np.zeros(blocks)
    for step in range(width):
        products = (products[:, :, None] * walk[step][None]).sum(axis=1)
        if step % _RESCALE == _RESCALE - 1 or step == width - 1:
            scale = products.sum(axis=(0, 1))
            products /= scale
            logs += np.log(scale)

    entry, exit_ = np.empty((size, blocks)), np.empty((size, blocks))
    total = float(first.sum())
    vector, log_scale = first / total, math.log(total) + float(logs.sum())
    for block in range(blocks):
        entry[:, block] = vector
        vector = vector @ products[:, :, block]
        total = float(vector.sum())
        log_scale += math.log(total)
        vector = vector / total
    log_scale += math.log(float(vector @ last))
    vector = last / last.sum()
    for block in range(blocks - 1, -1, -1):
        exit_[:, block] = vector
        vector = products[:, :, block] @ vector
        vector = vector / vector.sum()

    forward, backward = np.empty((width + 1, size, blocks)), np.empty((width + 1, size, blocks))
    forward[0], backward[width] = entry, exit_
    for step in range(width):
        row = (forward[step][:, None] * walk[step]).sum(axis=0)
        forward[step + 1] = row / row.sum(axis=0)
        column = (walk[width - 1 - step] * backward[width - step]).sum(axis=1)
        backward[width - 1 - step] = column / column.sum(axis=0)
    return _in_order(forward, count), _in_order(backward, count), log_scale


def _in_order(vectors: Floats, count: int) -> Floats:
    """[width + 1, l, blocks], each block's last vector the next one's first -> [l, count + 1]."""
    width, size, blocks = vectors.shape[0] - 1, vectors.shape[1], vectors.shape[2]
    line = np.empty((size, width * blocks + 1))
    line[:, :-1] = vectors[:-1].transpose(1, 2, 0).reshape(size, -1)
    line[:, -1] = vectors[-1, :, -1]
    return line[:, : count + 1]


def _uses(matrix: Floats, lengths: _Lengths, powers: Floats, weights: Floats) -> Floats:
    """How often each entry of `matrix` is expected to be used inside the runs: float64[s, s].

    With weights a before and b behind a run of k packets, entry (i, j) is used
    sum_t (a A^t)_i A_ij (A^(k-1-t) b)_j / (a A^k b) times. The sum over t of
    B^t W B^(k-1-t), W = a b', B = A', is taken by doubling: S(2k) = S(k) B^k + B^k S(k).

    Args:
        matrix: float64[s, s], A.
        lengths: int64[u], ascending.
        powers: float64[u, s, s], A^k for each length, to some scale.
        weights: float64[u, s, s], a_i b_j / (a A^k b) summed over the runs of each length, A^k
            to that scale.
    """
    power = np.repeat(np.eye(len(matrix))[None], lengths.size, axis=0)
    base, doubled, sums = matrix.T, weights, np.zeros_like(weights)
    for bit in range(int(lengths[-1]).bit_length()):
        chosen = np.flatnonzero(lengths >> bit & 1)
        grown = power[chosen] @ doubled[chosen] + sums[chosen] @ base
        product = power[chosen] @ base
        scale = product.sum(axis=(1, 2), keepdims=True)
        sums[chosen], power[chosen] = grown / scale, product / scale
        doubled = doubled @ base + base @ doubled
        base = base @ base
        total = float(base.sum())
        base, doubled = base / total, doubled / total
    to_scale = powers.sum(axis=(1, 2)) / power.sum(axis=(1, 2))
    return np.asarray(np.tensordot(to_scale, sums, 1) * matrix)
