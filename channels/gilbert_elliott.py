"""The Gilbert-Elliott channel: two hidden states, each with its own loss rate.

Sources: E. N. Gilbert, "Capacity of a burst-noise channel", Bell System Technical Journal 39
(1960) 1253-1265; E. O. Elliott, "Estimates of error rates for codes on burst-noise channels",
BSTJ 42 (1963) 1977-1997; G. Hasslinger, O. Hohlfeld, "The Gilbert-Elliott model for packet loss
in real time services on the Internet", MMB 2008 (below: HH), whose h and k are the *reception*
probabilities 1 - loss_bad and 1 - loss_good.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from channels.parameters import ChannelParameterError, at_least, probability
from channels.samplers import (
    BernoulliSampler,
    ConstantSampler,
    Mask,
    MaskSampler,
    Runs,
    RunSampler,
    two_rate_mask,
)
from channels.theory import LossChain

_FIRST_BATCH, _LAST_BATCH = 64, 4096  # pairs of sojourns; batches grow so that starting is cheap
_DENSE_RUNS, _DENSE_MASK = 0.11, 0.03
"""Runs per packet above which states are drawn by packet: where intervals may be wanted (sojourns
give them faster than uniforms below this), and where only the mask is. Part of the definition of a
stream, as are the batches."""
_MAX_PACKETS = 2.0**44  # packets; rarer events are taken as this rare, so that int64 never wraps


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """A two-state Markov chain, good and bad, moving once per packet.

    Attributes:
        p: P(good -> bad), in [0, 1].
        r: P(bad -> good), in [0, 1]; p + r > 0.
        loss_good: loss probability in the good state, in [0, 1] (HH: 1 - k).
        loss_bad: loss probability in the bad state, in [0, 1] (HH: 1 - h).

    Raises:
        ChannelParameterError: a value out of range, or p = r = 0 (no unique stationary state).
    """

    p: float
    r: float
    loss_good: float = 0.0
    loss_bad: float = 1.0

    def __post_init__(self) -> None:
        for name in ("p", "r", "loss_good", "loss_bad"):
            probability(name, getattr(self, name))
        if self.p == 0.0 and self.r == 0.0:
            raise ChannelParameterError(
                "r", "is 0 and so is p: the chain never moves; make at least one of them positive"
            )

    @classmethod
    def from_loss(cls, loss: float, mean_burst: float) -> GilbertElliott:
        """The simple Gilbert channel with a given loss rate and mean loss-run length in packets.

        Bursts are Geometric(r) and gaps Geometric(p), so r = 1/L and, from the stationary loss
        l = p/(p + r), p = l/((1 - l) L) (HH section 2).

        Args:
            loss: in [0, 1).
            mean_burst: L >= max(1, loss/(1 - loss)), else p would exceed 1.

        Raises:
            ChannelParameterError: out of range or infeasible; the message gives the bound.
        """
        loss = probability("loss", loss)
        if loss == 1.0:
            raise ChannelParameterError(
                "loss", "is 1, which has no bursts; use the uniform type for total loss"
            )
        mean_burst = at_least("mean_burst", mean_burst, 1.0)
        odds = loss / (1.0 - loss)
        if mean_burst < odds * (1.0 - 1e-12):
            raise ChannelParameterError(
                "mean_burst",
                f"of {mean_burst:g} cannot give a loss of {loss:g}: even with gaps of one packet "
                f"bursts must average loss/(1-loss) = {odds:.4g}; use mean_burst >= {odds:.4g} "
                f"or loss <= {mean_burst / (1.0 + mean_burst):.4g}",
            )
        return cls(p=min(1.0, odds / mean_burst), r=1.0 / mean_burst)

    @property
    def bad_share(self) -> float:
        """Stationary probability of the bad state, p/(p + r) (HH section 2)."""
        return self.p / (self.p + self.r)

    @property
    def loss(self) -> float:
        """Stationary loss rate, pi_G e_G + pi_B e_B (HH eq. for p_E)."""
        return (1.0 - self.bad_share) * self.loss_good + self.bad_share * self.loss_bad

    def chain(self) -> LossChain:
        """States (good, bad) for `channels.theory`."""
        return LossChain(
            [[1.0 - self.p, self.p], [self.r, 1.0 - self.r]], [self.loss_good, self.loss_bad]
        )

    def warnings(self) -> list[str]:
        """See `LossModel.warnings`."""
        found = []
        if self.p + self.r > 1.0 + 1e-12 and self.loss_good != self.loss_bad:
            found.append(
                f"anti-bursty: p + r = {self.p + self.r:.4g} > 1, so a loss makes the next loss "
                "less likely than independent loss would; for bursts take mean_burst > "
                "1/(1-loss), that is p + r < 1"
            )
        if self.loss_good > self.loss_bad:
            found.append("loss_good exceeds loss_bad: the states' names are swapped")
        if self.loss_good == self.loss_bad:
            found.append("loss_good equals loss_bad: this is uniform erasure, p and r do nothing")
        if self.loss_bad == 1.0 and self.r == 0.0:
            found.append("r is 0: the chain stays in the bad state and every packet is lost")
        return found

    def sampler(
        self, rng: np.random.Generator
    ) -> ConstantSampler | BernoulliSampler | SojournSampler | CarrySampler | TwoStateSampler:
        """See `LossModel.sampler`: starts bad with probability p/(p + r)."""
        if self.p == 0.0 or self.r == 0.0 or self.loss_good == self.loss_bad:
            loss = self.loss
            return (
                ConstantSampler(loss == 1.0) if loss in (0.0, 1.0) else BernoulliSampler(loss, rng)
            )
        simple = self.loss_good == 0.0 and self.loss_bad == 1.0
        runs_per_packet = self.p * self.r / (self.p + self.r)
        dense = runs_per_packet > (_DENSE_RUNS if simple else _DENSE_MASK)
        states = (CarrySampler if dense else SojournSampler)(self.p, self.r, rng)
        return states if simple else TwoStateSampler(states, self.loss_good, self.loss_bad, rng)


class SojournSampler(RunSampler):
    """Bad-state runs of a stationary two-state chain, drawn as whole sojourns.

    A sojourn of the good (bad) state is Geometric(p) (Geometric(r)) on 1, 2, ..., drawn as
    floor(E / -log(1 - p)) + 1 with E a unit exponential: P(E >= k lambda) = (1 - p)^k exactly.
    Geometric sojourns are memoryless, so the one under way at packet 0 has the same law.
    """

    def __init__(self, p: float, r: float, rng: np.random.Generator) -> None:
        super().__init__()
        self._rng = rng
        with np.errstate(divide="ignore"):  # p or r of 1: sojourns of exactly one packet
            scales = -1.0 / np.log1p(-np.array([p, r]))
        self._scales = np.tile(np.minimum(scales, _MAX_PACKETS), _LAST_BATCH)
        self._starts_bad = bool(rng.random() < p / (p + r))
        self._batch = _FIRST_BATCH

    def _extend(self) -> tuple[Runs, int]:
        sojourns = self._rng.standard_exponential(2 * self._batch)
        sojourns *= self._scales[: sojourns.size]
        self._batch = min(2 * self._batch, _LAST_BATCH)
        packets = sojourns.astype(np.int64)  # truncation: floor of a value >= 0
        packets += 1
        if self._starts_bad:
            packets[0] = 0
            self._starts_bad = False
        edges = np.cumsum(packets)
        return edges.reshape(-1, 2), int(edges[-1])


class CarrySampler(MaskSampler):
    """Bad states of a stationary two-state chain, packet by packet.

    With u uniform in [0, 1) for each packet, u < min(p, 1 - r) makes its state bad,
    u >= max(p, 1 - r) makes it good, and any other u keeps the state before (p + r < 1) or changes
    it (p + r > 1). So a state is the carry of a binary addition, which the first generate, the
    second absorb and the others pass on: long integers add a block of packets at once. For
    p + r > 1 that holds of the states with every second one, 1, 3, 5, ..., taken for its opposite.
    """

    def __init__(self, p: float, r: float, rng: np.random.Generator) -> None:
        super().__init__()
        self._rng = rng
        self._bounds = 256.0 * min(p, 1.0 - r), 256.0 * max(p, 1.0 - r)
        self._changing = p + r > 1.0
        self._bad = bool(rng.random() < p / (p + r))

    def _draw(self, n: int) -> Mask:
        low, high = (int(bound) for bound in self._bounds)
        digits = self._rng.bit_generator.random_raw(n // 8).view(np.uint8)  # of 256 u
        below, not_above = digits < low, digits < high
        ties = np.flatnonzero((digits == low) | (digits == high))
        rest = digits[ties] + self._rng.random(ties.size)
        below[ties], not_above[ties] = rest < self._bounds[0], rest < self._bounds[1]
        if self._changing:
            passing = below ^ not_above
            below[1::2] = ~not_above[1::2]
            not_above = below | passing
        a, b = _as_integer(below), _as_integer(not_above)
        carries = (a + b + (self._bad ^ self._changing)) ^ a ^ b  # bit i: the state before i
        packed = np.frombuffer(carries.to_bytes(n // 8 + 1, "little"), np.uint8)
        states = np.unpackbits(packed, count=n + 1, bitorder="little")[1:].view(np.bool_)
        if self._changing:
            states[1::2] ^= True
        self._bad = bool(states[-1])
        return states


def _as_integer(bits: Mask) -> int:
    return int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")


class TwoStateSampler(MaskSampler):
    """Losses thinned by state: probability loss_good outside the runs of `states`, loss_bad in."""

    def __init__(
        self,
        states: SojournSampler | CarrySampler,
        loss_good: float,
        loss_bad: float,
        rng: np.random.Generator,
    ) -> None:
        super().__init__()
        self._states = states
        self._loss_good = loss_good
        self._loss_bad = loss_bad
        self._rng = rng

    def _draw(self, n: int) -> Mask:
        bad = self._states.mask(n)
        return two_rate_mask(self._rng, bad, self._loss_good, self._loss_bad)
