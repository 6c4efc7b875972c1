"""One cell of a run: streamed, restored, measured, told as rows.

A cell is one stream of all images through one channel. What does not depend on the channel (tokens
and quality without loss) is a piece of work of its own, done once for each image, codebook,
patch and search.
"""

from __future__ import annotations

import base64
import io
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.drivers.live import PeerError
from sim.drivers.record import MediaFrame, StreamRecord
from sim.errors import UserError
from sim.experiment.packets import FrameSent, packet_table
from sim.experiment.video import FramePictures, VideoResults
from sim.jobs.store import Files, Record
from sim.media.images import LoadedImage
from sim.media.outputs import RestoredFrame
from sim.media.sink import saving_sink
from sim.metrics import TEMPORAL
from sim.metrics.quality import quality, token_accuracy
from sim.protocol.config import StreamConfigError
from sim.results.files import INPAINT, ORIGINAL, PIXEL_ERROR, PROBABILITY, cell_text, png
from sim.scenario.labels import Cell
from sim.scenario.schema import CLEAN, TokenizerKey
from sim.statistics import effective_size
from sim.stream import CoderTables, StreamSetup, stream_frames

if TYPE_CHECKING:  # torch is only loaded where networks run
    from codec.device import Device
    from codec.model import Model

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


class CellWorker:
    """Does the pieces of one run."""

    def __init__(
        self,
        context: WorkerContext,
        model: Model | None = None,
        progress: Callable[[Task, int], object] = lambda task, steps: None,
    ) -> None:
        """``model``: when it is loaded already. ``progress``: told of steps done in a task."""
        self._context, self._given, self._progress = context, model, progress
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
            return self._reference(task), {}
        return self._cell(task)

    def _reference(self, task: ReferenceTask) -> Record:
        from sim.media.frames import decode_lossless, encode_images

        image = self._images[task.image]
        (frame,) = encode_images(self._model, [image], *task.tokenizer)
        decoded = decode_lossless(self._model, frame, task.tokenizer.codebook_size, task.enhance)
        tokens = zlib.compress(frame.index_map.astype("<i2").tobytes())
        self._progress(task, 1)
        return {
            "grid": list(frame.index_map.shape),
            "tokens": base64.b64encode(tokens).decode(),
            "quality": quality(image.pixels, decoded, self._context.metrics),
        }

    def _cell(self, task: CellTask) -> Result:
        frames = self._frames(task)
        if task.cell.scenario.stream_config().needs_importance:
            frames = [self._add_importance(n, frame, task.cell) for n, frame in enumerate(frames)]
        if task.cell.scenario.transport == "virtual":
            return self.measure(task, self._stream(task, frames, Path()))
        with tempfile.TemporaryDirectory(prefix="sim-cell-") as scratch:
            record = self._stream(task, frames, Path(scratch))
            outputs = (RestoredFrame.take(Path(scratch), number) for number in range(len(frames)))
            return self._measured(task, frames, record, outputs)

    def measure(self, task: CellTask, record: StreamRecord) -> Result:
        """As `run`, for a stream that is over: restore its frames and measure them."""
        frames = self._frames(task)
        return self._measured(task, frames, record, self._restored(task, frames, record))

    def _frames(self, task: CellTask) -> list[MediaFrame]:
        return [
            MediaFrame(image.name, reference.index_map, image.width, image.height)
            for image, reference in zip(self._images, task.references, strict=True)
        ]

    def _add_importance(self, image: int, frame: MediaFrame, cell: Cell) -> MediaFrame:
        from sim.media.frames import with_token_importance

        key = image, *cell.scenario.codec.tokenizer_key
        if key not in self._with_importance:
            self._with_importance[key] = with_token_importance(self._model, frame, key[1])
        return self._with_importance[key]

    def _measured(
        self,
        task: CellTask,
        frames: Sequence[MediaFrame],
        record: StreamRecord,
        outputs: Iterable[RestoredFrame],
    ) -> Result:
        rows: list[dict[str, Any]] = []
        pictures: dict[str, bytes] = {}
        sent = FrameSent.of_each(record, task.cell.scenario.stream_config())
        kept = evenly(task.pictures, len(frames))
        video = VideoResults(task.cell.scenario, files=bool(kept))
        for number, output in enumerate(outputs):
            frame = frames[number]
            measured = list(self._rows(task, number, frame, output, sent[number]))
            if number in kept or video.wanted:
                shown = self._frame_pictures(task.cell, number, frame, output)
                video.add(shown, measured, float(np.mean(~output.received)))
                if number in kept:
                    pictures |= _pictures(frame.name, shown, output)
            rows += measured
            self._progress(task, 1)
        pictures |= video.finish(rows)
        erased = np.array([packet.fate == "erased" for packet in record.packets])
        found = {
            "pictures": task.pictures,
            "columns": list(rows[0]),
            "rows": [[cell_text(value) for value in row.values()] for row in rows],
            **packet_table(record.packets, frames),
            "counters": record.counters,
            "effective": effective_size(erased),
        }
        return found, pictures

    def _stream(self, task: CellTask, frames: Sequence[MediaFrame], scratch: Path) -> StreamRecord:
        """Stream a cell; a live one's frames are saved in `scratch` by its receiver."""
        cell = task.cell
        names, decoding = tuple(cell.scenario.concealers), cell.scenario.decoding_options()
        counted = 0

        def count(out: int, total: int) -> None:
            nonlocal counted
            self._progress(task, out - counted)
            counted = out

        setup = StreamSetup.of(cell.scenario, self._context.tables, cell.repeat)
        where = self._context.model, self._context.device
        sink = partial(saving_sink, *where, names, decoding, scratch)
        try:
            record = stream_frames(setup, frames, sink, count)
        except StreamConfigError as error:
            raise UserError(f"{cell.scenario.name}: stream.{error}") from None
        except PeerError as error:
            raise UserError(f"{cell.scenario.name}: {error}") from None
        count(len(frames), len(frames))
        return record

    def _restored(
        self, task: CellTask, frames: Sequence[MediaFrame], record: StreamRecord
    ) -> Iterator[RestoredFrame]:
        """The frames as restored, one by one. A complete one has no images unless pictures of it
        are kept: every repair of it gives the decode without loss."""
        scenario = task.cell.scenario
        if not scenario.concealers:
            for ready in record.frames:
                yield RestoredFrame(ready.frame, ready.grid.received)
            return
        from sim.media.frames import Restorer

        restorer = Restorer(self._model, scenario.concealers, scenario.decoding_options())
        kept = evenly(task.pictures, len(frames))
        for number, ready in enumerate(record.frames):
            if ready.complete and number not in kept:
                filled = restorer.conceal(ready)
                tokens = {name: found.indices for name, found in filled.items()}
                yield RestoredFrame(ready.frame, ready.grid.received, tokens)
            else:
                yield restorer.restore(ready)

    def _rows(
        self,
        task: CellTask,
        number: int,
        frame: MediaFrame,
        output: RestoredFrame,
        sent: FrameSent,
    ) -> Iterator[dict[str, Any]]:
        """The rows of one frame: without loss, then each repair."""
        pixels = frame.width * frame.height
        about = {
            "frame": number,
            "image": frame.name,
            "width": frame.width,
            "height": frame.height,
            "codebook": task.cell.scenario.codec.codebook,
            "tokens": output.received.size,
            "tokens_lost": int(np.count_nonzero(~output.received)),
            "packets_sent": sent.packets,
            "packets_lost": sum(sent.lost.values()),
            **sent.lost,
            "bpp": 8 * sent.payload_bytes / pixels,
            "bpp_wire": 8 * sent.wire_bytes / pixels,
            "recovered": sent.recovered,
            "retransmitted": sent.retransmitted,
            "latency_s": sent.latency_s,
        }
        lossless, image = task.references[number].quality, self._images[number]
        whole = bool(output.received.all())
        nothing = float("nan")
        yield {**about, "concealer": CLEAN, **lossless, "token_accuracy": nothing}
        for name in task.cell.scenario.concealers:
            metrics = self._context.metrics
            measured = lossless if whole else quality(image.pixels, output.images[name], metrics)
            accuracy = token_accuracy(frame.index_map, output.indices[name], output.received)
            yield {**about, "concealer": name, **measured, "token_accuracy": accuracy}

    def _frame_pictures(
        self, cell: Cell, number: int, frame: MediaFrame, output: RestoredFrame
    ) -> FramePictures:
        from sim.media.frames import decode_lossless

        codec = cell.scenario.codec
        lossless = decode_lossless(self._model, frame, codec.codebook, codec.enhance)
        repaired = {
            str(name): output.images.get(name, lossless) for name in cell.scenario.concealers
        }
        return {ORIGINAL: self._images[number].pixels, CLEAN: lossless, **repaired}


def evenly(count: int, total: int) -> list[int]:
    """Numbers of so many of `total` images, at equal distances: int in [0, total)."""
    return [number * total // count for number in range(count)]


def _pictures(image: str, shown: FramePictures, output: RestoredFrame) -> dict[str, bytes]:
    """The files of one image."""
    received = output.received.astype(np.uint8) * 255
    files = {f"{name}.png": png(pixels) for name, pixels in {**shown, "received": received}.items()}
    if INPAINT in output.images:
        files[PROBABILITY] = _npy(output.probability[INPAINT])
        files[PIXEL_ERROR] = _npy(output.pixel_error[INPAINT])
    return {f"{image}/{name}": content for name, content in files.items()}


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
