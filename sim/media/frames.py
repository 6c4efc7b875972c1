"""The one place where the codec meets the protocol: images become frames, frames become images."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codec.checkpoint import ModelError
from codec.coders import CoderBook
from codec.concealment import MEMORY, Concealed, conceal, draw
from codec.decoding import ONE_PASS, Decoding
from codec.device import CPU, Device
from codec.hysteresis import SteadyTokens
from codec.model import Model
from codec.patches import PATCHES
from codec.pixel_repair import RepairMissing, check_installed
from codec.threads import one_thread
from sim.drivers.record import MediaFrame
from sim.errors import UserError
from sim.media.images import LoadedImage
from sim.media.outputs import RestoredFrame
from sim.protocol.events import FrameReady
from sim.protocol.interleaver import slice_positions


def encode_images(
    model: Model,
    images: Iterable[LoadedImage],
    codebook_size: int,
    patch: int = PATCHES[0],
    search: int = 0,
    hysteresis: float = 0,
) -> Iterator[MediaFrame]:
    """Tokenize images one by one, in order; with hysteresis, frames of a video."""
    steady = SteadyTokens()
    for image in images:
        near = near_tokens(model, image, codebook_size, patch, search, hysteresis)
        yield MediaFrame(image.name, steady.next_frame(near), image.width, image.height)


def near_tokens(
    model: Model,
    image: LoadedImage,
    codebook_size: int,
    patch: int = PATCHES[0],
    search: int = 0,
    hysteresis: float = 0,
) -> NDArray[np.int64]:
    """An image's tokens and those nearly as good, int64[h,w,n]; see `Model.encode_near`."""
    with one_thread():
        return model.encode_near(image.pixels, codebook_size, patch, search, hysteresis)


_HIDDEN_PARTS = 4


def with_token_importance(model: Model, frame: MediaFrame, codebook_size: int) -> MediaFrame:
    """The frame with the importance of each token: float64[h,w], in bits.

    That is its surprise -log2 p to the receiver's own inpainter, which sees the three quarters of
    the grid that are not hidden with it, evenly spread. A model without inpainter gives none.
    """
    if model.inpainter is None:
        return frame
    grid = frame.index_map.shape
    bits = np.zeros(frame.index_map.size)
    parts = slice_positions((grid[0], grid[1]), min(_HIDDEN_PARTS, bits.size), "low_discrepancy")
    for cells in map(np.sort, parts):
        known = np.ones(grid, np.bool_)
        known.ravel()[cells] = False
        with one_thread():
            scores = model.logits(frame.index_map, known, codebook_size).astype(np.float64)
        scores -= scores.max(axis=1, keepdims=True)
        truth = scores[np.arange(cells.size), frame.index_map.ravel()[cells]]
        bits[cells] = (np.log(np.exp(scores).sum(axis=1)) - truth) / np.log(2)
    return replace(frame, token_importance=bits.reshape(grid))


def decode_lossless(
    model: Model, frame: MediaFrame, codebook_size: int, enhance: bool = False
) -> NDArray[np.uint8]:
    """A frame decoded without loss: uint8[H,W,3]."""
    with one_thread():
        return model.decode(frame.index_map, codebook_size, frame.height, frame.width, enhance)


def load_model(name: str | None, device: Device = CPU) -> Model:
    """The shipped model (None), a tiny random one for tests ("random"), or a folder of weights.

    Raises:
        UserError: the weights cannot be loaded.
    """
    if name == "random":
        return Model.random(device=device)
    try:
        return Model.load(None if name is None else Path(name), device)
    except ModelError as error:
        raise UserError(str(error)) from None


def coders_of(model: Model, codebook_sizes: Iterable[int]) -> CoderBook:
    """All coders that the model has for these codebook sizes, the context coder included."""
    return CoderBook({size: model.frequencies(size) for size in codebook_sizes}, model.context)


class Restorer:
    """Conceals and decodes the frames of one stream as the receiver releases them, in order, once
    per concealer; each concealer remembers what it showed."""

    def __init__(
        self, model: Model, concealers: Iterable[str], decoding: Decoding = ONE_PASS
    ) -> None:
        """Raises UserError if a concealer's library is not installed."""
        self.model = model
        self.concealers = tuple(concealers)
        self.decoding = decoding
        self._shown = {name: deque[Concealed](maxlen=MEMORY) for name in self.concealers}
        try:
            for name in self.concealers:
                check_installed(name)
        except RepairMissing as error:
            raise UserError(f"concealers: {error}") from None

    def conceal(self, ready: FrameReady) -> Mapping[str, Concealed]:
        """Fill and remember the next frame, by concealer. They agree on a complete one."""
        grid, found = ready.grid, dict[str, Concealed]()
        about = self.model, grid.indices, grid.received, ready.codebook_size, self.decoding
        for name, shown in self._shown.items():
            if ready.complete and found:
                found[name] = next(iter(found.values()))
            else:
                with one_thread():
                    found[name] = conceal(name, *about, shown)
            shown.append(found[name])
        return found

    def restore(self, ready: FrameReady) -> RestoredFrame:
        """Repair the next frame; deterministic, so equal streams give equal images."""
        received, size = ready.grid.received, (ready.height, ready.width)
        concealed, images = self.conceal(ready), dict[str, NDArray[np.uint8]]()
        for name, found in concealed.items():
            if ready.complete and images:
                images[name] = next(iter(images.values()))
            else:
                with one_thread():
                    images[name] = draw(name, self.model, found, received, size, self.decoding)
        return RestoredFrame(
            ready.frame,
            received,
            {name: found.indices for name, found in concealed.items()},
            images,
            {name: found.probability for name, found in concealed.items()},
            {name: found.pixel_error for name, found in concealed.items()},
        )
