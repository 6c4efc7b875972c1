"""What training losses see."""

from __future__ import annotations

import torch

from codec.training.losses import random_view


def test_views_of_equal_seeds_match_and_all_phases_occur() -> None:
    """Drawn and wanted pixels stay one above the other; none of the phases is spared."""
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    images = torch.stack([rows, columns, rows + columns])[None]
    corners = set()
    for step in range(1200):
        view = random_view(images, [5, step])
        assert view.shape == (1, 3, 16, 24)
        torch.testing.assert_close(random_view(images + 1, [5, step]), view + 1)
        corners.add((int(view[0, 0, 0, 0]), int(view[0, 1, 0, 0])))
    assert corners == {(y, x) for y in range(9) for x in range(9)}
    for side, left in ((64, 56), (12, 8), (8, 8)):
        assert random_view(torch.zeros(2, 3, side, side), [1]).shape == (2, 3, left, left)
