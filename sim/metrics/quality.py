"""How close an image is to its original. Heavy libraries are imported when first used."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

METRICS = ("psnr_db", "ssim", "ms_ssim", "ssimulacra2")
"""The fields of `Quality`, and columns of the images table."""

MS_SSIM_MIN_SIDE = 176
"""Pixels: an 11-pixel window must fit after four halvings."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Distances of one image from its original; NaN where a metric is not defined.

    Attributes:
        psnr_db: peak signal-to-noise ratio over all samples, dB; inf if equal.
        ssim: structural similarity (Wang et al. 2004: Gaussian window of 11 pixels, sigma 1.5),
            mean over RGB, -1 to 1.
        ms_ssim: multi-scale structural similarity (Wang et al. 2003: five scales), mean over RGB,
            0 to 1. NaN when a side is under 176 pixels: with fewer scales it would be another
            metric under the same name.
        ssimulacra2: perceptual score (Sneyers 2022), at most 100 (equal); 90 visually lossless,
            70 high quality, 50 medium, 30 low, negative for strong distortion.
    """

    psnr_db: float
    ssim: float
    ms_ssim: float
    ssimulacra2: float


def quality(original: NDArray[np.uint8], image: NDArray[np.uint8]) -> Quality:
    """All metrics of an image against its original, both uint8[H,W,3] of one shape, sRGB.

    Raises:
        ValueError: the shapes differ.
    """
    if original.shape != image.shape:
        raise ValueError(f"shapes differ: {original.shape} and {image.shape}")
    ssim, ms_ssim = structural(original, image)
    return Quality(psnr_db(original, image), ssim, ms_ssim, _ssimulacra2(original, image))


def psnr_db(original: NDArray[np.uint8], image: NDArray[np.uint8]) -> float:
    """10 log10(255^2 / mean squared error) over all samples; inf if the images are equal."""
    error = original.astype(np.int32) - image
    mean_square = float(np.mean(error * error))
    return float("inf") if mean_square == 0 else float(10 * np.log10(255**2 / mean_square))


def token_accuracy(
    sent: NDArray[np.int64], filled: NDArray[np.int64], received: NDArray[np.bool_]
) -> float:
    """Share of the lost tokens that were filled with the very index sent; NaN if none was lost.

    Args:
        sent, filled: int64[h,w] indices.
        received: bool[h,w].
    """
    lost = ~received
    return float(np.mean(sent[lost] == filled[lost])) if lost.any() else float("nan")


def structural(original: NDArray[np.uint8], image: NDArray[np.uint8]) -> tuple[float, float]:
    """SSIM and MS-SSIM of two uint8[H,W,3] images; the second is NaN below 176 pixels a side.

    Windows that would cross the border are left out. MS-SSIM is the product over scales of the
    mean contrast-structure term, and at the coarsest scale of the mean SSIM, each raised to its
    weight (Wang et al. 2003, eq. 7); negative terms count as 0.
    """
    a, b = (pixels.astype(np.float64).transpose(2, 0, 1) for pixels in (image, original))
    single, contrast = _ssim_terms(a, b)
    if min(original.shape[:2]) < MS_SSIM_MIN_SIDE:
        return single, float("nan")
    product = 1.0
    for weight in _SCALE_WEIGHTS[:-1]:
        product *= max(contrast, 0.0) ** weight
        a, b = _halve(a), _halve(b)
        coarse, contrast = _ssim_terms(a, b)
    return single, product * max(coarse, 0.0) ** _SCALE_WEIGHTS[-1]


_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, finest first
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_WINDOW = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
_WINDOW /= _WINDOW.sum()


def _ssim_terms(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    """Mean SSIM and mean contrast-structure term of two float64[3,H,W] (Wang et al. 2004,
    eq. 13 and the last two factors of eq. 12 with C3 = C2/2)."""
    full, contrast = [], []
    for x, y in zip(a, b, strict=True):  # one colour at a time bounds the memory
        mean_x, mean_y = _blur(x), _blur(y)
        variances = _blur(x * x + y * y) - mean_x**2 - mean_y**2
        covariance = _blur(x * y) - mean_x * mean_y
        structure = (2 * covariance + _C2) / (variances + _C2)
        luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
        full.append(np.mean(luminance * structure))
        contrast.append(np.mean(structure))
    return float(np.mean(full)), float(np.mean(contrast))


def _blur(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian window where it fits: float64[H,W] -> float64[H-10,W-10]."""
    from scipy.ndimage import correlate1d

    rows = correlate1d(plane, _WINDOW, 0)[5:-5]
    blurred: NDArray[np.float64] = correlate1d(rows, _WINDOW, 1)[:, 5:-5]
    return blurred


def _halve(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of 2x2 pixels; an odd last row or column is dropped."""
    height, width = (side // 2 * 2 for side in planes.shape[1:])
    even = planes[:, :height, :width]
    small: NDArray[np.float64] = even.reshape(len(planes), height // 2, 2, width // 2, 2).mean(
        (2, 4)
    )
    return small


def _ssimulacra2(original: NDArray[np.uint8], image: NDArray[np.uint8]) -> float:
    from PIL import Image
    from ssimulacra2 import compute_ssimulacra2

    def file(pixels: NDArray[np.uint8]) -> BytesIO:
        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, "bmp")
        buffer.seek(0)
        return buffer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(compute_ssimulacra2(file(original), file(image)))
