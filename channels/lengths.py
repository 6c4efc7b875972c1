"""Laws of run lengths, for loss processes that alternate between receiving and losing.

All lengths are whole packets >= 1. ``survival`` gives P(length >= k); residual lives follow the
renewal theorem: seen from a random packet inside it, the rest of a run (that packet included) is
k long with probability P(length >= k) / mean (W. Feller, *Probability Theory* vol. 1, XIII).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from channels.parameters import ChannelParameterError, above, at_least, whole

Lengths = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_MAX_LONGEST = 1_000_000


class LengthLaw(Protocol):
    """A law on 1, 2, 3, ..."""

    @property
    def mean(self) -> float:
        """Mean length in packets."""
        ...

    @property
    def longest(self) -> int | None:
        """Largest possible length; None if unbounded (then the law is geometric)."""
        ...

    def survival(self, longest: int) -> Floats:
        """P(length >= k), k = 1 ... longest: float64[longest]."""
        ...

    def draw(self, rng: np.random.Generator, n: int) -> Lengths:
        """n independent lengths: int64[n]."""
        ...


@dataclass(frozen=True, slots=True)
class GeometricLength:
    """Memoryless lengths of the given mean >= 1."""

    mean: float

    def __post_init__(self) -> None:
        at_least("mean", self.mean, 1.0)

    @property
    def longest(self) -> None:
        """Unbounded."""
        return None

    def survival(self, longest: int) -> Floats:
        """P(length >= k) = (1 - 1/mean)^(k - 1)."""
        return np.asarray((1.0 - 1.0 / self.mean) ** np.arange(longest))

    def draw(self, rng: np.random.Generator, n: int) -> Lengths:
        """See `LengthLaw.draw`."""
        return rng.geometric(1.0 / self.mean, n)


@dataclass(frozen=True, slots=True)
class LomaxLength:
    """Heavy-tailed lengths: P(length >= k) = (1 + (k - 1)/scale)^-tail for k <= longest.

    The discrete Lomax (shifted Pareto) law, cut at ``longest``: the probability above it sits on
    it. ``tail`` > 0 is the tail index: below 2 the variance grows with the cut, below 1 the mean
    does too.
    """

    scale: float
    tail: float
    longest: int

    def __post_init__(self) -> None:
        above("scale", self.scale, 0.0)
        above("tail", self.tail, 0.0)
        whole("longest", self.longest, 1)

    @classmethod
    def of_mean(cls, mean: float, tail: float, longest: int) -> LomaxLength:
        """The law of the given mean, by bisection on the scale.

        Raises:
            ChannelParameterError: the mean is not above 1 or not below what `longest` allows.
        """
        above("mean_burst", mean, 1.0)
        above("tail", tail, 0.0)
        if not mean < whole("longest", longest, 2) <= _MAX_LONGEST:
            raise ChannelParameterError(
                "longest",
                f"must exceed mean_burst = {mean:g} and be at most {_MAX_LONGEST}, got {longest}",
            )
        low, high = -40.0, 60.0  # natural logarithm of the scale
        for _ in range(60):  # to about 1e-16
            middle = (low + high) / 2.0
            if cls(float(np.exp(middle)), tail, longest).mean < mean:
                low = middle
            else:
                high = middle
        return cls(float(np.exp((low + high) / 2.0)), tail, longest)

    @property
    def mean(self) -> float:
        """Sum of the survival function."""
        return float(self.survival(self.longest).sum())

    def survival(self, longest: int) -> Floats:
        """See `LengthLaw.survival`."""
        k = np.arange(longest)
        values = (1.0 + k / self.scale) ** -self.tail
        values[self.longest :] = 0.0
        return np.asarray(values)

    def draw(self, rng: np.random.Generator, n: int) -> Lengths:
        """By inversion: 1 + floor(scale (U^(-1/tail) - 1)), U uniform in (0, 1]."""
        u = 1.0 - rng.random(n)
        with np.errstate(over="ignore"):
            excess = self.scale * (u ** (-1.0 / self.tail) - 1.0)
        return np.minimum(excess, self.longest - 1.0).astype(np.int64) + 1


@dataclass(frozen=True, slots=True)
class UniformLength:
    """Every whole length from ``shortest`` to ``longest`` equally likely."""

    shortest: int
    longest: int

    def __post_init__(self) -> None:
        whole("shortest", self.shortest, 1)
        whole("longest", self.longest, self.shortest)

    @property
    def mean(self) -> float:
        """Middle of the range."""
        return (self.shortest + self.longest) / 2.0

    def survival(self, longest: int) -> Floats:
        """See `LengthLaw.survival`."""
        k = np.arange(1, longest + 1)
        return np.clip((self.longest + 1.0 - k) / (self.longest + 1 - self.shortest), 0.0, 1.0)

    def draw(self, rng: np.random.Generator, n: int) -> Lengths:
        """See `LengthLaw.draw`."""
        return rng.integers(self.shortest, self.longest, n, dtype=np.int64, endpoint=True)


@dataclass(frozen=True, slots=True)
class EmpiricalLength:
    """Lengths drawn, with replacement, from observed ones (>= 1, at least one of them)."""

    observed: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.observed:
            raise ChannelParameterError("lengths", "are empty; give at least one observed length")
        for value in self.observed:
            whole("lengths", value, 1)

    @property
    def mean(self) -> float:
        """Mean of the observed lengths."""
        return sum(self.observed) / len(self.observed)

    @property
    def longest(self) -> int:
        """Largest observed length."""
        return max(self.observed)

    def survival(self, longest: int) -> Floats:
        """See `LengthLaw.survival`."""
        values = np.sort(np.array(self.observed))
        below = np.searchsorted(values, np.arange(1, longest + 1), side="left")
        return np.asarray(1.0 - below / values.size)

    def draw(self, rng: np.random.Generator, n: int) -> Lengths:
        """See `LengthLaw.draw`."""
        return np.array(self.observed, np.int64)[rng.integers(0, len(self.observed), n)]


def draw_residual(law: LengthLaw, rng: np.random.Generator) -> int:
    """What is left, at a random packet of a run of this law, of the run: >= 1, that packet too."""
    longest = law.longest
    if longest is None:  # memoryless
        return int(law.draw(rng, 1)[0])
    weights = np.cumsum(law.survival(longest))
    return min(longest, 1 + int(np.searchsorted(weights, rng.random() * weights[-1], side="right")))
