"""One cell of a run: streamed, restored, measured, told as rows.

A cell is one stream of all images through one channel. What does not depend on the channel (tokens
and quality without loss) is a piece of work of its own, done once for each image, codebook,
patch and search.
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.drivers.live import PeerError
from sim.drivers.record import MediaFrame, StreamRecord
from sim.errors import UserError
from sim.experiment.packets import FrameSent, packet_table
from sim.jobs.executor import SerialExecutor
from sim.jobs.store import Files, Record
from sim.media.images import LoadedImage
from sim.media.outputs import RestoredFrame
from sim.metrics.quality import quality, token_accuracy
from sim.protocol.config import StreamConfigError
from sim.protocol.events import FrameReady
from sim.results.files import INPAINT, PIXEL_ERROR, PROBABILITY, cell_text, png
from sim.scenario.labels import Cell
from sim.scenario.schema import CLEAN, CodecSection, TokenizerKey
from sim.statistics import effective_size
from sim.stream import CoderTables, StreamSetup, stream_frames

if TYPE_CHECKING:  # torch is only loaded where networks run
    from codec.device import Device
    from codec.model import Model
    from sim.media.frames import Restorer

Result = tuple[Record, Files]
"""What the store keeps of a finished piece: pictures are PNG and .npy files."""


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What a process needs to do any piece of a run; it can be sent to others.

    Attributes:
        images: in order.
        model: as for `sim.media.frames.load_model`.
        tables: of the model's coders, with the fingerprint that the weights must have.
        metrics: to measure, as for `sim.metrics.quality.quality`.
        device: where the networks run; None for the CPU, which asks for no torch.
    """

    images: tuple[LoadedImage, ...]
    model: str | None
    tables: CoderTables
    metrics: tuple[str, ...]
    device: Device | None = None

    @classmethod
    def of(
        cls, images: Iterable[LoadedImage], name: str | None, model: Model, metrics: Iterable[str]
    ) -> WorkerContext:
        """For a model and the name it was loaded by."""
        device = None if str(model.device) == "cpu" else model.device
        return cls(tuple(images), name, CoderTables.of(model), tuple(metrics), device)


@dataclass(frozen=True, slots=True)
class LosslessReference:
    """One image at one codebook and so on: tokens int64[h,w], and metrics when none is lost."""

    index_map: NDArray[np.int64]
    quality: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ReferenceTask:
    """Tokenize one image (by number) at one codebook, patch and search, and decode it."""

    key: str
    image: int
    tokenizer: TokenizerKey
    enhance: bool

    steps = 1
    """Of progress."""
    pictures = 0


@dataclass(frozen=True, slots=True)
class CellTask:
    """Compute one cell.

    Attributes:
        key: its name.
        cell: what it is.
        references: of every image, at its codebook, patch and search.
        pictures: of how many images pictures are kept.
    """

    key: str
    cell: Cell
    references: tuple[LosslessReference, ...]
    pictures: int

    @property
    def steps(self) -> int:
        """Of progress: two for each image."""
        return 2 * len(self.references)


Task = ReferenceTask | CellTask


@dataclass(frozen=True, slots=True)
class MeasuredFrame:
    """One frame, restored and measured.

    Attributes:
        received: bool[h,w], which tokens arrived.
        quality: metrics by concealer, "token_accuracy" among them.
        pictures: files, by path below the folder of the cell's; {} if none are kept.
    """

    received: NDArray[np.bool_]
    quality: Mapping[str, Mapping[str, float]]
    pictures: Files


class CellWorker:
    """Does the pieces of one run."""

    def __init__(
        self,
        context: WorkerContext,
        model: Model | None = None,
        progress: Callable[[Task, int], object] = lambda task, steps: None,
        executor: Executor | None = None,
    ) -> None:
        """``model``: when it is loaded already. ``progress``: told of steps done in a task.
        ``executor``: of threads that restore and measure images side by side; None: one by one."""
        self._context, self._given, self._progress = context, model, progress
        self._executor = executor or SerialExecutor()
        self._images = context.images
        self._with_importance: dict[tuple[int, ...], MediaFrame] = {}  # by image and tokenizer key

    @cached_property
    def _model(self) -> Model:
        """The networks, loaded by the first piece that needs them: those that only stream do not,
        and torch takes longer to load than a hundred of them."""
        from sim.media.frames import load_model

        model = self._given
        if model is None:
            from codec.device import CPU

            model = load_model(self._context.model, self._context.device or CPU)
        wanted = self._context.tables.fingerprint
        if model.fingerprint != wanted:
            raise ValueError(
                f"weights here have fingerprint {model.fingerprint}, the run's have {wanted}"
            )
        return model

    def run(self, task: Task) -> Result:
        """The record of a piece, and its pictures.

        Raises:
            UserError: a stream does not fit its settings, or its processes failed; the weights that
                it needs cannot be loaded here.
            ValueError: the weights found here are others.
        """
        if isinstance(task, ReferenceTask):
            image, metrics = self._images[task.image], self._context.metrics
            how = task.tokenizer, task.enhance
            return reference_record(self._model, image, *how, metrics), {}
        return self._cell(task)

    def _cell(self, task: CellTask) -> Result:
        """Stream a cell; each frame is restored and measured as soon as it comes out."""
        frames = media_frames(self._images, task.references)
        if task.cell.scenario.stream_config().needs_importance:
            frames = [self._add_importance(n, frame, task.cell) for n, frame in enumerate(frames)]
        measure = self._measurer(task)
        futures: list[Future[MeasuredFrame]] = []
        record = self._stream(task, frames, lambda ready: futures.append(measure(ready)))
        measured = []
        for future in futures:
            measured.append(future.result())
            self._progress(task, 1)
        return cell_result(task, self._images, record, measured)

    def _add_importance(self, image: int, frame: MediaFrame, cell: Cell) -> MediaFrame:
        from sim.media.frames import with_token_importance

        key = image, *cell.scenario.codec.tokenizer_key
        if key not in self._with_importance:
            self._with_importance[key] = with_token_importance(self._model, frame, key[1])
        return self._with_importance[key]

    def _stream(
        self,
        task: CellTask,
        frames: Sequence[MediaFrame],
        on_frame: Callable[[FrameReady], object],
    ) -> StreamRecord:
        cell = task.cell
        counted = 0

        def count(out: int, total: int) -> None:
            nonlocal counted
            self._progress(task, out - counted)
            counted = out

        setup = StreamSetup.of(cell.scenario, self._context.tables, cell.repeat)
        try:
            record = stream_frames(setup, frames, on_frame, count)
        except StreamConfigError as error:
            raise UserError(f"{cell.scenario.name}: stream.{error}") from None
        except PeerError as error:
            raise UserError(f"{cell.scenario.name}: {error}") from None
        count(len(frames), len(frames))
        return record

    def _measurer(self, task: CellTask) -> Callable[[FrameReady], Future[MeasuredFrame]]:
        """Has frames of a cell restored and measured by the executor."""
        scenario = task.cell.scenario
        restorer: Restorer | None = None
        if scenario.concealers:  # before the threads, of which each would load the networks
            from sim.media.frames import Restorer

            options = scenario.decoding_options()
            restorer = Restorer(self._model, scenario.concealers, options)
        return lambda ready: self._executor.submit(self._frame, task, restorer, ready)

    def _frame(self, task: CellTask, restorer: Restorer | None, ready: FrameReady) -> MeasuredFrame:
        """Every repair of a complete frame gives the decode without loss: it is restored only if
        it is shown."""
        number, received = ready.frame, ready.grid.received
        if restorer is None:
            return MeasuredFrame(received, {}, {})
        shown, output = number < task.pictures, RestoredFrame(number, received)
        if shown or not received.all():
            output = restorer.restore(ready)
        image, reference = self._images[number], task.references[number]
        codec = task.cell.scenario.codec
        names, metrics = restorer.concealers, self._context.metrics
        found = measured_frame(image, reference, output, names, metrics)
        if shown:
            pictures = frame_pictures(self._model, image, reference, output, codec)
            found = replace(found, pictures=pictures)
        return found


def reference_record(
    model: Model, image: LoadedImage, tokenizer: TokenizerKey, enhance: bool, metrics: Sequence[str]
) -> Record:
    """What `read_reference` reads: the image tokenized, decoded without loss, measured."""
    from sim.media.frames import decode_lossless, encode_images

    (frame,) = encode_images(model, [image], *tokenizer)
    decoded = decode_lossless(model, frame, tokenizer.codebook_size, enhance)
    tokens = zlib.compress(frame.index_map.astype("<i2").tobytes())
    return {
        "grid": list(frame.index_map.shape),
        "tokens": base64.b64encode(tokens).decode(),
        "quality": quality(image.pixels, decoded, metrics),
    }


def measured_frame(
    image: LoadedImage,
    reference: LosslessReference,
    output: RestoredFrame,
    concealers: Sequence[str],
    metrics: Sequence[str],
) -> MeasuredFrame:
    """A restored frame, measured; no pictures are kept yet."""
    found = {}
    for name in concealers:
        measured, accuracy = reference.quality, float("nan")
        if not output.received.all():
            measured = quality(image.pixels, output.images[name], metrics)
            accuracy = token_accuracy(reference.index_map, output.indices[name], output.received)
        found[name] = {**measured, "token_accuracy": accuracy}
    return MeasuredFrame(output.received, found, {})


def frame_pictures(
    model: Model,
    image: LoadedImage,
    reference: LosslessReference,
    output: RestoredFrame,
    codec: CodecSection,
) -> dict[str, bytes]:
    """The files that show a frame, for `MeasuredFrame.pictures`."""
    from sim.media.frames import decode_lossless

    (frame,) = media_frames([image], [reference])
    lossless = decode_lossless(model, frame, codec.codebook, codec.enhance)
    shown = {"original": image.pixels, CLEAN: lossless, **output.images}
    shown["received"] = output.received.astype(np.uint8) * 255
    files = {f"{name}.png": png(pixels) for name, pixels in shown.items()}
    if INPAINT in output.images:
        files[PROBABILITY] = _npy(output.probability[INPAINT])
        files[PIXEL_ERROR] = _npy(output.pixel_error[INPAINT])
    return {f"{image.name}/{name}": content for name, content in files.items()}


def media_frames(
    images: Iterable[LoadedImage], references: Iterable[LosslessReference]
) -> list[MediaFrame]:
    """Images as they are streamed."""
    return [
        MediaFrame(image.name, reference.index_map, image.width, image.height)
        for image, reference in zip(images, references, strict=True)
    ]


def cell_result(
    task: CellTask,
    images: Sequence[LoadedImage],
    record: StreamRecord,
    measured: Sequence[MeasuredFrame],
) -> Result:
    """The record of a cell, and its pictures, once it is streamed and its frames are measured."""
    frames = media_frames(images, task.references)
    rows: list[dict[str, Any]] = []
    sent = FrameSent.of_each(record, task.cell.scenario.stream_config())
    for number, found in enumerate(measured):
        rows += _rows(task, number, frames[number], found, sent[number])
    erased = np.array([packet.fate == "erased" for packet in record.packets])
    about = {
        "pictures": task.pictures,
        "columns": list(rows[0]),
        "rows": [[cell_text(value) for value in row.values()] for row in rows],
        **packet_table(record.packets, frames),
        "counters": record.counters,
        "effective": effective_size(erased),
    }
    return about, {name: file for found in measured for name, file in found.pictures.items()}


def _rows(
    task: CellTask, number: int, frame: MediaFrame, measured: MeasuredFrame, sent: FrameSent
) -> Iterator[dict[str, Any]]:
    """The rows of one frame: without loss, then each repair."""
    pixels = frame.width * frame.height
    about = {
        "frame": number,
        "image": frame.name,
        "width": frame.width,
        "height": frame.height,
        "codebook": task.cell.scenario.codec.codebook,
        "tokens": measured.received.size,
        "tokens_lost": int(np.count_nonzero(~measured.received)),
        "packets_sent": sent.packets,
        "packets_lost": sum(sent.lost.values()),
        **sent.lost,
        "bpp": 8 * sent.payload_bytes / pixels,
        "bpp_wire": 8 * sent.wire_bytes / pixels,
        "recovered": sent.recovered,
        "retransmitted": sent.retransmitted,
        "latency_s": sent.latency_s,
    }
    lossless = task.references[number].quality
    yield {**about, "concealer": CLEAN, **lossless, "token_accuracy": float("nan")}
    for name, found in measured.quality.items():
        yield {**about, "concealer": name, **found}


def read_reference(record: Record) -> LosslessReference:
    """What a finished `ReferenceTask` found."""
    tokens = np.frombuffer(zlib.decompress(base64.b64decode(record["tokens"])), "<i2")
    index_map = tokens.astype(np.int64).reshape(record["grid"])
    measured = record["quality"].items()
    found = {name: float("nan") if value is None else value for name, value in measured}
    return LosslessReference(index_map, found)


def record_rows(record: Record) -> Iterator[dict[str, str]]:
    """The rows of a finished `CellTask`, as text."""
    for values in record["rows"]:
        yield dict(zip(record["columns"], values, strict=True))


def _npy(array: NDArray[np.float32]) -> bytes:
    """float32[h,w] as a .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
