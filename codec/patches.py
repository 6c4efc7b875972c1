"""How many pixels a token stands for, in each direction.

The networks turn 16 x 16 pixels into one token. For fewer tokens, an image is shrunk before it is
encoded and enlarged after it is decoded: at few bits per pixel, more words for fewer patches beat
fewer words for more (docs/codec.md). Which of `PATCHES` was used follows from an image's size and
its grid of tokens, so nobody who decodes has to be told.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

PATCHES = (16, 20, 24, 32)
_NETWORKS = PATCHES[0]

Pixels = NDArray[np.uint8]
T = TypeVar("T", bound=np.generic)


def grid_of(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of the grid of tokens of an image of ``height`` x ``width`` pixels."""
    return -(-height // patch), -(-width // patch)


def patch_of(grid: tuple[int, ...], height: int, width: int) -> int:
    """The smallest of `PATCHES` that gives this grid.

    Raises:
        ValueError: none does.
    """
    for patch in PATCHES:
        if grid_of(height, width, patch) == grid:
            return patch
    raise ValueError(f"an image of {width}x{height} pixels never has a grid of {grid}")


def coded_size(height: int, width: int, patch: int) -> tuple[int, int]:
    """Height and width in which an image is encoded; its grid at 16 pixels a token is that of the
    whole image at ``patch``."""
    return -(-height * _NETWORKS // patch), -(-width * _NETWORKS // patch)


def shrink(image: Pixels, patch: int) -> Pixels:
    """Image uint8[H,W,3] -> uint8[h,w,3] of its `coded_size`."""
    height, width = image.shape[:2]
    return _resized(image, coded_size(height, width, patch))


def enlarge(image: Pixels, height: int, width: int) -> Pixels:
    """The way back: uint8[h,w,3] -> uint8[height,width,3]."""
    return _resized(image, (height, width))


def spread(cells: NDArray[T], height: int, width: int) -> NDArray[T]:
    """What is known of each token, told for each pixel: [h,w] -> [height,width]."""
    patch = patch_of(cells.shape[:2], height, width)
    rows, columns = np.arange(height) // patch, np.arange(width) // patch
    pixels: NDArray[T] = cells[rows][:, columns]
    return pixels


def _resized(image: Pixels, size: tuple[int, int]) -> Pixels:
    if image.shape[:2] == size:
        return image
    from PIL import Image  # not everyone who needs a grid needs pictures

    resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS)
    return np.asarray(resized)
