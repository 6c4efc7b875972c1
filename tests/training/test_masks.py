"""Laws of the masks that networks are trained on."""

from __future__ import annotations

import numpy as np
import pytest

from sim.training.masks import packet_mask


@pytest.mark.parametrize("seed", range(20))
def test_frames_in_a_row_are_of_one_stream(seed: int) -> None:
    """The first frame's mask is that of a grid alone; each slice is lost or not in every frame."""
    alone = packet_mask(np.random.default_rng(seed), (12, 16))
    frames = packet_mask(np.random.default_rng(seed), (40, 12, 16))
    assert frames.shape == (40, 12, 16) and frames.dtype == np.bool_
    assert np.array_equal(frames[0], alone)
    slices = {tuple(column) for column in frames.reshape(40, -1).T}
    assert len(slices) <= 64
