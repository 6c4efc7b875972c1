"""Classical codecs: the right colours, sizes within budget, honest counting, absent ones noted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sim.baselines import BASELINES, Baseline, Coded, HalfSize, RateSearch, find_baselines
from sim.baselines import video as video_module
from sim.metrics.quality import psnr_db

FOUND, MISSING = find_baselines()


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth and colourful."""
    y, x = np.mgrid[:height, :width]
    bands = [128 + 100 * np.sin(y / 9), 60 + 3 * x, 200 - y - x]
    return np.stack(bands, axis=2).clip(0, 255).astype(np.uint8)


def test_every_name_is_there_or_explained() -> None:
    assert {name.removesuffix("-half") for name in BASELINES if name not in FOUND} == set(MISSING)
    assert {"jpeg", "jpeg-half", "webp"} <= set(FOUND)
    with pytest.raises(KeyError):
        find_baselines(["gif"])


@pytest.mark.parametrize("name", [name for name in BASELINES if "-half" not in name])
def test_sizes_colours_and_counting(name: str) -> None:
    """A fine setting is near the original, also at odd sizes; the smallest is much smaller."""
    if name not in FOUND:
        pytest.skip(MISSING[name])
    codec, original = FOUND[name], picture(41, 57)
    fine, coarse = codec.encode(original, codec.settings * 4 // 5), codec.encode(original, 0)
    assert psnr_db(original, codec.decode(fine.file, 41, 57)) > 30
    assert codec.decode(coarse.file, 41, 57).shape == original.shape
    assert len(coarse.file) < len(fine.file)
    for coded in (fine, coarse):
        assert 0 < coded.payload_bytes < len(coded.file)
    assert b"Exif" not in fine.file and b"ICC" not in fine.file and b"x265" not in fine.file


@pytest.mark.parametrize("shape", [(40, 56), (41, 57), (16, 16)])
def test_half_size(shape: tuple[int, int]) -> None:
    codec, original = FOUND["jpeg-half"], picture(*shape)
    decoded = codec.decode(codec.encode(original, 90).file, *shape)
    assert decoded.shape == original.shape and psnr_db(original, decoded) > 24
    full = FOUND["jpeg"].encode(original, 90)
    assert len(codec.encode(original, 90).file) < len(full.file)


class Dial:
    """A codec whose sizes are given; counts what it is asked for."""

    name = "dial"

    def __init__(self, sizes: list[int]) -> None:
        self.sizes, self.settings = sizes, len(sizes)
        self.asked: list[int] = []

    def encode(self, pixels: NDArray[np.uint8], setting: int) -> Coded:
        self.asked.append(setting)
        return Coded(bytes(self.sizes[setting]), self.sizes[setting] // 2)

    def decode(self, file: bytes, height: int, width: int) -> NDArray[np.uint8]:
        return np.zeros((height, width, 3), np.uint8)


@pytest.mark.parametrize("settings", [1, 2, 3, 54, 101])
def test_search_finds_the_largest_that_fits(settings: int) -> None:
    dial = Dial([100 + 10 * i for i in range(settings)])
    search = RateSearch(dial, picture(16, 16))
    for budget in range(90, 120 + 10 * settings, 5):
        fitting = [i for i, size in enumerate(dial.sizes) if size <= budget]
        assert search.at_most(budget) == (fitting[-1] if fitting else None)
        halves = [i for i, size in enumerate(dial.sizes) if size // 2 <= budget]
        assert search.at_most(budget, "payload") == (halves[-1] if halves else None)
    assert len(dial.asked) == len(set(dial.asked)), "a setting was encoded twice"


def test_search_never_exceeds_the_budget_where_sizes_jump() -> None:
    sizes = list(np.random.default_rng(3).integers(50, 500, 60))
    search = RateSearch(Dial([int(size) for size in sizes]), picture(16, 16))
    for budget in range(0, 600, 7):
        setting = search.at_most(budget)
        assert setting is None or sizes[setting] <= budget


def test_small_files_are_tried_first() -> None:
    dial = Dial(list(range(100, 1100, 10)))
    RateSearch(dial, picture(16, 16)).at_most(125)
    assert max(dial.asked) <= 4


def test_absent_programs_are_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(video_module, "find_ffmpeg", lambda: None)
    found, notes = find_baselines(["jpeg", "vvc", "av1-half"])
    assert list(found) == ["jpeg"] and set(notes) == {"vvc", "av1"}
    assert "imageio-ffmpeg" in notes["vvc"]
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho ' V....D libx265  HEVC'\n")
    program.chmod(0o755)
    monkeypatch.setattr(video_module, "find_ffmpeg", lambda: str(program))
    found, notes = find_baselines(["vvc", "x265"])
    assert list(found) == ["x265"] and notes == {"vvc": "this FFmpeg has no libvvenc"}


def test_baselines_satisfy_the_protocol() -> None:
    for baseline in FOUND.values():
        checked: Baseline = baseline
        assert checked.settings > 50 and checked.name in BASELINES
    assert isinstance(FOUND["jpeg-half"], HalfSize)
