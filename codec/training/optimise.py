"""Networks with their optimiser and averaged weights: what every task steps, saves and resumes.

Where several processes train together, gradients are averaged over them by torch's
DistributedDataParallel. Its contract is one call of a module a step; tasks call several networks,
and parts of them, so the function that does is what is called: `Optimised.compute`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from codec.training import parallel

T = TypeVar("T")


class Ema:
    """Exponential moving average of a module's parameters, with a short memory at the start."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        present = module.state_dict()
        averages = [self.values[name] for name in present]
        torch._foreach_lerp_(averages, list(present.values()), 1 - decay)

    def load(self, values: dict[str, Tensor]) -> None:
        """Go on with these averages."""
        for name, value in values.items():
            self.values[name].copy_(value)


class _Called(nn.Module):
    """Some networks, and whatever function of them is called."""

    def __init__(self, networks: nn.ModuleDict) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, function: Callable[[], T]) -> T:
        return function()


class Optimised:
    """AdamW over some networks, each at its own peak learning rate, gradient clipping at norm 1,
    and the moving average."""

    def __init__(
        self,
        networks: dict[str, nn.Module],
        *,
        rate: float | dict[str, float],
        weight_decay: float,
        ema_decay: float,
    ) -> None:
        self.networks = nn.ModuleDict(networks)
        self.rates = [rate if isinstance(rate, float) else rate[name] for name in networks]
        self.ema = Ema(self.networks, ema_decay)
        groups = [{"params": list(network.parameters())} for network in networks.values()]
        cuda = any(parameter.is_cuda for parameter in self.networks.parameters())
        options: Any = {"betas": (0.9, 0.95), "weight_decay": weight_decay, "fused": cuda or None}
        self.optimizer = torch.optim.AdamW(groups, **options)
        self._called: nn.Module = _Called(self.networks)
        if parallel.processes() > 1:
            self._called = DistributedDataParallel(
                self._called, broadcast_buffers=False, find_unused_parameters=True
            )

    def compute(self, function: Callable[[], T]) -> T:
        """The result of a function that uses the networks and ends in a loss, whose gradients are
        averaged over all processes in `step`."""
        result: T = self._called(function)
        return result

    def step(self, loss: Tensor, step: int, factor: float) -> Tensor:
        """One step at `factor` times the peak learning rates; returns the gradient norm."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        self.optimizer.step()
        self.ema.update(self.networks, step)
        return norm

    def restart_average(self) -> None:
        """Begin the moving average anew at the networks' present weights."""
        self.ema = Ema(self.networks, self.ema.decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the networks hold the averaged weights."""
        current = {k: v.clone() for k, v in self.networks.state_dict().items()}
        self.networks.load_state_dict(self.ema.values)
        try:
            yield
        finally:
            self.networks.load_state_dict(current)

    def parameters(self) -> dict[str, int]:
        """Number of parameters by network."""
        return {k: sum(p.numel() for p in m.parameters()) for k, m in self.networks.items()}

    def state(self) -> dict[str, Any]:
        return {
            "networks": self.networks.state_dict(),
            "ema": self.ema.values,
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.networks.load_state_dict(state["networks"])
        self.ema.load(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
