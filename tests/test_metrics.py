"""Metrics against closed forms and an independent implementation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sim.metrics.quality import MS_SSIM_MIN_SIDE, psnr_db, quality, structural, token_accuracy


def noisy(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A smooth image and the same with noise."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows % 256, columns % 256, (rows + columns) // 2 % 256], axis=2)
    noise = np.random.default_rng(1).normal(0, 20, image.shape)
    return image.astype(np.uint8), (image + noise).clip(0, 255).astype(np.uint8)


def test_psnr_of_a_constant_error() -> None:
    flat = np.full((16, 16, 3), 100, np.uint8)
    assert psnr_db(flat, flat + np.uint8(10)) == pytest.approx(20 * np.log10(255 / 10))
    assert psnr_db(flat, flat) == np.inf


def test_equal_images_score_full_marks() -> None:
    image, _ = noisy(176, 190)
    best = quality(image, image)
    assert (best.ssim, best.ms_ssim, best.ssimulacra2) == pytest.approx((1, 1, 100))


@pytest.mark.slow  # torchmetrics takes seconds to import
def test_against_torchmetrics() -> None:
    """torchmetrics mirrors the image at its borders; where windows fit, they agree. At the
    coarsest scale of MS-SSIM the border is a large share, hence its wider tolerance."""
    import torch
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure,
        structural_similarity_index_measure,
    )

    image, worse = noisy(480, 503)
    a, b = (torch.from_numpy(x).permute(2, 0, 1)[None].float() / 255 for x in (worse, image))
    _, full = structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)
    multi = multiscale_structural_similarity_index_measure(a, b, data_range=1.0, normalize="relu")
    ours = structural(image, worse)
    assert ours[0] == pytest.approx(float(full[..., 5:-5, 5:-5].mean()), abs=2e-4)
    assert ours[1] == pytest.approx(float(multi), abs=2e-3)


def test_small_images_have_no_ms_ssim() -> None:
    image, worse = noisy(MS_SSIM_MIN_SIDE - 1, 200)
    assert np.isnan(quality(image, worse).ms_ssim)
    tiny, other = noisy(16, 16)
    measured = quality(tiny, other)
    assert np.isfinite([measured.psnr_db, measured.ssim, measured.ssimulacra2]).all()


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        quality(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 17, 3), np.uint8))


def test_token_accuracy_counts_lost_tokens_only() -> None:
    sent = np.array([[1, 2], [3, 4]])
    filled = np.array([[1, 2], [9, 4]])
    received = np.array([[True, False], [False, True]])
    assert token_accuracy(sent, filled, received) == 0.5
    assert np.isnan(token_accuracy(sent, sent, np.ones((2, 2), np.bool_)))
