"""Short sequences of frames, for a network that remembers: half are cut from clips, half are
photographs in motion.

A photograph stands still or is panned, zoomed and turned; a piece of another one may pass in front;
exposure flickers and pixels are noisy. Cuts are not made: in training, some frames are given the
memory of another sequence.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from codec.device import CPU
from codec.tokenizer import STRIDE
from codec.training.data import PhotoDataset, to_float
from codec.training.options import TrainingOptions

FRAMES = 4
"""Of a sequence."""
HELD_OUT_CLIPS = 0.15
"""Share of the clips that are never trained on, at least one."""

Pixels = NDArray[np.uint8]


class ClipSource(Protocol):
    """Clips to train on.

    Attributes:
        names: at least two.
        fingerprint: determines all that they show.
    """

    names: Sequence[str]
    fingerprint: str

    def frames(self, name: str) -> Pixels:
        """The frames of a clip, uint8[T,H,W,3], T >= 1, about 15 a second."""
        ...


@dataclass
class Sequences:
    """The frames of `count` sequences, a `SquareSource`; frame t of sequence n is number
    n * FRAMES + t. The first half is cut from the clips, which are read one after the other.

    Attributes:
        photos, clips: what they are made of.
        side: tokens a side.
        count: of sequences.
        seed: each sequence is a pure function of (seed, its number).
        held_out: whether they are cut from the clips that are held out, or from all others. Those
            with the smallest CRC-32 of their names are.

    Raises:
        ValueError: a single clip.
    """

    photos: PhotoDataset
    clips: ClipSource
    side: int
    count: int
    seed: int
    held_out: bool
    names: Sequence[str] = field(init=False)
    _clip: tuple[str, Pixels] | None = field(default=None, init=False, repr=False)
    _latest: tuple[int, Pixels] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        names = sorted(self.clips.names, key=lambda name: zlib.crc32(name.encode()))
        if len(names) < 2:
            raise ValueError("one clip is too few: whole clips are held out, so give two or more")
        kept = max(1, round(HELD_OUT_CLIPS * len(names)))
        self.names = names[:kept] if self.held_out else names[kept:]

    def __len__(self) -> int:
        return self.count * FRAMES

    def sequence(self, number: int) -> Pixels:
        """uint8[FRAMES,16s,16s,3]."""
        rng, size = np.random.default_rng([self.seed, number]), self.side * STRIDE
        half = self.count // 2
        if number >= half:
            return moved(lambda side: self._photo(rng, side), size, rng)
        name = self.names[number * len(self.names) // half]
        if self._clip is None or self._clip[0] != name:
            self._clip = name, self.clips.frames(name)
        return excerpt(self._clip[1], size, rng)

    def _photo(self, rng: np.random.Generator, size: int) -> Pixels:
        return self.photos.cut(self.photos.draw(size, rng), size)

    def pixels(self, number: int) -> Tensor:
        """See `SquareSource.pixels`."""
        which, frame = divmod(number, FRAMES)
        if self._latest is None or self._latest[0] != which:
            self._latest = which, self.sequence(which)
        return to_float(torch.from_numpy(self._latest[1][frame : frame + 1].copy()), CPU)

    def reader(self, options: TrainingOptions) -> Callable[[int], Tensor]:
        """See `SquareSource.reader`."""
        return lambda number: self.pixels(number).to(options.device.where)


def excerpt(frames: Pixels, size: int, rng: np.random.Generator) -> Pixels:
    """Frames of a clip, uint8[T,H,W,3], 1 to 3 apart, a square of them at any scale and mirrored or
    not: uint8[FRAMES,size,size,3]. A clip that is too short stands still at its end."""
    total, height, width = frames.shape[:3]
    apart = min(int(rng.integers(1, 4)), max(1, (total - 1) // (FRAMES - 1)))
    start = int(rng.integers(max(1, total - apart * (FRAMES - 1))))
    largest = min(height, width)
    side = int(rng.integers(min(size, largest), largest + 1))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    turn = -1 if rng.random() < 0.5 else 1
    found = []
    for place in range(start, start + apart * FRAMES, apart):
        square = frames[min(place, total - 1), top : top + side, left : left + side, :][:, ::turn]
        resized = Image.fromarray(np.ascontiguousarray(square)).resize(
            (size, size), Image.Resampling.LANCZOS
        )
        found.append(np.asarray(resized))
    return np.stack(found)


def moved(photo: Callable[[int], Pixels], size: int, rng: np.random.Generator) -> Pixels:
    """A photograph in motion, uint8[FRAMES,size,size,3]; ``photo(side)`` draws one of that side.

    A third stands still; the others move by up to a token a frame, grow by up to 3% and turn by up
    to 2 degrees; beyond its borders a photograph is mirrored. A third has an ellipse of another
    photograph passing in front.
    """
    border = size // 2
    beyond = ((border, border), (border, border), (0, 0))
    canvas = Image.fromarray(np.pad(photo(size), beyond, mode="symmetric"))
    still = rng.random() < 1 / 3
    pan = np.zeros(2) if still else rng.uniform(-STRIDE, STRIDE, 2) * rng.random()
    zoom = 0.0 if still else float(rng.uniform(-0.03, 0.03) * rng.random())
    turn = 0.0 if still else float(np.radians(rng.uniform(-2, 2)) * rng.random())
    front = photo(size) if rng.random() < 1 / 3 else None
    radii, middle = rng.uniform(size / 10, size / 4, 2), rng.uniform(0, size, 2)
    speed = rng.uniform(-2 * STRIDE, 2 * STRIDE, 2)
    flicker = 1 + rng.uniform(-0.05, 0.05, FRAMES) * (rng.random() < 1 / 3)
    noise = float(rng.uniform(0, 3))
    found = []
    for time in range(FRAMES):
        scale, angle = np.exp(zoom * time), turn * time
        a, b = scale * np.cos(angle), scale * np.sin(angle)
        centre = border + size / 2 + pan * time
        corner = centre - np.array([a - b, a + b]) * size / 2
        window = (a, -b, corner[0], b, a, corner[1])
        frame = canvas.transform(
            (size, size), Image.Transform.AFFINE, window, Image.Resampling.BICUBIC
        )
        pixels = np.asarray(frame, np.float32)
        if front is not None:
            shift = np.rint(speed * time).astype(int)
            inside = _ellipse(size, middle + shift, radii)
            pixels = np.where(inside, np.roll(front, shift, (0, 1)), pixels)
        pixels = pixels * flicker[time] + rng.normal(0, noise, pixels.shape)
        found.append(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    return np.stack(found)


def _ellipse(
    size: int, middle: NDArray[np.float64], radii: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """bool[size,size,1] of an ellipse, its middle and radii in pixels (row, column)."""
    rows, columns = np.ogrid[:size, :size]
    inside: NDArray[np.bool_] = ((rows - middle[0]) / radii[0]) ** 2 + (
        (columns - middle[1]) / radii[1]
    ) ** 2 < 1
    return inside[..., None]
