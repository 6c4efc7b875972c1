"""The figure of what the receiver made up: the repaired image, its filled tokens shaded by how sure
the transformer was, and by how far off it expects to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from codec.patches import spread

Scale = tuple[Normalize, str, tuple[float, ...] | None]
_SHADE = 0.62
_TICKS = (0, 0.02, 0.1, 0.25, 0.5, 1)


def invention_figure(
    name: str,
    repaired: NDArray[np.uint8],
    received: NDArray[np.bool_],
    probability: NDArray[np.float32],
    pixel_error: NDArray[np.float32],
) -> Figure:
    """The repair, its probabilities, and the expected error where the model was calibrated.

    Args:
        name: of the image.
        repaired: uint8[H,W,3].
        received: bool[h,w].
        probability, pixel_error: float32[h,w]; see `codec.concealment.Concealed`.
    """
    height, width = repaired.shape[:2]
    across, head, foot, gap = 4.6, 0.34, 0.72, 0.06  # inches
    down = across * height / width
    lost = ~received
    told = float(probability[lost].mean()) if lost.any() else 1.0
    sure = PowerNorm(0.5, 0, 1)  # among many codewords even 10% is a good guess
    panels: list[tuple[str, NDArray[np.uint8], Scale | None]] = [
        (f"{name}, repaired", repaired, None),
        (
            f"{lost.mean():.0%} of tokens made up, {told:.0%} sure on average",
            shade(repaired, lost, sure(probability)),
            (sure, "how sure: probability given to the filled token", _TICKS),
        ),
    ]
    if np.isfinite(pixel_error).all():
        far = Normalize(0, max(1.0, float(pixel_error.max())))
        scale = (far, "expected error of the filled pixels (grey levels of 255)", None)
        panels.append(("how far it may be off", shade(repaired, lost, far(pixel_error)), scale))
    total = (len(panels) * (across + gap), head + down + foot)
    figure = Figure(figsize=total)
    for column, (title, pixels, legend) in enumerate(panels):
        left = (column * (across + gap) + gap / 2) / total[0]
        box = (left, foot / total[1], across / total[0], down / total[1])
        axes = figure.add_axes(box)
        axes.imshow(pixels, interpolation="antialiased", aspect="auto")
        axes.set_title(title, size=10)
        axes.set_axis_off()
        if legend is not None:
            norm, label, ticks = legend
            below = (left + 0.02, 0.52 / total[1], across / total[0] - 0.04, 0.1 / total[1])
            bar: Axes = figure.add_axes(below)
            mappable = ScalarMappable(norm, "viridis")
            bars = figure.colorbar(mappable, cax=bar, orientation="horizontal", ticks=ticks)
            bars.set_label(label, size=8, labelpad=1)
            bar.tick_params(labelsize=7)
            bar.grid(False)
    return figure


def shade(
    image: NDArray[np.uint8], lost: NDArray[np.bool_], value: NDArray[np.floating]
) -> NDArray[np.uint8]:
    """The image in grey with every lost token tinted by its value, 0 dark to 1 light.

    Args:
        image: uint8[H,W,3].
        lost: bool[h,w].
        value: float[h,w], 0 to 1.
    """
    height, width = image.shape[:2]

    colours = 255 * colormaps["viridis"](np.ma.filled(value, 0).astype(np.float64))[..., :3]
    grey = image.mean(2, keepdims=True).repeat(3, 2)
    tinted = (1 - _SHADE) * grey + _SHADE * spread(colours, height, width)
    mixed = np.where(spread(lost, height, width)[..., None], tinted, 0.75 * grey + 50)
    painted: NDArray[np.uint8] = mixed.clip(0, 255).astype(np.uint8)
    return painted


def load_maps(folder: Path, probability: str, error: str) -> tuple[NDArray[np.float32], ...]:
    """Both maps of a panel folder; () where the transformer did not run."""
    if not (folder / probability).is_file():
        return ()
    return tuple(np.load(folder / name, allow_pickle=False) for name in (probability, error))
