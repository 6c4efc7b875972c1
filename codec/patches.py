"""Patch sizes: how many pixels, each way, one token stands for.

The networks turn 16 x 16 pixels into one token. For larger patches, an image is shrunk before it is
encoded and enlarged after it is decoded: at few bits per pixel, larger codebooks for fewer patches
beat smaller ones for more (docs/codec.md). The patch size follows from an image's size and its grid
of tokens, so it need not be transmitted.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

PATCHES = (16, 20, 24, 32)
_NETWORK_PATCH = PATCHES[0]

Pixels = NDArray[np.uint8]
T = TypeVar("T", bound=np.generic)


def grid_of(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of the grid of tokens of an image of ``height`` x ``width`` pixels."""
    return -(-height // patch), -(-width // patch)


def patch_of(grid: tuple[int, ...], height: int, width: int) -> int:
    """The smallest of `PATCHES` that gives this grid (rows, columns).

    Raises:
        ValueError: none of them does.
    """
    for patch in PATCHES:
        if grid_of(height, width, patch) == grid:
            return patch
    raise ValueError(f"an image of {width}x{height} pixels never has a grid of {grid}")


def coded_size(height: int, width: int, patch: int) -> tuple[int, int]:
    """Height and width in which an image is encoded; its grid at 16 pixels a token is that of the
    whole image at ``patch``."""
    return -(-height * _NETWORK_PATCH // patch), -(-width * _NETWORK_PATCH // patch)


def shrink(image: Pixels, patch: int) -> Pixels:
    """Image uint8[H,W,3] -> uint8[h,w,3] of its `coded_size`."""
    height, width = image.shape[:2]
    return _resized(image, coded_size(height, width, patch))


def enlarge(image: Pixels, height: int, width: int) -> Pixels:
    """The inverse of `shrink`: uint8[h,w,3] -> uint8[height,width,3]."""
    return _resized(image, (height, width))


def spread(cells: NDArray[T], height: int, width: int) -> NDArray[T]:
    """Values per token repeated for each of its pixels: [h,w] -> [height,width]."""
    patch = patch_of(cells.shape[:2], height, width)
    rows, columns = np.arange(height) // patch, np.arange(width) // patch
    pixels: NDArray[T] = cells[rows][:, columns]
    return pixels


def _resized(image: Pixels, size: tuple[int, int]) -> Pixels:
    if image.shape[:2] == size:
        return image
    from PIL import Image  # slow to import, and grids do not need it

    resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS)
    return np.asarray(resized)
