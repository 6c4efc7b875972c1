"""The losses of decoded pictures: pixels, distances in networks' features, discriminators.

Reconstruction: the L1 of pixels plus LPIPS with VGG16; at full size also the spectrum of detail and
the distance in the features of EfficientNet. From a given step on, discriminators of pixels and of
deep features add an adversarial loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from codec.device import Device
from codec.lpips import Lpips
from codec.perceptual import PerceptualDistance, reconstruction_loss
from codec.training import parallel
from codec.training.losses import (
    MultiDiscriminator,
    hinge_discriminator_loss,
    hinge_generator_loss,
    spectrum_loss,
)
from codec.training.optimizer import OptimizerWithEma
from codec.training.options import TrainingOptions
from codec.training.task import to_device

DISCRIMINATOR_LEAD = 50
"""Steps that discriminators are trained before their gradient is used."""


@dataclass(frozen=True)
class PixelLossConfig:
    """Hyper-parameters of the losses.

    Attributes:
        lpips_weight: of LPIPS beside the L1 of pixels.
        layers: how many of VGG16's five feature layers LPIPS uses.
        features_weight: of `codec.perceptual.PerceptualDistance`, at full size.
        spectrum_weight: of `codec.training.losses.spectrum_loss`, at full size.
        adversarial_from: step from which the adversarial loss counts; -1: never.
        adversarial_share: norm of its gradient at the pixels, as a share of the norm of the other
            losses' (Esser et al., CVPR 2021, eq. 7, who measure at the last layer).
        discriminator_rate, discriminator_width: of the discriminators.
        ema_decay: of the averaged weights.
    """

    lpips_weight: float = 1.0
    layers: int = 4
    features_weight: float = 0.0
    spectrum_weight: float = 0.0
    adversarial_from: int = -1
    adversarial_share: float = 0.4
    discriminator_rate: float = 2e-4
    discriminator_width: int = 48
    ema_decay: float = 0.998


@dataclass(frozen=True)
class Judged:
    """What the discriminators learn from: decoded pixels float[B,3,w,w], their
    `PerceptualDistance.taps`, and the original pixels."""

    decoded: Tensor
    features: list[Tensor]
    target: Tensor


class PixelLosses:
    """The losses, and the discriminators with their optimizer."""

    def __init__(self, config: PixelLossConfig, options: TrainingOptions) -> None:
        """Raises FeaturesMissing if the weights of VGG16 or EfficientNet are not installed."""
        self.config, where = config, options.device.where
        self.lpips_vgg = None
        if config.lpips_weight:
            self.lpips_vgg = options.compile(Lpips("vgg16", config.layers).to(where))
        if config.adversarial_from >= 0 or config.features_weight:
            self.perceptual = PerceptualDistance().to(where)
        self.optimizer: OptimizerWithEma | None = None
        if config.adversarial_from >= 0:
            self.discriminator = MultiDiscriminator(config.discriminator_width)
            to_device(self.discriminator, options)
            self.optimizer = OptimizerWithEma(
                {"discriminator": self.discriminator},
                rate=config.discriminator_rate,
                weight_decay=0.0,
                ema_decay=config.ema_decay,
            )

    def reconstruction(
        self, images: Tensor, targets: Tensor, values: dict[str, Tensor], suffix: str
    ) -> Tensor:
        """L1 of pixels and LPIPS; `values` gets both under names with the suffix."""
        pixels = reconstruction_loss(images, targets)
        values[f"pixels{suffix}"] = pixels.detach()
        if self.lpips_vgg is None:
            return pixels
        lpips: Tensor = self.lpips_vgg(images, targets).mean()
        values[f"lpips_vgg{suffix}"] = lpips.detach()
        return pixels + self.config.lpips_weight * lpips

    def add(
        self, loss: Tensor, large: Tensor, target: Tensor, step: int, values: dict[str, Tensor]
    ) -> tuple[Tensor, Judged | None]:
        """Add reconstruction and adversarial loss of decoded pixels float[B,3,w,w] to a loss.

        The gradients of both are taken at the pixels, where the adversarial one is scaled. A
        surrogate loss, linear in the pixels, passes their sum on to the networks.
        """
        decoded, judged = large.detach().requires_grad_(), None
        recon_loss = self.reconstruction(decoded, target, values, "")
        if self.config.spectrum_weight:
            spectrum = spectrum_loss(decoded, target)
            recon_loss = recon_loss + self.config.spectrum_weight * spectrum
            values["spectrum"] = spectrum.detach()
        if self.config.features_weight:
            distance = self.perceptual(decoded, target)
            recon_loss = recon_loss + self.config.features_weight * distance
            values["features"] = distance.detach()
        (gradient,) = torch.autograd.grad(recon_loss, decoded)
        start = self.config.adversarial_from
        if self.optimizer is not None and step >= start - DISCRIMINATOR_LEAD:
            features = self.perceptual.taps(decoded)
            if step >= start:
                gradient = self._add_adversarial_gradient(decoded, features, gradient, values)
            judged = Judged(decoded.detach(), [tap.detach() for tap in features], target)
        surrogate_loss = (large * gradient).sum()
        offset = (recon_loss - (decoded * gradient).sum()).detach()  # so that values are the loss's
        return loss + surrogate_loss + offset, judged

    def _add_adversarial_gradient(
        self,
        decoded: Tensor,
        features: list[Tensor],
        grad_recon: Tensor,
        values: dict[str, Tensor],
    ) -> Tensor:
        """The gradient at the pixels plus that of the generator's loss, scaled to a share of it."""
        generator_loss = hinge_generator_loss(self.discriminator(decoded, features)).float()
        (grad_adv,) = torch.autograd.grad(generator_loss, decoded)
        squares = torch.stack([grad_recon.square().sum(), grad_adv.square().sum()])
        norms = parallel.summed(squares).sqrt()
        scale = self.config.adversarial_share * norms[0] / (norms[1] + 1e-12)
        values |= {"generator": generator_loss.detach(), "scale": scale}
        return grad_recon + scale * grad_adv

    def train_discriminators(
        self, judged: Judged, step: int, rate: float, device: Device
    ) -> Tensor:
        """One step of the discriminators at `rate` times their peak learning rate; returns their
        loss, a scalar."""
        assert self.optimizer is not None
        with device.autocast():
            loss = self.optimizer.compute(lambda: self._discriminator_loss(judged))
        self.optimizer.step(loss, step, rate)
        return loss.detach()

    def _discriminator_loss(self, judged: Judged) -> Tensor:
        """The discriminators' hinge loss, a scalar."""
        with torch.no_grad():
            target_features = self.perceptual.taps(judged.target)
        real = self.discriminator(judged.target, target_features)
        fake = self.discriminator(judged.decoded, judged.features)
        return hinge_discriminator_loss(real, fake).float()

    def state(self) -> dict[str, Any] | None:
        """Of the discriminators, for the checkpoint; None without them."""
        return None if self.optimizer is None else self.optimizer.state()

    def load_state(self, state: dict[str, Any] | None) -> None:
        """Restore what `state` returned; without it, discriminators begin anew."""
        if self.optimizer is not None and state is not None:
            self.optimizer.load_state(state)

    def parameters(self) -> dict[str, int]:
        """Number of the discriminators' parameters."""
        return {} if self.optimizer is None else self.optimizer.parameters()
