"""The tokenizer: a VQGAN encoder and decoder at stride 16 (Esser et al., CVPR 2021).

An image of any size is edge-padded to a multiple of 16 and encoded into one unit-length latent
vector per 16x16 pixels; the codebook (`codec.codebook`) turns latents into indices; the decoder
turns codewords back into pixels and the padding is cropped. Images are never resized.

All normalisation is per position (LayerNorm over channels), so a network trained on small crops
sees the same statistics on whole images. Everything is convolutional, so cost grows linearly with
the number of pixels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 16
MAX_LEVEL_BITS = 15  # log2 of the largest codebook


@dataclass(frozen=True)
class TokenizerConfig:
    """Shape of the networks. Widths and depths are given at strides 4, 8 and 16.

    `encoder_levels`: the encoder is told the codebook's size, and looks for latents near the
    codewords of that size; without, they are near those of the base codebook.

    `upsampler_depth`: convolutions of `upsampler_width` features that enlarge a picture of a
    quarter of each side, which the rest of the decoder draws; 0 for a decoder that draws all pixels
    itself.
    """

    latent_dim: int = 16
    encoder_widths: tuple[int, int, int] = (64, 128, 256)
    encoder_depths: tuple[int, int, int] = (1, 2, 2)
    decoder_widths: tuple[int, int, int] = (64, 160, 320)
    decoder_depths: tuple[int, int, int] = (2, 3, 4)
    encoder_levels: bool = False
    upsampler_depth: int = 0
    upsampler_width: int = 64

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each position: independent of the image size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), self.weight, self.bias)
        return y.permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(norm(x)))), the second convolution starting at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.relu(self.conv1(self.norm(x))))
        return x + y


def _blocks(channels: int, depth: int) -> list[nn.Module]:
    return [ResidualBlock(channels) for _ in range(depth)]


class Encoder(nn.Module):
    """RGB float[B,3,H,W] in [-1, 1], H and W multiples of 16 -> unit float[B,D,H/16,W/16]."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        w4, w8, w16 = config.encoder_widths
        d4, d8, d16 = config.encoder_depths
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, w4, 3, padding=1),
            *_blocks(w4, d4),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * w4, w8, 1),
            *_blocks(w8, d8),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * w8, w16, 1),
            *_blocks(w16, d16),
            ChannelNorm(w16),
            nn.Conv2d(w16, config.latent_dim, 1),
        )
        self._told = len(self.layers) - 2 - d16  # layers before those that are told the level
        self.levels = nn.Embedding(MAX_LEVEL_BITS + 1, w16) if config.encoder_levels else None
        if self.levels is not None:
            nn.init.zeros_(self.levels.weight)

    def seen(self, images: Tensor) -> Tensor:
        """What all levels share: float[B,3,H,W] -> float[B,W16,H/16,W/16]."""
        seen: Tensor = self.layers[: self._told](images)
        return seen

    def latents(self, seen: Tensor, level_bits: Tensor | None = None) -> Tensor:
        """Latents float[B,D,H/16,W/16] from what was `seen` and the level, log2 of the codebook's
        size, int64[B]; nobody else than an encoder with levels needs it."""
        if self.levels is not None:
            assert level_bits is not None
            told = self.levels(level_bits.to(seen.device))
            seen = seen + told[:, :, None, None].to(seen.dtype)
        return F.normalize(self.layers[self._told :](seen), dim=1)

    def forward(self, images: Tensor, level_bits: Tensor | None = None) -> Tensor:
        return self.latents(self.seen(images), level_bits)

    def start_from(self, other: Encoder) -> None:
        """Take over the weights of an encoder that lacks the levels or the last blocks of this one;
        what it lacks changes nothing yet."""
        mine, last = list(self.layers), len(other.layers) - 2
        for layer, its in zip(mine[:last] + mine[-2:], other.layers, strict=True):
            layer.load_state_dict(its.state_dict())
        if self.levels is not None and other.levels is not None:
            self.levels.load_state_dict(other.levels.state_dict())


def told_levels(encoder: nn.Module) -> bool:
    """Whether an encoder has to be told the codebook's size."""
    return isinstance(encoder, Encoder) and encoder.levels is not None


SMALL = 4
"""Pixels, each way, for each of those that an upsampler enlarges."""


class Upsampler(nn.Module):
    """Enlarges a small picture four times: a plain chain of convolutions and a pixel shuffle (Shi
    et al., CVPR 2016; the compact network of Real-ESRGAN), added to the nearest pixels.

    Besides the picture it sees the features that it was drawn from.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        width = config.upsampler_width
        self.first = nn.Conv2d(3, width, 3, padding=1)
        layers: list[nn.Module] = [nn.PReLU(width)]
        for _ in range(config.upsampler_depth):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 3 * SMALL**2, 3, padding=1))
        self.seen = nn.Conv2d(config.decoder_widths[0], width, 1, bias=False)
        nn.init.zeros_(self.seen.weight)
        self.shuffle = nn.PixelShuffle(SMALL)

    def forward(self, small: Tensor, features: Tensor | None = None) -> Tensor:
        """Picture float[B,3,h,w] and the decoder's features float[B,W4,h,w] -> float[B,3,4h,4w]."""
        x = self.first(small)
        if features is not None:
            x = x + self.seen(features)
        detail: Tensor = self.shuffle(self.layers(x))
        return detail + F.interpolate(small, scale_factor=float(SMALL))


class Decoder(nn.Module):
    """Codewords float[B,D,h,w] -> RGB float[B,3,16h,16w], nominally in [-1, 1], not clamped."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        w4, w8, w16 = config.decoder_widths
        d4, d8, d16 = config.decoder_depths
        self.layers = nn.Sequential(
            nn.Conv2d(config.latent_dim, w16, 3, padding=1),
            *_blocks(w16, d16),
            nn.Conv2d(w16, 4 * w8, 1),
            nn.PixelShuffle(2),
            *_blocks(w8, d8),
            nn.Conv2d(w8, 4 * w4, 1),
            nn.PixelShuffle(2),
            *_blocks(w4, d4),
            ChannelNorm(w4),
        )
        self.upsampler: Upsampler | None = None
        if config.upsampler_depth:
            self.layers.append(nn.Conv2d(w4, 3, 3, padding=1))
            self.upsampler = Upsampler(config)
        else:
            self.layers.append(nn.Conv2d(w4, 3 * SMALL**2, 3, padding=1))
            self.layers.append(nn.PixelShuffle(SMALL))

    def draw(self, codewords: Tensor) -> tuple[Tensor, Tensor]:
        """What an upsampler enlarges: the picture float[B,3,4h,4w], a quarter of each side, and the
        features float[B,W4,4h,4w] that it was drawn from."""
        features = self.layers[:-1](codewords)
        return self.layers[-1](features), features

    def forward(self, codewords: Tensor) -> Tensor:
        if self.upsampler is None:
            images: Tensor = self.layers(codewords)
            return images
        enlarged: Tensor = self.upsampler(*self.draw(codewords))
        return enlarged

    def start_from(self, other: Decoder) -> None:
        """Take over the weights of a decoder of the same widths and depths. One without an
        upsampler drew 4x4 pixels where this one draws their mean."""
        if (self.upsampler is None) == (other.upsampler is None):
            self.load_state_dict(other.state_dict())
            return
        assert self.upsampler is not None
        self.layers[:-1].load_state_dict(other.layers[:-2].state_dict())
        last, whole = self.layers[-1], other.layers[-2]
        assert isinstance(last, nn.Conv2d) and isinstance(whole, nn.Conv2d)
        assert last.bias is not None and whole.bias is not None
        with torch.no_grad():
            last.weight.copy_(whole.weight.view(3, SMALL**2, -1, 3, 3).mean(1))
            last.bias.copy_(whole.bias.view(3, SMALL**2).mean(1))
