"""How a training run is carried out, whatever it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from codec.device import CPU, Device

T = TypeVar("T")

HELD_OUT = 0.03
"""Default share of the photos that are never trained on."""

# (steps done, steps in all, what is going on)
Progress = Callable[[int, int, str], object]


def no_progress(done: int, total: int, doing: str) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class TrainingOptions:
    """How a run is carried out.

    Attributes:
        device: where the networks are.
        held_out: share of the photos that are never trained on, in [0, 1].
        workers: processes that make batches; None: none on a CPU, else up to 12.
        compiled: whether networks go through `torch.compile`, which takes minutes; not on a CPU.
        progress: called with (steps done, steps in all, what is going on).
    """

    device: Device = CPU
    held_out: float = HELD_OUT
    workers: int | None = None
    compiled: bool = False
    progress: Progress = no_progress

    def describe(self) -> dict[str, Any]:
        """What results depend on, for `config.json`."""
        dtype = str(self.device.fast_dtype).removeprefix("torch.")
        return {"device": str(self.device), "dtype": dtype, "held_out": self.held_out}

    def compile(self, network: Any) -> Any:
        """A network or a function of tensors, compiled if `compiled` and not on a CPU."""
        compiles = self.compiled and self.device.where.type != "cpu"
        return torch.compile(network) if compiles else network

    def track(self, items: Sequence[T], doing: str) -> Iterator[T]:
        """The items, with progress reported before each of them."""
        for number, item in enumerate(items):
            self.progress(number, len(items), doing)
            yield item


DEFAULT_OPTIONS = TrainingOptions()
