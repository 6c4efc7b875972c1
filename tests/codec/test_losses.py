"""What training losses see."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from codec.training.losses import random_view, spectrum_loss


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


def test_spectrum_counts_the_strength_of_detail_not_its_place() -> None:
    """L1 prefers a blurred picture to one whose detail lies elsewhere; this loss does not."""
    targets = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    moved = targets.roll((16, 32), (2, 3))
    blurred = F.avg_pool2d(targets, 5, 1, 2, count_include_pad=False)
    assert spectrum_loss(targets, targets) == 0
    assert spectrum_loss(targets + 0.5, targets) < 1e-4
    assert F.l1_loss(moved, targets) > F.l1_loss(blurred, targets)
    assert spectrum_loss(moved, targets) < 0.2 * spectrum_loss(blurred, targets)
    for stronger, weaker in ((1.2, 1.1), (0.5, 0.8)):
        distances = [spectrum_loss(targets * contrast, targets) for contrast in (stronger, weaker)]
        assert distances[0] > distances[1] > 0
    flat = torch.zeros(1, 3, 16, 24, requires_grad=True)
    spectrum_loss(flat, targets[:1, :, :16, :24]).backward()
    assert flat.grad is not None and flat.grad.isfinite().all()


def test_a_grid_is_told_from_noise_of_the_same_energy() -> None:
    targets = 0.2 * torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(2))
    noise = torch.randn(targets.shape, generator=torch.Generator().manual_seed(3))
    grid = 2**0.5 * (torch.arange(128.0) * torch.pi / 2).cos()[:, None] * torch.ones(128)
    torch.testing.assert_close(grid.square().mean(), noise.square().mean(), rtol=0.02, atol=0)
    losses = [float(spectrum_loss(targets + 0.05 * added, targets)) for added in (noise, grid)]
    assert losses[1] > 5 * losses[0]
