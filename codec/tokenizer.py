"""The tokenizer: a VQGAN encoder and decoder at stride 16 (Esser et al., CVPR 2021).

An image of any size is edge-padded to a multiple of 16 and encoded into one unit-length latent
vector per 16x16 pixels; the codebook (`codec.codebook`) turns latents into indices; the decoder
turns codewords back into pixels and the padding is cropped. Images are never resized.

All normalisation is per position (LayerNorm over channels), so a network trained on small crops
sees the same statistics on whole images. Everything is convolutional, so cost grows linearly with
the number of pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 16
MAX_LOG2_SIZE = 15  # log2 of the largest codebook


@dataclass(frozen=True)
class TokenizerConfig:
    """Shape of the networks.

    Attributes:
        latent_dim: D, dimensions of a codeword.
        encoder_widths, encoder_depths, decoder_widths, decoder_depths: channels and residual blocks
            at strides 4, 8 and 16.
        encoder_levels: whether the encoder is conditioned on the codebook size, so that latents lie
            near the codewords of that size; otherwise they lie near those of the base codebook.
        upsampler_depth: hidden convolutions of the upsampler that enlarges the decoder's picture
            four times each way; 0: no upsampler, the decoder draws all pixels itself.
        upsampler_width: channels of each of them.
        encoder_hidden, decoder_hidden: hidden channels of each residual block, in order; none: as
            many as the block's channels.
    """

    latent_dim: int = 16
    encoder_widths: tuple[int, int, int] = (64, 128, 256)
    encoder_depths: tuple[int, int, int] = (1, 2, 2)
    decoder_widths: tuple[int, int, int] = (64, 160, 320)
    decoder_depths: tuple[int, int, int] = (2, 3, 4)
    encoder_levels: bool = False
    upsampler_depth: int = 0
    upsampler_width: int = 64
    encoder_hidden: tuple[int, ...] = ()
    decoder_hidden: tuple[int, ...] = ()

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

    def __init__(self, channels: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = channels if hidden is None else hidden
        self.norm = ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.relu(self.conv1(self.norm(x))))
        return x + y


def _blocks(channels: int, depth: int, hidden: Iterator[int]) -> list[nn.Module]:
    return [ResidualBlock(channels, next(hidden, None)) for _ in range(depth)]


def _load_layers(layers: Sequence[nn.Module], source: Sequence[nn.Module], at: int) -> None:
    """Copy the weights of `source`, which lacks some of the layers from index `at` on."""
    own = list(layers)
    del own[at : at + len(layers) - len(source)]
    for layer, trained in zip(own, source, strict=True):
        layer.load_state_dict(trained.state_dict())


class Encoder(nn.Module):
    """RGB float[B,3,H,W] in [-1, 1], H and W multiples of 16 -> unit float[B,D,H/16,W/16]."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        w4, w8, w16 = config.encoder_widths
        d4, d8, d16 = config.encoder_depths
        hidden = iter(config.encoder_hidden)
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, w4, 3, padding=1),
            *_blocks(w4, d4, hidden),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * w4, w8, 1),
            *_blocks(w8, d8, hidden),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * w8, w16, 1),
            *_blocks(w16, d16, hidden),
            ChannelNorm(w16),
            nn.Conv2d(w16, config.latent_dim, 1),
        )
        self._split = len(self.layers) - 2 - d16  # the conditioning enters before this layer
        self.levels = nn.Embedding(MAX_LOG2_SIZE + 1, w16) if config.encoder_levels else None
        if self.levels is not None:
            nn.init.zeros_(self.levels.weight)

    def trunk(self, images: Tensor) -> Tensor:
        """Features that do not depend on the codebook size: float[B,3,H,W] in [-1, 1] ->
        float[B,W16,H/16,W/16]."""
        features: Tensor = self.layers[: self._split](images)
        return features

    def head(self, features: Tensor, log2_size: Tensor | None = None) -> Tensor:
        """Unit latents float[B,D,H/16,W/16] from the trunk's features and log2 of each image's
        codebook size, int64[B], which an encoder without conditioning ignores."""
        if self.levels is not None:
            assert log2_size is not None
            embedding = self.levels(log2_size.to(features.device))
            features = features + embedding[:, :, None, None].to(features.dtype)
        return F.normalize(self.layers[self._split :](features), dim=1)

    def forward(self, images: Tensor, log2_size: Tensor | None = None) -> Tensor:
        return self.head(self.trunk(images), log2_size)

    def start_from(self, other: Encoder) -> None:
        """Copy the weights of an encoder that may lack the conditioning or the last residual blocks
        of this one. What it lacks is initialised to add nothing."""
        _load_layers(list(self.layers), list(other.layers), len(other.layers) - 2)
        if self.levels is not None and other.levels is not None:
            self.levels.load_state_dict(other.levels.state_dict())


def is_level_conditioned(encoder: nn.Module) -> bool:
    """Whether an encoder's latents depend on the codebook size."""
    return isinstance(encoder, Encoder) and encoder.levels is not None


UPSCALE = 4
"""By how much an upsampler enlarges each side of a picture."""


class Upsampler(nn.Module):
    """Enlarges a picture four times each way: convolutions and a pixel shuffle (Shi et al., CVPR
    2016; the compact network of Real-ESRGAN), added to nearest-neighbour interpolation. Its inputs
    are the picture and, projected to its width, the features that the picture was drawn from.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        width = config.upsampler_width
        self.first = nn.Conv2d(3, width, 3, padding=1)
        layers: list[nn.Module] = [nn.PReLU(width)]
        for _ in range(config.upsampler_depth):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 3 * UPSCALE**2, 3, padding=1))
        self.feature_projection = nn.Conv2d(config.decoder_widths[0], width, 1, bias=False)
        nn.init.zeros_(self.feature_projection.weight)
        self.shuffle = nn.PixelShuffle(UPSCALE)

    def forward(self, small: Tensor, features: Tensor | None = None) -> Tensor:
        """Picture float[B,3,h,w] and the decoder's features float[B,W4,h,w] -> float[B,3,4h,4w]."""
        x = self.first(small)
        if features is not None:
            x = x + self.feature_projection(features)
        detail: Tensor = self.shuffle(self.layers(x))
        return detail + F.interpolate(small, scale_factor=float(UPSCALE))


class Decoder(nn.Module):
    """Codewords float[B,D,h,w] -> RGB float[B,3,16h,16w], nominally in [-1, 1], not clamped."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        w4, w8, w16 = config.decoder_widths
        d4, d8, d16 = config.decoder_depths
        hidden = iter(config.decoder_hidden)
        self.layers = nn.Sequential(
            nn.Conv2d(config.latent_dim, w16, 3, padding=1),
            *_blocks(w16, d16, hidden),
            nn.Conv2d(w16, 4 * w8, 1),
            nn.PixelShuffle(2),
            *_blocks(w8, d8, hidden),
            nn.Conv2d(w8, 4 * w4, 1),
            nn.PixelShuffle(2),
            *_blocks(w4, d4, hidden),
            ChannelNorm(w4),
        )
        self._split = 1 + d16  # where the blocks at stride 16 end
        self.upsampler: Upsampler | None = None
        if config.upsampler_depth:
            self.layers.append(nn.Conv2d(w4, 3, 3, padding=1))
            self.upsampler = Upsampler(config)
        else:
            self.layers.append(nn.Conv2d(w4, 3 * UPSCALE**2, 3, padding=1))
            self.layers.append(nn.PixelShuffle(UPSCALE))

    def low_resolution(self, codewords: Tensor) -> tuple[Tensor, Tensor]:
        """The upsampler's input: a picture float[B,3,4h,4w], a quarter of each side, and the
        features float[B,W4,4h,4w] that it was drawn from."""
        features = self.layers[:-1](codewords)
        return self.layers[-1](features), features

    def forward(self, codewords: Tensor) -> Tensor:
        if self.upsampler is None:
            images: Tensor = self.layers(codewords)
            return images
        enlarged: Tensor = self.upsampler(*self.low_resolution(codewords))
        return enlarged

    def start_from(self, other: Decoder) -> None:
        """Copy the weights of a decoder of the same widths, which may lack the last residual blocks
        at stride 16; what it lacks is initialised to add nothing. Where only this one has an
        upsampler, its last convolution becomes the mean of those that drew 4x4 pixels."""
        if (self.upsampler is None) == (other.upsampler is None):
            _load_layers(list(self.layers), list(other.layers), other._split)
            if self.upsampler is not None and other.upsampler is not None:
                self.upsampler.load_state_dict(other.upsampler.state_dict())
            return
        assert self.upsampler is not None
        _load_layers(list(self.layers)[:-1], list(other.layers)[:-2], other._split)
        last, whole = self.layers[-1], other.layers[-2]
        assert isinstance(last, nn.Conv2d) and isinstance(whole, nn.Conv2d)
        assert last.bias is not None and whole.bias is not None
        with torch.no_grad():
            last.weight.copy_(whole.weight.view(3, UPSCALE**2, -1, 3, 3).mean(1))
            last.bias.copy_(whole.bias.view(3, UPSCALE**2).mean(1))
