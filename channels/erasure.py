"""Loss without memory, loss by script, and no loss at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from channels.parameters import ChannelParameterError, choice, probability
from channels.samplers import (
    BernoulliSampler,
    ConstantSampler,
    Mask,
    Runs,
    runs_of_mask,
)
from channels.theory import LossChain

AT_END = ("repeat", "receive", "refuse")


@dataclass(frozen=True, slots=True)
class PerfectLoss:
    """Loses nothing."""

    def sampler(self, rng: np.random.Generator) -> ConstantSampler:
        """See `LossModel.sampler`; draws nothing."""
        return ConstantSampler(False)

    def chain(self) -> LossChain:
        """One state that never loses."""
        return LossChain([[1.0]], [0.0])

    def warnings(self) -> list[str]:
        """See `LossModel.warnings`."""
        return []


@dataclass(frozen=True, slots=True)
class UniformErasure:
    """Every packet is lost with probability ``loss`` in [0, 1], independently."""

    loss: float

    def __post_init__(self) -> None:
        probability("loss", self.loss)

    def sampler(self, rng: np.random.Generator) -> ConstantSampler | BernoulliSampler:
        """See `LossModel.sampler`."""
        if self.loss in (0.0, 1.0):
            return ConstantSampler(self.loss == 1.0)
        return BernoulliSampler(self.loss, rng)

    def chain(self) -> LossChain:
        """One state that loses with probability `loss`."""
        return LossChain([[1.0]], [self.loss])

    def warnings(self) -> list[str]:
        """See `LossModel.warnings`."""
        return ["loss is 1: no packet will ever arrive"] if self.loss == 1.0 else []


@dataclass(frozen=True, slots=True)
class Scripted:
    """Replays a given sequence of fates from its beginning; nothing is random.

    Attributes:
        script: one byte per packet, 0 = received, 1 = lost (give `mask` to `of`).
        at_end: what follows the last fate: "repeat" the script, "receive" everything, or
            "refuse" (`lost`, `mask` and `runs` raise IndexError).
    """

    script: bytes
    at_end: str = "repeat"

    def __post_init__(self) -> None:
        choice("at_end", self.at_end, AT_END)
        if not self.script:
            raise ChannelParameterError("mask", "is empty; give at least one fate (0 or 1)")
        if self.script.translate(None, b"\0\1"):
            raise ChannelParameterError("mask", "holds only 0 (received) and 1 (lost)")

    @classmethod
    def of(cls, mask: object, at_end: str = "repeat") -> Scripted:
        """From bools, 0/1 numbers, or text such as "0010 0111" (spaces are skipped).

        Raises:
            ChannelParameterError: the mask is empty or holds anything but 0 and 1.
        """
        if isinstance(mask, str):
            values: list[object] = list("".join(mask.split()))
            allowed: tuple[object, ...] = ("0", "1")
        elif isinstance(mask, Iterable):
            values = list(mask)
            allowed = (0, 1)
        else:
            raise ChannelParameterError(
                "mask", f'must be a list of 0 and 1 or text like "0011", got {mask!r}'
            )
        for index, value in enumerate(values):
            if value not in allowed:
                raise ChannelParameterError(
                    "mask", f"holds only 0 (received) and 1 (lost), got {value!r} at {index}"
                )
        return cls(
            bytes(int(str(v)) if isinstance(v, str) else int(bool(v)) for v in values), at_end
        )

    def sampler(self, rng: np.random.Generator) -> ScriptSampler:
        """See `LossModel.sampler`; draws nothing."""
        return ScriptSampler(np.frombuffer(self.script, np.bool_), self.at_end)

    def chain(self) -> None:
        """A script is no random process."""
        return None

    def warnings(self) -> list[str]:
        """See `LossModel.warnings`."""
        return ["the script loses every packet"] if b"\0" not in self.script else []


class ScriptSampler:
    """Fates of a script (bool[m], m >= 1), continued as `at_end` says, from packet `start`."""

    def __init__(self, script: Mask, at_end: str, start: int = 0) -> None:
        self._script = script
        self._at_end = at_end
        self._position = start

    def lost(self) -> bool:
        """Whether the next packet is lost. Raises IndexError past the end under "refuse"."""
        return bool(self.mask(1)[0])

    def mask(self, n: int) -> Mask:
        """Fates of the next n packets: bool[n]. Raises IndexError past the end under "refuse"."""
        length = self._script.size
        if self._at_end == "refuse" and self._position + n > length:
            raise IndexError(f"the script of {length} fates has ended (at_end: refuse)")
        start, self._position = self._position, self._position + n
        if self._at_end == "repeat":
            start %= length
        if start + n <= length:
            return self._script[start : start + n].copy()
        if self._at_end == "repeat":
            return np.resize(np.roll(self._script, -start), n)
        out = np.zeros(n, np.bool_)
        tail = self._script[start:]
        out[: tail.size] = tail
        return out

    def runs(self, n: int) -> Runs:
        """Lost runs among the next n packets: int64[k, 2], [start, end) within [0, n]."""
        return runs_of_mask(self.mask(n))
