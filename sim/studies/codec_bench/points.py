"""One image through one codec, measured at some sizes: the points of its rate-quality curve.

What is made is kept in a JSON file per image and codec, written by an atomic replace after each
point: an interrupted comparison goes on where it stopped, a second one measures nothing twice, and
a metric or a size that is asked for later is added. A codec's points depend on it and the
image alone, not on any other codec.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.baselines import Baseline, Coded, Counted, RateSearch
from sim.metrics.quality import quality
from sim.results.files import write_json


@dataclass
class RatePoint:
    """An image as one setting of a codec leaves it; metrics by name, NaN where undefined."""

    setting: int
    file: bytes
    payload_bytes: int
    metrics: dict[str, float] = field(default_factory=dict)

    def size(self, counted: Counted) -> int:
        """Bytes."""
        return len(self.file) if counted == "file" else self.payload_bytes


class PointFile:
    """The points of one image and codec, on disk.

    Attributes:
        sizes: by setting, bytes of file and payload of all that was ever encoded.
        points: by setting, those that were measured.
    """

    def __init__(self, path: Path, identity: str, pixels: NDArray[np.uint8]) -> None:
        """Read what is there for the same codec and pixels; anything else counts as nothing.

        ``identity``: see `Baseline.identity`.
        """
        image = repr(pixels.shape).encode() + pixels.tobytes()
        self._path, self._about = (
            path,
            {"codec": _digest(identity.encode()), "image": _digest(image)},
        )
        self.sizes: dict[int, tuple[int, int]] = {}
        self.points: dict[int, RatePoint] = {}
        try:
            self._read(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            self.sizes, self.points = {}, {}

    def _read(self, saved: dict[str, Any]) -> None:
        if any(saved[key] != value for key, value in self._about.items()):
            return
        self.sizes = {int(setting): (a, b) for setting, (a, b) in saved["sizes"].items()}
        for entry in saved["points"]:
            metrics = {
                name: math.nan if value is None else float(value)
                for name, value in entry["metrics"].items()
            }
            file = base64.b64decode(entry["file"])
            point = RatePoint(entry["setting"], file, entry["payload_bytes"], metrics)
            self.points[point.setting] = point

    def save(self) -> None:
        """Write all of it, or leave the old file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        points = [
            {
                "setting": point.setting,
                "payload_bytes": point.payload_bytes,
                "metrics": point.metrics,
                "file": base64.b64encode(point.file).decode(),
            }
            for _, point in sorted(self.points.items())
        ]
        sizes = {str(setting): size for setting, size in sorted(self.sizes.items())}
        write_json(self._path, {**self._about, "sizes": sizes, "points": points})


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


class _Search(RateSearch):
    """A search that knows the sizes of what was encoded in earlier runs."""

    def __init__(self, codec: Baseline, pixels: NDArray[np.uint8], known: PointFile) -> None:
        super().__init__(codec, pixels)
        self._known = known

    def coded(self, setting: int) -> Coded:
        kept = self._known.points.get(setting)
        coded = super().coded(setting) if kept is None else Coded(kept.file, kept.payload_bytes)
        self._known.sizes[setting] = len(coded.file), coded.payload_bytes
        return coded

    def size(self, setting: int, counted: Counted) -> int:
        sizes = self._known.sizes.get(setting)
        if sizes is None:
            return super().size(setting, counted)
        return sizes[0] if counted == "file" else sizes[1]


def measure_points(
    codec: Baseline,
    pixels: NDArray[np.uint8],
    budgets: Sequence[int],
    settings: Sequence[int],
    counted: Counted,
    metrics: Sequence[str],
    path: Path,
) -> list[RatePoint]:
    """Encode and measure, or take from `path` what is there: points by growing setting.

    Args:
        codec: what codes.
        pixels: uint8[H,W,3].
        budgets: bytes; for each the largest point within it is wanted, or else the smallest there
            is.
        settings: others that are wanted.
        counted: what budgets are compared with.
        metrics: to measure, as for `sim.metrics.quality.quality`.
        path: the JSON file.

    Raises:
        BaselineError: the codec failed.
    """
    height, width = pixels.shape[:2]
    known = PointFile(path, codec.identity, pixels)
    search = _Search(codec, pixels, known)
    wanted = {*settings, *(search.at_most(budget, counted) or 0 for budget in budgets)}
    for setting in sorted(wanted):
        coded = search.coded(setting)
        point = known.points.setdefault(
            setting, RatePoint(setting, coded.file, coded.payload_bytes)
        )
        missing = [name for name in metrics if name not in point.metrics]
        if missing:
            decoded = codec.decode(point.file, height, width)
            point.metrics |= quality(pixels, decoded, missing)
            known.save()
    return [point for _, point in sorted(known.points.items()) if measured(point, metrics)]


def measured(point: RatePoint, metrics: Sequence[str]) -> bool:
    """Whether every metric was taken."""
    return all(name in point.metrics for name in metrics)
