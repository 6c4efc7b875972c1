"""Index maps of random crops, computed once: what inpainter and context coder are trained on.

Crops are pure functions of (seed, number), so only their indices are stored; their pixels are cut
again when needed. Frames of short sequences are such crops too (`codec.training.sequences`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from codec.codebook import Ladder, PatchStatistics, log2_sizes, quantise
from codec.files import replacing
from codec.tokenizer import STRIDE, Encoder, is_level_conditioned
from codec.training.data import Batches, PhotoDataset, random_crops
from codec.training.options import DEFAULT_OPTIONS, TrainingOptions
from codec.training.task import to_device

# (rng, shape (h, w), or (n, h, w) of n frames in a row) -> received, bool of that shape
MaskSource = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.bool_]]


class SquareSource(Protocol):
    """Square pictures of 16 `side` pixels a side, each a pure function of its number."""

    @property
    def side(self) -> int: ...

    def __len__(self) -> int: ...

    def pixels(self, number: int) -> Tensor:
        """Picture `number` as float[1,3,16s,16s] in [-1, 1]."""
        ...

    def reader(self, options: TrainingOptions) -> Callable[[int], Tensor]:
        """`pixels`, on the device and for numbers in ascending order."""
        ...


@dataclass(frozen=True)
class Crops:
    """`count` random crops of 16 `side` pixels a side."""

    photos: PhotoDataset
    side: int
    count: int
    seed: int

    def __len__(self) -> int:
        return self.count

    def pixels(self, number: int) -> Tensor:
        """Crop `number` as float[1,3,16s,16s] in [-1, 1]."""
        return random_crops(self.photos, 1, self.side * STRIDE, self.seed, number)

    def reader(self, options: TrainingOptions) -> Callable[[int], Tensor]:
        """See `SquareSource.reader`."""
        side = self.side * STRIDE
        return Batches(self.photos, 1, side, self.seed, options, part=slice(None)).at


@dataclass(frozen=True)
class TokenCache:
    """Crops and their index maps.

    Attributes:
        crops: what they are of.
        ladder: what the indices point into.
        maps: uint16[N,L,s,s]: L maps for the ladder's sizes, ascending, if the encoder is
            conditioned on the codebook size; otherwise one, of the base codebook, whose tokens
            determine the others.
    """

    crops: SquareSource
    ladder: Ladder
    maps: NDArray[np.uint16]

    @property
    def side(self) -> int:
        """Tokens a side."""
        return self.crops.side

    def __len__(self) -> int:
        return len(self.crops)

    def at(self, numbers: int | slice | NDArray[np.int64], codebook_size: int) -> Tensor:
        """Index maps of crops: int64[s,s] of one, int64[...,s,s] of several."""
        if self.maps.shape[1] == 1:
            return self.ladder.shrink(_to_tensor(self.maps[numbers, 0]), codebook_size)
        return _to_tensor(self.maps[numbers, self.ladder.codebook_sizes.index(codebook_size)])

    def usage(self, codebook_size: int) -> Tensor:
        """How often each codeword is used, float32[K]."""
        indices = self.at(slice(None), codebook_size).flatten()
        return torch.bincount(indices, minlength=codebook_size).float()

    def mean_patches(self, crops: int = 2000, options: TrainingOptions = DEFAULT_OPTIONS) -> Tensor:
        """Mean patch of each base codeword in the first crops: see `PatchStatistics.means`."""
        base_size = self.ladder.base_size
        statistics = PatchStatistics(base_size)
        for number in options.track(range(min(crops, len(self))), "mean patches"):
            statistics.add(self.at(number, base_size).flatten(), self.crops.pixels(number))
        return statistics.means()


def _to_tensor(maps: NDArray[np.uint16]) -> Tensor:
    return torch.from_numpy(maps.astype(np.int64))


def cache_tokens(
    path: Path,
    crops: SquareSource,
    encoder: nn.Module,
    ladder: Ladder,
    options: TrainingOptions = DEFAULT_OPTIONS,
) -> TokenCache:
    """Read the cache at `path`, encode the crops that it lacks, and write it.

    Crops in the file are not encoded again, so an interrupted call is resumed and a larger count
    extends the file.
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

    where, pixels = options.device.where, crops.reader(options)
    to_device(encoder, options)
    moved = ladder.to(where)
    batch = 1 if where.type == "cpu" else 32
    starts = range(done, len(crops), batch)
    with torch.inference_mode(), options.device.autocast():
        for start in options.track(starts, "encoding crops"):
            stop = min(start + batch, len(crops))
            images = torch.cat([pixels(number) for number in range(start, stop)])
            maps[start:stop] = _encode(encoder, moved, images)
            if start // 1000 < stop // 1000:
                save(stop)
    if done < len(crops):
        save(len(crops))
    return TokenCache(crops, ladder, maps)


def _encode(encoder: nn.Module, ladder: Ladder, images: Tensor) -> NDArray[np.int64]:
    """The index maps int64[B,L,s,s] of crops float[B,3,16s,16s]; see `TokenCache.maps`."""
    if is_level_conditioned(encoder):
        assert isinstance(encoder, Encoder)
        sizes: tuple[int, ...] = ladder.codebook_sizes
        features = encoder.trunk(images)[:, None].expand(-1, len(sizes), -1, -1, -1)
        latents = encoder.head(features.flatten(0, 1), log2_sizes(*sizes).repeat(len(images)))
    else:
        sizes = (ladder.base_size,)
        latents = encoder(images)
    latents = latents.float().view(len(images), len(sizes), *latents.shape[1:])
    maps = [quantise(latents[:, place], ladder.codewords(size)) for place, size in enumerate(sizes)]
    return torch.stack(maps, dim=1).cpu().numpy()
