"""Videos through video codecs: low delay, slices that stand alone, equal results every time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sim.baselines import BaselineError
from sim.baselines.clip import CLIP_CODECS, ClipCodec, clip_codec
from sim.metrics.quality import psnr_db

FPS, SHAPE = 4.0, (81, 97)


def moving(frames: int = 7) -> NDArray[np.uint8]:
    """Smooth, colourful, and moving: uint8[frames,81,97,3]."""
    t, y, x = np.mgrid[:frames, : SHAPE[0], : SHAPE[1]]
    bands = [128 + 100 * np.sin((y + 3 * t) / 9), 60 + x + 5 * t, 200 - y - x]
    return np.stack(bands, axis=3).clip(0, 255).astype(np.uint8)


def codec_of(name: str, slices: int = 1) -> ClipCodec:
    """The codec, or a skipped test."""
    found = clip_codec(name, FPS, slices)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.mark.parametrize("name", CLIP_CODECS)
def test_no_frame_waits_for_a_later_one(name: str) -> None:
    codec, clip = codec_of(name), moving()
    fine, coarse = (codec.encode(clip, codec.settings * part // 4) for part in (3, 1))
    assert len(coarse.file) < len(fine.file) and b"x264" not in b"".join(joined(codec, fine.file))
    sent = joined(codec, fine.file)
    shown = codec.decode(sent, *SHAPE)
    for original, pixels in zip(clip, shown, strict=True):
        assert pixels is not None and psnr_db(original, pixels) > 30
    for count in (1, 5):
        assert same(codec.decode(sent[:count], *SHAPE), shown[:count])


@pytest.mark.parametrize("name", CLIP_CODECS)
def test_what_is_lost_shows_nothing_and_key_frames_mend(name: str) -> None:
    codec = codec_of(name)
    file = codec.encode(moving(), codec.settings // 2).file
    frames, sent = codec.frames(file), joined(codec, file)
    whole = codec.decode(sent, *SHAPE)
    assert codec.decode([b""] * len(sent), *SHAPE) == [None] * len(sent)
    for lost in (3, 1):
        there = [b"" if number == lost else data for number, data in enumerate(sent)]
        shown = codec.decode(there, *SHAPE)
        assert shown[lost] is None and same(shown[:lost], whole[:lost])
        assert same(shown, codec.decode(there, *SHAPE)), "the same losses, the same pictures"
    if name != "x264-refresh":
        assert [frame.key for frame in frames] == [number % FPS == 0 for number in range(7)]
        assert same(shown[4:], whole[4:])


def test_a_slice_is_lost_without_the_others() -> None:
    codec = codec_of("x264-refresh", slices=3)
    frames = codec.frames(codec.encode(moving(), codec.settings // 2).file)
    assert all(len(frame.parts) == 3 for frame in frames)
    sent = [b"".join(frame.parts) for frame in frames]
    whole = codec.decode(sent, *SHAPE)
    sent[2] = frames[2].parts[0] + frames[2].parts[2]
    shown = codec.decode(sent, *SHAPE)
    assert shown[2] is not None and whole[2] is not None
    assert np.array_equal(shown[2][:16], whole[2][:16])
    assert not np.array_equal(shown[2], whole[2])


def test_a_low_picture_has_not_so_many_slices() -> None:
    with pytest.raises(BaselineError, match="with other than 9 slices"):
        codec_of("x264-refresh", slices=9).encode(moving(2), 0)


def joined(codec: ClipCodec, file: bytes) -> list[bytes]:
    """Each frame's bytes."""
    return [b"".join(frame.parts) for frame in codec.frames(file)]


def same(a: list[NDArray[np.uint8] | None], b: list[NDArray[np.uint8] | None]) -> bool:
    """Whether these are the same pictures."""
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))  # type: ignore[arg-type]
