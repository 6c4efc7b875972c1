"""Restored frames. This module loads no networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


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
