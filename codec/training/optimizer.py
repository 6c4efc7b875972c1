"""Networks with their optimizer and averaged weights, and what all training tasks share.

With several processes, torch's DistributedDataParallel averages the gradients over them. It expects
one call of a module per step. Tasks call several networks, and parts of them, in one function; a
module that calls this function is what DistributedDataParallel wraps: `OptimizerWithEma.compute`.
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
    """Exponential moving average of a module's state dict. At step n the decay is at most
    (1 + n) / (10 + n), so that the first weights are soon forgotten."""

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
        """Replace the averages, by name."""
        for name, value in values.items():
            self.values[name].copy_(value)


class _Function(nn.Module):
    """A module whose forward pass is a given function of the networks it owns."""

    def __init__(self, networks: nn.ModuleDict) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, function: Callable[[], T]) -> T:
        return function()


class OptimizerWithEma:
    """AdamW over several networks, each at its own peak learning rate, with gradients clipped to
    norm 1 and an exponential moving average (EMA) of the weights."""

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
        self.adamw = torch.optim.AdamW(groups, **options)
        self._function: nn.Module = _Function(self.networks)
        if parallel.processes() > 1:
            self._function = DistributedDataParallel(
                self._function, broadcast_buffers=False, find_unused_parameters=True
            )

    def compute(self, function: Callable[[], T]) -> T:
        """The result of a function of the networks, from which a loss comes. In `step`, the loss's
        gradients are averaged over all processes."""
        result: T = self._function(function)
        return result

    def step(self, loss: Tensor, step: int, factor: float) -> Tensor:
        """Minimise a scalar loss by one step at `factor` times the peak learning rates.

        Returns:
            The norm of the gradient before clipping, a scalar.
        """
        for group, rate in zip(self.adamw.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.adamw.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        self.adamw.step()
        self.ema.update(self.networks, step)
        return norm

    def restart_average(self) -> None:
        """Reset the EMA to the networks' present weights."""
        self.ema = Ema(self.networks, self.ema.decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The networks hold the EMA weights within the block."""
        current = {k: v.clone() for k, v in self.networks.state_dict().items()}
        self.networks.load_state_dict(self.ema.values)
        try:
            yield
        finally:
            self.networks.load_state_dict(current)

    def parameters(self) -> dict[str, int]:
        """Number of parameters of each network."""
        return {k: sum(p.numel() for p in m.parameters()) for k, m in self.networks.items()}

    def state(self) -> dict[str, Any]:
        return {
            "networks": self.networks.state_dict(),
            "ema": self.ema.values,
            "adamw": self.adamw.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.networks.load_state_dict(state["networks"])
        self.ema.load(state["ema"])
        self.adamw.load_state_dict(state["adamw"])
