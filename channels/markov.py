"""Loss processes that are finite Markov chains: netem's four states, and memory of n packets.

`ChainSampler` samples any `LossChain`. It cuts the chain at its visits to one state: the pieces
between visits (excursions) are independent, so thousands of them are walked side by side in
numpy and laid end to end.

Sources: S. Salsano, F. Ludovici, A. Ordine, D. Giannuzzi, "Definition of a general and intuitive
loss model for packet networks and its implementation in the Netem module in the Linux kernel",
version 3.1, Univ. Roma Tor Vergata (2012), below: Salsano; M. Yajnik, S. Moon, J. Kurose, D.
Towsley, "Measurement and modelling of the temporal dependence in packet loss", INFOCOM 1999, for
chains of order n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from channels.parameters import ChannelParameterError, probability
from channels.samplers import (
    BernoulliSampler,
    ConstantSampler,
    Mask,
    Runs,
    RunSampler,
)
from channels.theory import Floats, LossChain, loss_rate, stationary

_MAX_ORDER = 10
_FIRST_JUMPS, _LAST_JUMPS = 1 << 7, 1 << 14  # jumps expected in a batch; batches double
_MAX_PACKETS = 2.0**44  # packets; rarer exits are taken as this rare, so that int64 never wraps

ChainLosses = ConstantSampler | BernoulliSampler


@dataclass(frozen=True, slots=True)
class FourState:
    """netem's ``loss state``: gap periods with isolated losses, burst periods with receptions.

    States: 1 received in a gap, 2 received in a burst, 3 lost in a burst, 4 lost alone in a gap
    (which always returns to 1). Attributes are transition probabilities in [0, 1], named as in
    ``tc ... loss state p13 p31 p32 p23 p14`` and Salsano section 4.1.

    Raises:
        ChannelParameterError: out of range, p13 + p14 > 1, p31 + p32 > 1, or a state left open.
    """

    p13: float
    p31: float
    p32: float = 0.0
    p23: float = 1.0
    p14: float = 0.0

    def __post_init__(self) -> None:
        for name in ("p13", "p31", "p32", "p23", "p14"):
            probability(name, getattr(self, name))
        for first, second in (("p13", "p14"), ("p31", "p32")):
            total = getattr(self, first) + getattr(self, second)
            if total > 1.0 + 1e-12:
                raise ChannelParameterError(
                    second, f"+ {first} = {total:g} leave one state and cannot exceed 1"
                )
        if self.p13 > 0.0 and self.p31 == 0.0:
            raise ChannelParameterError("p31", "is 0: a burst would never end; make it positive")
        if self.p32 > 0.0 and self.p23 == 0.0:
            raise ChannelParameterError(
                "p23", "is 0: receptions within a burst would never end; make it positive"
            )

    @property
    def loss(self) -> float:
        """Stationary loss rate pi3 + pi4 (Salsano section 4.1)."""
        return loss_rate(self.chain())

    def chain(self) -> LossChain:
        """States 1, 3, 2, 4, as far as they can be reached from state 1."""
        stay_1 = max(0.0, 1.0 - self.p13 - self.p14)
        stay_3 = max(0.0, 1.0 - self.p31 - self.p32)
        matrix = np.array(
            [
                [stay_1, self.p13, 0.0, self.p14],
                [self.p31, stay_3, self.p32, 0.0],
                [0.0, self.p23, 1.0 - self.p23, 0.0],
                [1.0, 0.0, 0.0, 0.0],
            ]
        )
        used = [
            True,
            self.p13 > 0.0,
            self.p13 > 0.0 and self.p32 > 0.0,
            self.p14 > 0.0,
        ]
        keep = np.flatnonzero(used)
        return LossChain(matrix[np.ix_(keep, keep)], np.array([0.0, 1.0, 0.0, 1.0])[keep])

    def warnings(self) -> list[str]:
        """See `LossModel.warnings`."""
        found = []
        if self.p13 + self.p31 > 1.0 + 1e-12:
            found.append("anti-bursty: p13 + p31 > 1, a burst is shorter than chance would make it")
        if self.p31 > self.p32 > 0.0:
            found.append(
                "p31 > p32: Linux compares the two in a way that is right for p31 <= p32 only, so "
                "the real netem would behave differently"
            )
        return found

    def sampler(self, rng: np.random.Generator) -> ChainLosses | ChainSampler:
        """See `LossModel.sampler`."""
        return sample_chain(self.chain(), rng)


@dataclass(frozen=True, slots=True)
class OrderN:
    """The loss probability of a packet given the fates of the n packets before it.

    Attributes:
        loss_after: 2^n probabilities, n = 1 ... 10. Entry i holds for the history whose binary
            digits are i, oldest packet first, 1 = lost: for n = 2, after received-received,
            received-lost, lost-received, lost-lost.

    Raises:
        ChannelParameterError: not 2^n values, out of range, or no unique stationary law.
    """

    loss_after: tuple[float, ...]

    def __post_init__(self) -> None:
        values = self.loss_after
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise ChannelParameterError("loss_after", f"must be a list, got {values!r}")
        count = len(values)
        if count < 2 or count & (count - 1) or count > 1 << _MAX_ORDER:
            raise ChannelParameterError(
                "loss_after",
                f"has {count} values; give 2^n, one per history of n packets, n = 1 to "
                f"{_MAX_ORDER}",
            )
        object.__setattr__(
            self,
            "loss_after",
            tuple(probability(f"loss_after[{i}]", v) for i, v in enumerate(values)),
        )
        try:
            stationary(self.chain())
        except ValueError:
            raise ChannelParameterError(
                "loss_after",
                "splits the histories into parts that never meet; avoid 0 after all-received "
                "together with 1 after all-lost",
            ) from None

    @property
    def order(self) -> int:
        """n."""
        return len(self.loss_after).bit_length() - 1

    @property
    def loss(self) -> float:
        """Stationary loss rate."""
        return loss_rate(self.chain())

    def chain(self) -> LossChain:
        """States: the last n fates, the newest packet being the one that the state emits."""
        size = len(self.loss_after)
        history = np.arange(size)
        matrix = np.zeros((size, size))
        matrix[history, (2 * history) % size] += 1.0 - np.array(self.loss_after)
        matrix[history, (2 * history + 1) % size] += np.array(self.loss_after)
        return LossChain(matrix, (history & 1).astype(np.float64))

    def warnings(self) -> list[str]:
        """See `LossModel.warnings`."""
        return (
            ["anti-bursty: a packet after a loss is lost less often than one after a reception"]
            if self.order == 1 and self.loss_after[1] < self.loss_after[0]
            else []
        )

    def sampler(self, rng: np.random.Generator) -> ChainLosses | ChainSampler:
        """See `LossModel.sampler`."""
        return sample_chain(self.chain(), rng)


def sample_chain(chain: LossChain, rng: np.random.Generator) -> ChainLosses | ChainSampler:
    """A stationary sampler of any chain with a unique stationary law."""
    split = split_by_fate(chain)
    pi = stationary(split)
    keep = np.flatnonzero(pi > 1e-300)
    emitted = split.loss[keep]
    if np.all(emitted == emitted[0]):
        return ConstantSampler(bool(emitted[0]))
    matrix = split.transition[np.ix_(keep, keep)]
    return ChainSampler(matrix, pi[keep], emitted == 1.0, rng)


def split_by_fate(chain: LossChain) -> LossChain:
    """The same process with a state for each (state, fate), so that losses are 0 or 1."""
    received = np.flatnonzero(chain.loss < 1.0)
    lost = np.flatnonzero(chain.loss > 0.0)
    origin = np.concatenate((received, lost))
    fate = np.concatenate((np.zeros(received.size), np.ones(lost.size)))
    emission = np.where(fate == 1.0, chain.loss[origin], 1.0 - chain.loss[origin])
    return LossChain(chain.transition[np.ix_(origin, origin)] * emission, fate)


class ChainSampler(RunSampler):
    """Losses of an irreducible chain whose states each lose always or never.

    Sojourns are geometric; jumps go by inversion over each state's successors. The first piece
    runs from a stationary start to the first visit of the anchor state, the rest are excursions.
    """

    def __init__(self, matrix: Floats, pi: Floats, lost: Mask, rng: np.random.Generator) -> None:
        """P float64[s, s], its stationary law float64[s], and which states lose, bool[s]."""
        super().__init__()
        self._rng = rng
        leave = 1.0 - np.diag(matrix)
        self._lost = lost
        with np.errstate(divide="ignore"):  # a state left at once: scale 0, sojourns of one
            self._scale = np.minimum(-1.0 / np.log(np.diag(matrix)), _MAX_PACKETS)
        self._successors, self._cumulative = _jump_table(matrix)
        visits = pi * leave / float(pi @ leave)
        self._anchor = int(np.argmax(visits))
        self._rate = float(visits[self._anchor])  # excursions per jump
        start = int(np.searchsorted(np.cumsum(pi), rng.random() * pi.sum(), side="right"))
        self._start: int | None = min(start, pi.size - 1)
        self._jumps = _FIRST_JUMPS
        self._carry = 0  # packets of a lost run that the last batch ended in

    def _walk(self, starts: npt.NDArray[np.int64]) -> tuple[Runs, Runs]:
        """Excursions from `starts` until the anchor comes next: (states, sojourns), int64[m]."""
        walkers, state = np.arange(starts.size), starts
        steps: list[tuple[Runs, Runs, Runs]] = []
        while walkers.size:
            sojourn = self._rng.standard_exponential(walkers.size) * self._scale[state]
            steps.append((walkers, state, sojourn.astype(np.int64) + 1))
            u = self._rng.random(walkers.size)
            column = (u[:, None] >= self._cumulative[state]).sum(axis=1)
            state = self._successors[state, column]
            going = state != self._anchor
            walkers, state = walkers[going], state[going]
        lengths = np.zeros(starts.size + 1, np.int64)
        for who, _, _ in steps:
            lengths[who + 1] += 1
        offsets = np.cumsum(lengths)
        states = np.empty(offsets[-1], np.int64)
        sojourns = np.empty(offsets[-1], np.int64)
        for step, (who, at, stay) in enumerate(steps):
            states[offsets[who] + step] = at
            sojourns[offsets[who] + step] = stay
        return states, sojourns

    def _extend(self) -> tuple[Runs, int]:
        if self._start is not None:
            starts = np.array([self._start], np.int64)
            self._start = None
            if starts[0] == self._anchor:
                starts = starts[:0]
        else:
            count = max(1, int(self._jumps * self._rate))
            starts = np.full(count, self._anchor, np.int64)
            self._jumps = min(2 * self._jumps, _LAST_JUMPS)
        states, sojourns = self._walk(starts)
        ends = np.cumsum(sojourns) + self._carry
        lost = self._lost[states]
        if self._carry or (lost.size and lost[0]):  # the first stretch is lost
            edges = np.zeros(1, np.int64)
        else:
            edges = np.empty(0, np.int64)
        changes = ends[:-1][lost[1:] != lost[:-1]]
        if self._carry and lost.size and not lost[0]:
            edges = np.append(edges, self._carry)
        edges = np.concatenate((edges, changes))
        covered = int(ends[-1]) if ends.size else self._carry
        if edges.size % 2:  # the last stretch is lost and may go on
            self._carry = covered - int(edges[-1])
            covered = int(edges[-1])
            edges = edges[:-1]
        else:
            self._carry = 0
        return edges.reshape(-1, 2), covered


def _jump_table(
    matrix: Floats,
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Where each state jumps: successors int64[s, d] and cumulative odds float64[s, d - 1]."""
    jumps = matrix.copy()
    np.fill_diagonal(jumps, 0.0)
    degree = max(1, int((jumps > 0.0).sum(axis=1).max()))
    order = np.argsort(-jumps, axis=1, kind="stable")[:, :degree]
    odds = np.take_along_axis(jumps, order, axis=1)
    cumulative = np.cumsum(odds, axis=1) / odds.sum(axis=1, keepdims=True)
    last = (odds > 0.0).sum(axis=1, keepdims=True) - 1
    cumulative[np.arange(degree) >= last] = 1.0  # rounding never leads to a state of odds 0
    return order.astype(np.int64), cumulative[:, :-1]
