"""One cell of a run: streamed, restored, measured, told as rows.

A cell is one stream of all images through one channel. What does not depend on the channel (tokens
and quality without loss) is a piece of work of its own, done once for each image, codebook,
patch and search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.drivers.live import PeerError
from sim.drivers.record import MediaFrame, StreamRecord
from sim.errors import user_errors
from sim.experiment.measured import (
    LosslessReference,
    MeasuredFrame,
    decoded_lossless,
    frame_pictures,
    measured_frame,
    measured_reference,
    media_frames,
    picture_files,
)
from sim.experiment.packets import FrameSent, packet_table
from sim.experiment.video import VideoResults
from sim.jobs.executor import SerialExecutor
from sim.jobs.store import Files, Record
from sim.media.images import LoadedImage
from sim.media.outputs import RestoredFrame
from sim.metrics import TEMPORAL
from sim.protocol.config import StreamConfigError
from sim.protocol.events import FrameReady
from sim.results.files import cell_text
from sim.scenario.labels import Cell
from sim.scenario.schema import CLEAN, TokenizerKey
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
        metrics: to measure of each image alone, as for `sim.metrics.quality.quality`.
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
        alone = tuple(name for name in metrics if name not in TEMPORAL)
        return cls(tuple(images), name, CoderTables.of(model), alone, device)


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
        pictures: of how many images pictures are kept, `evenly`; of a video then also its files.
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

_KEPT_BYTES = 2**26
"""Limit of images decoded without loss that are kept to be shown."""


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
        self._with_importance: dict[tuple[int, TokenizerKey], MediaFrame] = {}
        self._decoded: dict[tuple[int, tuple[TokenizerKey, bool]], NDArray[np.uint8]] = {}

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
            record, decoded = measured_reference(self._model, image, *how, metrics)
            if sum(kept.nbytes for kept in tuple(self._decoded.values())) < _KEPT_BYTES:
                self._decoded[task.image, how] = decoded
            return record, {}
        return self._cell(task)

    def _cell(self, task: CellTask) -> Result:
        """Stream a cell; each frame is restored and measured as soon as it comes out."""
        frames = media_frames(self._images, task.references)
        if task.cell.scenario.stream_config().needs_importance:
            frames = [self._add_importance(n, frame, task.cell) for n, frame in enumerate(frames)]
        video = VideoResults(task.cell.scenario, files=task.pictures > 0)
        measure = self._measurer(task, frames, video)
        futures: list[Future[MeasuredFrame]] = []
        record = self._stream(task, frames, lambda ready: futures.append(measure(ready)))
        measured = []
        for future in futures:
            measured.append(future.result())
            self._progress(task, 1)
        return cell_result(task, self._images, record, video.finish(measured))

    def _add_importance(self, image: int, frame: MediaFrame, cell: Cell) -> MediaFrame:
        from sim.media.frames import with_token_importance

        key = image, cell.scenario.codec.tokenizer_key
        if key not in self._with_importance:
            self._with_importance[key] = with_token_importance(
                self._model, frame, key[1].codebook_size
            )
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
        name = cell.scenario.name
        with (
            user_errors(f"{name}: stream.", StreamConfigError),
            user_errors(f"{name}: ", PeerError),
        ):
            record = stream_frames(setup, frames, on_frame, count)
        count(len(frames), len(frames))
        return record

    def _measurer(
        self, task: CellTask, frames: Sequence[MediaFrame], video: VideoResults
    ) -> Callable[[FrameReady], Future[MeasuredFrame]]:
        """Has frames of a cell restored and measured by the executor; a video's in order."""
        scenario = task.cell.scenario
        restorer: Restorer | None = None
        if scenario.concealers:  # before the threads, of which each would load the networks
            from sim.media.frames import Restorer

            options = scenario.decoding_options()
            restorer = Restorer(self._model, scenario.concealers, options)
        executor = self._executor if scenario.video is None else SerialExecutor()
        kept = evenly(task.pictures, len(task.references))

        def measure(ready: FrameReady) -> Future[MeasuredFrame]:
            shown = ready.frame in kept
            sent = frames[ready.frame].index_map
            return executor.submit(self._frame, task, restorer, video, ready, sent, shown)

        return measure

    def _frame(
        self,
        task: CellTask,
        restorer: Restorer | None,
        video: VideoResults,
        ready: FrameReady,
        sent: NDArray[np.int64],
        shown: bool,
    ) -> MeasuredFrame:
        """Every repair of a frame with all the tokens of its reference gives the decode without
        loss: it is restored only if it is shown, and otherwise only remembered. Other tokens stand
        there where some are lost, are kept but were lost meanwhile, or stay by hysteresis."""
        number, output = ready.frame, RestoredFrame(ready.frame, ready.grid.received)
        if restorer is not None:
            lossless = np.array_equal(ready.grid.indices, task.references[number].index_map)
            if shown or not lossless:
                output = restorer.restore(ready)
            elif task.cell.scenario.video is not None:
                restorer.conceal(ready)
        image, reference = self._images[number], task.references[number]
        names, metrics = task.cell.scenario.concealers, self._context.metrics
        found = measured_frame(image, reference, output, names, metrics, sent)
        if shown or video.wanted:
            pictures = frame_pictures(image, self._lossless(task, number), names, output)
            found = video.add(found, pictures)
            if shown:
                found = replace(found, pictures=picture_files(image.name, pictures, output))
        return found

    def _lossless(self, task: CellTask, number: int) -> NDArray[np.uint8]:
        """An image decoded without loss."""
        codec = task.cell.scenario.codec
        decoded = self._decoded.get((number, (codec.tokenizer_key, codec.enhance)))
        if decoded is None:
            image, reference = self._images[number], task.references[number]
            decoded = decoded_lossless(self._model, image, reference, codec)
        return decoded


def evenly(count: int, total: int) -> list[int]:
    """Numbers of so many of `total` images, at equal distances: int in [0, total)."""
    return [number * total // count for number in range(count)]


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
        "tokens_kept": sent.kept,
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
    unrepaired = {**lossless, "token_accuracy": float("nan")}
    for name, found in {CLEAN: unrepaired, **measured.quality}.items():
        yield {**about, "concealer": name, **found, **measured.temporal.get(name, {})}


def record_rows(record: Record) -> Iterator[dict[str, str]]:
    """The rows of a finished `CellTask`, as text."""
    for values in record["rows"]:
        yield dict(zip(record["columns"], values, strict=True))
