"""A cache of index maps of random crops: what the inpainter and the decoder are trained on.

Crops are pure functions of (seed, number), so only their indices are stored and the pixels are cut
again when needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from codec.codebook import Looks, nearest
from codec.tokenizer import STRIDE
from codec.training.data import PhotoFolder, random_crops

# (rng, grid shape) -> received bool[h,w]
MaskSource = Callable[[np.random.Generator, tuple[int, int]], NDArray[np.bool_]]


@dataclass(frozen=True)
class TokenCache:
    """Index maps uint16[N,s,s] of N crops of 16 s pixels a side, of the base codebook."""

    photos: PhotoFolder
    indices: NDArray[np.uint16]
    seed: int

    @property
    def crop(self) -> int:
        """Side of a crop in pixels."""
        return int(self.indices.shape[1]) * STRIDE

    def looks(self, size: int, crops: int = 2000) -> Tensor:
        """What each of `size` base codewords looks like in the first crops: see `Looks`."""
        looks, count = Looks(size), min(crops, len(self.indices))
        for number in track(range(count), "looking at crops", console=Console(stderr=True)):
            labels = torch.from_numpy(self.indices[number].ravel().astype(np.int64))
            looks.add(labels, self.pixels(number))
        return looks.means()

    def pixels(self, number: int) -> Tensor:
        """Crop `number` again as float[1,3,crop,crop] in [-1, 1]."""
        return random_crops(self.photos, 1, self.crop, self.seed, number)


def cache_tokens(
    path: Path,
    photos: PhotoFolder,
    encoder: nn.Module,
    codewords: Tensor,
    *,
    crops: int,
    crop: int = 256,
    seed: int = 1,
) -> TokenCache:
    """Read the cache at `path`, or encode `crops` crops and write it there.

    Crops already in the file are kept, so an interrupted call goes on and a larger count extends.
    """
    shape = (crops, crop // STRIDE, crop // STRIDE)
    indices = np.zeros(shape, np.uint16)
    done = 0
    if path.exists():
        saved = np.load(path)["indices"][:crops]
        done = len(saved)
        indices[:done] = saved

    def save(count: int) -> None:
        partial = path.with_suffix(".partial.npz")
        np.savez_compressed(partial, indices=indices[:count])
        os.replace(partial, path)

    with torch.inference_mode():
        for number in track(range(done, crops), "encoding crops", console=Console(stderr=True)):
            latents = encoder(random_crops(photos, 1, crop, seed, number))[0]
            found = nearest(latents.flatten(1).t().contiguous(), codewords)
            indices[number] = found.view(shape[1:]).numpy()
            if number % 1000 == 999:
                save(number + 1)
    if done < crops:
        save(crops)
    return TokenCache(photos, indices, seed)
