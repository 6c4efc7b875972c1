"""Small streams for the page's engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from codec.model import Model
    from sim.page.photos import CodedPhotos


@pytest.fixture
def photos(random_model: Model) -> CodedPhotos:
    """Three pictures of two sizes, untrained."""
    from pathlib import Path

    from sim.media.images import LoadedImage
    from sim.page.photos import CodedPhotos

    rng = np.random.default_rng(3)
    sizes = {"a": (64, 96), "b": (80, 80), "c": (64, 96)}
    images = [
        LoadedImage(name, Path(name), rng.integers(0, 256, (*size, 3), np.uint8))
        for name, size in sizes.items()
    ]
    return CodedPhotos(images, random_model)
