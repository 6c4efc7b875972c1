"""Discriminators of pixels and of deep features, their hinge losses, and what all losses see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

# Index in `PerceptualDistance.taps` -> channels, of the features at strides 4, 8 and 16.
_TAP_CHANNELS = {2: 24, 3: 40, 4: 80}


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


class MultiDiscriminator(nn.Module):
    """A patch discriminator of the pixels, and one of frozen deep features at each of three strides
    (projected GANs: Sauer et al., NeurIPS 2021), which separates texture from blur long before a
    discriminator of pixels has learnt to.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.pixels = PatchDiscriminator(width)
        self.features = nn.ModuleList(
            _feature_discriminator(c, width) for c in _TAP_CHANNELS.values()
        )

    def forward(self, images: Tensor, taps: list[Tensor]) -> list[Tensor]:
        """Images float[B,3,H,W] in [-1, 1] and their `PerceptualDistance.taps` -> logits
        float[B,1,h,w] of each discriminator, first that of the pixels."""
        pairs = zip(self.features, _TAP_CHANNELS, strict=True)
        return [self.pixels(images), *(network(taps[index]) for network, index in pairs)]


def _feature_discriminator(channels: int, width: int) -> nn.Module:
    return nn.Sequential(
        spectral_norm(nn.Conv2d(channels, width, 1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(width, 2 * width, 3, padding=1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(2 * width, 1, 3, padding=1)),
    )


def hinge_discriminator_loss(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Hinge loss (Lim & Ye, "Geometric GAN", 2017) from logits of real and of generated images,
    mean over the discriminators: a scalar."""
    pairs = zip(real, fake, strict=True)
    losses = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in pairs]
    return torch.stack(losses).mean()


def hinge_generator_loss(fake: list[Tensor]) -> Tensor:
    """Hinge loss of the generator from logits of generated images, mean over the discriminators."""
    return -torch.stack([f.mean() for f in fake]).mean()


def random_view(images: Tensor, seed: Sequence[int], border: int = 8) -> Tensor:
    """Images float[B,3,h,w] less a border of so many pixels in all, at random sides; less of it
    where they are small, so that as much is left.

    Otherwise a grid in step with the strides of the networks that judge, 8 pixels after four blocks
    of VGG16, would lower their losses. Equal seeds give equal sides.
    """
    border = max(0, min(border, min(images.shape[2:]) - border))
    top, left = (int(at) for at in np.random.default_rng(seed).integers(border + 1, size=2))
    height, width = (side - border for side in images.shape[2:])
    view = images[:, :, top : top + height, left : left + width].float()
    return view.contiguous(memory_format=torch.channels_last)


def spectrum_loss(images: Tensor, targets: Tensor) -> Tensor:
    """How much the power of detail differs, frequency by frequency, wherever it lies.

    L1 and LPIPS punish detail in the wrong place more than none at all, and leave pictures soft.
    What an upsampler leaves in step with its own grid (Odena et al., "Deconvolution and
    Checkerboard Artifacts", Distill 2016) is a peak of few frequencies.

    Args:
        images, targets: float[B,3,H,W] each, in [-1, 1].

    Returns:
        The squared difference of natural logarithms of `_power`, mean over frequencies, colours
        and images; a scalar.
    """
    return (_power(images) / _power(targets)).log().square().mean()


_NOISE = 0.01
"""Standard deviation of the white noise below which detail does not count."""


def _power(images: Tensor) -> Tensor:
    """Mean power of n x n pixels at each frequency (Welch's method: Hann windows that overlap by
    half, each less its mean), and that of faint noise: float[B,3,n,n//2+1] of float[B,3,H,W], n up
    to 32."""
    side = min(32, *images.shape[2:])
    hann = torch.hann_window(side, device=images.device)
    hann = hann[:, None] * hann
    tiles = images.float().unfold(2, side, side // 2).unfold(3, side, side // 2)
    tiles = (tiles - tiles.mean((4, 5), keepdim=True)) * hann
    power: Tensor = torch.fft.rfft2(tiles).abs().square().mean((2, 3))
    return power + _NOISE**2 * hann.square().sum()
