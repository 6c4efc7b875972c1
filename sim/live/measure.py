"""Measuring a stream while it runs, so that little is left to do when it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from codec.model import Model
from sim.experiment.measured import (
    MeasuredFrame,
    frame_pictures,
    measured_frame,
    measured_reference,
    read_reference,
)
from sim.experiment.tables import MAX_PANELS
from sim.jobs.executor import SerialExecutor, usable_cores
from sim.jobs.store import Record
from sim.media.capture import digest
from sim.media.images import LoadedImage
from sim.media.outputs import RestoredFrame
from sim.scenario.schema import Scenario

_WAITING = 2  # images for each thread

Reference = tuple[Record, NDArray[np.uint8] | None]
"""See `sim.experiment.measured.measured_reference`; the picture is kept if it is shown."""


class StreamMeasurer:
    """Measures restored frames side by side, as they come; originals that come again only once."""

    def __init__(self, scenario: Scenario, model: Model, save_images: bool) -> None:
        """``save_images``: whether pictures are kept of all frames, not only of the first."""
        self._scenario, self._model, self._save_images = scenario, model, save_images
        threads = max(1, usable_cores() - 1)  # one restores meanwhile
        on_cpu = str(model.device) == "cpu"  # a GPU takes images one by one
        self._threads: Executor = ThreadPoolExecutor(threads) if on_cpu else SerialExecutor()
        self._most = _WAITING * threads
        self._by_digest: dict[str, Future[Reference]] = {}
        self._references: list[Future[Reference]] = []
        self._measured: list[Future[MeasuredFrame]] = []
        self._waiting: deque[Future[MeasuredFrame]] = deque()

    def add(self, image: LoadedImage, output: RestoredFrame) -> None:
        """Take the next frame; waits when too many are waiting already. Raises what went wrong
        with an earlier one."""
        key = digest(image.pixels)
        shown = self._save_images or len(self._measured) < MAX_PANELS
        if key not in self._by_digest:
            self._by_digest[key] = self._threads.submit(self._reference, image, shown)
        reference = self._by_digest[key]
        future = self._threads.submit(self._measure, image, reference, output, shown)
        self._references.append(reference)
        self._measured.append(future)
        self._waiting.append(future)
        while len(self._waiting) > self._most:
            self._waiting.popleft().result()

    def results(self) -> tuple[Sequence[Record], Sequence[MeasuredFrame]]:
        """References and measured frames, once all that was added is done."""
        with self._threads:
            return (
                [future.result()[0] for future in self._references],
                [future.result() for future in self._measured],
            )

    def _reference(self, image: LoadedImage, shown: bool) -> Reference:
        codec, metrics = self._scenario.codec, self._scenario.metrics
        parts = self._model, image, codec.tokenizer_key, codec.enhance, metrics
        record, decoded = measured_reference(*parts)
        return record, decoded if shown else None

    def _measure(
        self, image: LoadedImage, begun: Future[Reference], output: RestoredFrame, shown: bool
    ) -> MeasuredFrame:
        record, lossless = begun.result()  # begun before this, so it will come
        names, metrics = self._scenario.concealers, self._scenario.metrics
        found = measured_frame(image, read_reference(record), output, names, metrics)
        if shown and lossless is not None:
            found = replace(found, pictures=frame_pictures(image, lossless, output))
        return found
