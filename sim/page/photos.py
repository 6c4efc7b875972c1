"""The pictures of a stream, small enough to be coded while one watches, each coded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codec.hysteresis import SteadyTokens
from codec.model import Model
from sim.drivers.record import MediaFrame
from sim.errors import UserError
from sim.media.capture import FrameSource
from sim.media.frames import decode_lossless, near_tokens, with_token_importance
from sim.media.images import LoadedImage, load_image
from sim.metrics.quality import psnr_db
from sim.scenario.loader import LoadedScenario
from sim.scenario.pictures import open_pictures
from sim.scenario.schema import CodecSection

SEGMENT_FRAMES = 60
"""Frames of one stream; bounds what is kept of it, and how long a changed setting may take."""
_CAMERA_FRAMES = 100_000  # hours
_KEPT = 64  # decoded photographs; some 0.3 MB each at the page's usual size


@dataclass(frozen=True)
class CodedPhoto:
    """A photograph at one codebook size, before any loss.

    Attributes:
        frame: its tokens, as they are sent.
        decoded: uint8[H,W,3], what the codec makes of it when everything arrives, without
            hysteresis.
        psnr_db: of that.
    """

    frame: MediaFrame
    decoded: NDArray[np.uint8]
    psnr_db: float


class CodedPhotos:
    """Photographs or the frames of a clip, tokenized and decoded when first asked for.

    Tokens are kept, being small; of the decoded pictures the latest.

    Attributes:
        images: all of them, in turn; of a clip those of one stream.
        model: the networks.
        segment_frames: how many are one stream.
    """

    def __init__(
        self, images: Sequence[LoadedImage], model: Model, segment_frames: int = SEGMENT_FRAMES
    ) -> None:
        self.images = tuple(images)
        self.model = model
        self.segment_frames = segment_frames
        self._frames: dict[tuple[float, ...], MediaFrame] = {}
        self._coded: OrderedDict[tuple[float, ...], CodedPhoto] = OrderedDict()

    def image(self, number: int) -> LoadedImage:
        """Photograph ``number`` (modulo how many there are)."""
        return self.images[number % len(self.images)]

    def size(self, number: int) -> tuple[int, int]:
        """(width, height) of photograph ``number``, in pixels."""
        image = self.image(number)
        return image.width, image.height

    def frame(self, number: int, codec: CodecSection) -> MediaFrame:
        """The tokens of photograph ``number``; with hysteresis, after those of its stream before
        it."""
        key = self._key(number, codec)
        if key not in self._frames:
            image, steady = self.image(number), SteadyTokens()
            if codec.hysteresis and number % self.segment_frames:
                steady.next_frame(self.frame(number - 1, codec).index_map[..., None])
            near = near_tokens(self.model, image, *codec.tokenizer_key)
            tokens = steady.next_frame(near)
            self._frames[key] = MediaFrame(image.name, tokens, image.width, image.height)
        return self._frames[key]

    def with_importance(self, number: int, codec: CodecSection) -> MediaFrame:
        """The same with the importance of each token; see `with_token_importance`."""
        key, frame = self._key(number, codec), self.frame(number, codec)
        if frame.token_importance is None:
            self._frames[key] = with_token_importance(self.model, frame, codec.codebook)
        return self._frames[key]

    def coded(self, number: int, codec: CodecSection) -> CodedPhoto:
        """The same with what the tokens decode to."""
        key = self._key(number, codec)
        if key not in self._coded:
            best = self.frame(number, codec.model_copy(update={"hysteresis": 0.0}))
            decoded = decode_lossless(self.model, best, codec.codebook, codec.enhance)
            against = psnr_db(self.image(number).pixels, decoded)
            self._coded[key] = CodedPhoto(self.frame(number, codec), decoded, against)
            while len(self._coded) > _KEPT:
                self._coded.popitem(last=False)
        self._coded.move_to_end(key)
        return self._coded[key]

    def _key(self, number: int, codec: CodecSection) -> tuple[float, ...]:
        return number % len(self.images), *codec.tokenizer_key


class CameraFrames(CodedPhotos):
    """The frames of a camera, each taken when it is first asked for; those of its stream and of the
    one before can be asked for again."""

    def __init__(
        self, source: FrameSource, model: Model, segment_frames: int = SEGMENT_FRAMES
    ) -> None:
        """``source``: of frames of one size."""
        super().__init__((), model, segment_frames)
        self._size, self._source = source.sizes[0], source.pictures()
        self._taken: dict[int, LoadedImage] = {}

    def image(self, number: int) -> LoadedImage:
        """Frame ``number``; raises UserError if the camera gives no more, KeyError if it is too
        old."""
        for new in range(max(self._taken, default=-1) + 1, number + 1):
            image = next(self._source, None)
            if image is None:
                raise UserError("the camera gives no more pictures")
            self._taken[new] = image
            oldest = (new // self.segment_frames - 1) * self.segment_frames
            self._taken = {n: kept for n, kept in self._taken.items() if n >= oldest}
            self._frames = {key: kept for key, kept in self._frames.items() if key[0] >= oldest}
        return self._taken[number]

    def size(self, number: int) -> tuple[int, int]:
        """(width, height) of every frame, in pixels."""
        return self._size

    def _key(self, number: int, codec: CodecSection) -> tuple[float, ...]:
        return number, *codec.tokenizer_key


def as_streamed(loaded: LoadedScenario, longest_side: int) -> LoadedScenario:
    """The first point of a scenario, its video as the page streams it: no larger than that, of a
    file no more than a segment. What is so changed is among the overrides."""
    scenario, told = loaded.points[0][1], list(loaded.source["overrides"])
    if (video := scenario.video) is not None:
        fits = {"size": min(video.size, longest_side)}
        if video.file is not None:
            fits["frames"] = min(video.frames or SEGMENT_FRAMES, SEGMENT_FRAMES)
        told += [f"video.{key}={n}" for key, n in fits.items() if n != getattr(video, key)]
        scenario = scenario.model_copy(update={"video": video.model_copy(update=fits)})
    source = {**loaded.source, "overrides": told}
    return replace(loaded, scenario=scenario, points=[({}, scenario)], source=source)


def open_photos(loaded: LoadedScenario, longest_side: int) -> Callable[[Model], CodedPhotos]:
    """The pictures of a scenario, which is `as_streamed`, for a model; photographs are shrunk.

    Raises:
        UserError: as `open_pictures`.
    """
    video = loaded.scenario.video
    if video is not None and video.file is None:
        return partial(CameraFrames, open_pictures(loaded, _CAMERA_FRAMES))
    images = [shrunk(image, longest_side) for image in open_pictures(loaded).pictures()]
    segment = SEGMENT_FRAMES if video is None else len(images)
    return partial(CodedPhotos, images, segment_frames=segment)


def read_photo(path: Path, name: str, content: bytes, longest_side: int) -> LoadedImage:
    """A photograph that was uploaded, shrunk; raises UserError as `load_image`."""
    return shrunk(load_image(path, name, content), longest_side)


def shrunk(image: LoadedImage, longest_side: int) -> LoadedImage:
    """The photograph with no side longer than ``longest_side`` pixels and none under 16; the same
    object if it is small enough."""
    largest = max(image.width, image.height)
    if largest <= longest_side:
        return image
    size = [max(16, round(side * longest_side / largest)) for side in (image.width, image.height)]
    small = Image.fromarray(image.pixels).resize((size[0], size[1]), Image.Resampling.LANCZOS)
    return replace(image, pixels=np.array(small))
