"""Where a stream's pictures come from: photographs, a video file, or a camera.

Video and cameras are read by PyAV (`pip install "lossy-stream-sim[video]"`); nothing else is.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codec.files import rooted
from sim.errors import UserError
from sim.media.images import SAMPLES, LoadedImage, named_sample, safe_stem, samples_folder

CAMERA_FRAMES = 60
"""The default number of pictures taken by a camera."""
LONGER_SIDE = 768
"""Pixels of the longer side of a video's frames, if nobody says."""


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
    """Images from disk, repeated in order if more frames are wanted than there are images."""

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


def video_path(file: str, base: Path) -> Path:
    """The file of a video: a path that starts at `base`, or "samples/NAME" of those that ship.

    Raises:
        UserError: no such sample.
    """
    path, sample = rooted(base, file), file.removeprefix(f"{SAMPLES}/")
    if sample != file and not path.parent.exists():
        return named_sample(sample, sorted(samples_folder().glob("*.mp4")))
    return path


class Video:
    """The pictures of a video file at the stream's rate: each is the one that is shown at its time,
    whatever the file's own rate and however it varies."""

    def __init__(
        self,
        path: Path,
        fps: float,
        longer_side: int = LONGER_SIDE,
        first: int = 0,
        frames: int | None = None,
    ) -> None:
        """Pictures of a file.

        Args:
            path: the file.
            fps: pictures a second, > 0.
            longer_side: pixels at most; larger pictures are made smaller.
            first: the picture to begin with, from 0, counted at `fps`.
            frames: how many, >= 1; None: to the end.

        Raises:
            UserError: no PyAV, no video, or none of these pictures.
        """
        if not path.is_file():
            raise UserError(f"{path}: no such video")
        self._path, self._fps, self._first = path, fps, first
        with _opened(str(path), f"{path}: not a video that can be read") as container:
            opening = next(_timed(container), None)
            if opening is None:
                raise UserError(f"{path}: holds no pictures")
            self._start_s, picture = opening
            size = _fitted(*_size(picture), longer_side)
        with _opened(str(path), f"{path}: not a video that can be read") as container:
            there = max(1, math.ceil((_end_s(container) - self._start_s) * fps - 1e-6))
        if first >= there:
            raise UserError(f"{path}: no frame {first}; at {fps:g} a second, there are {there}")
        total = there - first if frames is None else min(frames, there - first)
        self._size = size
        self.names = [f"{safe_stem(path)}-{n:05}" for n in range(first, first + total)]
        self.sizes = [size] * total
        self.digests: list[str] = []

    def pictures(self) -> Iterator[LoadedImage]:
        """Every picture; the last one again where the file breaks off."""
        with _opened(str(self._path), f"{self._path}: not a video that can be read") as container:
            timed = _timed(container)
            coming = next(timed, None)
            shown: Any = None
            for number, name in enumerate(self.names, self._first):
                due_s = self._start_s + number / self._fps + 1e-6
                while coming is not None and (shown is None or coming[0] <= due_s):
                    shown = coming[1]
                    coming = next(timed, None)
                if shown is None:
                    raise UserError(f"{self._path}: holds no pictures")
                yield LoadedImage(name, self._path, _pixels(shown, self._size))


class Camera:
    """Pictures taken by a camera, each when it is asked for."""

    def __init__(
        self, number: int, longer_side: int = LONGER_SIDE, frames: int | None = None
    ) -> None:
        """As for `Video`; raises UserError if there is no PyAV, or no such camera."""
        self._number = number
        name, kind = (f"/dev/video{number}", "v4l2")
        if sys.platform == "darwin":
            name, kind = str(number), "avfoundation"
        elif sys.platform == "win32":
            raise UserError("cameras are not read on Windows; stream a file with --video")
        self._stack = contextlib.ExitStack()
        self._container = self._stack.enter_context(
            _opened(name, f"camera {number}: none found here", kind)
        )
        self._pictures = _timed(self._container)
        first = next(self._pictures, None)
        if first is None:
            raise UserError(f"camera {number}: gives no pictures")
        self._size = _fitted(*_size(first[1]), longer_side)
        self.names = [f"camera-{n:05}" for n in range(frames or CAMERA_FRAMES)]
        self.sizes = [self._size] * len(self.names)
        self.digests: list[str] = []

    def pictures(self) -> Iterator[LoadedImage]:
        """Every picture: the camera's latest when asked for; a thread discards older ones."""
        latest: queue.Queue[Any] = queue.Queue(1)
        over = threading.Event()

        def take() -> None:
            for _, picture in self._pictures:
                with contextlib.suppress(queue.Empty):
                    latest.get_nowait()
                latest.put(picture)
                if over.is_set():
                    return
            latest.put(None)

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        try:
            for name in self.names:
                picture = latest.get()
                if picture is None:
                    raise UserError(f"camera {self._number}: gives no more pictures")
                yield LoadedImage(name, Path(name), _pixels(picture, self._size))
        finally:
            over.set()
            thread.join(1.0)
            self._stack.close()


@contextlib.contextmanager
def _opened(name: str, otherwise: str, kind: str | None = None) -> Iterator[Any]:
    """A file or device with a video stream; UserError if it cannot be opened or has none."""
    try:
        import av
    except ImportError:
        raise UserError(
            "video and cameras need PyAV, which is not installed: "
            'pip install "lossy-stream-sim[video]"'
        ) from None
    try:
        container = av.open(name, format=kind)
    except (av.FFmpegError, OSError, ValueError):
        raise UserError(otherwise) from None
    with container:
        if not container.streams.video:
            raise UserError(otherwise)
        yield container


def _timed(container: Any) -> Iterator[tuple[float, Any]]:
    """(seconds, frame) in the order in which they are shown, as far as they can be decoded."""
    import av

    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    step_s = 1 / float(stream.average_rate or stream.guessed_rate or 25)
    time_s = -step_s
    with contextlib.suppress(av.FFmpegError):  # the file breaks off
        for frame in container.decode(stream):
            time_s = time_s + step_s if frame.time is None else float(frame.time)
            yield time_s, frame


def _end_s(container: Any) -> float:
    """When the last picture of a file is over, in seconds, without decoding any."""
    import av

    stream = container.streams.video[0]
    step_s = 1 / float(stream.average_rate or stream.guessed_rate or 25)
    end_s, count = 0.0, 0
    with contextlib.suppress(av.FFmpegError):
        for packet in container.demux(stream):
            if packet.size:
                count += 1
            if packet.pts is not None and packet.size:
                lasts_s = float(packet.duration * packet.time_base) if packet.duration else step_s
                end_s = max(end_s, float(packet.pts * packet.time_base) + lasts_s)
    return end_s or count * step_s


def _size(frame: Any) -> tuple[int, int]:
    """Width and height as it is shown: phones write how they were held beside the pictures."""
    turned = frame.rotation % 180 != 0
    return (frame.height, frame.width) if turned else (frame.width, frame.height)


def _fitted(width: int, height: int, longer_side: int) -> tuple[int, int]:
    """The size to stream at: as taken, or smaller."""
    if min(width, height) < 16:
        raise UserError(f"pictures of {width} x {height} pixels are too small to stream")
    scale = min(1.0, longer_side / max(width, height))
    return max(16, round(width * scale)), max(16, round(height * scale))


def _pixels(frame: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8[H,W,3], sRGB, of a frame, upright and of this width and height."""
    image = frame.to_image()
    if frame.rotation % 360:
        image = image.rotate(frame.rotation, expand=True)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BOX)
    return np.asarray(image.convert("RGB"))
