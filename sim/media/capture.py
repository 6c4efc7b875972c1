"""Where a live stream's pictures come from: photographs, a video file, or a camera.

Video and cameras are read by OpenCV (`pip install "lossy-stream-sim[video]"`); nothing else is.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sim.errors import UserError
from sim.media.images import LoadedImage, load_images

CAMERA_FRAMES = 60
"""Pictures taken by a camera unless told otherwise."""
_CAMERA_SIDE = 768  # pixels, the longer side of what is streamed


class FrameSource(Protocol):
    """Pictures to stream; how many and how large is known before the first is taken.

    Attributes:
        names: one per picture.
        sizes: (width, height) of each, in pixels.
        digests: `digest` of each, so that a receiver knows whether it has the same; () if nobody
            can know before they are taken.
    """

    names: list[str]
    sizes: list[tuple[int, int]]
    digests: list[str]

    def pictures(self) -> Iterator[LoadedImage]:
        """Every picture, in order, each taken when asked for."""
        ...


def digest(pixels: NDArray[np.uint8]) -> str:
    """A fingerprint of uint8[H,W,3]: 16 hexadecimal digits."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=8).hexdigest()


class Photographs:
    """Images from disk, over and over if more frames are asked for than there are."""

    def __init__(self, images: Sequence[LoadedImage], frames: int | None = None) -> None:
        self._images = list(itertools.islice(itertools.cycle(images), frames or len(images)))
        self.names: list[str] = []
        for number, image in enumerate(self._images):
            again = number // len(images) + 1
            name = image.name if again == 1 else f"{image.name}-{again}"
            while name in self.names:  # another photograph is called so
                again += 1
                name = f"{image.name}-{again}"
            self.names.append(name)
        self.sizes = [(image.width, image.height) for image in self._images]
        known = [digest(image.pixels) for image in images]
        self.digests = list(itertools.islice(itertools.cycle(known), len(self._images)))

    def pictures(self) -> Iterator[LoadedImage]:
        """Every picture."""
        for name, image in zip(self.names, self._images, strict=True):
            yield LoadedImage(name, image.path, image.pixels)


@dataclass(frozen=True, slots=True)
class _Shape:
    width: int
    height: int


class Video:
    """The pictures of a video file at the stream's rate, from its beginning."""

    def __init__(self, path: Path, fps: float, frames: int | None = None) -> None:
        """Raises UserError if there is no OpenCV, or no video."""
        if not path.is_file():
            raise UserError(f"{path}: no such video")
        self._path, self._fps = path, fps
        capture = _open(str(path), f"{path}: not a video that OpenCV can read")
        cv2 = _opencv()
        count, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS) or 25.0
        shape = _fitted(capture)
        capture.release()
        self._step = rate / fps  # video frames per streamed picture
        there = max(1, int(count / self._step))
        total = there if frames is None else min(frames, there)
        self._shape = shape
        self.names = [f"{path.stem}-{number:05}" for number in range(total)]
        self.sizes = [(shape.width, shape.height)] * total
        self.digests: list[str] = []

    def pictures(self) -> Iterator[LoadedImage]:
        """Every picture; the last one again where the file ends early."""
        capture = _open(str(self._path), f"{self._path}: not a video that OpenCV can read")
        taken, picture = -1, None
        try:
            for number, name in enumerate(self.names):
                while taken < int(number * self._step) or picture is None:
                    good, frame = capture.read()
                    taken += 1
                    if good:
                        picture = frame
                    elif picture is None:
                        raise UserError(f"{self._path}: holds no pictures")
                    else:
                        break
                yield LoadedImage(name, self._path, _pixels(picture, self._shape))
        finally:
            capture.release()


class Camera:
    """Pictures taken by a camera, each when it is asked for."""

    def __init__(self, number: int, frames: int | None = None) -> None:
        """Raises UserError if there is no OpenCV, or no such camera."""
        self._number = number
        self._capture = _open(number, f"camera {number}: none found here")
        self._capture.set(_opencv().CAP_PROP_BUFFERSIZE, 1)  # the latest picture, not an old one
        self._shape = _fitted(self._capture)
        self.names = [f"camera-{n:05}" for n in range(frames or CAMERA_FRAMES)]
        self.sizes = [(self._shape.width, self._shape.height)] * len(self.names)
        self.digests: list[str] = []

    def pictures(self) -> Iterator[LoadedImage]:
        """Every picture."""
        try:
            for name in self.names:
                good, frame = self._capture.read()
                if not good:
                    raise UserError(f"camera {self._number}: gives no more pictures")
                yield LoadedImage(name, Path(name), _pixels(frame, self._shape))
        finally:
            self._capture.release()


def open_source(
    images: Sequence[str],
    base: Path,
    *,
    fps: float,
    video: Path | None = None,
    camera: int | None = None,
    frames: int | None = None,
) -> FrameSource:
    """The pictures to stream.

    Args:
        images, base: as for `load_images`; used if there is neither video nor camera.
        fps: pictures a second.
        video: a file.
        camera: number of a camera, from 0.
        frames: how many pictures, >= 1; photographs start over when they run out.

    Raises:
        UserError: nothing there, or OpenCV is missing.
    """
    if video is not None and camera is not None:
        raise UserError("choose one: --video or --camera")
    if video is not None:
        return Video(video, fps, frames)
    if camera is not None:
        return Camera(camera, frames)
    return Photographs(load_images(images, base), frames)


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise UserError(
            "video and cameras need OpenCV, which is not installed: "
            'pip install "lossy-stream-sim[video]"'
        ) from None
    return cv2


def _open(what: str | int, otherwise: str) -> Any:
    cv2 = _opencv()
    cv2.utils.logging.setLogLevel(0)  # a missing camera is told in one line, ours
    capture = cv2.VideoCapture(what)
    if not capture.isOpened():
        raise UserError(otherwise)
    return capture


def _fitted(capture: Any) -> _Shape:
    """The size to stream at: as taken, or smaller."""
    cv2 = _opencv()
    width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    if min(width, height) < 16:
        raise UserError(f"pictures of {width} x {height} pixels are too small to stream")
    scale = min(1.0, _CAMERA_SIDE / max(width, height))
    return _Shape(max(16, round(width * scale)), max(16, round(height * scale)))


def _pixels(frame: Any, shape: _Shape) -> NDArray[np.uint8]:
    """uint8[H,W,3], sRGB, of OpenCV's picture."""
    cv2 = _opencv()
    if frame.shape[:2] != (shape.height, shape.width):
        frame = cv2.resize(frame, (shape.width, shape.height), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(frame[:, :, ::-1])
