"""Laws of the model: shapes for any image size, locality, saving, refusal of foreign weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import codec
from codec.checkpoint import ModelError, load_weights, save_weights
from codec.concealment import CONCEALERS, VIDEO_CONCEALERS, conceal
from codec.fingerprint import random_fingerprint, stored_fingerprint
from codec.inpainting import Inpainter, InpainterConfig
from codec.model import Model


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.random()


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (100, 33), (256, 16)])
def test_any_size_round_trips_in_shape(model: Model, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for level in (8, 2048):
        indices = model.encode(image, level)
        assert indices.shape == (-(-size[0] // 16), -(-size[1] // 16))
        assert 0 <= indices.min() <= indices.max() < level
        assert model.decode(indices, level, *size).shape == image.shape


@pytest.mark.parametrize("level", [8, 1024])
def test_tokens_that_are_nearly_as_good(model: Model, level: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    tokens = model.encode(image, level)
    found = model.encode_near(image, level, margin=0.5)
    assert found.shape == (*tokens.shape, 9) and len(np.unique(found[0, 0])) > 1
    assert np.array_equal(found[..., 0], tokens)
    assert np.array_equal(model.encode_near(image, level), tokens[..., None])


def test_files_tell_the_fingerprint_before_they_are_loaded(tiny_model: Path) -> None:
    assert stored_fingerprint(tiny_model) == Model.load(tiny_model).fingerprint
    assert random_fingerprint(3) == Model.random(3).fingerprint
    assert stored_fingerprint(tiny_model / "nothing") is None


@pytest.mark.slow
def test_the_weights_that_ship_in_two_calls() -> None:
    image = np.random.default_rng(3).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    tokens = codec.encode(image, 64, 24)
    assert np.array_equal(tokens, Model.load().encode(image, 64, 24)) and tokens.shape == (2, 3)
    assert codec.decode(tokens, image.shape, 64).shape == image.shape
    for wrong, problem in (
        (lambda: codec.encode(image[..., 0], 64), "needed is uint8"),
        (lambda: codec.encode(image, 100), "choose one of 8, 16"),
        (lambda: codec.encode(image, 64, 17), "choose one of 16, 20"),
        (lambda: codec.decode(tokens + 64, image.shape, 64), "from 0 to 63"),
    ):
        with pytest.raises(ValueError, match=problem):
            wrong()


def test_padding_is_cropped_not_squeezed(model: Model) -> None:
    """An image and the same image padded by its own edge have the same indices."""
    image = np.random.default_rng(1).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    padded = np.pad(image, ((0, 8), (0, 8), (0, 0)), mode="edge")
    assert np.array_equal(model.encode(image, 2048), model.encode(padded, 2048))


def test_levels_are_nested(model: Model) -> None:
    image = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    base = torch.from_numpy(model.encode(image, 2048))
    for level in model.codebook_sizes:
        assert np.array_equal(model.ladder.shrink(base, level).numpy(), model.encode(image, level))


@pytest.mark.parametrize("name", [*CONCEALERS, *VIDEO_CONCEALERS])
@pytest.mark.parametrize("lost", [0.0, 0.2, 1.0])
def test_received_tokens_pass_unchanged(model: Model, name: str, lost: float) -> None:
    rng = np.random.default_rng(3)
    indices = rng.integers(0, 64, (13, 21))
    received = rng.random(indices.shape) >= lost
    dirty = np.where(received, indices, -1)
    before = conceal("none", model, rng.permuted(indices), rng.random(indices.shape) > 0.5, 64)
    result = conceal(name, model, dirty, received, 64, shown=[before])
    assert np.array_equal(result.indices[received], indices[received])
    assert 0 <= result.indices.min() <= result.indices.max() < 64
    assert np.array_equal(result.codeword_vectors[received], model.codewords(64)[indices[received]])
    assert np.isfinite(result.codeword_vectors).all()
    assert (result.pixel_error[received] == 0).all()
    assert (result.probability[received] == 1).all()
    assert np.array_equal(dirty, np.where(received, indices, -1)), "inputs are not modified"


def test_conceal_refuses_bad_input(model: Model) -> None:
    grid = np.full((2, 2), 64)
    with pytest.raises(ValueError, match="choose one of"):
        conceal("magic", model, grid, np.ones((2, 2), bool), 64)
    with pytest.raises(ValueError, match="outside the codebook"):
        conceal("nearest", model, grid, np.ones((2, 2), bool), 64)


def test_neighbours_fill_flat_areas_exactly(model: Model) -> None:
    indices = np.full((9, 9), 5)
    received = np.random.default_rng(0).random((9, 9)) > 0.4
    for name in ("nearest", "neighbour_average", "median"):
        assert (conceal(name, model, indices, received, 64).indices == 5).all()


def test_inpainter_is_local_and_ignores_hidden_tokens() -> None:
    """What stands at a hidden position does not matter, and far tokens do not reach."""
    torch.manual_seed(0)
    net = Inpainter(InpainterConfig(width=32, depth=2, heads=2)).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    words = torch.randn(1, 40, 24, 16)
    known = torch.rand(1, 40, 24) > 0.3
    level = torch.tensor([6])
    with torch.inference_mode():
        base = net.hidden(words, known, level)
        garbage = torch.where(known[..., None], words, torch.randn_like(words))
        torch.testing.assert_close(net.hidden(garbage, known, level), base)
        changed = words.clone()
        changed[:, -1] += 1
        moved = (
            (
                net.hidden(changed, torch.ones_like(known), level)
                - net.hidden(words, torch.ones_like(known), level)
            )
            .abs()
            .amax((0, 2, 3))
        )
    assert moved[-1] > 1e-3
    assert (moved[:16] == 0).all()


def test_inpainter_treats_every_window_alike() -> None:
    """Far from borders, a grid moved by one window gives the same states moved by one window."""
    torch.manual_seed(0)
    net = Inpainter(InpainterConfig(width=32, depth=2, heads=2)).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    words, known = torch.randn(1, 56, 8, 16), torch.rand(1, 56, 8) > 0.3
    level = torch.tensor([6])
    with torch.inference_mode():
        whole = net.hidden(words, known, level)
        part = net.hidden(words[:, 8:], known[:, 8:], level)
    torch.testing.assert_close(whole[:, 24:32], part[:, 16:24], rtol=1e-4, atol=1e-5)


def test_weights_are_refused_when_altered(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    mark = save_weights(path, {"a": 1}, {"w": torch.arange(4.0)})
    config, tensors, again = load_weights(path)
    assert (config, again) == ({"a": 1}, mark)
    assert torch.equal(tensors["w"], torch.arange(4.0))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="fingerprint mismatch"):
        load_weights(path)
    path.write_bytes(b"not weights")
    with pytest.raises(ModelError, match="a text file, not weights"):
        load_weights(path)
    with pytest.raises(ModelError, match="no such"):
        load_weights(tmp_path / "missing.safetensors")


def test_random_models_made_at_once_are_the_same() -> None:
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    with ThreadPoolExecutor(4) as threads:
        models = list(threads.map(lambda _: Model.random(), range(4)))
    first, *others = (model.encode(image, 2048) for model in models)
    for tokens in others:
        np.testing.assert_array_equal(tokens, first)
