"""One image through one codec, measured at some sizes: the points of its rate-quality curve.

What is made is kept: an interrupted comparison goes on where it stopped, a second one measures
nothing twice, and a metric or a size that is asked for later is added. A codec's points depend on
it, the image and what is asked for alone, not on any other codec.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.baselines import Baseline, Counted, RateSearch
from sim.jobs.store import Record, Store, digest, pixel_digest
from sim.metrics.quality import quality


@dataclass(frozen=True)
class RatePoint:
    """An image as one setting of a codec leaves it; metrics by name, NaN where undefined."""

    setting: int
    file: bytes
    payload_bytes: int
    metrics: dict[str, float]

    def size(self, counted: Counted) -> int:
        """Bytes."""
        return len(self.file) if counted == "file" else self.payload_bytes

    def record(self) -> Record:
        """As plain data."""
        return {**asdict(self), "file": base64.b64encode(self.file).decode()}

    @classmethod
    def read(cls, record: dict[str, Any]) -> RatePoint:
        """The inverse of `record`."""
        return cls(**{**record, "file": base64.b64decode(record["file"])})


def measure_points(
    codec: Baseline,
    pixels: NDArray[np.uint8],
    budgets: Sequence[int],
    settings: Sequence[int],
    counted: Counted,
    metrics: Sequence[str],
    store: Store,
) -> list[RatePoint]:
    """Encode and measure, or take from the store what is there: points by growing setting.

    Args:
        codec: what codes.
        pixels: uint8[H,W,3].
        budgets: bytes; for each the largest point within it is wanted, or else the smallest there
            is.
        settings: others that are wanted.
        counted: what budgets are compared with.
        metrics: to measure, as for `sim.metrics.quality.quality`.
        store: of files and metrics.

    Raises:
        BaselineError: the codec failed.
    """
    height, width = pixels.shape[:2]
    search = RateSearch(codec, pixels, store)
    wanted = {*settings, *(search.at_most(budget, counted) or 0 for budget in budgets)}
    points = []
    for setting in sorted(wanted):
        coded = search.coded(setting)
        key = digest("metrics", codec.name, codec.identity, setting, pixel_digest(pixels))
        found = store.find(key) or {}
        missing = [name for name in metrics if name not in found]
        if missing:
            found |= quality(pixels, codec.decode(coded.file, height, width), missing)
            store.put(key, found)
        values = {name: float(found[name]) for name in metrics}
        points.append(RatePoint(setting, coded.file, coded.payload_bytes, values))
    return points
