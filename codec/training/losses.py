"""What the tokenizer is trained against: pixels, deep features, and discriminators of both."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

# What a discriminator looks at: taps 2, 3 and 4 of the features, by channels, at strides 4, 8, 16.
_JUDGED = {2: 24, 3: 40, 4: 80}


class PatchDiscriminator(nn.Module):
    """Spectrally normalised PatchGAN (Isola et al. 2017; Miyato et al. 2018).

    float[B,3,H,W] -> logits float[B,1,H/8,W/8].
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            spectral_norm(nn.Conv2d(12, width, 3, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(4 * width, 1, 3, padding=1)),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


class Critics(nn.Module):
    """A patch discriminator of the pixels, and one of the deep features at each of three strides
    (projected GANs: Sauer et al., NeurIPS 2021): the frozen features tell texture from blur long
    before a discriminator of pixels has learnt to.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.pixels = PatchDiscriminator(width)
        self.features = nn.ModuleList(_feature_head(c, width) for c in _JUDGED.values())

    def forward(self, images: Tensor, taps: list[Tensor]) -> list[Tensor]:
        """float[B,3,H,W] and their `PerceptualDistance.taps` -> logits float[B,1,h,w], one tensor
        by discriminator."""
        looks = zip(self.features, _JUDGED, strict=True)
        return [self.pixels(images), *(head(taps[tap]) for head, tap in looks)]


def _feature_head(channels: int, width: int) -> nn.Module:
    return nn.Sequential(
        spectral_norm(nn.Conv2d(channels, width, 1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(width, 2 * width, 3, padding=1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(2 * width, 1, 3, padding=1)),
    )


def discriminator_loss(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Hinge loss of the discriminators (Lim & Ye 2017), their mean."""
    pairs = zip(real, fake, strict=True)
    losses = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in pairs]
    return torch.stack(losses).mean()


def generator_loss(fake: list[Tensor]) -> Tensor:
    """Hinge loss of the generator, the mean over discriminators."""
    return -torch.stack([f.mean() for f in fake]).mean()
