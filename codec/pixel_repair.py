"""Classical inpainting of pixels after the decode: what a receiver without a transformer would try.

telea        fast marching from the rim inwards (Telea, J. Graphics Tools 2004), OpenCV
biharmonic   the smoothest surface through the rim (Damelin & Hoang 2018), scikit-image

Both come with the extra `inpaint-rivals`.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from codec.patches import spread

TELEA_RADIUS = 8
"""Pixels around each missing one that Telea's method looks at: half a token."""

_LIBRARIES = {"telea": "cv2", "biharmonic": "skimage"}
PIXEL_REPAIRS: tuple[str, ...] = tuple(_LIBRARIES)


class RepairMissing(ValueError):
    """The library that a repair needs is not installed; the message is one line."""


def check_installed(name: str) -> None:
    """Raise RepairMissing if `name` is a pixel repair whose library is not there."""
    if name in _LIBRARIES and find_spec(_LIBRARIES[name]) is None:
        raise RepairMissing(
            f"{name} needs {_LIBRARIES[name]}: pip install 'lossy-stream-sim[inpaint-rivals]'"
        )


def repair_pixels(
    name: str, image: NDArray[np.uint8], received: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Paint over the squares of the lost tokens.

    Args:
        name: one of PIXEL_REPAIRS.
        image: uint8[H,W,3], a decode; its pixels in lost squares are ignored.
        received: bool[h,w], its grid.

    Raises:
        RepairMissing: its library is not installed.
    """
    check_installed(name)
    hole = spread(~received, *image.shape[:2])
    if not hole.any() or hole.all():
        return image
    if name == "telea":
        import cv2

        mask = hole.astype(np.uint8)
        painted = np.asarray(cv2.inpaint(image, mask, TELEA_RADIUS, cv2.INPAINT_TELEA), np.uint8)
    else:
        from skimage.restoration import inpaint_biharmonic

        smooth = inpaint_biharmonic(image / 255.0, hole, channel_axis=-1)
        painted = (smooth.clip(0, 1) * 255).round().astype(np.uint8)
    return np.where(hole[..., None], painted, image)
