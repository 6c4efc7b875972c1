"""Whole images <-> files: the model, the packetizer and the container together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codec.concealment import restore
from codec.decoding import Decoding
from codec.entropy import ENTROPY_MODES, CoderFor, fixed_bytes
from codec.model import Model
from codec.patches import PATCHES, grid_of
from codec.perceptual import FeaturesMissing
from codec.search import Progress, check_search
from sim.errors import UserError
from sim.media.container import (
    Contents,
    ForeignModel,
    NotATokenFile,
    NothingLeft,
    pack_file,
    read_file,
)
from sim.media.frames import coders_of
from sim.media.images import MAX_PIXELS
from sim.protocol.config import StreamConfig, StreamKey
from sim.protocol.interleaver import MAX_SLICES
from sim.protocol.packet import HEADER_BYTES, MAX_DATAGRAM_BYTES
from sim.protocol.packetizer import Packetizer

EXTENSION = ".tok"


@dataclass(frozen=True)
class EncodedImage:
    """A file, and how many of its bytes are tokens rather than headers."""

    file: bytes
    payload_bytes: int


@dataclass(frozen=True)
class DecodedImage:
    """An image uint8[H,W,3], how many of the file's packets could not be used, and what filled
    them in."""

    image: NDArray[np.uint8]
    packets: int
    lost: int
    concealer: str


class ImageCodec:
    """Encodes and decodes files with one model."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.key = StreamKey(model.fingerprint)

    def coders(self, codebook_size: int) -> CoderFor:
        """The model's coders for one level."""
        return coders_of(self.model, [codebook_size])

    def encode(
        self,
        image: NDArray[np.uint8],
        codebook_size: int,
        entropy: str,
        slices: int = 1,
        patch: int = PATCHES[0],
        search: int = 0,
        progress: Progress = lambda share: None,
    ) -> EncodedImage:
        """Image uint8[H,W,3] -> file.

        Args:
            image: at most 8192 pixels a side.
            codebook_size: one of the model's levels.
            entropy: one of `codec.entropy.ENTROPY_MODES`.
            slices: packets, 1..256; more where one could outgrow a datagram.
            patch, search, progress: as for `Model.encode`.

        Raises:
            UserError: the model has no such level or coder, or a search lacks its extra.
        """
        self.check(codebook_size, entropy, patch, search)
        height, width = image.shape[:2]
        config = StreamConfig(
            codebook_size=codebook_size,
            entropy=entropy,
            slices=max(slices, _min_slices(grid_of(height, width, patch), codebook_size)),
            patch=patch,
            mtu=MAX_DATAGRAM_BYTES,
        )
        tokens = self.model.encode(image, codebook_size, patch, search, progress)
        packetizer = Packetizer(config, self.coders(codebook_size))
        packets = packetizer.split(tokens, width, height, 0)
        payload = sum(len(packet.payload) for packet in packets)
        return EncodedImage(pack_file(packets, self.key), payload)

    def decode(
        self, data: bytes, concealer: str = "inpaint", enhance: bool = False
    ) -> DecodedImage:
        """File -> image; tokens of damaged packets are filled in.

        Args:
            data: any bytes whatever.
            concealer: one of `codec.concealment.CONCEALERS`.
            enhance: whether Real-ESRGAN enlarges what is decoded (`codec.enhance`).

        Raises:
            FeaturesMissing: its weights are not installed.
            UserError: not such a file, of another model, wholly damaged, or for an image too large.
        """
        contents = self.read(data)
        layout = contents.layout
        size = layout.codebook_size
        packetizer = Packetizer(
            StreamConfig(codebook_size=size, entropy=layout.entropy), self.coders(size)
        )
        grid = packetizer.join(contents.packets)
        used = sum(bool(grid.received.flat[places[0]]) for places in layout.positions)
        if concealer == "inpaint" and self.model.inpainter is None:
            concealer = "neighbour_average"
        pixels = (layout.height, layout.width)
        decoding = Decoding(enhance=enhance)
        restored = restore(
            concealer, self.model, grid.indices, grid.received, size, pixels, decoding
        )
        lost = layout.slice_count - used
        return DecodedImage(restored.image, layout.slice_count, lost, concealer)

    def read(self, data: bytes) -> Contents:
        """The packets of a file that this codec can decode.

        Raises:
            UserError: as for `decode`.
        """
        try:
            contents = read_file(data, self.key)
        except ForeignModel as error:
            raise UserError(
                f"made with model {error.digest}..., this is {self.model.fingerprint}: tokens of "
                "one mean nothing to the other; choose its weights with --model"
            ) from None
        except (NotATokenFile, NothingLeft) as error:
            raise UserError(str(error)) from None
        layout = contents.layout
        if layout.width * layout.height > MAX_PIXELS:
            raise UserError(
                f"{layout.width} x {layout.height} pixels is too large: at most {MAX_PIXELS:,}"
            )
        self.check(layout.codebook_size, layout.entropy)
        return contents

    def check(
        self, codebook_size: int, entropy: str, patch: int = PATCHES[0], search: int = 0
    ) -> None:
        """Raise UserError unless the model has this level and this coder, patch is known, and what
        a search needs is installed."""
        if search < 0:
            raise UserError(f"search {search}: steps are 0 or more")
        if search:
            try:
                check_search()
            except FeaturesMissing as error:
                raise UserError(f"search: {error}") from None
        if patch not in PATCHES:
            raise UserError(f"patch {patch}: choose one of {', '.join(map(str, PATCHES))}")
        if codebook_size not in self.model.codebook_sizes:
            levels = ", ".join(map(str, self.model.codebook_sizes))
            raise UserError(f"codebook {codebook_size}: this model has {levels}")
        if entropy not in ENTROPY_MODES:
            raise UserError(f"entropy {entropy}: choose one of {', '.join(ENTROPY_MODES)}")
        try:
            self.coders(codebook_size)(ENTROPY_MODES.index(entropy), codebook_size)
        except LookupError as error:
            raise UserError(f"entropy {entropy}: {error}") from None


def _min_slices(grid: tuple[int, int], codebook_size: int) -> int:
    """The fewest packets such that each surely fits a datagram."""
    tokens = math.prod(grid)
    room = MAX_DATAGRAM_BYTES - HEADER_BYTES
    slices = -(-fixed_bytes(tokens, codebook_size) // room)
    while slices < MAX_SLICES and fixed_bytes(-(-tokens // slices), codebook_size) > room:
        slices += 1
    return slices
