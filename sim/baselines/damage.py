"""What a user sees of a file of which bytes are missing: whatever its decoder makes of it.

Missing bytes are zeros in their place. A JPEG decoder goes on at the next restart marker, a
progressive one refines what it can, a JPEG 2000 decoder loses code blocks; the others mostly give
up or smear. Where a decoder returns nothing, the picture is neutral grey: images of a stream here
are unrelated photographs, so there is no earlier picture that a player could rather show.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile

from sim.baselines.byte_frames import ReceivedFile
from sim.baselines.coded import Baseline

Damaged = Literal["decode", "grey", "freeze"]
"""What to do with an incomplete file: decode it all the same, or show grey; of a video, freeze
until the next key frame."""

GREY = 128


def decode_damaged(
    baseline: Baseline, file: ReceivedFile, height: int, width: int, damaged: Damaged = "decode"
) -> tuple[NDArray[np.uint8], bool]:
    """The picture uint8[height,width,3] of what arrived, and whether it is more than grey."""
    if file.complete:
        return baseline.decode(file.data, height, width), True
    if damaged == "decode" and file.received.any():
        with _lenient(), contextlib.suppress(Exception):  # damaged files fail in every way there is
            return baseline.decode(file.data, height, width), True
    return np.full((height, width, 3), GREY, np.uint8), False


@contextlib.contextmanager
def _lenient() -> Iterator[None]:
    """Let Pillow return pictures of damaged files; a setting of the whole process."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
