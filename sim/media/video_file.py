"""Playable files of what a stream shows: H.264 in MP4, written by PyAV."""

from __future__ import annotations

import io
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CRF = "17"  # x264's constant rate factor: hardly a trace of its own


class VideoFiles:
    """Several files that grow by a frame at a time. The same frames give the same bytes."""

    def __init__(self, fps: float) -> None:
        """``fps``: frames a second, > 0."""
        self._rate = Fraction(fps).limit_denominator(10_000)
        self._open: dict[str, tuple[io.BytesIO, Any, Any]] = {}

    def add(self, frames: Mapping[str, NDArray[np.uint8]]) -> None:
        """Take the next frame of each file, uint8[H,W,3], of one size for each; by its name."""
        import av

        for name, pixels in frames.items():
            height, width = pixels.shape[:2]
            even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if name not in self._open:
                self._open[name] = self._new(*even.shape[:2])
            _, container, stream = self._open[name]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            container.mux(stream.encode(frame))

    def _new(self, height: int, width: int) -> tuple[io.BytesIO, Any, Any]:
        import av

        file = io.BytesIO()
        container = av.open(file, "w", format="mp4")
        # Macroblock trees of small pictures depend on what else lies in memory.
        options = {"crf": _CRF, "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=self._rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1  # their number shows in the bytes
        return file, container, stream

    def finish(self) -> dict[str, bytes]:
        """The whole files, by name with its suffix."""
        found = {}
        for name, (file, container, stream) in self._open.items():
            container.mux(stream.encode())
            container.close()
            found[f"{name}.mp4"] = file.getvalue()
        self._open.clear()
        return found
