"""Images and restored frames, measured: what tables and strips say of each."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from codec.hysteresis import SteadyTokens
from sim.drivers.record import MediaFrame
from sim.jobs.store import Files, Record
from sim.media.images import LoadedImage
from sim.media.outputs import RestoredFrame
from sim.metrics.quality import quality, token_accuracy
from sim.results.files import INPAINT, ORIGINAL, PIXEL_ERROR, PROBABILITY, png
from sim.scenario.schema import CLEAN, CodecSection, TokenizerKey

if TYPE_CHECKING:  # torch is only loaded where networks run
    from codec.model import Model

FramePictures = Mapping[str, NDArray[np.uint8]]
"""Pictures of one frame, uint8[H,W,3]: the original, "clean", and every repair by its name."""


@dataclass(frozen=True, slots=True)
class LosslessReference:
    """One image at one codebook and so on.

    Attributes:
        near: int64[h,w,n], its tokens and those nearly as good, as of `Model.encode_near`.
        quality: metrics when none of its tokens is lost.
    """

    near: NDArray[np.int64]
    quality: Mapping[str, float]

    @property
    def index_map(self) -> NDArray[np.int64]:
        """Its tokens, int64[h,w]."""
        return self.near[..., 0]


@dataclass(frozen=True, slots=True)
class MeasuredFrame:
    """One frame, restored and measured.

    Attributes:
        received: bool[h,w], which tokens arrived.
        quality: metrics by concealer, "token_accuracy" among them.
        pictures: files, by path below the folder of the cell's; {} if none are kept.
        temporal: of a video, the metrics of `sim.metrics.TEMPORAL` that are wanted, by concealer
            and "clean".
    """

    received: NDArray[np.bool_]
    quality: Mapping[str, Mapping[str, float]]
    pictures: Files
    temporal: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def measured_reference(
    model: Model, image: LoadedImage, tokenizer: TokenizerKey, enhance: bool, metrics: Sequence[str]
) -> tuple[Record, NDArray[np.uint8]]:
    """The image tokenized, decoded without loss and measured.

    Returns:
        What `read_reference` reads, and the decoded image, uint8[H,W,3].
    """
    from sim.media.frames import decode_lossless, near_tokens

    near = near_tokens(model, image, *tokenizer)
    frame = MediaFrame(image.name, near[..., 0], image.width, image.height)
    decoded = decode_lossless(model, frame, tokenizer.codebook_size, enhance)
    tokens = zlib.compress(near.astype("<i2").tobytes())
    record = {
        "grid": list(frame.index_map.shape),
        "tokens": base64.b64encode(tokens).decode(),
        "quality": quality(image.pixels, decoded, metrics),
    }
    return record, decoded


def measured_frame(
    image: LoadedImage,
    reference: LosslessReference,
    output: RestoredFrame,
    concealers: Sequence[str],
    metrics: Sequence[str],
    sent: NDArray[np.int64] | None = None,
) -> MeasuredFrame:
    """A restored frame, measured; no pictures are kept yet. ``sent``: its tokens, int64[h,w], where
    hysteresis may have changed them."""
    sent = reference.index_map if sent is None else sent
    found = {}
    of_image: dict[int, Mapping[str, float]] = {}  # where none is lost, all repairs share one
    for name in concealers:
        measured, accuracy = reference.quality, float("nan")
        if name in output.images and not (
            output.received.all() and np.array_equal(output.indices[name], reference.index_map)
        ):
            pixels = output.images[name]
            if id(pixels) not in of_image:
                of_image[id(pixels)] = quality(image.pixels, pixels, metrics)
            measured = of_image[id(pixels)]
            accuracy = token_accuracy(sent, output.indices[name], output.received)
        found[name] = {**measured, "token_accuracy": accuracy}
    return MeasuredFrame(output.received, found, {})


def frame_pictures(
    image: LoadedImage,
    lossless: NDArray[np.uint8],
    concealers: Iterable[str],
    output: RestoredFrame,
) -> FramePictures:
    """What shows a frame; ``lossless`` is the image decoded without loss, which is also what
    repairs give that are not in ``output``."""
    repaired = {str(name): output.images.get(name, lossless) for name in concealers}
    return {ORIGINAL: image.pixels, CLEAN: lossless, **repaired}


def picture_files(image: str, shown: FramePictures, output: RestoredFrame) -> dict[str, bytes]:
    """The files of a frame, for `MeasuredFrame.pictures`; ``image`` is its name."""
    received = output.received.astype(np.uint8) * 255
    files = {f"{name}.png": png(pixels) for name, pixels in {**shown, "received": received}.items()}
    if INPAINT in output.images:
        files[PROBABILITY] = _npy(output.probability[INPAINT])
        files[PIXEL_ERROR] = _npy(output.pixel_error[INPAINT])
    return {f"{image}/{name}": content for name, content in files.items()}


def decoded_lossless(
    model: Model, image: LoadedImage, reference: LosslessReference, codec: CodecSection
) -> NDArray[np.uint8]:
    """An image decoded without loss, uint8[H,W,3]."""
    from sim.media.frames import decode_lossless

    (frame,) = media_frames([image], [reference])
    return decode_lossless(model, frame, codec.codebook, codec.enhance)


def media_frames(
    images: Iterable[LoadedImage], references: Iterable[LosslessReference]
) -> list[MediaFrame]:
    """Images as they are streamed, in order."""
    steady = SteadyTokens()
    return [
        MediaFrame(image.name, steady.next_frame(reference.near), image.width, image.height)
        for image, reference in zip(images, references, strict=True)
    ]


def read_reference(record: Record) -> LosslessReference:
    """What a finished `ReferenceTask` found."""
    tokens = np.frombuffer(zlib.decompress(base64.b64decode(record["tokens"])), "<i2")
    near = tokens.astype(np.int64).reshape(*record["grid"], -1)
    measured = record["quality"].items()
    found = {name: float("nan") if value is None else value for name, value in measured}
    return LosslessReference(near, found)


def _npy(array: NDArray[np.float32]) -> bytes:
    """float32[h,w] as a .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
