"""Random crops, and a cache of their index maps: what all but the tokenizer are trained on.

Crops are pure functions of (seed, number), so only their indices are stored and the pixels are cut
again when needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from codec.codebook import Ladder, PatchStatistics, log2_sizes, quantise
from codec.files import replacing
from codec.tokenizer import STRIDE, Encoder, is_level_conditioned
from codec.training.data import PLAIN, Batches, Photos, Setup, random_crops

# (rng, grid shape) -> received bool[h,w]
MaskSource = Callable[[np.random.Generator, tuple[int, int]], NDArray[np.bool_]]


@dataclass(frozen=True)
class Crops:
    """`count` crops of 16 `side` pixels a side."""

    photos: Photos
    side: int
    count: int
    seed: int

    def __len__(self) -> int:
        return self.count

    def pixels(self, number: int) -> Tensor:
        """Crop `number` as float[1,3,16s,16s] in [-1, 1]."""
        return random_crops(self.photos, 1, self.side * STRIDE, self.seed, number)


@dataclass(frozen=True)
class TokenCache(Crops):
    """Crops and their index maps uint16[N,L,s,s]: at every level of the ladder if the encoder is
    told it, else at the base, whose tokens merge to those of the others."""

    ladder: Ladder
    maps: NDArray[np.uint16]

    def at(self, numbers: int | slice | NDArray[np.int64], codebook_size: int) -> Tensor:
        """Index maps of crops at a level: int64[s,s] of one, int64[n,s,s] of several."""
        if self.maps.shape[1] == 1:
            return self.ladder.shrink(_tensor(self.maps[numbers, 0]), codebook_size)
        return _tensor(self.maps[numbers, self.ladder.codebook_sizes.index(codebook_size)])

    def usage(self, codebook_size: int) -> Tensor:
        """How often each codeword of a level is used, float32[K]."""
        return torch.bincount(
            self.at(slice(None), codebook_size).flatten(), minlength=codebook_size
        ).float()

    def mean_patches(self, crops: int = 2000) -> Tensor:
        """Mean patch of each base codeword in the first crops: see `PatchStatistics.means`."""
        size = self.ladder.base_size
        statistics, count = PatchStatistics(size), min(crops, len(self))
        for number in track(range(count), "mean patches", console=Console(stderr=True)):
            statistics.add(self.at(number, size).flatten(), self.pixels(number))
        return statistics.means()


def _tensor(maps: NDArray[np.uint16]) -> Tensor:
    return torch.from_numpy(maps.astype(np.int64))


def cache_tokens(
    path: Path, crops: Crops, encoder: nn.Module, ladder: Ladder, setup: Setup = PLAIN
) -> TokenCache:
    """Read the cache at `path`, or encode the crops and write it there.

    Crops already in the file are kept, so an interrupted call goes on and a larger count extends.
    """
    levels = len(ladder.codebook_sizes) if is_level_conditioned(encoder) else 1
    shape = (len(crops), levels, crops.side, crops.side)
    maps = np.zeros(shape, np.uint16)
    done = 0
    if path.exists():
        saved = np.load(path)["indices"][: len(crops)]
        done = len(saved)
        maps[:done] = saved

    def save(count: int) -> None:
        with replacing(path) as partial:
            np.savez_compressed(partial, indices=maps[:count])

    where, side = setup.device.where, crops.side * STRIDE
    encoder.to(where).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    moved = ladder.to(where)
    pixels = Batches(crops.photos, 1, side, crops.seed, setup, part=slice(None))
    together = 1 if where.type == "cpu" else 32
    starts = range(done, len(crops), together)
    with torch.inference_mode(), setup.device.autocast():
        for start in track(starts, "encoding crops", console=Console(stderr=True)):
            stop = min(start + together, len(crops))
            images = torch.cat([pixels.at(number) for number in range(start, stop)])
            maps[start:stop] = _encode(encoder, moved, images)
            if start // 1000 < stop // 1000:
                save(stop)
    if done < len(crops):
        save(len(crops))
    return TokenCache(crops.photos, crops.side, crops.count, crops.seed, ladder, maps)


def _encode(encoder: nn.Module, ladder: Ladder, images: Tensor) -> NDArray[np.int64]:
    """The index maps int64[B,L,s,s] of crops float[B,3,16s,16s]."""
    if is_level_conditioned(encoder):
        assert isinstance(encoder, Encoder)
        levels = ladder.codebook_sizes
        features = encoder.trunk(images)[:, None].expand(-1, len(levels), -1, -1, -1)
        latents = encoder.head(features.flatten(0, 1), log2_sizes(*levels).repeat(len(images)))
    else:
        levels = (ladder.base_size,)
        latents = encoder(images)
    latents = latents.float().view(len(images), len(levels), *latents.shape[1:])
    maps = [
        quantise(latents[:, place], ladder.codewords(codebook_size))
        for place, codebook_size in enumerate(levels)
    ]
    return torch.stack(maps, dim=1).cpu().numpy()
