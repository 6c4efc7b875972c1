"""Photographs from a folder or a pack, and random crops that are a pure function of (seed, step).

The crops of a batch are drawn from the sizes of all photos, before any photo is decoded. So several
processes that each take a part of a batch (`codec.training.parallel`) make the same batch as one.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from codec.device import CPU, Device
from codec.training import parallel
from codec.training.options import HELD_OUT, TrainingOptions
from codec.training.pack import PhotoPack, PhotoSource

EXTENSIONS = {".webp", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
CACHE_BYTES = 4 << 30
"""Of decoded photos, in the memory of all processes that make batches."""


class PhotoFolder:
    """Every photo below a folder; a `PhotoSource`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        found = sorted(p for p in self.path.rglob("*") if p.suffix.lower() in EXTENSIONS)
        return [path.relative_to(self.path).as_posix() for path in found]

    def size(self, name: str) -> tuple[int, int]:
        try:
            with Image.open(self.path / name) as image:
                mode, (width, height) = image.mode, image.size
                # Not the method of PNG, which would read all pixels.
                turned = Image.Image.getexif(image).get(0x0112, 1) >= 5
        except OSError as error:
            raise ValueError(f"{self.path / name}: cannot be read ({error})") from None
        if mode.startswith(("I", "F")):
            path = self.path / name
            raise ValueError(f"{path}: more than 8 bits a channel; convert it to 8 bits")
        return (height, width) if turned else (width, height)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


def photo_source(path: Path) -> PhotoSource:
    """The photos of a folder or a pack.

    Raises:
        ValueError: it is neither.
    """
    if path.is_dir():
        return PhotoFolder(path)
    if not path.exists():
        raise ValueError(f"{path}: no such folder or pack of photos")
    return PhotoPack(path)


@dataclass(frozen=True)
class Crop:
    """A square of photo number `photo`: `side` pixels each way from (`top`, `left`), mirrored or
    not."""

    photo: int
    top: int
    left: int
    side: int
    mirrored: bool


class PhotoDataset:
    """The training photos, or the held-out ones, of a folder or a pack that are large enough.

    A photo is held out if the CRC-32 of its relative path is below `share` of its range, so the
    split stays the same when photos are added. Decoded photos are cached as uint8 (about 0.3 MB
    each), up to `cache_bytes`.

    Attributes:
        names: relative paths of the photos, sorted.
        sizes: (width, height) of each, in pixels.
        probabilities: of drawing each for a crop, float64[n].
        fingerprint: SHA-256 of names and sizes, which determine what every random crop shows.

    Raises:
        ValueError: no photo of this part has a short side of at least `min_side` pixels, or one
            cannot be read.
    """

    def __init__(
        self, path: Path, *, held_out: bool = False, min_side: int, share: float = HELD_OUT
    ) -> None:
        self.source = photo_source(path)
        everything = self.source.names()
        chosen = [name for name in everything if (_place(name) < share) == held_out]
        found = [(name, *self.source.size(name)) for name in chosen]
        found = [(name, w, h) for name, w, h in found if min(w, h) >= min_side]
        if not found:
            part = f"held out ({share:.3g} of all, by their names)" if held_out else "to train on"
            wanted = f"; some {_enough(share)} photos are needed, or a larger share" * held_out
            large = [name for name in everything if min(self.source.size(name)) >= min_side]
            if held_out and len(large) > 1:
                least = math.ceil(1000 * min(map(_place, large)) + 1e-9) / 1000
                wanted += f": {least:g} holds out one of these"
            raise ValueError(
                f"{path}: of {len(everything)} photos none {part} has a short side of {min_side} "
                f"pixels or more{wanted}"
            )
        self.names = [name for name, _, _ in found]
        self.sizes = [(w, h) for _, w, h in found]
        pixels = np.array([w * h for w, h in self.sizes], np.float64)
        # A larger photo holds more distinct crops, so it is drawn in proportion to its pixels.
        self.probabilities = pixels / pixels.sum()
        names = "".join(f"{name} {w} {h}\n" for name, w, h in found)
        self.fingerprint = hashlib.sha256(names.encode()).hexdigest()
        self.cache_bytes = CACHE_BYTES
        self._cache: dict[int, NDArray[np.uint8]] = {}
        self._cached = 0

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        """Without the cache: every process has its own."""
        return self.__dict__ | {"_cache": {}, "_cached": 0}

    def photo(self, index: int) -> NDArray[np.uint8]:
        """Photo `index` as uint8[H,W,3]; raises ValueError if it cannot be read."""
        if index in self._cache:
            return self._cache[index]
        path = self.source.path / self.names[index]
        try:
            with Image.open(io.BytesIO(self.source.read(self.names[index]))) as image:
                pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({error})") from None
        if pixels.shape[1::-1] != self.sizes[index]:
            raise ValueError(f"{path}: is not as large as its header says")
        while self._cache and self._cached + pixels.nbytes > self.cache_bytes:
            self._cached -= self._cache.pop(next(iter(self._cache))).nbytes
        self._cache[index] = pixels
        self._cached += pixels.nbytes
        return pixels

    def draw(self, size: int, rng: np.random.Generator) -> Crop:
        """A random crop that becomes `size` pixels a side: half of them at native scale, half
        shrunk by up to 2.5; mirrored at random."""
        photo = int(rng.choice(len(self.names), p=self.probabilities))
        width, height = self.sizes[photo]
        largest = min(2.5, min(height, width) / size)
        scale = 1.0 if rng.random() < 0.5 else float(rng.uniform(1.0, largest))
        side = min(round(size * scale), height, width)
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        return Crop(photo, top, left, side, bool(rng.random() < 0.5))

    def cut(self, crop: Crop, size: int) -> NDArray[np.uint8]:
        """The pixels of a crop, shrunk to uint8[size,size,3]."""
        rows, columns = (slice(at, at + crop.side) for at in (crop.top, crop.left))
        pixels = self.photo(crop.photo)[rows, columns]
        if crop.side != size:
            shrunk = Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS)
            pixels = np.asarray(shrunk)
        return pixels[:, ::-1] if crop.mirrored else pixels


def _place(name: str) -> float:
    """Where a photo stands in [0, 1); those below the share are held out."""
    return zlib.crc32(name.encode("utf-8", "surrogateescape")) / 2**32


def _enough(share: float) -> int:
    """How many photos are needed for one to be held out with probability 1 - e^-3 = 95%."""
    return round(3 / max(share, 1e-6))


def crop_bytes(
    photos: PhotoDataset, count: int, size: int, seed: int, step: int, part: slice = slice(None)
) -> Tensor:
    """A part (default: all) of a batch of crops uint8[count,size,size,3], a pure function of
    (seed, step)."""
    rng = np.random.default_rng([seed, step])
    crops = [photos.draw(size, rng) for _ in range(count)][part]
    return torch.from_numpy(np.stack([photos.cut(crop, size) for crop in crops]))


def to_float(crops: Tensor, device: Device = CPU) -> Tensor:
    """Images uint8[B,H,W,3] -> float[B,3,H,W] in [-1, 1] on the device, channels last."""
    moved = crops.to(device.where, non_blocking=True)
    images = moved.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    return images.contiguous(memory_format=torch.channels_last)


def random_crops(
    photos: PhotoDataset, count: int, size: int, seed: int, step: int, device: Device = CPU
) -> Tensor:
    """Batch of crops float[count,3,size,size] in [-1, 1], a pure function of (seed, step)."""
    return to_float(crop_bytes(photos, count, size, seed, step), device)


class Batches(Dataset[Any]):
    """The batches of a run, by step; with `options.workers`, prefetched by other processes.

    Attributes:
        part: which images of each batch this process has.
    """

    def __init__(
        self,
        photos: PhotoDataset,
        count: int,
        size: int,
        seed: int,
        options: TrainingOptions,
        part: slice | None = None,
    ) -> None:
        """Batches of ``count`` crops of ``size`` pixels, of which this process has ``part``
        (default: its share by rank).

        Raises:
            ValueError: ``count`` cannot be divided by the number of training processes.
        """
        self.photos, self.count, self.size, self.seed = photos, count, size, seed
        self.part = parallel.part(count) if part is None else part
        self.device, self.workers = options.device, options.workers
        if self.workers is None:
            cores = (os.cpu_count() or 1) // parallel.processes()
            self.workers = 0 if options.device.where.type == "cpu" else max(1, min(12, cores - 1))
        photos.cache_bytes = CACHE_BYTES // max(1, self.workers)
        self._prefetched: Iterator[Any] | None = None
        self._next = -1

    def __getitem__(self, step: int) -> Any:
        """What a worker makes: uint8[n,size,size,3], or the ValueError that was raised."""
        try:
            return crop_bytes(self.photos, self.count, self.size, self.seed, step, self.part)
        except ValueError as error:
            return error

    def at(self, step: int) -> Tensor:
        """The images of a step, float[n,3,size,size] in [-1, 1] on the device.

        Raises:
            ValueError: a photo cannot be read.
        """
        if not self.workers:
            made = self[step]
        else:
            if self._prefetched is None or step != self._next:
                self._prefetched = iter(
                    DataLoader(
                        self,
                        batch_size=None,
                        sampler=range(step, step + 10**9),
                        num_workers=self.workers,
                        pin_memory=self.device.where.type == "cuda",
                        prefetch_factor=4,
                    )
                )
            made, self._next = next(self._prefetched), step + 1
        if isinstance(made, ValueError):
            raise made
        return to_float(made, self.device)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_prefetched": None}
