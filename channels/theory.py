"""Closed forms for Markov loss processes: what a long simulation should find.

Every process here is a finite Markov chain that moves once per packet and loses packet t with
probability ``loss[state at t]``. Notation: P transition matrix, pi its stationary row vector
(pi P = pi), e the vector of loss probabilities, D = diag(e), l = pi e the loss rate.

Sources: E. N. Gilbert, BSTJ 39 (1960) 1253; E. O. Elliott, BSTJ 42 (1963) 1977, whose section 3
is the P(j, n) recursion; G. Hasslinger, O. Hohlfeld, MMB 2008 (HH), which treats the variance of
the number of losses over time scales; J. G. Kemeny, J. L. Snell, *Finite Markov Chains* (1960),
chapter 4 (KS; fundamental matrix); M. F. Neuts, *Matrix-Geometric Solutions* (1981) chapter 2
(discrete phase-type laws).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LossChain:
    """A finite chain that emits losses.

    Attributes:
        transition: float64[s, s], rows sum to 1.
        loss: float64[s], loss probability of each state, in [0, 1].

    Raises:
        ValueError: wrong shapes, or entries that are no probabilities.
    """

    transition: Floats
    loss: Floats

    def __init__(self, transition: npt.ArrayLike, loss: npt.ArrayLike) -> None:
        matrix = np.array(transition, np.float64)
        emission = np.array(loss, np.float64)
        if emission.ndim != 1 or matrix.shape != (emission.size, emission.size):
            raise ValueError(f"need P[s, s] and e[s], got {matrix.shape} and {emission.shape}")
        if not (np.all(matrix >= 0.0) and np.all(np.abs(matrix.sum(axis=1) - 1.0) < 1e-9)):
            raise ValueError("rows of the transition matrix must be probabilities that sum to 1")
        if not np.all((emission >= 0.0) & (emission <= 1.0)):
            raise ValueError("loss probabilities must lie in [0, 1]")
        matrix.setflags(write=False)
        emission.setflags(write=False)
        object.__setattr__(self, "transition", matrix)
        object.__setattr__(self, "loss", emission)


@lru_cache(maxsize=16)  # chains are immutable and compare by identity
def stationary(chain: LossChain) -> Floats:
    """pi with pi P = pi and sum 1 (KS theorem 4.1.6): float64[s], read-only.

    Raises:
        ValueError: more than one stationary law exists (the chain falls into separate parts).
    """
    size = chain.loss.size
    balance = chain.transition.T - np.eye(size)
    try:
        if size <= 64:  # least squares tells a second stationary law by the rank
            system = np.vstack((balance, np.ones(size)))
            solution, _, rank, _ = np.linalg.lstsq(
                system, np.append(np.zeros(size), 1.0), rcond=1e-13
            )
        else:
            balance[-1] = 1.0
            solution, rank = np.linalg.solve(balance, np.append(np.zeros(size - 1), 1.0)), size
    except np.linalg.LinAlgError:
        rank = 0
    if rank < size:
        raise ValueError("the chain has no unique stationary law: some states never meet")
    solution = np.clip(solution, 0.0, None)
    law = np.asarray(solution / solution.sum())
    law.setflags(write=False)
    return law


def loss_rate(chain: LossChain) -> float:
    """Stationary loss rate l = pi e (HH section 2; Salsano et al. 2012 for four states)."""
    return float(stationary(chain) @ chain.loss)


def _run_start(chain: LossChain, emission: Floats) -> Floats:
    """Law of the hidden state at the first packet of a run: normalised pi (I - D) P D."""
    start = (stationary(chain) * (1.0 - emission)) @ chain.transition * emission
    return np.asarray(start / start.sum()) if start.sum() > 0.0 else start


def _run_survival(chain: LossChain, emission: Floats, longest: int) -> Floats:
    survival = np.empty(longest)
    state = _run_start(chain, emission)
    for k in range(longest):
        survival[k] = state.sum()
        state = (state @ chain.transition) * emission
    return survival


def loss_run_survival(chain: LossChain, longest: int) -> Floats:
    """P(a loss run has at least k packets), k = 1 ... longest: float64[longest].

    A run is a maximal stretch of losses. Its length is phase type: P(run >= k) =
    a (P D)^(k-1) 1 with a ~ pi (I - D) P D (Neuts 1981, section 2.2; for two states with
    e = (0, 1) it is (1 - r)^(k-1), Gilbert 1960). All zeros if runs never start.
    """
    return _run_survival(chain, chain.loss, longest)


def gap_run_survival(chain: LossChain, longest: int) -> Floats:
    """P(a received run has at least k packets), k = 1 ... longest; as `loss_run_survival`."""
    return _run_survival(chain, 1.0 - chain.loss, longest)


def mean_loss_run(chain: LossChain) -> float:
    """Mean loss-run length, l / P(received then lost): losses per run start (renewal argument).

    Equals a (I - P D)^-1 1 of the phase-type law (Neuts 1981, eq. 2.2.7); nan if runs never start.
    """
    return _mean_run(chain, chain.loss)


def mean_gap_run(chain: LossChain) -> float:
    """Mean received-run length; as `mean_loss_run` with losses and receptions exchanged."""
    return _mean_run(chain, 1.0 - chain.loss)


def _mean_run(chain: LossChain, emission: Floats) -> float:
    pi = stationary(chain)
    starts = float((pi * (1.0 - emission)) @ chain.transition @ emission)
    return float(pi @ emission) / starts if starts > 0.0 else math.nan


def autocorrelation(chain: LossChain, lags: int) -> Floats:
    """Correlation of the loss indicators of packets k apart, k = 1 ... lags: float64[lags].

    rho(k) = (pi D P^k e - l^2) / (l (1 - l)); for two states
    pi_G pi_B (e_B - e_G)^2 / (l (1 - l)) (1 - p - r)^k (HH section 3). nan if l is 0 or 1.
    """
    pi = stationary(chain)
    rate = float(pi @ chain.loss)
    variance = rate * (1.0 - rate)
    if variance <= 0.0:
        return np.full(lags, math.nan)
    state = pi * chain.loss
    result = np.empty(lags)
    for k in range(lags):
        state = state @ chain.transition
        result[k] = (float(state @ chain.loss) - rate * rate) / variance
    return result


def loss_rate_variance(chain: LossChain, n: int) -> float:
    """Variance of (losses among n consecutive packets) / n, the chain being stationary. Exact.

    n^2 Var = n l (1 - l) + 2 sum_{k=1}^{n-1} (n - k) (pi D Q^k e), Q = P - 1 pi (P^k - 1 pi = Q^k
    for k >= 1). The sum is n Q M - Q (I - Q^n) M^2 with the fundamental matrix M = (I - Q)^-1
    (KS theorem 4.3.1 and section 4.6, "central limit theorem").
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    slope, offset, weights, twice = _variance_terms(chain)
    later = _decayed(chain, twice, n + 1)  # Q^(n+1) M^2 e
    return max(0.0, (n * slope - 2.0 * (offset - float(weights @ later))) / n**2)


@lru_cache(maxsize=16)
def _variance_terms(chain: LossChain) -> tuple[float, float, Floats, Floats]:
    """(s, b, pi D, M^2 e) with n^2 Var = n s - 2 (b - pi D Q^(n+1) M^2 e)."""
    pi = stationary(chain)
    rate = float(pi @ chain.loss)
    system = np.eye(pi.size) - chain.transition + pi  # I - Q
    once = np.asarray(np.linalg.solve(system, chain.loss), np.float64)
    twice = np.asarray(np.linalg.solve(system, once), np.float64)
    weights = pi * chain.loss
    slope = rate * (1.0 - rate) + 2.0 * float(weights @ _decayed(chain, once, 1))
    return slope, float(weights @ _decayed(chain, twice, 1)), weights, twice


def _decayed(chain: LossChain, vector: Floats, n: int) -> Floats:
    """Q^n vector, by steps until it has died away; a long-lived one by a matrix power."""
    pi, start = stationary(chain), float(np.abs(vector).max())
    for step in range(n):
        if step == 2000:
            power = np.linalg.matrix_power(chain.transition - pi, n - step)
            return np.asarray(power @ vector)
        vector = chain.transition @ vector - float(pi @ vector)
        if float(np.abs(vector).max()) < 1e-17 * start:
            return np.zeros_like(vector)
    return vector


def effective_sample_size(chain: LossChain, n: int) -> float:
    """How many independent packets tell as much about the loss rate as n of these.

    N_eff = l (1 - l) / Var(loss rate of n packets); for simple Gilbert and large n it tends to
    n (1 - m)/(1 + m) with m = 1 - p - r (HH section 3). nan if l is 0 or 1.
    """
    rate = loss_rate(chain)
    if rate * (1.0 - rate) <= 0.0:
        return math.nan
    variance = loss_rate_variance(chain, n)
    return rate * (1.0 - rate) / variance if variance > 0.0 else math.inf


def loss_rate_interval(chain: LossChain, n: int, confidence: float = 0.99) -> tuple[float, float]:
    """Where the loss rate of n packets falls with the given confidence, clipped to [0, 1].

    Normal approximation with the exact variance (central limit theorem for finite chains, KS
    section 4.6); for n below a few hundred effective samples use `losses_in_block` instead.
    """
    rate = loss_rate(chain)
    half = NormalDist().inv_cdf(0.5 + confidence / 2.0) * math.sqrt(loss_rate_variance(chain, n))
    return max(0.0, rate - half), min(1.0, rate + half)


def packets_for_half_width(chain: LossChain, half_width: float, confidence: float = 0.95) -> int:
    """Packets needed so that the measured loss rate lies within +-half_width of the true one.

    Solves z^2 (s/n - 2 b/n^2) = half_width^2, the exact variance but for terms that die away with
    the memory of the chain (see `loss_rate_variance`).
    """
    target = (half_width / NormalDist().inv_cdf(0.5 + confidence / 2.0)) ** 2
    slope, offset, _, _ = _variance_terms(chain)
    root = math.sqrt(max(0.0, slope * slope - 8.0 * offset * target))
    return max(1, math.ceil((slope + root) / (2.0 * target)))


def losses_in_block(chain: LossChain, n: int) -> Floats:
    """P(j of n consecutive packets are lost), j = 0 ... n: float64[n + 1].

    Forward recursion over (state, losses so far) from the stationary law, Elliott 1963 section 3;
    O(n^2 s^2) operations.
    """
    weights = np.zeros((n + 1, chain.loss.size))
    weights[0] = stationary(chain)
    for packet in range(n):
        lost = weights * chain.loss
        weights -= lost
        weights[1 : packet + 2] += lost[: packet + 1]
        if packet + 1 < n:
            weights = weights @ chain.transition
    return np.asarray(weights.sum(axis=1))


def interleaved(chain: LossChain, depth: int) -> LossChain:
    """The chain seen by packets that an interleaver of the given depth sends `depth` apart.

    The chain moves `depth` times between them: P becomes P^depth (Chapman-Kolmogorov, KS
    section 4.1; the memory m = 1 - p - r of two states becomes m^depth).
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    power = np.linalg.matrix_power(chain.transition, depth)
    return LossChain(power / power.sum(axis=1, keepdims=True), chain.loss)


def block_failure(chain: LossChain, n: int, parity: int, depth: int = 1) -> float:
    """P(an erasure-code block of n packets, `parity` of them redundant, cannot be restored).

    A maximum-distance-separable code restores any `parity` losses, so this is P(j > parity)
    (Elliott 1963 section 3), the packets of a block being sent `depth` apart.
    """
    if not 0 <= parity <= n:
        raise ValueError(f"parity must lie in [0, n] = [0, {n}], got {parity}")
    return float(losses_in_block(interleaved(chain, depth), n)[parity + 1 :].sum())


def residual_losses(chain: LossChain, data: int, parity: int, depth: int = 1) -> Floats:
    """P(j of a block's `data` media packets stay lost), j = 0 ... data: float64[data + 1].

    A maximum-distance-separable code restores all if at most `parity` packets of the block are
    lost in all, and else, being systematic, leaves the media packets that arrived. Exact; its sum
    beyond j = 0 is at most `block_failure`, which also counts blocks that only lost parity.
    """
    joint = joint_losses(chain, data, parity, depth)
    beyond = np.add.outer(np.arange(data + 1), np.arange(parity + 1)) > parity
    stay = np.where(beyond, joint, 0.0).sum(axis=1)
    stay[0] += joint[~beyond].sum()
    return np.asarray(stay)


def joint_losses(chain: LossChain, data: int, parity: int, depth: int = 1) -> Floats:
    """P(a media and b parity packets of a block are lost): float64[data + 1, parity + 1].

    A block is `data` media packets, then `parity` parity packets, sent `depth` apart. Elliott's
    recursion (1963, section 3) with the two kinds counted apart.
    """
    if data < 1 or parity < 0:
        raise ValueError(f"a block needs data >= 1 and parity >= 0, got {data} and {parity}")
    spread = interleaved(chain, depth)
    weights = np.zeros((data + 1, parity + 1, chain.loss.size))
    weights[0, 0] = stationary(chain)
    for packet in range(data + parity):
        lost = weights * chain.loss
        weights = weights - lost
        if packet < data:
            weights[1:] += lost[:-1]
        else:
            weights[:, 1:] += lost[:, :-1]
        weights = weights @ spread.transition
    return np.asarray(weights.sum(axis=2))
