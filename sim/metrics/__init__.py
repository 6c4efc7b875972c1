"""How good an image is: the metrics that everything here measures by, and what each is called.

Every table, figure and sentence takes names, units, digits and direction from here; the measuring
itself is in `sim.metrics.quality`. Another metric is an entry here and a function there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

MetricName = Literal[
    "psnr_db",
    "ssim",
    "ms_ssim",
    "ssimulacra2",
    "lpips",
    "lpips_vgg",
    "dists",
    "flicker",
    "frozen",
    "recovery_s",
]
"""Metrics of an image against its original, and of a video's frame after the one before."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, as people see it.

    Attributes:
        name: its column in tables.
        label: its name for people.
        unit: "" where it has none.
        digits: after the point.
        larger_is_better: which way is up.
        meaning: in one line.
    """

    name: str
    label: str
    unit: str
    digits: int
    larger_is_better: bool
    meaning: str

    @property
    def heading(self) -> str:
        """Name and unit: the head of a column."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def axis(self) -> str:
        """The caption of an axis: the heading, and the direction where less is better."""
        if self.larger_is_better:
            return self.heading
        return f"{self.label} ({', '.join(filter(None, (self.unit, 'less is better')))})"

    @property
    def sign(self) -> int:
        """1, or -1 where less is better: times it, more is better."""
        return 1 if self.larger_is_better else -1

    def better(self, a: float, b: float) -> bool:
        """Whether a is better than b; no number is not."""
        return self.sign * a > self.sign * b

    def text(self, value: float, unit: bool = True) -> str:
        """A value with as many digits as mean something."""
        if not math.isfinite(value):
            return "not defined"
        return f"{value:z.{self.digits}f}{' ' * bool(self.unit) + self.unit if unit else ''}"


METRICS = {
    found.name: found
    for found in (
        Metric(
            "psnr_db", "PSNR", "dB", 2, True,
            "10 log10(255² / mean squared error) over all samples",
        ),
        Metric(
            "ssim", "SSIM", "", 3, True,
            "structural similarity (Wang et al. 2004: Gaussian window of 11 pixels, sigma 1.5), "
            "mean over RGB; 1 is equal",
        ),
        Metric(
            "ms_ssim", "MS-SSIM", "", 3, True,
            "structural similarity at five scales (Wang et al. 2003), mean over RGB; 1 is equal; "
            "not defined where a side is under 176 pixels",
        ),
        Metric(
            "ssimulacra2", "SSIMULACRA2", "", 1, True,
            "a perceptual score (Sneyers 2022); 100 is equal, 30 low quality, below 0 strongly "
            "distorted",
        ),
        Metric(
            "lpips", "LPIPS", "", 3, False,
            "distance of what AlexNet sees (Zhang et al. 2018, version 0.1), as papers report it; "
            "0 is equal; not defined where a side is under 31 pixels",
        ),
        Metric(
            "lpips_vgg", "LPIPS-VGG", "", 3, False,
            "the same with VGG16, which networks are trained against; 0 is equal",
        ),
        Metric(
            "dists", "DISTS", "", 3, False,
            "distance of structure and texture in VGG16's features (Ding et al. 2022); 0 is equal",
        ),
        Metric(
            "flicker", "flicker", "levels", 2, False,
            "how much the error changes from one frame to the next: the root mean square of the "
            "difference, in 8-bit levels",
        ),
        Metric(
            "frozen", "frozen frames", "", 3, False,
            "share of the frames that only repeat the one before, where the decode without loss "
            "moves",
        ),
        Metric(
            "recovery_s", "time to recover", "s", 2, False,
            "after an outage (frames that lost half of their tokens or more): from its end to the "
            "first frame within 1 dB of the decode without loss",
        ),
        Metric(
            "token_accuracy", "tokens right", "", 3, True,
            "share of the lost tokens that were filled with the very index sent",
        ),
        Metric(
            "psnr_drop_db", "PSNR lost", "dB", 2, False,
            "PSNR of the decode without loss, minus PSNR",
        ),
    )
}  # fmt: skip
"""By name."""

DEFAULT: tuple[MetricName, ...] = ("psnr_db", "ssim", "ms_ssim", "ssimulacra2", "lpips")
"""What is measured unless something else is asked for."""

OPTIONAL: tuple[MetricName, ...] = ("lpips_vgg", "dists")
"""What needs weights that do not ship."""


TEMPORAL: tuple[MetricName, ...] = ("flicker", "frozen", "recovery_s")
"""What only a video has: its frames are measured in order (`sim.metrics.temporal`)."""


def metric(name: str) -> Metric:
    """A metric by name; of one that is not known, which old results may hold, the name alone."""
    return METRICS.get(name) or Metric(name, name.replace("_", " "), "", 3, True, "")
