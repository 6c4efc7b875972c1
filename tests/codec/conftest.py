"""What tests of training need: photographs, and models too small for anything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from codec.checkpoint import save_weights
from codec.codebook import Ladder
from codec.inpainting import Inpainter, InpainterConfig
from codec.model_files import INPAINTER_FILE, TOKENIZER_FILE
from codec.tokenizer import Decoder, Encoder, TokenizerConfig


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 pictures of 80 x 70 pixels."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(80):
        small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        small.resize((80, 70), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained tokenizer with an upsampler and an encoder that is told the level,
    and an inpainter for it. Tokenizer and inpainter of a real model of 32 codewords, that is."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    network = TokenizerConfig(
        latent_dim=4,
        encoder_widths=(8, 8, 16),
        encoder_depths=(0, 0, 1),
        decoder_widths=(8, 8, 16),
        decoder_depths=(0, 0, 1),
        encoder_levels=True,
        upsampler_depth=1,
        upsampler_width=8,
    )
    ladder = Ladder.pairs(F.normalize(torch.randn(32, 4), dim=1))
    ladder = ladder.with_usage({32: torch.arange(32).float()})
    parts = {"encoder": Encoder(network), "decoder": Decoder(network)}
    tensors = {
        f"{name}.{key}": value.half()
        for name, part in parts.items()
        for key, value in part.state_dict().items()
    }
    tensors |= {f"ladder.{key}": value for key, value in ladder.tensors().items()}
    save_weights(folder / TOKENIZER_FILE, {"network": network.to_dict()}, tensors)
    inpainter = Inpainter(InpainterConfig(latent_dim=4, width=16, depth=2, heads=1))
    about = {"network": inpainter.config.to_dict(), "codebook": ladder.fingerprint()}
    halves = {key: value.half() for key, value in inpainter.state_dict().items()}
    save_weights(folder / INPAINTER_FILE, about, halves)
    return folder
