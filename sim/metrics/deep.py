"""Distances in the features of networks (`codec.lpips`), one pair of images at a time.

An original is measured against many times, so its features are kept. Everything is float32 and runs
on one thread, so that tables are the same for any number of workers.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.lpips import Dists, Lpips
from codec.perceptual import FeaturesMissing
from codec.threads import one_thread
from sim.errors import UserError
from sim.metrics.original_cache import OriginalCache

_MIN_SIDE = {"lpips": 31, "lpips_vgg": 16, "dists": 1}
"""Pixels: of a smaller image, pooling layers leave no output."""


class DeepDistance:
    """One of "lpips", "lpips_vgg" and "dists"."""

    def __init__(self, name: str) -> None:
        """Raises UserError if the weights are not installed."""
        self._min_side = _MIN_SIDE[name]
        try:
            self._network = (
                Dists() if name == "dists" else Lpips("vgg16" if name == "lpips_vgg" else "alexnet")
            )
        except FeaturesMissing as error:
            raise UserError(f"metric {name}: {error}") from None
        self._kept = OriginalCache(lambda image: [self._features(image)])

    @torch.inference_mode()
    def __call__(self, original: NDArray[np.uint8], image: NDArray[np.uint8]) -> float:
        """The distance of two uint8[H,W,3] images; NaN where they are too small for it."""
        if min(image.shape[:2]) < self._min_side:
            return float("nan")
        with one_thread():
            (wanted,) = self._kept.of(original)
            return float(self._network.between(self._features(image), wanted))

    def _features(self, image: NDArray[np.uint8]) -> list[Tensor]:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        pixels = pixels.to(torch.float32, memory_format=torch.channels_last)
        return self._network.features(pixels / 127.5 - 1)


@cache
def deep_distance(name: str) -> DeepDistance:
    """The distance of that name, loaded once in a process.

    Raises:
        UserError: its weights are not installed.
    """
    return DeepDistance(name)
