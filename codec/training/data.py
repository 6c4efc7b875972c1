"""Photographs from any folder, and random crops that are a pure function of (seed, step)."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

EXTENSIONS = {".webp", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


class PhotoFolder:
    """Every photo below a folder, split into training and held-out photos by name.

    A photo is held out when the CRC-32 of its relative path is below 3% of the range, so the split
    stays the same when photos are added. Decoded photos are cached as uint8 (about 0.3 MB each).

    Attributes:
        paths: the photos, in order.
        probabilities: of drawing each, float64[n].
        mark: of their names and sizes, which decide what every random crop shows.

    Raises:
        ValueError: no photo of this part has a short side of at least `min_side` pixels, or one
            cannot be read.
    """

    def __init__(self, root: Path, *, held_out: bool = False, min_side: int) -> None:
        self.root = root
        found: list[tuple[Path, int, int]] = []
        for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in EXTENSIONS):
            share = zlib.crc32(path.relative_to(root).as_posix().encode()) / 2**32
            if (share < 0.03) != held_out:
                continue
            with _opened(path) as image:
                width, height = image.size
            if min(width, height) >= min_side:
                found.append((path, width, height))
        if not found:
            part = "held out (3%, by their names)" if held_out else "to train on"
            raise ValueError(
                f"{root}: none of the photos {part} has a short side of {min_side} pixels or more"
            )
        self.paths = [path for path, _, _ in found]
        pixels = np.array([w * h for _, w, h in found], np.float64)
        # A larger photo holds more distinct crops, so it is drawn in proportion to its pixels.
        self.probabilities = pixels / pixels.sum()
        names = "".join(f"{path.relative_to(root)} {w} {h}\n" for path, w, h in found)
        self.mark = hashlib.sha256(names.encode()).hexdigest()
        self._cache: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def photo(self, index: int) -> NDArray[np.uint8]:
        """Photo `index` as uint8[H,W,3]."""
        if index not in self._cache:
            with _opened(self.paths[index]) as image:
                try:
                    turned = ImageOps.exif_transpose(image)
                    self._cache[index] = np.asarray(turned.convert("RGB"))
                except OSError as error:
                    raise ValueError(f"{self.paths[index]}: cannot be read ({error})") from None
        return self._cache[index]

    def random_crop(self, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """One random crop, uint8[size,size,3]: half at native scale, half shrunk up to 2.5 times;
        mirrored at random."""
        photo = self.photo(int(rng.choice(len(self.paths), p=self.probabilities)))
        height, width = photo.shape[:2]
        largest = min(2.5, min(height, width) / size)
        scale = 1.0 if rng.random() < 0.5 else float(rng.uniform(1.0, largest))
        side = min(round(size * scale), height, width)
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        crop = photo[top : top + side, left : left + side]
        if side != size:
            shrunk = Image.fromarray(crop).resize((size, size), Image.Resampling.LANCZOS)
            crop = np.asarray(shrunk)
        return crop[:, ::-1] if rng.random() < 0.5 else crop


def _opened(path: Path) -> Image.Image:
    """A photo whose pixels are not read yet. Raises ValueError if it cannot be used."""
    try:
        image = Image.open(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{path}: more than 8 bits a channel; convert it to 8 bits")
    return image


def random_crops(photos: PhotoFolder, count: int, size: int, seed: int, step: int) -> Tensor:
    """Batch of crops float[count,3,size,size] in [-1, 1], channels last, fixed by (seed, step)."""
    rng = np.random.default_rng([seed, step])
    batch = np.stack([photos.random_crop(size, rng) for _ in range(count)])
    images = torch.from_numpy(batch).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    return images.contiguous(memory_format=torch.channels_last)
