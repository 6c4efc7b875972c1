"""Laws of the random part of a delay, in seconds, one draw per packet.

Every law draws the same numbers one at a time as many at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from channels.parameters import ChannelParameterError, above, at_least, number

Floats = npt.NDArray[np.float64]


class Jitter(Protocol):
    """A law of delays added to the propagation delay; may be negative."""

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """The next n extra delays: float64[n], seconds."""
        ...


@dataclass(frozen=True, slots=True)
class NormalJitter:
    """Symmetric: normal with mean 0 and standard deviation ``std_s`` >= 0 seconds.

    The link never lets a packet arrive before it was sent, so keep std_s well below the delay.
    """

    std_s: float

    def __post_init__(self) -> None:
        at_least("std_s", self.std_s, 0.0)

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """See `Jitter.draw`."""
        return rng.standard_normal(n) * self.std_s


@dataclass(frozen=True, slots=True)
class UniformJitter:
    """Symmetric and bounded: uniform within +- ``half_s`` >= 0 seconds, as netem's is."""

    half_s: float

    def __post_init__(self) -> None:
        at_least("half_s", self.half_s, 0.0)

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """See `Jitter.draw`."""
        return (2.0 * rng.random(n) - 1.0) * self.half_s


@dataclass(frozen=True, slots=True)
class ParetoJitter:
    """Right-skewed: Lomax with mean ``mean_s`` >= 0 and tail index ``shape`` > 1.

    P(extra > x) = (1 + x / (mean_s (shape - 1)))^-shape; the variance is infinite for shape <= 2.
    """

    mean_s: float
    shape: float = 3.0

    def __post_init__(self) -> None:
        at_least("mean_s", self.mean_s, 0.0)
        above("shape", self.shape, 1.0)

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """See `Jitter.draw`; by inversion."""
        u = 1.0 - rng.random(n)
        scale = self.mean_s * (self.shape - 1.0)
        return np.asarray(scale * (u ** (-1.0 / self.shape) - 1.0))


@dataclass(frozen=True, slots=True)
class EmpiricalJitter:
    """Extra delays drawn, with replacement, from measured ones (seconds; at least one)."""

    samples_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.samples_s:
            raise ChannelParameterError("samples_s", "is empty; give at least one extra delay")
        for value in self.samples_s:
            number("samples_s", value)

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """See `Jitter.draw`."""
        place = (rng.random(n) * len(self.samples_s)).astype(np.int64)
        return np.array(self.samples_s, np.float64)[place]
