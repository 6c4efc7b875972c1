"""What is trained: the interface between the training loop and its tasks, and what these share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from codec.training.optimizer import OptimizerWithEma
from codec.training.options import TrainingOptions


class Task(ABC):
    """Networks, data and losses of a run.

    Attributes:
        name: for `config.json`.
        config: hyper-parameters, a dataclass.
        options: how the run is carried out.
        optimizer: of the networks that are trained.
    """

    name: ClassVar[str]
    config: Any
    options: TrainingOptions
    optimizer: OptimizerWithEma

    @abstractmethod
    def train_step(self, step: int, rate: float) -> dict[str, Tensor]:
        """One optimizer step at `rate` times the peak learning rates; returns scalars to log, among
        them "loss"."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Measures on held-out data, with the averaged weights."""

    @abstractmethod
    def sample_sheet(self) -> Image.Image:
        """Held-out images before and after the networks."""

    @abstractmethod
    def data_size(self) -> dict[str, int]:
        """How much is trained on, such as {"photos": 8000}."""

    def state(self) -> dict[str, Any]:
        """Tensors and plain containers for the checkpoint."""
        return self.optimizer.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.optimizer.load_state(state)

    def describe(self) -> dict[str, Any]:
        """Plain data for `config.json`."""
        return {
            "task": self.name,
            "training": asdict(self.config),
            **self.options.describe(),
            "parameters": self.optimizer.parameters(),
            **self.data_size(),
        }


def detached(**values: Tensor) -> dict[str, Tensor]:
    """Scalars to report, without their gradients."""
    return {name: value.detach() for name, value in values.items()}


def to_device(network: nn.Module, options: TrainingOptions) -> None:
    """Move a convolutional network to the device, channels last."""
    network.to(options.device.where).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def image_sheet(rows: list[Tensor]) -> Image.Image:
    """One picture of several rows of images, each row float[B,3,H,W] in [-1, 1]."""
    strips = [torch.cat(list(row.float().clamp(-1, 1)), dim=2) for row in rows]
    sheet = torch.cat(strips, dim=1).add(1).mul(127.5).round().byte()
    return Image.fromarray(sheet.permute(1, 2, 0).cpu().numpy())
