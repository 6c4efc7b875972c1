"""Laws of patches: grids, sizes, and what images survive of being shrunk and enlarged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.model import Model
from codec.patches import PATCHES, coded_size, enlarge, grid_of, patch_of, shrink, spread
from codec.pixel_repair import PIXEL_REPAIRS, RepairMissing, repair_pixels

sides = st.integers(1, 8192)
patches = st.sampled_from(PATCHES)


@given(sides, sides, patches)
def test_an_image_shrunk_has_the_grid_of_the_whole(height: int, width: int, patch: int) -> None:
    grid = grid_of(height, width, patch)
    assert grid_of(*coded_size(height, width, patch), PATCHES[0]) == grid


@given(sides, sides, patches)
def test_the_patch_follows_from_grid_and_size(height: int, width: int, patch: int) -> None:
    grid = grid_of(height, width, patch)
    found = patch_of(grid, height, width)
    assert found <= patch and grid_of(height, width, found) == grid
    if max(height, width) >= 512:  # so large that all patches give different grids
        assert found == patch


def test_a_grid_that_no_patch_gives_is_refused() -> None:
    with pytest.raises(ValueError, match="never has a grid"):
        patch_of((3, 5), 512, 768)


def test_the_smallest_patch_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    assert shrink(image, PATCHES[0]) is image
    assert enlarge(image, 50, 70) is image


@pytest.mark.parametrize("patch", PATCHES)
def test_smooth_images_survive_and_stay_in_place(patch: int) -> None:
    """A ramp in each direction: no shift, no squeeze."""
    rows, columns = np.mgrid[:210, :333]
    image = np.stack([rows, columns / 2, 255 - rows / 2], axis=2).round().astype(np.uint8)
    back = enlarge(shrink(image, patch), 210, 333)
    assert np.abs(back.astype(int) - image)[8:-8, 8:-8].max() <= 2


@pytest.mark.parametrize("patch", PATCHES)
def test_the_model_codes_at_every_patch(patch: int) -> None:
    model = Model.random()
    image = np.random.default_rng(1).integers(0, 256, (130, 210, 3), dtype=np.uint8)
    indices = model.encode(image, 64, patch)
    assert indices.shape == grid_of(130, 210, patch)
    assert np.array_equal(indices, model.encode(shrink(image, patch), 64))
    whole = model.decode(indices, 64, 130, 210)
    small = model.decode(indices, 64, *coded_size(130, 210, patch))
    assert np.array_equal(whole, enlarge(small, 130, 210))


@given(st.integers(16, 400), st.integers(16, 400), patches)
def test_each_pixel_is_told_of_its_own_token(height: int, width: int, patch: int) -> None:
    grid = grid_of(height, width, patch)
    cells = np.arange(np.prod(grid)).reshape(grid)
    pixels = spread(cells, height, width)
    assert pixels.shape == (height, width)
    side = patch_of(grid, height, width)
    for row, column in ((0, 0), (height - 1, width - 1), (height // 2, width // 3)):
        assert pixels[row, column] == cells[row // side, column // side]


@pytest.mark.parametrize("name", PIXEL_REPAIRS)
def test_painted_squares_are_those_of_lost_tokens(name: str) -> None:
    image = np.full((96, 120, 3), 200, np.uint8)
    image[24:48, 48:72] = 0
    received = np.ones((4, 5), np.bool_)
    received[1, 2] = False
    try:
        painted = repair_pixels(name, image, received)
    except RepairMissing as missing:
        pytest.skip(str(missing))
    inside = painted[24:48, 48:72]
    assert abs(inside - 200.0).max() <= 2  # OpenCV 5 rounds otherwise than 4
    inside[:] = 200
    assert (painted == 200).all()
