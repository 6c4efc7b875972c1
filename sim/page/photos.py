"""The photographs of a stream, small enough to be coded while one watches, each coded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codec.model import Model
from sim.drivers.record import MediaFrame
from sim.media.frames import encode_images, with_token_importance
from sim.media.images import LoadedImage, load_image
from sim.metrics.quality import psnr_db
from sim.scenario.schema import CodecSection

_KEPT = 64  # decoded photographs; some 0.3 MB each at the page's usual size


@dataclass(frozen=True)
class CodedPhoto:
    """A photograph at one codebook size, before any loss.

    Attributes:
        frame: its tokens.
        decoded: uint8[H,W,3], what the codec makes of it when everything arrives.
        psnr_db: of that.
    """

    frame: MediaFrame
    decoded: NDArray[np.uint8]
    psnr_db: float


class CodedPhotos:
    """Photographs, tokenized and decoded when first asked for.

    Tokens are kept, being small; of the decoded pictures the latest.
    """

    def __init__(self, images: Sequence[LoadedImage], model: Model) -> None:
        self.images = tuple(images)
        self.model = model
        self._frames: dict[tuple[int, ...], MediaFrame] = {}
        self._coded: OrderedDict[tuple[int, ...], CodedPhoto] = OrderedDict()

    def __len__(self) -> int:
        return len(self.images)

    def size(self, number: int) -> tuple[int, int]:
        """(width, height) of photograph ``number`` (modulo how many there are), in pixels."""
        image = self.images[number % len(self.images)]
        return image.width, image.height

    def frame(self, number: int, codec: CodecSection) -> MediaFrame:
        """The tokens of photograph ``number`` (modulo how many there are)."""
        at, *how = key = self._key(number, codec)
        if key not in self._frames:
            (self._frames[key],) = encode_images(self.model, [self.images[at]], *how)
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
            frame = self.frame(number, codec)
            decoded = self.model.decode(frame.index_map, codec.codebook, frame.height, frame.width)
            against = psnr_db(self.images[key[0]].pixels, decoded)
            self._coded[key] = CodedPhoto(frame, decoded, against)
            while len(self._coded) > _KEPT:
                self._coded.popitem(last=False)
        self._coded.move_to_end(key)
        return self._coded[key]

    def _key(self, number: int, codec: CodecSection) -> tuple[int, ...]:
        return number % len(self.images), codec.codebook, codec.patch, codec.search


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
