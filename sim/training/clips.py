"""Video files that an inpainter with a memory is trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.errors import UserError
from sim.media.capture import Video

SUFFIXES = {".mp4", ".mkv", ".avi", ".mov", ".webm"}
FPS = 15
LONGER_SIDE = 640
MAX_FRAMES = 300
"""Of a clip; what comes later is not read."""


class ClipFolder:
    """The video files below a folder, a `codec.training.sequences.ClipSource`."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError: no folder, or no video files in it."""
        self._folder = folder
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not files:
            raise UserError(f"{folder}: no video files ({', '.join(sorted(SUFFIXES))}) below it")
        self.names: Sequence[str] = [path.relative_to(folder).as_posix() for path in files]
        sizes = "".join(f"{n} {p.stat().st_size}\n" for n, p in zip(self.names, files, strict=True))
        self.fingerprint = hashlib.sha256(sizes.encode()).hexdigest()

    def frames(self, name: str) -> NDArray[np.uint8]:
        """The first 300 frames of a file at 15 a second and 640 pixels or less: uint8[T,H,W,3].
        Raises UserError if it cannot be read."""
        video = Video(self._folder / name, FPS, LONGER_SIDE, frames=MAX_FRAMES)
        return np.stack([picture.pixels for picture in video.pictures()])
