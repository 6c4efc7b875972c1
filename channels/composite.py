"""Channels made of channels: several causes of loss on one path, several paths to one receiver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from channels.base import OVERFLOWED, Channel, Delivery, LossModel, LossSampler
from channels.parameters import ChannelParameterError
from channels.samplers import Mask, MaskSampler
from channels.theory import Floats, LossChain

_MAX_STATES = 512


@dataclass(frozen=True, slots=True)
class AnyLoss:
    """A packet is lost when any of the parts, independent of each other, loses it."""

    parts: tuple[LossModel, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ChannelParameterError("of", "is empty; give at least one loss model")

    def chain(self) -> LossChain | None:
        """Product chain: P is the Kronecker product, e = 1 - prod (1 - e_i); None if too large."""
        matrix: Floats = np.ones((1, 1))
        received: Floats = np.ones(1)
        for part in self.parts:
            chain = part.chain()
            if chain is None or received.size * chain.loss.size > _MAX_STATES:
                return None
            matrix = np.asarray(np.kron(matrix, chain.transition), np.float64)
            received = np.asarray(np.kron(received, 1.0 - chain.loss), np.float64)
        return LossChain(matrix / matrix.sum(axis=1, keepdims=True), 1.0 - received)

    def warnings(self) -> list[str]:
        """See `LossModel.warnings`."""
        return [line for part in self.parts for line in part.warnings()]

    def sampler(self, rng: np.random.Generator) -> AnyLossSampler:
        """See `LossModel.sampler`; each part draws from its own child of `rng`."""
        children = rng.spawn(len(self.parts))
        return AnyLossSampler(
            [part.sampler(child) for part, child in zip(self.parts, children, strict=True)]
        )


class AnyLossSampler(MaskSampler):
    """The union of the losses of several samplers."""

    def __init__(self, parts: list[LossSampler]) -> None:
        super().__init__()
        self._parts = parts

    def _draw(self, n: int) -> Mask:
        lost = self._parts[0].mask(n)
        for part in self._parts[1:]:
            lost |= part.mask(n)
        return lost


class ReceiveDiversity(Channel):
    """One packet over several channels; every copy counts as an arrival at the one receiver. It
    overflowed if every link dropped it."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self._channels = tuple(channels)

    def transmit(self, data: bytes, now_s: float) -> tuple[Delivery, ...]:
        """See `Channel.transmit`."""
        answers = [channel.transmit(data, now_s) for channel in self._channels]
        if all(found is OVERFLOWED for found in answers):
            return OVERFLOWED
        return tuple(delivery for found in answers for delivery in found)
