"""Small videos, made for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest


def film(
    path: Path,
    times: Sequence[int],
    codec: str = "mjpeg",
    pixels: str = "yuvj444p",
    turned: int = 0,
    blue: Callable[[int], int] = lambda number: 10 * number,
) -> None:
    """A video of 64 x 48 pixels whose pictures are shown at these times, in tenths of a second; how
    blue each is, by its number, and a white corner."""
    av = pytest.importorskip("av", reason="needs PyAV: the video extra")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        stream.time_base = stream.codec_context.time_base = Fraction(1, 10)
        if turned:
            stream.set_display_rotation(turned)
        for number, when in enumerate(times):
            picture = np.zeros((48, 64, 3), np.uint8)
            picture[..., 2] = blue(number)
            picture[:12, :12] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = when, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
