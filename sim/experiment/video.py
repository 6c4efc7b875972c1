"""What a cell measures and keeps of a video, beside what it does of every image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sim.experiment.measured import FramePictures, MeasuredFrame
from sim.media.video_file import VideoFiles
from sim.metrics import TEMPORAL
from sim.metrics.temporal import TemporalMeter
from sim.results.files import ORIGINAL, VIDEOS
from sim.scenario.labels import shown_repairs
from sim.scenario.schema import CLEAN, Scenario


class VideoResults:
    """The temporal metrics and the playable files of one stream; of photographs, nothing.

    Attributes:
        wanted: whether it needs to be shown the frames.
    """

    def __init__(self, scenario: Scenario, files: bool) -> None:
        """``files``: whether they are kept, if it is a video that is repaired."""
        self._fps = scenario.stream.fps
        self._metrics = [str(name) for name in scenario.metrics if name in TEMPORAL]
        self._meter = TemporalMeter(CLEAN) if self._metrics else None
        kept = files and scenario.video is not None and bool(scenario.concealers)
        self._files = VideoFiles(self._fps) if kept else None
        self.wanted = self._meter is not None or self._files is not None

    def add(self, measured: MeasuredFrame, shown: FramePictures) -> MeasuredFrame:
        """Take the next frame; it comes back with its temporal metrics."""
        if self._files is not None:
            repairs = [name for name in shown if name not in (ORIGINAL, CLEAN)]
            beside = dict.fromkeys((ORIGINAL, *shown_repairs(repairs)))
            together = np.hstack([shown[name] for name in beside])
            self._files.add({"side-by-side": together, **{name: shown[name] for name in repairs}})
        if self._meter is None:
            return measured
        compared = {name: pixels for name, pixels in shown.items() if name != ORIGINAL}
        lost = float(np.mean(~measured.received))
        found = self._meter.add(shown[ORIGINAL], compared, lost).items()
        temporal = {
            repair: {name: values.get(name, math.nan) for name in self._metrics}
            for repair, values in found
        }
        return replace(measured, temporal=temporal)

    def finish(self, measured: Sequence[MeasuredFrame]) -> list[MeasuredFrame]:
        """The frames with what only the stream's end tells: how long each took to recover. The
        files are kept with the last one's pictures."""
        frames = list(measured)
        if self._meter is not None and "recovery_s" in self._metrics:
            seconds = self._meter.recovery_s(self._fps)
            for number, frame in enumerate(frames):
                temporal = {
                    repair: {**values, "recovery_s": seconds[repair][number]}
                    for repair, values in frame.temporal.items()
                }
                frames[number] = replace(frame, temporal=temporal)
        if self._files is not None and frames:
            files = {f"{VIDEOS}/{name}": file for name, file in self._files.finish().items()}
            frames[-1] = replace(frames[-1], pictures={**frames[-1].pictures, **files})
        return frames
