"""Laws of what only a video has: flicker, frozen frames, the time to recover."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sim.metrics.temporal import RECOVERED_DB, TemporalMeter

Clip = NDArray[np.uint8]


def clip(seed: int, frames: int = 6) -> Clip:
    return np.random.default_rng(seed).integers(40, 200, (frames, 8, 10, 3), dtype=np.uint8)


def measured(original: Clip, shown: Clip, lossless: Clip) -> list[dict[str, float]]:
    meter = TemporalMeter("clean")
    return [
        meter.add(a, {"clean": c, "repair": b}, 0.0)["repair"]
        for a, b, c in zip(original, shown, lossless, strict=True)
    ]


def test_an_error_that_stays_does_not_flicker() -> None:
    original = clip(1)
    stain = np.random.default_rng(2).integers(0, 40, original[0].shape, dtype=np.uint8)
    found = [row["flicker"] for row in measured(original, original + stain, original)]
    assert np.isnan(found[0]) and found[1:] == [0.0] * 5


def test_flicker_is_the_change_of_the_error() -> None:
    original = clip(3)
    shown = original.copy()
    shown[2] += 6  # one frame too bright: there and back again
    found = [row["flicker"] for row in measured(original, shown, original)]
    assert found[1:] == pytest.approx([0, 6, 6, 0, 0])


def test_frozen_is_what_stands_while_the_rest_moves() -> None:
    original = clip(4)
    shown = original.copy()
    shown[3] = shown[2]
    frozen = [row["frozen"] for row in measured(original, shown, original)]
    assert frozen == [0, 0, 0, 1, 0, 0]
    still = np.repeat(original[:1], 6, axis=0)
    assert [row["frozen"] for row in measured(original, still, still)] == [0.0] * 6


def recovery(lost: list[float], drops_db: list[float]) -> list[float]:
    """Of a repair that is so much worse than the decode without loss in each frame."""
    meter = TemporalMeter("clean")
    original = np.full((4, 4, 3), 100, np.uint8)
    for share, drop in zip(lost, drops_db, strict=True):
        error = 20 * 10 ** (drop / 20)
        images = {"clean": original + 20, "repair": original + np.uint8(round(error))}
        meter.add(original, images, share)
    seconds = meter.recovery_s(fps=10)
    assert all(np.isnan(value) or value == 0 for value in seconds["clean"])
    return seconds["repair"]


@pytest.mark.parametrize(
    ("lost", "drops", "expected"),
    [
        ([0, 1, 0.5, 0, 0, 0], [0, 9, 9, 4, 4, 0], {2: 0.2}),
        ([0, 1, 0, 0, 0, 0], [0, 9, 0, 9, 9, 9], {1: 0.0}),
        ([0, 1, 0, 1, 0, 0], [0, 9, 4, 9, 4, 0], {1: 0.3, 3: 0.1}),
        ([0, 1, 0, 0.4, 0, 0], [0, 9, 4, 4, 4, 4], {1: 0.4}),
        ([0, 0.49, 0, 0, 1, 1], [0, 9, 9, 0, 9, 9], {}),
    ],
)
def test_time_to_recover(lost: list[float], drops: list[float], expected: dict[int, float]) -> None:
    assert RECOVERED_DB < 4
    found = recovery(lost, drops)
    known = {frame: value for frame, value in enumerate(found) if not np.isnan(value)}
    assert known == pytest.approx(expected)
