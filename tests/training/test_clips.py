"""Videos to train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.errors import UserError
from sim.training.clips import FPS, ClipFolder
from tests.media.films import film


def test_clips_are_read_at_one_rate(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    film(tmp_path / "b.mkv", range(6))
    before = ClipFolder(tmp_path)
    film(tmp_path / "more" / "a.avi", range(10))
    (tmp_path / "notes.txt").write_text("no video")
    clips = ClipFolder(tmp_path)
    assert clips.names == ["b.mkv", "more/a.avi"]
    assert clips.fingerprint != before.fingerprint
    frames = clips.frames("more/a.avi")
    assert frames.shape == (FPS, 48, 64, 3) and frames.dtype == np.uint8


def test_what_is_no_clip_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"a\.mp4: not a video"):
        ClipFolder(tmp_path).frames("a.mp4")


def test_a_folder_without_clips_leaves_nothing(tmp_path: Path, cli: Callable[..., Any]) -> None:
    (tmp_path / "photos").mkdir()
    for clips in ("photos", "nowhere"):
        asked = ("--images", tmp_path / "photos", "--clips", tmp_path / clips)
        found = cli("train", "inpainter", *asked, "--out", tmp_path / "run")
        assert found.exit_code == 2 and "no video files" in found.stderr
        assert len(found.stderr.splitlines()) == 1 and not (tmp_path / "run").exists()
