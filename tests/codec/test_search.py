"""Laws of the search for better tokens: it finds them, it is never worse, tiles fit together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import codec.search
from codec.lpips import Lpips
from codec.model import Model
from codec.patches import grid_of, shrink
from codec.perceptual import FeaturesMissing, PerceptualDistance

try:
    codec.search.check_search()
except FeaturesMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)


@pytest.fixture(scope="module")
def model() -> Model:
    """The one that ships: an untrained decoder answers to nothing."""
    return Model.load()


def picture(height: int, width: int) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:height, :width]
    waves = 128 + 90 * np.sin(rows / 7), 128 + 90 * np.cos(columns / 5)
    return np.stack([*waves, 40 + 180 * columns / width], axis=2).astype(np.uint8)


def error(model: Model, image: NDArray[np.uint8], indices: NDArray[np.int64], size: int) -> float:
    """What the search minimises, in full precision."""

    def tensor(pixels: NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1

    shown = tensor(model.decode(indices, size, *image.shape[:2]))
    terms = codec.search.Terms()
    lpips = terms.perceptual * Lpips("vgg16", terms.blocks)(shown, tensor(image))
    features = terms.features * PerceptualDistance()(shown, tensor(image))
    return float((shown - tensor(image)).abs().mean() + lpips + features)


@pytest.mark.parametrize("size", [8, 2048])
def test_searching_pays(model: Model, size: int) -> None:
    image = picture(64, 96)
    plain = model.encode(image, size)
    found = model.encode(image, size, search=12)
    assert found.shape == plain.shape and 0 <= found.min() <= found.max() < size
    assert error(model, image, found, size) < error(model, image, plain, size)


def test_the_same_search_finds_the_same(model: Model) -> None:
    image = picture(48, 80)
    np.testing.assert_array_equal(
        model.encode(image, 64, search=3), model.encode(image, 64, search=3)
    )


def test_what_nothing_improves_stays(model: Model) -> None:
    """An image that the decoder made: the tokens it was made of have no error to reduce."""
    indices = np.random.default_rng(0).integers(0, 8, (4, 6))
    image = model.decode(indices, 8, 64, 96)
    search = codec.search.Search(model.decoder)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    words = model.ladder.codewords(8)
    start = torch.from_numpy(indices)
    found = search.improve(start, words[start].permute(2, 0, 1), pixels, words, torch.zeros(8), 6)
    np.testing.assert_array_equal(found.numpy(), indices)


def test_it_is_never_worse_by_what_it_minimises(model: Model) -> None:
    """Wherever it starts, steps too long to be of use among them."""
    pixels = torch.from_numpy(picture(64, 80)).permute(2, 0, 1)[None].float() / 127.5 - 1
    words, generator = model.ladder.codewords(64), torch.Generator().manual_seed(1)
    for rate in (0.02, 2.0):
        search = codec.search.Search(model.decoder, terms=codec.search.Terms(rate=rate))
        start = torch.randint(64, (4, 5), generator=generator)
        latents = words[start].permute(2, 0, 1)
        found = search.improve(start, latents, pixels, words, torch.zeros(64), 2)
        with torch.no_grad():
            before, after = (
                float(search.error(words[tokens].permute(2, 0, 1)[None], pixels))
                for tokens in (start, found)
            )
        assert after <= before * (1 + 1e-5)


@pytest.mark.parametrize("patch", [16, 24])
def test_large_images_are_searched_tile_by_tile(
    model: Model, patch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec.search, "TILE", 4)
    monkeypatch.setattr(codec.search, "MARGIN", 2)
    image = picture(130, 175)
    plain = model.encode(image, 64, patch)
    shares: list[float] = []
    found = model.encode(image, 64, patch, search=6, progress=shares.append)
    assert found.shape == grid_of(130, 175, patch)
    tiles = -(-found.shape[0] // 4) * -(-found.shape[1] // 4)
    assert len(shares) == 7 * tiles and shares == sorted(shares) and shares[-1] == 1
    changed = found != plain
    for top in range(0, found.shape[0], 4):  # every tile is reached, those at the rim too
        assert changed[top : top + 4].any()
    small = shrink(image, patch)
    assert error(model, small, found, 64) < 0.995 * error(model, small, plain, 64)
