"""Likelihoods and maximum-likelihood estimates of hidden chains from a loss mask.

The forward-backward recursion runs over many blocks of the mask at once: block products give
every block's entry and exit vectors, then all blocks are walked side by side. The result is exact.

Sources: L. E. Baum, T. Petrie, G. Soules, N. Weiss, Ann. Math. Statist. 41 (1970) 164; L. R.
Rabiner, "A tutorial on hidden Markov models", Proc. IEEE 77 (1989) 257, section III (scaling);
T. A. Louis, J. R. Statist. Soc. B 44 (1982) 226 and R. A. Fisher's identity, for the score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from channels.samplers import Mask
from channels.theory import Floats, LossChain, stationary

_RESCALE = 16  # steps between rescalings


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
    """A mask laid out in blocks for `expected_counts`.

    Args:
        mask: bool[n], True = lost, n >= 2.
    """

    def __init__(self, mask: Mask) -> None:
        columns = max(1, math.isqrt(mask.size) // 2)
        rows = -(-mask.size // columns)
        symbols = np.full(rows * columns, 2, np.int8)  # 2: beyond the end, tells nothing
        symbols[: mask.size] = mask
        self.symbols: npt.NDArray[np.int8] = np.ascontiguousarray(symbols.reshape(rows, columns).T)
        self.received = (self.symbols == 0).astype(np.float64)
        self.lost = (self.symbols == 1).astype(np.float64)
        self.valid = self.received + self.lost


def _dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def expected_counts(chain: LossChain, observed: Observed) -> Counts:
    """E-step of Baum-Welch (Rabiner eqs. 36-38), the chain starting in its stationary law."""
    forward, loss = np.ascontiguousarray(chain.transition.T), chain.loss
    emit = np.vstack((1.0 - loss, loss, np.ones_like(loss)))
    columns, rows = observed.symbols.shape
    states = loss.size
    likelihood = np.ascontiguousarray(np.moveaxis(emit[observed.symbols], 2, 1))

    # Block products: products[i, j, b] carries weight from i before block b to j at its end.
    products = np.repeat(np.eye(states)[:, :, None], rows, axis=2)
    logs = np.zeros(rows)
    for step in range(columns):
        products = forward @ products
        products *= likelihood[step]
        if step % _RESCALE == _RESCALE - 1 or step == columns - 1:
            scale = products.sum(axis=(0, 1))
            products /= scale
            logs += np.log(scale)

    entry, exit_ = np.empty((rows, states)), np.empty((rows, states))
    by_start = products.transpose(2, 0, 1).tolist()
    by_end = products.transpose(2, 1, 0).tolist()
    vector, log_likelihood = stationary(chain).tolist(), float(logs.sum())
    for block in range(rows):
        entry[block] = vector
        vector = [_dot(vector, column) for column in by_end[block]]
        total = sum(vector)
        log_likelihood += math.log(total)
        vector = [weight / total for weight in vector]
    vector = [1.0] * states
    for block in range(rows - 1, -1, -1):
        exit_[block] = vector
        vector = [_dot(vector, row) for row in by_start[block]]
        total = sum(vector)
        vector = [weight / total for weight in vector]

    before = np.empty((columns, states, rows))  # law of the state before each packet, unscaled
    predicted = np.empty((columns, states, rows))
    current = entry.T
    for step in range(columns):
        before[step] = current
        np.matmul(forward, current, out=predicted[step])
        current = predicted[step] * likelihood[step]
        if step % _RESCALE == _RESCALE - 1:
            current /= current.sum(axis=0)

    moves = np.zeros((states, states))
    emissions = np.zeros((states, 2))
    after = exit_.T
    for step in range(columns - 1, -1, -1):
        seen = after * likelihood[step]
        joint = predicted[step] * seen
        weight = 1.0 / joint.sum(axis=0)
        joint *= weight
        emissions[:, 0] += joint @ observed.received[step]
        emissions[:, 1] += joint @ observed.lost[step]
        weight *= observed.valid[step]
        moves += (before[step] * weight) @ seen.T
        after = chain.transition @ seen
        if step % _RESCALE == 0:
            after /= after.sum(axis=0)
    return Counts(log_likelihood, moves * chain.transition, emissions)
