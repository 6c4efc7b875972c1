"""How a video looks over time: the metrics of `sim.metrics.TEMPORAL`, of its frames in order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

OUTAGE = 0.5
"""A frame that lost this share of its tokens, or more, is part of an outage."""
RECOVERED_DB = 1.0
"""PSNR below that of the decode without loss at which a picture counts as recovered."""


class TemporalMeter:
    """Measures the frames of one stream."""

    def __init__(self, reference: str) -> None:
        """``reference``: the name of the decode without loss among what is shown."""
        self._reference = reference
        self._shown: Mapping[str, NDArray[np.uint8]] = {}
        self._errors: dict[str, NDArray[np.int16]] = {}
        self._mean_squares: dict[str, list[float]] = {}
        self._lost: list[float] = []

    def add(
        self, original: NDArray[np.uint8], shown: Mapping[str, NDArray[np.uint8]], lost: float
    ) -> dict[str, dict[str, float]]:
        """Take the next frame.

        Args:
            original: uint8[H,W,3], of one shape for the whole stream.
            shown: by name, the same shape; the same names for every frame.
            lost: share of its tokens.

        Returns:
            "flicker" and "frozen" by name; the flicker of the first frame is NaN.
        """
        before, found = self._shown, dict[str, dict[str, float]]()
        moves = self._reference not in before or not np.array_equal(
            shown[self._reference], before[self._reference]
        )
        for name, pixels in shown.items():
            error = pixels.astype(np.int16) - original
            last = self._errors.get(name)
            flicker = math.nan if last is None else math.sqrt(_mean_square(error - last))
            frozen = moves and name in before and np.array_equal(pixels, before[name])
            found[name] = {"flicker": flicker, "frozen": float(frozen)}
            self._errors[name] = error
            self._mean_squares.setdefault(name, []).append(_mean_square(error))
        self._shown = shown
        self._lost.append(lost)
        return found

    def recovery_s(self, fps: float) -> dict[str, list[float]]:
        """Seconds from the end of an outage to the first frame that is recovered, by name: at the
        outage's last frame, NaN elsewhere; 0 if it is the very next one. Of an outage that nothing
        recovered from, the seconds to the stream's end: it took longer; if the stream ends with
        it, NaN."""
        most = 10 ** (RECOVERED_DB / 10) * np.array(self._mean_squares.get(self._reference, []))
        return {
            name: _recovery_s(np.array(self._lost) >= OUTAGE, np.array(values) <= most, fps)
            for name, values in self._mean_squares.items()
        }


def temporal_quality(
    originals: Iterable[NDArray[np.uint8]],
    lossless: Iterable[NDArray[np.uint8]],
    shown: Iterable[NDArray[np.uint8]],
    lost: Iterable[float],
    fps: float,
) -> list[dict[str, float]]:
    """The metrics of `sim.metrics.TEMPORAL` of a whole stream, by frame; arguments as of
    `TemporalMeter.add`, frame by frame."""
    meter = TemporalMeter("lossless")
    frames = [
        meter.add(original, {"lossless": clean, "shown": seen}, share)["shown"]
        for original, clean, seen, share in zip(originals, lossless, shown, lost, strict=True)
    ]
    seconds = meter.recovery_s(fps)["shown"]
    return [{**found, "recovery_s": s} for found, s in zip(frames, seconds, strict=True)]


def _recovery_s(outage: NDArray[np.bool_], good: NDArray[np.bool_], fps: float) -> list[float]:
    """Of bool[T] each; see `TemporalMeter.recovery_s`."""
    found = [math.nan] * len(outage)
    for frame in np.flatnonzero(outage[:-1] & ~outage[1:]):
        after = good[frame + 1 :]
        found[frame] = (int(after.argmax()) if after.any() else len(after)) / fps
    return found


def _mean_square(error: NDArray[np.int16]) -> float:
    return float(np.mean(error.astype(np.float64) ** 2))
