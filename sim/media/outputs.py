"""Restored frames, in memory and as files.

This module loads no networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from codec.files import replacing

_BY_CONCEALER = ("indices", "images", "probability", "pixel_error")


@dataclass(frozen=True, slots=True)
class RestoredFrame:
    """One frame as the receiver shows it.

    Attributes:
        number: in the stream.
        received: bool[h,w], which tokens arrived.
        indices: int64[h,w] by concealer.
        images: uint8[H,W,3] by concealer.
        probability, pixel_error: float32[h,w] by concealer; see `codec.concealment.Concealed`.
    """

    number: int
    received: NDArray[np.bool_]
    indices: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    images: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    probability: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    pixel_error: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write it; the file appears whole."""
        arrays: dict[str, NDArray[np.generic]] = {"received": self.received}
        for part in _BY_CONCEALER:
            found = getattr(self, part)
            arrays |= {f"{part}.{name}": array for name, array in found.items()}
        with replacing(_path(folder, self.number)) as partial:
            np.savez(partial, **arrays)  # type: ignore[arg-type]

    @classmethod
    def take(cls, folder: Path, number: int) -> Self:
        """Read one that was saved, and remove its file."""
        path = _path(folder, number)
        found: dict[str, dict[str, NDArray[np.generic]]] = {part: {} for part in _BY_CONCEALER}
        with np.load(path) as arrays:
            received = arrays["received"]
            for key in arrays:
                part, _, name = key.partition(".")
                if name:
                    found[part][name] = arrays[key]
        path.unlink()
        return cls(number, received, **found)  # type: ignore[arg-type]


def _path(folder: Path, number: int) -> Path:
    return folder / f"frame-{number:06d}.npz"
