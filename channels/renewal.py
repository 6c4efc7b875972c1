"""Semi-Markov losses: received runs and lost runs alternate, each with any length law.

Sources: A. Konrad, B. Y. Zhao, A. D. Joseph, R. Ludwig, "A Markov-based channel model algorithm
for wireless networks", Wireless Networks 9 (2003) 189, on runs that are not geometric; L. Carvalho,
J. Angeja, A. Navarro, "A new packet loss model of the IEEE 802.11g wireless network for
multimedia communications", IEEE Trans. Consumer Electronics 51 (2005) 809, on the heavy tails of
real Wi-Fi runs; D. R. Cox, *Renewal Theory* (1962), chapter 7, for the stationary start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from channels.lengths import (
    EmpiricalLength,
    GeometricLength,
    LengthLaw,
    LomaxLength,
    UniformLength,
    draw_residual,
)
from channels.parameters import ChannelParameterError, at_least, number, probability, whole
from channels.samplers import Runs, RunSampler
from channels.theory import LossChain

_MAX_STATES = 600
_FIRST_BATCH, _LAST_BATCH = 64, 4096  # pairs of runs


@dataclass(frozen=True, slots=True)
class SemiMarkov:
    """Alternating runs: received ones of law ``gap``, lost ones of law ``burst``, independent."""

    burst: LengthLaw
    gap: LengthLaw

    @classmethod
    def heavy_tailed(
        cls, loss: float, mean_burst: float, tail: float = 1.5, longest: int = 1000
    ) -> SemiMarkov:
        """Lomax bursts and geometric gaps with the given loss rate.

        Args:
            loss: in (0, 1).
            mean_burst: mean burst length in packets, > 1 and >= loss/(1 - loss).
            tail: tail index of the burst lengths, > 0; smaller is heavier.
            longest: bursts are cut at this many packets, > mean_burst.

        Raises:
            ChannelParameterError: out of range or infeasible.
        """
        loss = probability("loss", loss)
        if loss in (0.0, 1.0):
            raise ChannelParameterError("loss", "must lie strictly between 0 and 1 to have bursts")
        burst = LomaxLength.of_mean(number("mean_burst", mean_burst), tail, longest)
        gap = mean_burst * (1.0 - loss) / loss
        if gap < 1.0:
            raise ChannelParameterError(
                "mean_burst",
                f"of {mean_burst:g} cannot give a loss of {loss:g}: gaps would be shorter than "
                f"one packet; use mean_burst >= {loss / (1.0 - loss):.4g}",
            )
        return cls(burst, GeometricLength(gap))

    @classmethod
    def outages(cls, up: int, down: int, spread: float = 0.0) -> SemiMarkov:
        """An on/off link: `up` packets pass, `down` packets vanish, and so on.

        Args:
            up: mean packets between outages, >= 1.
            down: mean packets of an outage, >= 1.
            spread: lengths are uniform within +-spread of their mean, in [0, 1); 0 is strictly
                periodic, with a random phase.
        """
        spread = at_least("spread", spread, 0.0)
        if spread >= 1.0:
            raise ChannelParameterError("spread", f"must be below 1, got {spread!r}")

        def law(name: str, mean: int) -> UniformLength:
            half = int(whole(name, mean, 1) * spread)
            return UniformLength(mean - half, mean + half)

        return cls(burst=law("down", down), gap=law("up", up))

    @classmethod
    def resampled(cls, bursts: Sequence[int], gaps: Sequence[int]) -> SemiMarkov:
        """Runs drawn independently from observed lost (`bursts`) and received (`gaps`) runs."""
        for name, values in (("bursts", bursts), ("gaps", gaps)):
            if isinstance(values, str) or not isinstance(values, Sequence):
                raise ChannelParameterError(name, f"must be a list of lengths, got {values!r}")
        return cls(EmpiricalLength(tuple(bursts)), EmpiricalLength(tuple(gaps)))

    @property
    def loss(self) -> float:
        """Stationary loss rate, mean burst / (mean burst + mean gap) (Cox 1962, section 7.4)."""
        return self.burst.mean / (self.burst.mean + self.gap.mean)

    def chain(self) -> LossChain | None:
        """An exact chain whose state is the age of the current run; None above 600 states."""
        states = [1 if law.longest is None else law.longest for law in (self.gap, self.burst)]
        if sum(states) > _MAX_STATES:
            return None
        size = sum(states)
        matrix = np.zeros((size, size))
        for law, first, entry in ((self.gap, 0, states[0]), (self.burst, states[0], 0)):
            if law.longest is None:
                matrix[first, first] = 1.0 - 1.0 / law.mean
                matrix[first, entry] += 1.0 / law.mean
                continue
            survival = np.append(law.survival(law.longest), 0.0)
            alive = survival[:-1] > 0.0
            go_on = np.where(alive, survival[1:] / np.where(alive, survival[:-1], 1.0), 0.0)
            ages = np.arange(law.longest)
            matrix[first + ages[:-1], first + ages[1:]] = go_on[:-1]
            matrix[first + ages, entry] += 1.0 - go_on
        return LossChain(matrix, np.repeat([0.0, 1.0], states))

    def warnings(self) -> list[str]:
        """See `LossModel.warnings`."""
        found = []
        if isinstance(self.burst, LomaxLength):
            at_cut = float(self.burst.survival(self.burst.longest)[-1])
            share = at_cut * self.burst.longest / self.burst.mean
            if share > 0.2:
                found.append(
                    f"{share:.0%} of all losses fall in bursts of exactly longest = "
                    f"{self.burst.longest} packets; raise longest or tail"
                )
            if self.burst.tail <= 2.0:
                found.append(
                    f"tail {self.burst.tail:g} <= 2: the loss rate settles slowly, measured rates "
                    "scatter widely"
                )
        return found

    def sampler(self, rng: np.random.Generator) -> AlternatingSampler:
        """See `LossModel.sampler`."""
        return AlternatingSampler(self, rng)


class AlternatingSampler(RunSampler):
    """Runs of a stationary semi-Markov process, drawn in pairs of a gap and a burst."""

    def __init__(self, model: SemiMarkov, rng: np.random.Generator) -> None:
        super().__init__()
        self._model = model
        self._rng = rng
        self._batch = _FIRST_BATCH
        self._first = True

    def _extend(self) -> tuple[Runs, int]:
        pairs = np.empty((self._batch, 2), np.int64)
        pairs[:, 0] = self._model.gap.draw(self._rng, self._batch)
        pairs[:, 1] = self._model.burst.draw(self._rng, self._batch)
        if self._first:  # the run under way at packet 0 is seen from a random packet inside it
            self._first = False
            if self._rng.random() < self._model.loss:
                pairs[0] = 0, draw_residual(self._model.burst, self._rng)
            else:
                pairs[0, 0] = draw_residual(self._model.gap, self._rng)
        self._batch = min(2 * self._batch, _LAST_BATCH)
        edges = np.cumsum(pairs)
        return edges.reshape(-1, 2), int(edges[-1])
