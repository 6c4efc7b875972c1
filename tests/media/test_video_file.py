"""Laws of the playable files that a run writes."""

from __future__ import annotations

import numpy as np
import pytest

from sim.media.video_file import VideoFiles

pytest.importorskip("av")


def test_the_same_frames_give_the_same_bytes() -> None:
    """Whatever lies in memory beside them."""
    rng = np.random.default_rng(0)
    noise = np.clip(rng.normal(128, 50, (8, 40, 56, 3)), 0, 255).astype(np.uint8)
    kept, found = list[bytes](), set[bytes]()
    for number in range(40):
        kept.append(rng.bytes(int(rng.integers(1, 200_000))))
        if len(kept) > 10:
            kept.pop(number % 10)
        files = VideoFiles(10)
        for frame in noise:
            files.add({"a": frame})
        found.add(files.finish()["a.mp4"])
    assert len(found) == 1
