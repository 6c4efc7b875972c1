"""Networks with their optimiser and averaged weights: what every task steps, saves and resumes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving average of a module's parameters, with a short memory at the start."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            self.values[name].lerp_(value, 1 - decay)


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
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=weight_decay)

    def step(self, loss: Tensor, step: int, factor: float) -> float:
        """One step at `factor` times the peak learning rates; returns the gradient norm."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        self.optimizer.step()
        self.ema.update(self.networks, step)
        return float(norm)

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
        self.ema.values = state["ema"]
        self.optimizer.load_state_dict(state["optimizer"])
