"""Measuring a stream while it runs, so that little is left to do when it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from codec.model import Model
from sim.experiment.cell import evenly
from sim.experiment.measured import (
    MeasuredFrame,
    decoded_lossless,
    frame_pictures,
    measured_frame,
    measured_reference,
    picture_files,
    read_reference,
)
from sim.experiment.plan import panels
from sim.experiment.video import VideoResults
from sim.jobs.executor import SerialExecutor, usable_cores
from sim.jobs.store import Record
from sim.media.capture import digest
from sim.media.images import LoadedImage
from sim.media.outputs import RestoredFrame
from sim.metrics import TEMPORAL
from sim.scenario.schema import Scenario

_WAITING = 2  # images for each thread

Reference = tuple[Record, NDArray[np.uint8] | None]
"""See `sim.experiment.measured.measured_reference`; the picture is kept if it is shown."""


class StreamMeasurer:
    """Measures restored frames as they come: photographs side by side, and those that come again
    only once; a video's frames in order."""

    def __init__(self, scenario: Scenario, model: Model, save_images: bool, total: int) -> None:
        """``save_images``: whether pictures are kept of all frames, not only of some.
        ``total``: frames of the whole stream."""
        self._scenario, self._model, self._save_images = scenario, model, save_images
        self._metrics = tuple(name for name in scenario.metrics if name not in TEMPORAL)
        self._video = VideoResults(scenario, files=True)
        self._total = total
        threads = 1 if scenario.video else max(1, usable_cores() - 1)  # one restores meanwhile
        on_cpu = str(model.device) == "cpu"  # a GPU takes images one by one
        self._threads: Executor = ThreadPoolExecutor(threads) if on_cpu else SerialExecutor()
        self._most = _WAITING * threads
        self._by_digest: dict[str, Future[Reference]] = {}
        self._measured: list[Future[tuple[Record, MeasuredFrame]]] = []
        self._waiting: deque[Future[tuple[Record, MeasuredFrame]]] = deque()

    def add(
        self, image: LoadedImage, output: RestoredFrame, sent: NDArray[np.int64] | None
    ) -> None:
        """Take the next frame, and its tokens as they were sent, int64[h,w], if they are known;
        waits when too many are waiting already. Raises what went wrong with an earlier one."""
        if not self._measured:
            self._total -= output.number  # those before this receiver joined
        shown = self._has_pictures(len(self._measured))
        key = digest(image.pixels)
        reference = self._by_digest.get(key)
        if reference is None:
            reference = self._threads.submit(self._reference, image, shown or self._video.wanted)
            if not self._video.wanted:  # whose pictures would fill the memory
                self._by_digest[key] = reference
        future = self._threads.submit(self._measure, image, reference, output, sent, shown)
        self._measured.append(future)
        self._waiting.append(future)
        while len(self._waiting) > self._most:
            self._waiting.popleft().result()

    def _has_pictures(self, number: int) -> bool:
        """Whether pictures are kept, for all that is known of the stream's end: it may be near."""
        count = panels(self._scenario, self._total)
        return self._save_images or number < count or number in evenly(count, self._total)

    def results(self) -> tuple[Sequence[Record], Sequence[MeasuredFrame]]:
        """References and measured frames, once all that was added is done."""
        with self._threads:
            done = [future.result() for future in self._measured]
        measured = [found for _, found in done]
        kept = evenly(panels(self._scenario, len(done)), len(done))
        if not self._save_images and all(measured[number].pictures for number in kept):
            for number in set(range(len(done))).difference(kept):
                measured[number] = replace(measured[number], pictures={})
        return [record for record, _ in done], self._video.finish(measured)

    def _reference(self, image: LoadedImage, kept: bool) -> Reference:
        codec = self._scenario.codec
        parts = self._model, image, codec.tokenizer_key, codec.enhance, self._metrics
        record, decoded = measured_reference(*parts)
        return record, decoded if kept else None

    def _measure(
        self,
        image: LoadedImage,
        begun: Future[Reference],
        output: RestoredFrame,
        sent: NDArray[np.int64] | None,
        shown: bool,
    ) -> tuple[Record, MeasuredFrame]:
        record, lossless = begun.result()  # begun before this, so it will come
        names, reference = self._scenario.concealers, read_reference(record)
        found = measured_frame(image, reference, output, names, self._metrics, sent)
        if shown or self._video.wanted:
            if lossless is None:
                lossless = decoded_lossless(self._model, image, reference, self._scenario.codec)
            pictures = frame_pictures(image, lossless, names, output)
            found = self._video.add(found, pictures)
            if shown:
                found = replace(found, pictures=picture_files(image.name, pictures, output))
        return record, found
