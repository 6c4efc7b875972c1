"""What a cell measures and keeps of a video, beside what it does of every image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.media.video_file import VideoFiles
from sim.metrics import TEMPORAL
from sim.metrics.temporal import TemporalMeter
from sim.results.files import ORIGINAL, VIDEOS
from sim.scenario.schema import CLEAN, Scenario

FramePictures = Mapping[str, NDArray[np.uint8]]
"""Pictures of one frame, uint8[H,W,3]: the original, "clean", and every repair by its name."""


class VideoResults:
    """The temporal metrics and the playable files of one stream.

    Attributes:
        wanted: whether it needs to be shown the frames.
    """

    def __init__(self, scenario: Scenario, files: bool) -> None:
        """``files``: whether they are kept, if it is a video."""
        self._fps = scenario.stream.fps
        self._metrics = [name for name in scenario.metrics if name in TEMPORAL]
        self._meter = TemporalMeter(CLEAN) if self._metrics else None
        self._files = VideoFiles(self._fps) if files and scenario.video is not None else None
        self.wanted = self._meter is not None or self._files is not None

    def add(self, shown: FramePictures, rows: Iterable[dict[str, Any]], lost: float) -> None:
        """Take the next frame, which lost this share of its tokens; its rows get what is measured
        of it, as further columns."""
        if self._meter is not None:
            compared = {name: pixels for name, pixels in shown.items() if name != ORIGINAL}
            found = self._meter.add(shown[ORIGINAL], compared, lost)
            for row in rows:
                row |= {name: found[row["concealer"]].get(name, math.nan) for name in self._metrics}
        if self._files is not None:
            repairs = [name for name in shown if name not in (ORIGINAL, CLEAN)]
            unrepaired = "none" if "none" in repairs else repairs[0]
            beside = dict.fromkeys((ORIGINAL, unrepaired, repairs[-1]))
            together = np.hstack([shown[name] for name in beside])
            self._files.add({"side-by-side": together, **{name: shown[name] for name in repairs}})

    def finish(self, rows: Sequence[dict[str, Any]]) -> dict[str, bytes]:
        """The files, by path; all rows of the stream get what only its end tells."""
        if self._meter is not None and "recovery_s" in self._metrics:
            seconds = {k: iter(found) for k, found in self._meter.recovery_s(self._fps).items()}
            for row in rows:
                row["recovery_s"] = next(seconds[row["concealer"]])
        files = {} if self._files is None else self._files.finish()
        return {f"{VIDEOS}/{name}": content for name, content in files.items()}
