"""The VQGAN of taming-transformers (Esser et al., CVPR 2021), for its published checkpoints.

Same layers under the same names, so that a checkpoint's tensors load as they are: residual blocks
of GroupNorm (32 groups, eps 1e-6), swish and 3x3 convolutions; self-attention over all positions at
1/16; strided convolutions down, nearest-neighbour and convolution up.

Normalisation and attention span the whole image, so it cannot be computed in tiles: memory grows
with the number of pixels, by about 4 kB each (1.6 GB for 768 x 512). Attention takes queries in
parts, so it adds no more than that; its time grows with the square of the number of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.checkpoint import ModelError

GROUPS = 32
_QUERIES = 1024


@dataclass(frozen=True)
class TamingConfig:
    """Shape of the networks; the defaults are those of both published f16 models.

    Attributes:
        channels: at full resolution.
        multipliers: of the channels at each resolution, each half of the one before.
        depth: residual blocks at each resolution of the encoder; the decoder has one more.
        attention: resolutions, as indices of `multipliers`, with attention after every block.
        latent_dim: of codewords.
        z_channels: what the encoder's convolutions end in.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    depth: int = 2
    attention: tuple[int, ...] = (4,)
    latent_dim: int = 256
    z_channels: int = 256

    def to_dict(self) -> dict[str, object]:
        return {"kind": "taming", **asdict(self)}


class ResnetBlock(nn.Module):
    """x + conv2(swish(norm2(conv1(swish(norm1(x))))))."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = _norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        if hasattr(self, "nin_shortcut"):
            x = self.nin_shortcut(x)
        return x + y


class AttnBlock(nn.Module):
    """Single-head self-attention over all positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (layer(y).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        parts = [F.scaled_dot_product_attention(part, k, v) for part in q.split(_QUERIES, 1)]
        out: Tensor = self.proj_out(torch.cat(parts, 1).transpose(1, 2).reshape(x.shape))
        return x + out


class Downsample(nn.Module):
    """A 3x3 convolution of stride 2, padded on the right and at the bottom."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Twice the size by repetition, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Middle(nn.Module):
    """Block, attention, block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = AttnBlock(channels)
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class Level(nn.Module):
    """Blocks of one resolution, each with its attention, and the step to the next."""

    def __init__(
        self,
        widths: list[int],
        attention: bool,
        step: tuple[str, type[Downsample | Upsample]] | None,
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(a, b) for a, b in pairwise(widths))
        self.attn = nn.ModuleList(AttnBlock(b) for b in widths[1:] if attention)
        self.step = step[0] if step else ""
        if step:
            self.add_module(step[0], step[1](widths[-1]))

    def forward(self, x: Tensor) -> Tensor:
        for number, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[number](x)
        if self.step:
            x = self.get_submodule(self.step)(x)
        return x


class _Down(nn.Module):
    """The convolutions of the encoder, under the names that checkpoints have for them."""

    def __init__(self, config: TamingConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.multipliers]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, config.channels, 3, padding=1)
        self.down = nn.ModuleList(
            Level(
                [widths[i - 1] if i else config.channels, *[width] * config.depth],
                i in config.attention,
                None if i == last else ("downsample", Downsample),
            )
            for i, width in enumerate(widths)
        )
        self.mid = Middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        out: Tensor = self.conv_out(F.silu(self.norm_out(self.mid(x))))
        return out


class _Up(nn.Module):
    """The convolutions of the decoder, likewise."""

    def __init__(self, config: TamingConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.multipliers]
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(
            Level(
                [widths[min(i + 1, len(widths) - 1)], *[width] * (config.depth + 1)],
                i in config.attention,
                ("upsample", Upsample) if i else None,
            )
            for i, width in enumerate(widths)
        )
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(list(self.up)):
            x = level(x)
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out


class TamingEncoder(nn.Module):
    """RGB float[B,3,H,W] in [-1, 1], H and W multiples of 16 -> latents float[B,D,H/16,W/16]."""

    def __init__(self, config: TamingConfig) -> None:
        super().__init__()
        self.encoder = _Down(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.latent_dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        latents: Tensor = self.quant_conv(self.encoder(images))
        return latents


class TamingDecoder(nn.Module):
    """Codewords float[B,D,h,w] -> RGB float[B,3,16h,16w], nominally in [-1, 1], not clamped."""

    def __init__(self, config: TamingConfig) -> None:
        super().__init__()
        self.decoder = _Up(config)
        self.post_quant_conv = nn.Conv2d(config.latent_dim, config.z_channels, 1)

    def forward(self, codewords: Tensor) -> Tensor:
        images: Tensor = self.decoder(self.post_quant_conv(codewords))
        return images


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


def read_config(tensors: Mapping[str, Tensor]) -> TamingConfig:
    """The shape of the networks whose tensors these are.

    Raises:
        ModelError: they are not those of a VQGAN with 16x16 pixels a token.
    """
    try:
        levels = 1 + max(int(k.split(".")[2]) for k in tensors if k.startswith("encoder.down."))
        channels = len(tensors["encoder.conv_in.weight"])
        widths = [len(tensors[f"encoder.down.{i}.block.0.conv1.weight"]) for i in range(levels)]
        blocks = {k.split(".")[4] for k in tensors if k.startswith("encoder.down.0.block.")}
        attention = tuple(
            i for i in range(levels) if f"encoder.down.{i}.attn.0.q.weight" in tensors
        )
        latent_dim = tensors["quantize.embedding.weight"].shape[1]
        z_channels = len(tensors["encoder.conv_out.weight"])
    except (KeyError, ValueError, IndexError):
        raise ModelError(
            "its tensors are not those of a taming-transformers VQGAN (encoder.down..., "
            "quantize.embedding.weight)"
        ) from None
    if levels != 5:
        raise ModelError(f"a token stands for {2 ** (levels - 1)} pixels a side; only 16 will do")
    if any(width % channels for width in widths) or channels % GROUPS:
        raise ModelError(f"channels {channels} and {widths} do not make {GROUPS} groups")
    return TamingConfig(
        channels,
        tuple(width // channels for width in widths),
        len(blocks),
        attention,
        latent_dim,
        z_channels,
    )
